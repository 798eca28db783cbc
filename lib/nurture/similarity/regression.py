"""Linear regression: how much of one set of features is a linear function of the other."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from nurture.core import linalg
from nurture.similarity.decompositions import principal_subspace
from nurture.similarity.gram import features, normalized, standardized


def linear_regression(x: Float[Array, "n d_x"], y: Float[Array, "n d_y"]) -> Float[Array, ""]:
  """Returns the share of the variance of x that a linear function of y explains, on the samples that it is fitted to.

      R^2 = 1 - min over B of |X - Y B|^2 / |X|^2 = |Q_y^T X|^2 / |X|^2,    X, Y centred

  with Q_y an orthonormal basis of the column space of Y. It is 1 for any y of rank n - 1: use it where n >> d_y. Not
  symmetric; any invertible map of y changes nothing, such as other units of its columns, with the limits in float32 of
  `nurture.similarity.cca` for maps that mix columns. Columns of x count by their variance. About 20 n d_y min(n, d_y)
  operations.

  Args:
    x: [n, d_x], what is predicted.
    y: [n, d_y], what it is predicted from.

  Returns:
    [] float in [0, 1]; 0 if x or y is constant. Differentiable where the rank of y does not change.

  Raises:
    UserError: for shapes that do not fit, or a Gram.

  Reference: Kornblith et al. 2019, arXiv:1905.00414, section 4.1.
  """
  x, y = features(x, y, "linear_regression")
  basis, _ = principal_subspace(standardized(y))
  return jnp.sum(jnp.square(linalg.matmul(basis.T, normalized(x))))
