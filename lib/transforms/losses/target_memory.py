"""A running average of each example's own predictions, the targets of early-learning regularization."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from lib.core import DataSpec
from lib.transforms.losses.example_rows import read_rows, write_rows


def empty(spec: DataSpec) -> jax.Array:
  """Returns the memory before the first visit: zeros [n, K] float32, a row for each id."""
  return jnp.zeros((spec.num_examples, spec.num_classes), jnp.float32)


def update(memory: jax.Array, ids: jax.Array, p: jax.Array, beta: float | jax.Array) -> tuple[jax.Array, jax.Array]:
  """Averages the predictions of the visited examples: t_i <- β t_i + (1 - β) p_i.

  From zero and without correction of that: sum_c t_ic = 1 - β^k after k visits, if p sums to 1.

  Args:
    memory: [n, K] float32.
    ids: [B]; outside of [0, n) they are read as rows of zeros and not written.
    p: [B, K] probabilities; no gradient flows through them.
    beta: β.

  Returns:
    (the new t of the visited examples [B, K], the new memory).
  """
  t = beta * read_rows(memory, ids) + (1 - beta) * jax.lax.stop_gradient(p)
  return t, write_rows(memory, ids, t)


def check_strength(lam: float, beta: float) -> None:
  """Checks λ and β where they are plain numbers.

  Raises:
    ValueError: for a λ below 0 or a β outside of [0, 1].
  """
  if isinstance(lam, (int, float)) and not lam >= 0:
    raise ValueError(f"lam is {lam}; give a strength of at least 0")
  if isinstance(beta, (int, float)) and not 0 <= beta <= 1:
    raise ValueError(f"beta is {beta}; give the weight of the past, from 0 to 1")
