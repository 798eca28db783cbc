"""A running average of each example's own predictions, the targets of early-learning regularization.

It is kept as {"targets": t [n, K], "missing": m [n]}, float32. After k visits m = β^k is what t lacks to sum to 1. So
1 - t_c is the sum of m and of the other classes, and not a difference of nearly equal numbers.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from nurture.core import DataSpec, linalg
from nurture.transforms.losses.example_rows import read_rows, write_rows

Memory = dict[str, jax.Array]


def empty(spec: DataSpec) -> Memory:
  """Returns the memory before the first visit, a row for each id: nothing averaged, all of the mass missing."""
  shape = (spec.num_examples, spec.num_classes)
  return {"targets": jnp.zeros(shape, jnp.float32), "missing": jnp.ones(shape[:1], jnp.float32)}


def read(memory: Memory, ids: Int[Array, " B"]) -> tuple[Float[Array, "B K"], Float[Array, " B"]]:
  """Returns (t [B, K], missing [B]) of some examples; an id outside of [0, n) has never been visited."""
  return read_rows(memory["targets"], ids), read_rows(memory["missing"], ids, fill=1.0)


def update(
  memory: Memory, ids: Int[Array, " B"], p: Float[Array, "B K"], beta: float | Float[Array, ""]
) -> tuple[Float[Array, "B K"], Float[Array, " B"], Memory]:
  """Averages the predictions of the visited examples: t_i <- β t_i + (1 - β) p_i.

  From zero and without correction of that: sum_c t_ic = 1 - β^k after k visits, if p sums to 1.

  Args:
    memory: as `empty` makes it.
    ids: [B]; outside of [0, n) they are read as never visited and not written.
    p: [B, K] probabilities; no gradient flows through them.
    beta: β.

  Returns:
    (the new t of the visited examples [B, K], what it lacks to sum to 1 [B], the new memory).
  """
  t, missing = read(memory, ids)
  t, missing = beta * t + (1 - beta) * jax.lax.stop_gradient(p), beta * missing
  written = {"targets": write_rows(memory["targets"], ids, t), "missing": write_rows(memory["missing"], ids, missing)}
  return t, missing, written


def complement(t: Float[Array, "B K"], missing: Float[Array, " B"]) -> Float[Array, "B K"]:
  """Returns 1 - t [B, K] as the sum of the other classes and of what is missing, exact where t is nearly 1."""
  others = 1.0 - jnp.eye(t.shape[-1], dtype=t.dtype)
  return linalg.matmul(t, others) + missing[:, None]
