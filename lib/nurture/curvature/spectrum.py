"""Eigenvalues, traces and spectral densities of symmetric operators that are known by their products alone.

An operator is a function v -> A v on pytrees, such as `nurture.curvature.hvp.hessian` returns, and `like` is a tree of
v's shapes, such as the parameters. Everything is pure and passes jit and vmap (over the parameters of an ensemble).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Key

from nurture.core import UserError, linalg
from nurture.core.hints import Count, Positive, check_argument
from nurture.curvature.hvp import Operator
from nurture.curvature.lanczos import Lanczos, flat, lanczos, ritz

Array = jax.Array
Tree = Any


class Eigenvalues(NamedTuple):
  """Approximate eigenvalues [k], and for each the distance within which an exact one lies [k]."""

  values: Array
  errors: Array


class Quadrature(NamedTuple):
  """Nodes [s, m] and weights [s, m] with sum_i w_i f(theta_i) ~ v^T f(A) v, for each of s random unit vectors v.

  Exact for polynomials f of degree up to 2 m - 1; the mean over v estimates tr f(A) / P.
  """

  nodes: Array
  weights: Array


def stability_threshold(learning_rate: float, momentum: float = 0.0, nesterov: bool = False) -> float:
  """Returns the sharpness above which gradient descent with a constant step diverges on a quadratic.

      2 / lr,    (2 + 2 beta) / lr with momentum beta,    (2 + 2 beta) / (lr (1 + 2 beta)) with Nesterov's

  Raises:
    UserError: unless the learning rate is positive.

  Reference: Cohen et al. 2021, arXiv:2103.00065.
  """
  check_argument("the learning rate", learning_rate, Positive)
  return (2 + 2 * momentum) / (learning_rate * (1 + 2 * momentum * nesterov))


def eigenvalues_of(decomposition: Lanczos, k: int) -> Eigenvalues:
  """Returns the k largest Ritz values, descending, and how far each can be from an eigenvalue:

      |r| |s_m| + sum_j |F_j| |s_j| + 16 eps |T|

  with s an eigenvector of T: what further steps would still change, what rounding left of the products along the basis
  (`Lanczos.rounding`), and the rounding of T and of its decomposition. The eigenvalue is one of the operator as it is
  computed: an error that every product makes alike, as in a Hessian of a rounded loss, shows nowhere.

  Raises:
    UserError: unless 1 <= k <= m.
  """
  if not 1 <= k <= decomposition.diagonal.shape[0]:
    raise UserError(f"{k} eigenvalues of a decomposition of {decomposition.diagonal.shape[0]} steps are asked for; "
                    "give at least 1 and at most as many as steps and parameters.")
  values, vectors = ritz(decomposition)
  rounding = 16 * jnp.finfo(decomposition.diagonal.dtype).eps * abs(values).max()
  astray = (decomposition.rounding[:, None] * abs(vectors)).sum(axis=0)
  errors = abs(decomposition.off_diagonal[-1] * vectors[-1]) + astray + rounding
  return Eigenvalues(values[::-1][:k], errors[::-1][:k])


def top_eigenvalues(matvec: Operator, like: Tree, key: Key[Array, ""], *, k: int = 1, steps: int = 30) -> Eigenvalues:
  """Returns the k largest eigenvalues, descending, by `lanczos` of m steps; the first is the sharpness of a Hessian.

  Raises:
    UserError: unless 1 <= k <= min(steps, number of parameters).
  """
  return eigenvalues_of(lanczos(matvec, like, key, steps=steps), k)


def quadrature(
  matvec: Operator, like: Tree, key: Key[Array, ""], *, num_vectors: int = 4, steps: int = 30
) -> Quadrature:
  """Returns stochastic Lanczos quadrature from `num_vectors` random vectors of signs, one after another.

  Raises:
    UserError: for less than one vector or step.

  Reference: Ghorbani et al. 2019, arXiv:1901.10159 (Gaussian vectors there).
  """
  check_argument("num_vectors", num_vectors, Count)

  def one(key: Array) -> Quadrature:
    values, vectors = ritz(lanczos(matvec, like, key, steps=steps))
    return Quadrature(values, jnp.square(vectors[0]))

  return jax.lax.map(one, jax.random.split(key, num_vectors))


def density(quadrature: Quadrature, grid: Float[Array, " g"], width: Float[Array, ""] | float) -> Float[Array, " g"]:
  """Returns the spectral density on a grid [g], every eigenvalue broadened to a Gaussian of standard deviation `width`.

      p(t) = 1/s sum_v sum_i w_i N(t; theta_i, width^2)

  It integrates to 1 over the whole line; P times its integral over an interval counts the eigenvalues there.

  Raises:
    UserError: for a grid that is no vector, or a width that is not positive.
  """
  grid = jnp.asarray(grid)
  if not isinstance(width, jax.core.Tracer) and not np.all(np.asarray(width) > 0):
    raise UserError(f"the width of a density is {width}; give a positive number.")
  if grid.ndim != 1:
    raise UserError(f"the grid of a density is {list(grid.shape)}; give a vector of places.")
  distance = (grid[:, None, None] - quadrature.nodes[None]) / width
  bumps = jnp.exp(-0.5 * jnp.square(distance)) / (width * jnp.sqrt(2 * jnp.pi))
  return jnp.sum(bumps * quadrature.weights[None], axis=(1, 2)) / quadrature.nodes.shape[0]


def trace(
  matvec: Operator, like: Tree, key: Key[Array, ""], *, num_vectors: int = 16
) -> tuple[Float[Array, ""], Float[Array, ""]]:
  """Returns Hutchinson's estimate of tr A, the mean of v^T A v over vectors of random signs, and its standard error.

  The variance of one v^T A v is 2 sum_{i != j} A_ij^2. The standard error is NaN of one vector.

  Raises:
    UserError: for less than one vector.

  Reference: Hutchinson 1990, "A stochastic estimator of the trace of the influence matrix".
  """
  check_argument("num_vectors", num_vectors, Count)
  product, size, dtype, _ = flat(matvec, like)

  def one(key: Array) -> Array:
    vector = jax.random.rademacher(key, (size,), dtype)
    return linalg.matmul(vector, product(vector))

  values = jax.lax.map(one, jax.random.split(key, num_vectors))
  scale = linalg.size_of(values)
  values = values / scale
  spread = jnp.std(values, ddof=1) if num_vectors > 1 else jnp.nan
  return scale * jnp.mean(values), scale * spread / num_vectors**0.5
