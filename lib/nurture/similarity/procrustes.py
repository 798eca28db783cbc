"""Procrustes distance: how far apart two sets of features are after the best rotation."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from nurture.core import linalg
from nurture.similarity.decompositions import nuclear_norm_of_product
from nurture.similarity.gram import Gram, checked, features, kernels, normalized


def procrustes(x: Float[Array, "n d_x"] | Gram, y: Float[Array, "n d_y"] | Gram) -> Float[Array, ""]:
  """Returns the orthogonal Procrustes distance of centred features of Frobenius norm 1.

      min over orthogonal Q of |X - Y Q| = sqrt(|X|^2 + |Y|^2 - 2 |X^T Y|_*) = sqrt(2 - 2 |X^T Y|_*)

  with features padded by zeros to the same width. A metric on features up to rotation, translation and scale. About
  4 n^2 (d_x + d_y) + 20 n^3 operations where d > n.

  Args:
    x: [n, d_x], or a Gram, which is a constant to the gradient.
    y: [n, d_y], or a Gram likewise.

  Returns:
    [] float in [0, sqrt 2]; constant features stand for the origin, at distance 1 from all others. The gradient is 0
    where the distance is 0, and bounded near it. In float32 exact to about 1e-5; from a Gram whose eigenvalues fall
    steeply to 2e-4, as those below 5e-7 of the largest are lost; near 0 to 5e-4, what rounding leaves under the root.

  Raises:
    UserError: for shapes that do not fit.

  Reference: Williams et al. 2021, arXiv:2110.14739, section 2; Ding et al. 2021, arXiv:2108.01661.
  """
  if not (isinstance(x, Gram) or isinstance(y, Gram)):
    x, y = features(x, y, "procrustes")
  fx, fy = (_from_gram(m) if isinstance(m, Gram) else normalized(checked(m, name)) for name, m in (("x", x), ("y", y)))
  squared = jnp.sum(fx * fx) + jnp.sum(fy * fy) - 2 * nuclear_norm_of_product(fx, fy)
  return jnp.where(squared <= 0, 0.0, jnp.sqrt(jnp.where(squared <= 0, 1.0, squared)))


def _from_gram(k: Gram) -> Array:
  """Returns features [n, n] that have the Gram matrix k."""
  values, vectors = linalg.eigh(jax.lax.stop_gradient(kernels(k, k)[0]))
  # Rounding makes about eps of an eigenvalue that is 0, whose root is no rounding any more.
  values = jnp.where(values > 4 * jnp.finfo(values.dtype).eps * values[-1:], values, 0.0)
  return vectors * jnp.sqrt(values)[None, :]
