"""Products in full precision, norms at any scale, and decompositions that take a batch one matrix after another.

XLA's CPU backend hands the matrices of a batched LAPACK call to the threads of a pool and waits for them, although the
call may itself run on a thread of that pool. When programs of two devices do so at the same time on two cores, both
wait for ever. A batch also gives every one of those threads as many threads of OpenBLAS, which on hosts of many cores
corrupts memory (https://github.com/jax-ml/jax/issues/39292). A single matrix is decomposed on the thread that asks.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

Array = jax.Array

_eigh = jax.custom_batching.sequential_vmap(lambda m: tuple(jnp.linalg.eigh(m)))
_eigvalsh = jax.custom_batching.sequential_vmap(lambda m: jnp.linalg.eigvalsh(m))


def matmul(a: Array, b: Array) -> Array:
  """Returns the matrix product in full precision, where an accelerator would otherwise round its inputs."""
  return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def power_of_two(x: Array) -> Array:
  """Returns the largest power of two not above |x|, entry by entry; 1 for 0 and for what is not finite.

  Dividing by it is exact. What was of size x is then between 1 and 2 (4 for the largest numbers of the type), and its
  square neither over- nor underflows. The power is a constant to the gradient.

  Args:
    x: of any shape, float32 or float64.
  """
  x = jax.lax.stop_gradient(jnp.abs(x))
  kind, digits = (jnp.int64, 52) if x.dtype == jnp.float64 else (jnp.int32, 23)
  exponent = jax.lax.bitcast_convert_type(x, kind) & (-1 << digits)
  power = jax.lax.bitcast_convert_type(exponent, x.dtype)
  # XLA divides by multiplying with the reciprocal, and that of the largest power of a type underflows to 0.
  power = jnp.minimum(power, 1 / jnp.finfo(x.dtype).tiny)
  return jnp.where((power > 0) & jnp.isfinite(x), power, 1.0)


def size_of(*arrays: Array) -> Array:
  """Returns the `power_of_two` of the largest magnitude in all of the arrays, [] float32 or float64."""
  largest = [jnp.max(jnp.abs(x.astype(jnp.promote_types(x.dtype, jnp.float32))), initial=0.0) for x in arrays]
  return power_of_two(functools.reduce(jnp.maximum, largest, jnp.float32(0.0)))


def norm(x: Array, axis: int | None = None) -> Array:
  """Returns the l2 norm over all entries, or along an axis; float32 at least.

  The largest entry is divided out before the squares are taken: the norm is right at every scale, infinite only where
  it is itself too large for its type, and NaN where an entry is.
  """
  # optax.safe_norm has a safe gradient at 0, but its squares over- and underflow.
  x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  scale = power_of_two(jnp.max(jnp.abs(x), axis=axis, keepdims=True, initial=0.0))
  roots = jnp.sqrt(jnp.sum(jnp.square(x / scale), axis=axis, keepdims=True)) * scale
  return jnp.squeeze(roots, axis)


@jax.custom_jvp
def eigh(m: Array) -> tuple[Array, Array]:
  """Returns the eigenvalues [n], ascending, and eigenvectors, columns of [n, n], of a symmetric matrix [n, n].

  Differentiable where eigenvalues are distinct; eigenvectors of one eigenvalue do not turn into each other.
  """
  return _eigh(m)


@eigh.defjvp
def _eigh_jvp(primals, tangents):
  values, vectors = eigh(*primals)
  change = matmul(matmul(vectors.T, (tangents[0] + tangents[0].T) / 2), vectors)
  gaps = values[None, :] - values[:, None]
  rotation = jnp.where(gaps == 0, 0.0, change / jnp.where(gaps == 0, 1.0, gaps))
  return (values, vectors), (jnp.diagonal(change), matmul(vectors, rotation))


@jax.custom_jvp
def eigvalsh(m: Array) -> Array:
  """Returns the eigenvalues [n], ascending, of a symmetric matrix [n, n]."""
  return _eigvalsh(m)


@eigvalsh.defjvp
def _eigvalsh_jvp(primals, tangents):
  values, vectors = eigh(*primals)
  return values, jnp.sum(vectors * matmul(tangents[0], vectors), axis=0)


@jax.custom_batching.sequential_vmap
def svd(m: Array) -> tuple[Array, Array, Array]:
  """Returns U [n, r], s [r], descending, and V^T [r, d] of a matrix [n, d], r = min(n, d); not differentiable."""
  u, s, vh = jnp.linalg.svd(m, full_matrices=False)
  return u, s, vh


@jax.custom_batching.sequential_vmap
def qr(m: Array) -> tuple[Array, Array]:
  """Returns Q [n, r] and R [r, d] of a matrix [n, d], r = min(n, d); not differentiable."""
  q, r = jnp.linalg.qr(m)
  return q, r
