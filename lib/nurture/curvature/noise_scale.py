"""The gradient noise scale: the batch size at which noise and signal of a stochastic gradient are alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from nurture.core import UserError, trees

Array = jax.Array
Tree = Any


class NoiseAndSignal(NamedTuple):
  """The two parts of the expected squared norm of a batch's gradient, E |G_b|^2 = |G|^2 + S / b.

  Attributes:
    noise: S = tr Sigma, the trace of the covariance of the gradient of one example.
    signal: |G|^2, the squared norm of the expected gradient; an estimate may be negative.
  """

  noise: Array
  signal: Array


def noise_and_signal(
  square_small: Float[Array, " ..."], square_large: Float[Array, " ..."], small: float | Float[Array, ""],
  large: float | Float[Array, ""],
) -> NoiseAndSignal:
  """Returns unbiased estimates of S and |G|^2 from squared gradient norms at two batch sizes b < B:

      |G|^2 = (B |G_B|^2 - b |G_b|^2) / (B - b),    S = (|G_b|^2 - |G_B|^2) / (1/b - 1/B)

  Average S and |G|^2 over steps, each by itself, before taking `simple_noise_scale`: the mean of ratios is biased, and
  a single |G|^2 can be about 0 or below. Squares in float32 serve norms from 1e-19 to 1e19; beyond, S and |G|^2 are 0,
  infinite or NaN.

  Args:
    square_small: |G_b|^2, or its mean over several batches, any shape.
    square_large: |G_B|^2, of the same shape; its examples may be those of the small batches.
    small: b, examples; may be traced.
    large: B, examples; may be traced.

  Raises:
    UserError: unless 0 < b < B, as far as they are known.

  Reference: McCandlish et al. 2018, arXiv:1812.06162, appendix A.1.
  """
  if not any(isinstance(size, jax.core.Tracer) for size in (small, large)) and not 0 < small < large:
    raise UserError(f"the batch sizes of a noise scale are {small} and {large}; give two positive ones, the smaller "
                    "first.")
  noise = (square_small - square_large) / (1 / small - 1 / large)
  return NoiseAndSignal(noise, (large * square_large - small * square_small) / (large - small))


def simple_noise_scale(noise: Float[Array, " ..."], signal: Float[Array, " ..."]) -> Float[Array, " ..."]:
  """Returns B_simple = tr(Sigma) / |G|^2 in examples, from averages of `noise_and_signal`; NaN unless |G|^2 > 0.

  Reference: McCandlish et al. 2018, arXiv:1812.06162, section 2.2.
  """
  return jnp.where(signal > 0, noise / jnp.where(signal > 0, signal, 1.0), jnp.nan)


def batch_gradients(gradient: Callable[[Tree], Tree], batches: Tree) -> tuple[Tree, Float[Array, ""]]:
  """Returns the sum of the gradients of several batches, and the sum of their squared norms, one batch at a time.

  Of m batches of b examples each, the mean gradient is that of B = m b examples:

      square_small = squares / m,    square_large = |sum / m|^2

  Then S is b times the unbiased sample variance of the batches' gradients.

  Args:
    gradient: batch -> tree.
    batches: a tree whose leaves have a leading axis of m batches.

  Raises:
    UserError: for no batch.
  """
  if not all(len(leaf) for leaf in jax.tree.leaves(batches)):
    raise UserError("there is no batch to take a gradient of; give at least one.")
  one = jax.tree.map(lambda leaf: leaf[0], batches)
  zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.promote_types(leaf.dtype, jnp.float32)),
                       jax.eval_shape(gradient, one))

  def add(carry, batch):
    g = gradient(batch)
    return (jax.tree.map(jnp.add, carry[0], g), carry[1] + jnp.square(trees.norm(g))), None

  (total, squares), _ = jax.lax.scan(add, (zeros, jnp.float32(0.0)), batches)
  return total, squares
