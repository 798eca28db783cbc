"""Numbers that change over training: optax's schedules under their own names, and constants as schedules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lib.core.build import build
from lib.core.errors import UserError

Schedule = Callable[[jax.Array], jax.Array]  # step -> value


def piecewise_constant_schedule(init_value: float, boundaries: tuple[int, ...], scales: tuple[float, ...]) -> Schedule:
  """Multiplies by scales[i] from step boundaries[i] on (optax takes the two as one dict with integer keys)."""
  if len(boundaries) != len(scales):
    raise ValueError(f"{len(boundaries)} boundaries and {len(scales)} scales; give one scale a boundary")
  return optax.piecewise_constant_schedule(init_value, dict(zip(boundaries, scales)))


SCHEDULES = {
  "constant_schedule": optax.constant_schedule,
  "cosine_decay_schedule": optax.cosine_decay_schedule,
  "exponential_decay": optax.exponential_decay,
  "linear_schedule": optax.linear_schedule,
  "piecewise_constant_schedule": piecewise_constant_schedule,
  "polynomial_schedule": optax.polynomial_schedule,
  "warmup_cosine_decay_schedule": optax.warmup_cosine_decay_schedule,
  "warmup_exponential_decay_schedule": optax.warmup_exponential_decay_schedule,
}


def as_schedule(value: float | jax.Array | Mapping[str, Any], *, path: str) -> Schedule:
  """Returns a function of the step: a constant for a number, a row of SCHEDULES for a config.

  Raises:
    UserError: if the value is neither, or the config does not describe a schedule.
  """
  if isinstance(value, Mapping):
    return build(SCHEDULES, value, path=path)
  is_number = isinstance(value, (int, float, np.number, jax.Array)) and not isinstance(value, bool)
  if not is_number:
    raise UserError(f"{path} is {value!r}, but a number or a schedule (a dict with a 'name') is needed.")
  return lambda step: jnp.asarray(value, jnp.float32)
