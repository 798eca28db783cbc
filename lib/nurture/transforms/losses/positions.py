"""Averages over the positions of a sequence."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float


def per_example(values: Float[Array, " B *T"], targets: Float[Array, "B *T K"]) -> Float[Array, " B"]:
  """Averages over the positions of a sequence at which a prediction is asked.

  Args:
    values: [B] or [B, T].
    targets: [B, K] or [B, T, K]; a position whose row is all zero does not count.

  Returns:
    [B] float32; values themselves if there are no positions, and 0 for an example without a counted one.
  """
  if values.ndim == 1:
    return values
  counted = (jnp.sum(targets, axis=-1) > 0).astype(jnp.float32)
  return jnp.sum(values * counted, axis=-1) / jnp.maximum(jnp.sum(counted, axis=-1), 1.0)
