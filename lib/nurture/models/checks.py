"""Checks of a model's fields that more than one model needs."""

from __future__ import annotations

from typing import Any

from nurture.core import UserError, hints


def check_images(shape: tuple[int, ...]) -> None:
  """Raises UserError if a batch of this shape is none of images [B, H, W, C]."""
  if len(shape) != 4:
    raise UserError(f"config.model is a convolutional network and needs images [H, W, C], not {shape[1:]}; choose "
                    "another model or data set.")


def check_ranges(model: Any) -> None:
  """Raises UserError if a number of the model is out of the range that its field's type gives."""
  hints.check_fields(model, "config.model")
