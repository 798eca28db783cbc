"""Checks of a model's fields that more than one model needs."""

from __future__ import annotations

from typing import Any

from lib.core import UserError


def check_images(shape: tuple[int, ...]) -> None:
  """Raises UserError if a batch of this shape is none of images [B, H, W, C]."""
  if len(shape) != 4:
    raise UserError(f"config.model is a convolutional network and needs images [H, W, C], not {shape[1:]}; choose "
                    "another model or data set.")


def check_sizes(model: Any, **least: int) -> None:
  """Raises UserError if a field of the model is below the least that is given for it, or there are no classes."""
  for field, smallest in {"num_classes": 1, **least}.items():
    if getattr(model, field) < smallest:
      raise UserError(f"config.model.{field} is {getattr(model, field)}; give a whole number of at least {smallest}.")


def check_rates(model: Any, *fields: str) -> None:
  """Raises UserError if a field of the model is a number outside [0, 1]; one that is traced passes."""
  for field in fields:
    check_rate(f"config.model.{field}", getattr(model, field))


def check_rate(path: str, rate: Any) -> None:
  """Raises UserError if a rate is a number outside [0, 1]; one that is traced passes."""
  if isinstance(rate, (int, float)) and not 0 <= rate <= 1:
    raise UserError(f"{path} is {rate}; give a rate from 0 to 1.")
