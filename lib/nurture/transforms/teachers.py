"""Predictions of frozen networks, the teachers, for the transforms that learn from them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from nurture.core import Context, UserError
from nurture.core.references import outputs_of


def check_teachers(teachers: tuple[str, ...]) -> None:
  """Raises ValueError if no teacher is named."""
  if not teachers:
    raise ValueError("teachers is (); give at least one label of config.references")


def teacher_logits(ctx: Context, teachers: tuple[str, ...], shape: tuple[int, ...]) -> Float[Array, "M B *T K"]:
  """Returns the logits of some references, [M, *shape] in at least float32, cut off from differentiation.

  Args:
    ctx: this step.
    teachers: M labels of config.references.
    shape: what every teacher must predict, [B, K] or [B, T, K].

  Raises:
    UserError: for a label that is no reference, and for a teacher that makes other predictions.
  """
  stacked = []
  for label in teachers:
    logits = outputs_of(ctx.references, label, "the field 'teachers'").logits
    if logits.shape != shape:
      raise UserError(f"config.references.{label}.model makes predictions {logits.shape}, but the student is asked for "
                      f"{shape}; choose a teacher with {_needed(logits.shape, shape)}.")
    stacked.append(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)))
  return jax.lax.stop_gradient(jnp.stack(stacked))


def log_mean_softmax(
  logits: Float[Array, "M *shape K"], temperature: float | Float[Array, ""]
) -> Float[Array, "*shape K"]:
  """Returns log(1/M sum_m softmax(z_m / T)), [M, ..., K] -> [..., K]; -inf where every z_m is."""
  log_p = jax.nn.log_softmax(logits / temperature)
  return jax.nn.logsumexp(log_p, axis=0) - jnp.log(jnp.asarray(logits.shape[0], log_p.dtype))


def _needed(given: tuple[int, ...], shape: tuple[int, ...]) -> str:
  if len(given) != len(shape):
    return f"one prediction for each {'position' if len(shape) == 3 else 'example'}"
  return f"{shape[-1]} classes"
