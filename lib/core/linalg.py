"""Matrix decompositions that take a batch one matrix after another.

XLA's CPU backend hands the matrices of a batched LAPACK call to the threads of a pool and waits for them, although the
call may itself run on a thread of that pool: when programs of two devices do so at the same time on two cores, both
wait for ever. A batch also gives every one of those threads as many threads of OpenBLAS, which on hosts of many cores
corrupts memory (https://github.com/jax-ml/jax/issues/39292). A single matrix is decomposed on the thread that asks.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

Array = jax.Array

_eigh = jax.custom_batching.sequential_vmap(lambda m: tuple(jnp.linalg.eigh(m)))
_eigvalsh = jax.custom_batching.sequential_vmap(lambda m: jnp.linalg.eigvalsh(m))


@jax.custom_jvp
def eigh(m: Array) -> tuple[Array, Array]:
  """Returns the eigenvalues [n], ascending, and eigenvectors, columns of [n, n], of a symmetric matrix [n, n].

  Differentiable where eigenvalues are distinct; eigenvectors of one eigenvalue do not turn into each other.
  """
  return _eigh(m)


@eigh.defjvp
def _eigh_jvp(primals, tangents):
  values, vectors = eigh(*primals)
  change = _product(_product(vectors.T, (tangents[0] + tangents[0].T) / 2), vectors)
  gaps = values[None, :] - values[:, None]
  rotation = jnp.where(gaps == 0, 0.0, change / jnp.where(gaps == 0, 1.0, gaps))
  return (values, vectors), (jnp.diagonal(change), _product(vectors, rotation))


@jax.custom_jvp
def eigvalsh(m: Array) -> Array:
  """Returns the eigenvalues [n], ascending, of a symmetric matrix [n, n]."""
  return _eigvalsh(m)


@eigvalsh.defjvp
def _eigvalsh_jvp(primals, tangents):
  values, vectors = eigh(*primals)
  return values, jnp.sum(vectors * _product(tangents[0], vectors), axis=0)


@jax.custom_batching.sequential_vmap
def svd(m: Array) -> tuple[Array, Array, Array]:
  """Returns U [n, r], s [r], descending, and V^T [r, d] of a matrix [n, d], r = min(n, d); not differentiable."""
  return tuple(jnp.linalg.svd(m, full_matrices=False))


@jax.custom_batching.sequential_vmap
def qr(m: Array) -> tuple[Array, Array]:
  """Returns Q [n, r] and R [r, d] of a matrix [n, d], r = min(n, d); not differentiable."""
  return tuple(jnp.linalg.qr(m))


def _product(a: Array, b: Array) -> Array:
  return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
