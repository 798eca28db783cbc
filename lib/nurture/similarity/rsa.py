"""Representational similarity analysis with cosine similarities."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from nurture.similarity.gram import Gram, cosine, features, kernels, self_product


def rsa(
  x: Float[Array, "n d_x"] | Gram, y: Float[Array, "n d_y"] | Gram, *, centred: bool = False, diagonal: bool = True
) -> Float[Array, ""]:
  """Returns the correlation of the cosine similarities of all pairs of samples.

      A_ij = <x_i, x_j> / (|x_i| |x_j|),    B from y alike,    rsa = Pearson correlation of the entries of A and B

  2 n^2 (d_x + d_y) operations. A cosine with a zero row is 0. In float32 cosines that differ by less than 1e-6 do not
  vary, as those of features beside one column that is 1e4 times larger and of one sign. If `centred`, those of samples
  closer to the mean than 1e-4 of the farthest, or in a sub-batch of a Gram than 1e-3, are rounding.

  Args:
    x: [n, d_x], or a Gram if `centred`.
    y: [n, d_y], or a Gram if `centred`.
    centred: subtracts the mean over samples from the features first. Only then is it invariant to translations, and
      only then does a Gram, being of centred features, hold what it takes.
    diagonal: counts the diagonal of ones too, which raises the value; without it the value is that of one triangle.

  Returns:
    [] float in [-1, 1]; 0, with gradient 0, where the cosines of x or of y do not vary.

  Raises:
    UserError: for shapes that do not fit, or a Gram unless `centred`.

  Differs from the usual analysis (Kriegeskorte et al. 2008), which leaves the diagonal out, and follows in both
  defaults the code of Subramaniam et al. 2024, arXiv:2410.20035, whose loss is 1 - rsa.
  """
  if centred:
    a, b = (_cosines_of_kernel(k) for k in kernels(x, y))
  else:
    a, b = (self_product(_unit_rows(side)) for side in features(x, y, "rsa with centred=False"))
  return _correlation(a, b, diagonal)


def _unit_rows(x: Array) -> Array:
  largest = jax.lax.stop_gradient(jnp.max(jnp.abs(x), axis=1, keepdims=True, initial=0.0))
  x = x / jnp.where(largest > 0, largest, 1.0)
  return x * jax.lax.rsqrt(jnp.sum(x * x, axis=1, keepdims=True) + 1e-24)


def _cosines_of_kernel(k: Array) -> Array:
  squares = jnp.diagonal(k)
  inverse = jnp.where(squares > 0, jax.lax.rsqrt(jnp.where(squares > 0, squares, 1.0)), 0.0)
  return k * inverse[:, None] * inverse[None, :]


def _correlation(a: Array, b: Array, diagonal: bool) -> Array:
  n = a.shape[0]
  counts = jnp.ones((n, n), bool) if diagonal else ~jnp.eye(n, dtype=bool)
  pairs = n * n if diagonal else n * (n - 1)
  a, b = (jnp.where(counts, m - jnp.sum(m, where=counts) / max(pairs, 1), 0.0) for m in (a, b))
  floor = pairs * (8 * jnp.finfo(a.dtype).eps) ** 2  # cosines that differ by rounding alone do not vary
  return cosine(jnp.sum(a * b), jnp.sum(a * a), jnp.sum(b * b), floor)
