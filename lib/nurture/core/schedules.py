"""Numbers that change over training: optax's schedules under their own names, ramps, and constants as schedules."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from nurture.core import hints
from nurture.core.build import build
from nurture.core.errors import UserError
from nurture.core.hints import Count, NonNegative, Positive, Share, Whole

Schedule = Callable[[jax.Array], jax.Array]  # step -> value


def piecewise_constant_schedule(
  init_value: float, boundaries: tuple[Whole, ...], scales: tuple[NonNegative, ...]
) -> Schedule:
  """Multiplies by scales[i] from step boundaries[i] on (optax takes the two as one dict with integer keys)."""
  if len(boundaries) != len(scales):
    raise ValueError(f"{len(boundaries)} boundaries and {len(scales)} scales; give one scale a boundary")
  if len(set(boundaries)) < len(boundaries):
    raise ValueError(f"boundaries is {boundaries}; name each step once")
  return optax.piecewise_constant_schedule(init_value, dict(zip(boundaries, scales)))


def step_ramp(steps: Positive, shape: Literal["linear", "cosine"] = "linear") -> Schedule:
  """Rises from 0 at step 0 to 1 at step `steps`, and stays there.

      "linear": t / T        "cosine": (1 - cos(pi t / T)) / 2        T = steps
  """

  def schedule(step: jax.Array) -> jax.Array:
    step = jnp.asarray(step, jnp.float32)
    progress = jnp.clip(step / steps, 0.0, 1.0)
    # Neither a compiled quotient of equal numbers nor a cosine of pi is exact, and a ramp must end on exactly 1.
    return jnp.where(step >= steps, 1.0, progress if shape == "linear" else 0.5 * (1 - jnp.cos(jnp.pi * progress)))

  return schedule


def epoch_ramp(epochs: Positive, steps_per_epoch: Positive, shape: Literal["linear", "cosine"] = "linear") -> Schedule:
  """A `step_ramp` over `epochs` that moves at the start of an epoch only.

  How VanillaNet anneals its activations: λ(e) = e / epochs with e = 0, 1, ... (Chen et al. 2023, arXiv:2305.12972);
  `step_ramp` is the smooth variant, which is not theirs.

  Args:
    epochs: after which the ramp is 1.
    steps_per_epoch: training examples over the batch size; need not be whole.
    shape: as for step_ramp.
  """
  ramp = step_ramp(epochs, shape)

  def schedule(step: jax.Array) -> jax.Array:
    step = jnp.asarray(step, jnp.float32)
    epoch = jnp.floor(step / steps_per_epoch)  # compiled, the quotient may miss a whole number on either side
    epoch = jnp.where((epoch + 1) * steps_per_epoch <= step, epoch + 1, epoch)
    return ramp(jnp.where(epoch * steps_per_epoch > step, epoch - 1, epoch))

  return schedule


def exponential_ramp(steps: Positive, rate: NonNegative = 5.0) -> Schedule:
  """Rises from exp(-rate) at step 0 to 1 at step `steps`, and stays there: exp(-r (1 - t / T)^2).

  Laine & Aila 2017, arXiv:1610.02242; ELR+ (arXiv:2007.00151) ramps its λ so on CIFAR-100, over 40,000 steps.
  """

  def schedule(step: jax.Array) -> jax.Array:
    left = 1 - jnp.clip(jnp.asarray(step, jnp.float32) / steps, 0.0, 1.0)
    return jnp.where(step >= steps, 1.0, jnp.exp(-rate * left**2))

  return schedule


def cosine_restarts(peak_value: float, period: Count, end_value: float = 0.0) -> Schedule:
  """Falls as half a cosine from the peak to the end within each period, and starts again.

      end + (peak - end) (1 + cos(pi (t mod P) / P)) / 2        P = period, in steps

  Loshchilov & Hutter 2017, arXiv:1608.03983, eq. 5, with one period throughout. optax's sgdr_schedule has them differ.
  """

  def schedule(step: jax.Array) -> jax.Array:
    share = (jnp.asarray(step, jnp.float32) % period) / period
    return end_value + (peak_value - end_value) * 0.5 * (1 + jnp.cos(jnp.pi * share))

  return schedule


# optax's own, with the ranges in which they are what their names say.
_ranged = functools.partial(
  hints.annotate,
  alpha=Share,  # where a cosine ends, as a share of where it starts
  decay_rate=Positive,
  decay_steps=Count,
  end_value=float | None,
  exponent=NonNegative,
  init_value=float,
  peak_value=float,
  power=NonNegative,
  transition_begin=Whole,
  transition_steps=Count,
  value=float,
  warmup_steps=Whole,
)

SCHEDULES = {
  "constant_schedule": _ranged(optax.constant_schedule),
  "cosine_decay_schedule": _ranged(optax.cosine_decay_schedule),
  "cosine_restarts": cosine_restarts,
  "epoch_ramp": epoch_ramp,
  "exponential_ramp": exponential_ramp,
  "exponential_decay": _ranged(optax.exponential_decay),
  "linear_schedule": _ranged(optax.linear_schedule, end_value=float),
  "piecewise_constant_schedule": piecewise_constant_schedule,
  "polynomial_schedule": _ranged(optax.polynomial_schedule, end_value=float),
  "step_ramp": step_ramp,
  "warmup_cosine_decay_schedule": _ranged(optax.warmup_cosine_decay_schedule, end_value=float),
  "warmup_exponential_decay_schedule": _ranged(optax.warmup_exponential_decay_schedule),
}
_VALUES = ("value", "init_value", "peak_value", "end_value")  # between which a schedule runs


def as_schedule(value: float | jax.Array | Mapping[str, Any], *, path: str, hint: Any = float) -> Schedule:
  """Returns a function of the step: a constant for a number, a row of SCHEDULES for a config.

  Args:
    value: a number, which may be traced, or a config.
    path: where it stands in the whole, for error messages.
    hint: the type of what the schedule moves, for its range; the values that a row runs between are held to it.

  Raises:
    UserError: if the value is neither, or the config does not describe a schedule, or a number is out of range.
  """
  if isinstance(value, Mapping):
    schedule = build(SCHEDULES, value, path=path)
    for name in _VALUES:
      if value.get(name) is not None:
        hints.check(f"{path}.{name}", value[name], hint)
    return schedule
  if not hints.matches(value, float):
    raise UserError(f"{path} is {value!r}, but a number or a schedule (a dict with a 'name') is needed.")
  hints.check(path, value, hint)
  return lambda step: jnp.asarray(value, jnp.float32)
