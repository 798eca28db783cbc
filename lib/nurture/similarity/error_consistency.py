"""Error consistency: whether two classifiers err on the same examples."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from nurture.core import UserError
from nurture.similarity.gram import as_float


def error_consistency(
  correct_a: Shaped[Array, " n"], correct_b: Shaped[Array, " n"], weight: Float[Array, " n"] | None = None
) -> Float[Array, ""]:
  """Returns Cohen's kappa of two classifiers' right and wrong answers.

      kappa = (c_obs - c_exp) / (1 - c_exp),    c_exp = p_a p_b + (1 - p_a) (1 - p_b)

  with c_obs the share of examples on which both are right or both are wrong, and p_a, p_b the accuracies: 1 if they err
  on the same examples, 0 if they err independently, negative if they avoid each other's errors.

  Args:
    correct_a: [n] bool or 0/1, whether the first classifier is right.
    correct_b: [n] likewise.
    weight: [n], 0 for examples that do not count; None counts all once.

  Returns:
    [] float in [-1, 1]. 0 where it is 0 / 0: both always right, both always wrong, or no examples. One always right and
    the other not is 0 by the formula.

  Raises:
    UserError: if the shapes are not one and the same [n].

  Reference: Geirhos et al. 2020, arXiv:2006.16736, eq. 1 to 3.
  """
  a, b = as_float(correct_a), as_float(correct_b)
  weight = jnp.ones_like(a) if weight is None else as_float(weight)
  if a.ndim != 1 or not a.shape == b.shape == weight.shape:
    raise UserError(f"correct_a is {list(a.shape)} and correct_b {list(b.shape)}; give both one entry an example.")
  count = jnp.sum(weight)
  mean = lambda answers: jnp.sum(weight * answers) / jnp.where(count > 0, count, 1.0)
  return kappa(mean(a * b), mean((1 - a) * (1 - b)), mean(a * (1 - b)), mean((1 - a) * b))


def kappa(
  right: Float[Array, ""], wrong: Float[Array, ""], only_a: Float[Array, ""], only_b: Float[Array, ""]
) -> Float[Array, ""]:
  """Returns `error_consistency` from the shares of examples on which both are right, both wrong, or only one right."""
  # The formula multiplied out: 1 - c_exp without its cancellation, and an exact 0 above where it is 0.
  chance = (right + only_a) * (wrong + only_a) + (right + only_b) * (wrong + only_b)
  return 2 * (right * wrong - only_a * only_b) / jnp.where(chance > 0, chance, 1.0)
