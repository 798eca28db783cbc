"""Overlap of nearest neighbours."""

from __future__ import annotations

from typing import Annotated

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from nurture.core.hints import Range, check_argument
from nurture.similarity.gram import Gram, kernels, squared_distances


def knn_overlap(x: Float[Array, "n d_x"] | Gram, y: Float[Array, "n d_y"] | Gram, *, k: int = 10) -> Float[Array, ""]:
  """Returns the mean share of the k nearest neighbours of a sample that x and y have in common.

      (1 / n) sum_i |N_k(x_i) & N_k(y_i)| / k,    N_k by Euclidean distance, without i itself

  Independent features give about k / (n - 1). Of neighbours equally far the first counts. 2 n^2 (d_x + d_y) operations.
  Distances come from inner products: in float32 those below 5e-4 of a sample's distance from the mean are not resolved.

  Args:
    x: [n, d_x], or a Gram.
    y: [n, d_y], or a Gram.
    k: number of neighbours, 1 to n - 1.

  Returns:
    [] float in [0, 1]; 0 if x or y is constant. Piecewise constant: its gradient is 0 wherever it has one.

  Raises:
    UserError: for shapes that do not fit, or a k that does not.

  Reference: Huh et al. 2024, arXiv:2405.07987, appendix A, where distances are inner products.
  """
  kx, ky = kernels(x, y)
  n = kx.shape[0]
  fix = f"a whole number from 1 to {n - 1}, the neighbours of each of {n} samples"
  check_argument("k", k, Annotated[int, Range(least=1, most=n - 1)], fix)
  shared = jnp.sum(_neighbors(kx, k) & _neighbors(ky, k)) / (n * k)
  vary = jnp.trace(kx) * jnp.trace(ky)  # 0 for constant input, NaN for NaN
  return jnp.where(vary > 0, shared, vary).astype(kx.dtype)


def _neighbors(kernel: Array, k: int) -> Array:
  """Returns [n, n] bool, whether j is among the k nearest neighbours of i."""
  n = kernel.shape[0]
  distances = jnp.where(jnp.eye(n, dtype=bool), jnp.inf, squared_distances(jax.lax.stop_gradient(kernel)))
  _, nearest = jax.lax.top_k(-distances, k)
  return jnp.zeros((n, n), bool).at[jnp.arange(n)[:, None], nearest].set(True)
