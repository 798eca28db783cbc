"""Numbers that change over training: optax's schedules under their own names, ramps, and constants as schedules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

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


def step_ramp(steps: float, shape: Literal["linear", "cosine"] = "linear") -> Schedule:
  """Rises from 0 at step 0 to 1 at step `steps`, and stays there.

      "linear": t / T        "cosine": (1 - cos(pi t / T)) / 2        T = steps
  """
  _check_positive(steps=steps)

  def schedule(step: jax.Array) -> jax.Array:
    step = jnp.asarray(step, jnp.float32)
    progress = jnp.clip(step / steps, 0.0, 1.0)
    # Neither a compiled quotient of equal numbers nor a cosine of pi is exact, and a ramp must end on exactly 1.
    return jnp.where(step >= steps, 1.0, progress if shape == "linear" else 0.5 * (1 - jnp.cos(jnp.pi * progress)))

  return schedule


def epoch_ramp(epochs: float, steps_per_epoch: float, shape: Literal["linear", "cosine"] = "linear") -> Schedule:
  """A `step_ramp` over `epochs` that moves at the start of an epoch only.

  How VanillaNet anneals its activations: λ(e) = e / epochs with e = 0, 1, ... (Chen et al. 2023, arXiv:2305.12972);
  `step_ramp` is the smooth variant, which is not theirs.

  Args:
    epochs: after which the ramp is 1.
    steps_per_epoch: training examples over the batch size; need not be whole.
    shape: as for step_ramp.
  """
  _check_positive(epochs=epochs, steps_per_epoch=steps_per_epoch)
  ramp = step_ramp(epochs, shape)

  def schedule(step: jax.Array) -> jax.Array:
    step = jnp.asarray(step, jnp.float32)
    epoch = jnp.floor(step / steps_per_epoch)  # compiled, the quotient may miss a whole number on either side
    epoch = jnp.where((epoch + 1) * steps_per_epoch <= step, epoch + 1, epoch)
    return ramp(jnp.where(epoch * steps_per_epoch > step, epoch - 1, epoch))

  return schedule


def exponential_ramp(steps: float, rate: float = 5.0) -> Schedule:
  """Rises from exp(-rate) at step 0 to 1 at step `steps`, and stays there: exp(-r (1 - t / T)^2).

  Laine & Aila 2017, arXiv:1610.02242; ELR+ (arXiv:2007.00151) ramps its λ so on CIFAR-100, over 40,000 steps.
  """
  _check_positive(steps=steps)

  def schedule(step: jax.Array) -> jax.Array:
    left = 1 - jnp.clip(jnp.asarray(step, jnp.float32) / steps, 0.0, 1.0)
    return jnp.where(step >= steps, 1.0, jnp.exp(-rate * left**2))

  return schedule


def cosine_restarts(peak_value: float, period: int, end_value: float = 0.0) -> Schedule:
  """Falls as half a cosine from the peak to the end within each period, and starts again.

      end + (peak - end) (1 + cos(pi (t mod P) / P)) / 2        P = period, in steps

  Loshchilov & Hutter 2017, arXiv:1608.03983, eq. 5, with one period throughout. optax's sgdr_schedule has them differ.
  """
  _check_positive(period=period)

  def schedule(step: jax.Array) -> jax.Array:
    share = (jnp.asarray(step, jnp.float32) % period) / period
    return end_value + (peak_value - end_value) * 0.5 * (1 + jnp.cos(jnp.pi * share))

  return schedule


def _check_positive(**values: float) -> None:
  for name, value in values.items():
    if not isinstance(value, jax.Array) and not value > 0:
      raise ValueError(f"{name} is {value}; give a positive number")


SCHEDULES = {
  "constant_schedule": optax.constant_schedule,
  "cosine_decay_schedule": optax.cosine_decay_schedule,
  "cosine_restarts": cosine_restarts,
  "epoch_ramp": epoch_ramp,
  "exponential_ramp": exponential_ramp,
  "exponential_decay": optax.exponential_decay,
  "linear_schedule": optax.linear_schedule,
  "piecewise_constant_schedule": piecewise_constant_schedule,
  "polynomial_schedule": optax.polynomial_schedule,
  "step_ramp": step_ramp,
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
