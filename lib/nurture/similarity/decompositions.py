"""Singular vectors, subspaces, nuclear norms: with finite gradients where singular values coincide or vanish."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from nurture.core import linalg


def left_singular(m: Array, group: Callable[[Array], Array]) -> tuple[Array, Array]:
  """Returns U [n, r] and s [r] of the thin singular value decomposition m = U diag(s) V^T, r = min(n, d).

  Args:
    m: [n, d].
    group: s -> [r] int. Differentiating, singular vectors of one group do not turn into each other: right for what
      depends on each group's span only, and free of the 1 / (s_i^2 - s_j^2) that vanishing gaps make infinite. Of two
      groups, singular values that coincide up to rounding do not turn either.
  """
  u, s, vh = linalg.svd(jax.lax.stop_gradient(m))
  return _differentiable(m, group(s), u, s, vh)


@jax.custom_jvp
def _differentiable(m, groups, u, s, vh):
  del m, groups, vh
  return u, s


@_differentiable.defjvp
def _left_singular_jvp(primals, tangents):
  (m, groups, u, s, vh), dm = primals, tangents[0]
  tie = 100 * jnp.finfo(m.dtype).eps * s[:1]
  dmv = linalg.matmul(dm, vh.T)
  a = linalg.matmul(u.T, dmv)
  sums, gaps = s[None, :] + s[:, None], s[None, :] - s[:, None]  # s_j + s_i and s_j - s_i at [i, j]
  turns = (groups[None, :] != groups[:, None]) & (jnp.abs(gaps) > tie[:, None])
  rate = jnp.where(turns, 1.0 / jnp.where(turns, sums * gaps, 1.0), 0.0)
  present = s > negligible(s, m.shape)
  inverse = jnp.where(present, 1.0 / jnp.where(present, s, 1.0), 0.0)
  du = linalg.matmul(u, rate * (a * s[None, :] + a.T * s[:, None])) + (dmv - linalg.matmul(u, a)) * inverse[None, :]
  return (u, s), (du, jnp.diagonal(a))


def negligible(s: Float[Array, " r"], shape: tuple[int, ...]) -> Float[Array, " 1"]:
  """Returns the size up to which the singular values s [r], largest first, of a matrix are rounding; [1].

  10 sqrt(max(n, d)) eps of the largest: what rounding itself leaves was below sqrt(max(n, d)) eps in float32, of
  matrices from 14 x 5 to 50,000 x 20 and 500 x 2,000. (The usual max(n, d) eps would be 1e-3 for 10,000 samples.)
  """
  return 10 * max(shape) ** 0.5 * jnp.finfo(s.dtype).eps * s[:1]


def principal_subspace(
  x: Float[Array, "n d"], variance: float | None = None
) -> tuple[Float[Array, "n r"], Int[Array, ""]]:
  """Returns an orthonormal basis of the span of x's leading singular vectors, and its dimension.

  Args:
    x: [n, d]. Without `variance`, `standardized`: of columns of different units the small ones would be lost.
    variance: keeps the fewest directions whose squared singular values sum to this share of all; None keeps all that
      are not rounding.

  Returns:
    (Q [n, min(n, d)], rank [] int); columns from rank on are 0. Differentiable as a subspace: only what does not
    change under rotations of the basis has a meaningful gradient. The rank is a constant to it.
  """
  def kept(s):
    keep = ~(s <= negligible(s, x.shape))  # NaN stays NaN
    if variance is not None:
      left = jnp.cumsum((s * s)[::-1])[::-1]  # of each direction and all behind it; small ones first keeps digits
      keep &= ~(left <= (1 - variance) * left[:1])
    return keep

  u, s = left_singular(x, lambda s: kept(s).astype(jnp.int32))
  keep = kept(s)
  return jnp.where(keep[None, :], u, 0.0), jnp.sum(keep)


@jax.custom_jvp
def nuclear_norm_of_product(x: Float[Array, "n d_x"], y: Float[Array, "n d_y"]) -> Float[Array, ""]:
  """Returns |X^T Y|_*, the sum of singular values, for x [n, d_x] and y [n, d_y].

  Its gradient with respect to X is Y (U V^T)^T with U V^T the polar factor of X^T Y, bounded whatever the singular
  values; of those that vanish it takes the subgradient 0. Of d > n features only an n x n factor is decomposed:
  4 n^2 d operations and n^3 for the singular values.
  """
  return _nuclear_norm(x, y)[0]


@nuclear_norm_of_product.defjvp
def _nuclear_norm_jvp(primals, tangents):
  value, gradient_x, gradient_y = _nuclear_norm(*primals)
  return value, jnp.sum(gradient_x * tangents[0]) + jnp.sum(gradient_y * tangents[1])


def _nuclear_norm(x: Array, y: Array) -> tuple[Array, Array, Array]:
  (fx, qx), (fy, qy) = _factor(x), _factor(y)
  m = linalg.matmul(fx.T, fy)
  u, s, vh = linalg.svd(m)
  polar = linalg.matmul(jnp.where((s > negligible(s, m.shape))[None, :], u, 0.0), vh)
  gradient_x, gradient_y = linalg.matmul(fy, polar.T), linalg.matmul(fx, polar)
  return (
    jnp.sum(s),
    gradient_x if qx is None else linalg.matmul(gradient_x, qx.T),
    gradient_y if qy is None else linalg.matmul(gradient_y, qy.T),
  )


def _factor(x: Array) -> tuple[Array, Array | None]:
  """Returns F [n, min(n, d)] and Q [d, n], orthonormal, with x = F Q^T; Q is None where it would be the identity."""
  if x.shape[1] <= x.shape[0]:
    return x, None
  q, r = linalg.qr(x.T)
  return r.T, q
