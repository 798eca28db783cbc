"""The probes of a config: built, checked before training, and the key that each draws its fixed data from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from nurture import data
from nurture.core import UserError, build, hints, rng
from nurture.core.hints import Whole
from nurture.probes import PROBES


def build_probe(label: str, fields: Mapping[str, Any]) -> Any:
  """Builds the probe of a config; "every" is not the probe's."""
  own = {name: value for name, value in fields.items() if name != "every"}
  return build(PROBES, own, path=f"config.probes.{label}")


def check_probe(label: str, fields: Mapping[str, Any], dataset: data.Dataset) -> None:
  """Finds a probe's mistakes before training starts instead of after it.

  Raises:
    UserError: for a field of the probe that is wrong, or a split that the data do not have.
  """
  path = f"config.probes.{label}"
  if "every" not in fields:
    raise UserError(f"{path}.every is missing; give the steps between measurements, or 0 for the end.")
  hints.check(f"{path}.every", fields["every"], Whole)
  build_probe(label, fields)
  if "split" in fields:
    dataset.split(fields["split"])


def probe_key(seed: int, label: str) -> jax.Array:
  """Returns the key from which a probe draws its fixed data: the same for every member."""
  return rng.stream(jax.random.key(np.uint32(seed)), f"probes.{label}")
