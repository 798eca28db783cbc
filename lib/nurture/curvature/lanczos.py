"""The Lanczos decomposition of a symmetric operator on pytrees, with full reorthogonalization."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Float, Key

from nurture.core import UserError, linalg, rng
from nurture.core.hints import Count, check_argument
from nurture.curvature.hvp import Operator

Array = jax.Array
Tree = Any


class Lanczos(NamedTuple):
  """A Q = Q T + r e_m^T + F with T tridiagonal [m, m], Q orthonormal [P, m], and F what rounding left.

  Attributes:
    diagonal: [m] of T.
    off_diagonal: [m] of T, and |r| last.
    basis: [m, P], Q^T.
    rounding: [m], the lengths of the columns of F: all that a product held along earlier vectors and T does not. It is
      large where the operator is not symmetric.
  """

  diagonal: Array
  off_diagonal: Array
  basis: Array
  rounding: Array


def lanczos(matvec: Operator, like: Tree, key: Key[Array, ""], *, steps: int, start: Tree | None = None) -> Lanczos:
  """Returns the Lanczos decomposition from a random start, with full reorthogonalization.

  Each new vector is orthogonalized twice against all before it, at 8 m P operations a step beside the product, so that
  no eigenvalue shows up twice; memory m P numbers. Where the Krylov space ends, it goes on with a new random vector
  (and 0 in T), so that repeated eigenvalues are found as well. More steps than parameters are cut to P. Each product is
  divided by its size first, so that operators of any scale give the same digits.

  Args:
    matvec: symmetric operator.
    like: a tree of P numbers.
    key: of the start.
    steps: m, products with A.
    start: the first vector; None draws signs ±1.

  Raises:
    UserError: for less than one step, a tree without numbers, or a start of another size or of zeros.

  Reference: Golub and Van Loan, "Matrix computations", chapter 10; "twice is enough": Giraud et al. 2005.
  """
  check_argument("steps", steps, Count)
  product, size, dtype, _ = flat(matvec, like)
  steps, eps = min(steps, size), jnp.finfo(dtype).eps
  draw = lambda i: rng.counter_normal(jax.random.fold_in(key, i), size).astype(dtype)
  start = jax.random.rademacher(key, (size,), dtype) if start is None else ravel_pytree(start)[0].astype(dtype)
  if start.shape != (size,) or not isinstance(start, jax.core.Tracer) and not bool(jnp.any(start != 0)):
    raise UserError(f"the start has {start.size} numbers, all 0 or another count than the {size} parameters; give a "
                    "tree like them, or None.")

  def orthogonal(vector: Array, basis: Array) -> tuple[Array, Array]:
    """Returns the part of a vector that is orthogonal to the basis, and the coefficients of the rest."""
    first = linalg.matmul(basis, vector)
    vector = vector - linalg.matmul(first, basis)
    second = linalg.matmul(basis, vector)
    return vector - linalg.matmul(second, basis), first + second

  def step(carry, i):
    basis, vector, before, largest = carry
    basis = jax.lax.dynamic_update_index_in_dim(basis, vector, i, 0)
    image = product(vector)
    scale = linalg.size_of(image)
    rest, taken = orthogonal(image / scale, basis)
    diagonal, length = scale * taken[i], scale * linalg.norm(rest)
    largest = jnp.maximum(largest, jnp.maximum(jnp.abs(diagonal), length))
    ended = length <= 10 * eps * largest
    # In exact arithmetic the image has no part along the basis but these two.
    astray = scale * linalg.norm(taken.at[i].set(0.0).at[i - 1].add(-before / scale))
    following = jax.lax.cond(ended, lambda: orthogonal(draw(i), basis)[0], lambda: rest)
    after = jnp.where(ended, 0.0, length)
    return (basis, unit(following), after, largest), (diagonal, after, astray + length - after)

  zero = jnp.zeros((), dtype)
  carry = (jnp.zeros((steps, size), dtype), unit(start), zero, zero)
  (basis, *_), (diagonal, off_diagonal, rounding) = jax.lax.scan(step, carry, jnp.arange(steps))
  return Lanczos(diagonal, off_diagonal, basis, rounding)


def ritz(decomposition: Lanczos) -> tuple[Float[Array, " m"], Float[Array, "m m"]]:
  """Returns the eigenvalues [m] of T, ascending, and its eigenvectors [m, m] in columns.

  numpy arrays (`jax.device_get` makes them) are decomposed on the host in float64; arrays of JAX, as inside jit, in
  their own type. Of 30 steps on a random matrix of 400 rows in float32, float32 eigenvalues of T are within 2e-7 of its
  norm of the float64 ones, about what the products themselves are off by: a probe inside jit loses nothing by it.
  """
  diagonal, off_diagonal = decomposition.diagonal, decomposition.off_diagonal[..., :-1]
  if isinstance(diagonal, np.ndarray):
    bands = ((diagonal, 0), (off_diagonal, 1), (off_diagonal, -1))
    tridiagonal = sum(np.diag(np.asarray(band, np.float64), k) for band, k in bands)
    if not np.isfinite(tridiagonal).all():
      return np.full(len(diagonal), np.nan), np.full(tridiagonal.shape, np.nan)
    return tuple(np.linalg.eigh(tridiagonal))
  scale = linalg.size_of(diagonal, off_diagonal)  # LAPACK scales by itself; other solvers do not promise to
  diagonal, off_diagonal = diagonal / scale, off_diagonal / scale
  values, vectors = linalg.eigh(jnp.diag(diagonal) + jnp.diag(off_diagonal, 1) + jnp.diag(off_diagonal, -1))
  return scale * values, vectors


def flat(
  matvec: Operator, like: Tree
) -> tuple[Callable[[Float[Array, " P"]], Float[Array, " P"]], int, Any, Callable[[Float[Array, " P"]], Tree]]:
  """Returns the operator on vectors [P] of float32 (float64 stays), P, their type, and the way back to trees.

  Raises:
    UserError: for a tree without real numbers.
  """
  vector, unravel = ravel_pytree(like)
  if not vector.size or not jnp.issubdtype(vector.dtype, jnp.floating):
    raise UserError("the operator acts on a tree without real numbers; give the parameters of a network.")
  dtype, own = jnp.promote_types(vector.dtype, jnp.float32), vector.dtype
  back = lambda v: unravel(v.astype(own))
  return lambda v: ravel_pytree(matvec(back(v)))[0].astype(dtype), vector.size, dtype, back


def unit(vector: Float[Array, " P"]) -> Float[Array, " P"]:
  """Returns a vector at length 1; 0 stays 0."""
  length = linalg.norm(vector)
  return vector / jnp.where(length == 0, 1.0, length)
