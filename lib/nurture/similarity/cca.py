"""Canonical correlations and what is made of them: R^2_CCA, SVCCA, PWCCA."""

from __future__ import annotations

from typing import Annotated

import jax.numpy as jnp
from jaxtyping import Array, Float

from nurture.core import linalg
from nurture.core.hints import Range, check_argument
from nurture.similarity.decompositions import left_singular, principal_subspace
from nurture.similarity.gram import features, normalized, standardized


def cca(x: Float[Array, "n d_x"], y: Float[Array, "n d_y"]) -> Float[Array, ""]:
  """Returns the mean squared canonical correlation, R^2_CCA.

      R^2 = |Q_x^T Q_y|^2 / min(rank X, rank Y),    Q_x, Q_y orthonormal bases of the column spaces, X, Y centred

  Invariant to every invertible linear map, so it is 1 for any features of rank n - 1: use it where n >> d. About
  20 n d min(n, d) operations.

  Columns of any units count alike: multiplying them by 1e-10 or 1e10 changes nothing. Maps that mix columns meet the
  limits of their type. After all columns are brought to one length, directions up to 10 sqrt(max(n, d)) eps of the
  longest do not count: 2e-5 in float32 for 200 samples, 1e-4 for 10,000. And what rounding took from x A itself, as
  where a column of size 1 is added to one of size 1e10, no measure sees. So in float32 x A is like x where columns
  brought to one length, of x and of x A, have condition numbers below 1e4.

  Args:
    x: [n, d_x].
    y: [n, d_y].

  Returns:
    [] float in [0, 1]; 0 if x or y is constant. Differentiable where the ranks do not change.

  Raises:
    UserError: for shapes that do not fit, or a Gram.

  Differs from the paper's code, which leaves centring to the caller and takes the widths for the ranks.
  Reference: Kornblith et al. 2019, arXiv:1905.00414, section 4.2.
  """
  (qx, rank_x), (qy, rank_y) = (principal_subspace(standardized(m)) for m in features(x, y, "cca"))
  return jnp.sum(jnp.square(linalg.matmul(qx.T, qy))) / _count(rank_x, rank_y, qx.dtype)


def svcca(x: Float[Array, "n d_x"], y: Float[Array, "n d_y"], *, variance: float = 0.99) -> Float[Array, ""]:
  """Returns the mean canonical correlation of the leading principal components of x and y.

      (1 / m) sum_i rho_i,    rho the canonical correlations, m = min(components of X, components of Y)

  Components are those of the variance, so that a column of large units is most of it. Whatever `variance` says, one
  whose standard deviation is up to 10 sqrt(max(n, d)) eps of the largest does not count. About 20 n d min(n, d)
  operations.

  Args:
    x: [n, d_x].
    y: [n, d_y].
    variance: each side keeps the fewest components that carry this share of its variance.

  Returns:
    [] float in [0, 1]; 0 if x or y is constant. It jumps where the number of components changes, which is a constant
    to the gradient; where the last component kept and the first dropped coincide, their exchange has gradient 0.

  Raises:
    UserError: for shapes that do not fit, a Gram, or a variance outside (0, 1].

  Reference: Raghu et al. 2017, arXiv:1706.05806, section 2.
  """
  check_argument("variance", variance, Annotated[float, Range(above=0, most=1)], "a share of the whole, in (0, 1]")
  (qx, rank_x), (qy, rank_y) = (principal_subspace(normalized(m), variance) for m in features(x, y, "svcca"))
  _, rho, _ = _correlations(qx, qy, jnp.minimum(rank_x, rank_y))
  return jnp.sum(rho) / _count(rank_x, rank_y, rho.dtype)


def pwcca(x: Float[Array, "n d_x"], y: Float[Array, "n d_y"]) -> Float[Array, ""]:
  """Returns the mean canonical correlation, weighted by how much of x each canonical variate carries.

      sum_i a_i rho_i / sum_i a_i,    a_i = sum_j |<h_i, x_j>|

  with h_i the canonical variates of X, unit vectors over the samples, and x_j its columns: not symmetric, and it
  depends on the axes of x and on the units of its columns. Of y only the span counts, as for `cca` and with its limits
  in float32. About 20 n d min(n, d) operations.

  Args:
    x: [n, d_x], which gives the weights.
    y: [n, d_y].

  Returns:
    [] float in [0, 1]; 0 if x or y is constant. Variates of coinciding correlations are not unique: their turning into
    each other has gradient 0, as where x = y.

  Raises:
    UserError: for shapes that do not fit, or a Gram.

  The gradient grows with 1 / (rho_i - rho_j): of hundreds of correlations float32 resolves the value but not the
  gradient.

  Differs from the paper's code, which may take the weights from the side with fewer directions: here they are x's.
  Reference: Morcos et al. 2018, arXiv:1806.05759, eq. 3 and 4.
  """
  x, y = features(x, y, "pwcca")
  (qx, rank_x), (qy, rank_y) = principal_subspace(standardized(x)), principal_subspace(standardized(y))
  x = normalized(x)
  u, rho, counts = _correlations(qx, qy, jnp.minimum(rank_x, rank_y))
  weights = jnp.where(counts, jnp.sum(jnp.abs(linalg.matmul(linalg.matmul(qx, u).T, x)), axis=1), 0.0)
  total = jnp.sum(weights)
  return jnp.sum(weights * rho) / jnp.where(total > 0, total, 1.0)


def _correlations(qx: Array, qy: Array, count: Array) -> tuple[Array, Array, Array]:
  """Returns the coefficients of the variates of x, the canonical correlations, and which of them there are."""
  u, rho = left_singular(linalg.matmul(qx.T, qy), lambda s: jnp.arange(s.shape[0]))
  counts = jnp.arange(rho.shape[0]) < count
  return u, jnp.where(counts, jnp.minimum(rho, 1.0), 0.0), counts


def _count(rank_x: Array, rank_y: Array, dtype: jnp.dtype) -> Array:
  return jnp.maximum(jnp.minimum(rank_x, rank_y), 1).astype(dtype)
