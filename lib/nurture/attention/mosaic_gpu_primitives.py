"""The operations of Mosaic GPU that its interpreter lacks or that JAX 0.10 to 0.12 name differently, in two editions.

`Hardware` is what runs on a GPU. `Simulated` replaces products by wgmma, whose left operands the interpreter wants in
shared memory, and register layouts, which it does not know; copies, barriers and warpgroups are simulated as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

TRANSFORMS = (plgpu.TilingTransform((8, 64)), plgpu.SwizzleTransform(128))  # of tiles in shared memory, for wgmma


class Hardware:
  """On a GPU: products by wgmma into accumulators that are references to registers."""

  @staticmethod
  def scores(pairs: Sequence[tuple[Any, Any]]) -> list[jax.Array]:
    """Returns A B^T in float32 of pairs of tiles in shared memory."""

    def products(*accumulators):
      for accumulator, (a, b) in zip(accumulators, pairs):
        plgpu.wgmma(accumulator, a, _transposed(b))
      return [accumulator[...] for accumulator in accumulators]

    return pl.run_scoped(products, *(plgpu.ACC((a.shape[0], b.shape[0]), jnp.float32) for a, b in pairs))

  @staticmethod
  def accumulated(loop: Callable[[list, Any], Any], shapes: Sequence[tuple[int, int]], carry: Any) -> tuple[list, Any]:
    """Returns (accumulators that begin with 0, carry) after `loop(accumulators, carry) -> (accumulators, carry)`."""

    def scoped(*accumulators):
      _, after = loop(list(accumulators), carry)
      return [accumulator[...] for accumulator in accumulators], after

    return pl.run_scoped(scoped, *(plgpu.ACC(shape, jnp.float32) for shape in shapes))

  @staticmethod
  def repeat(first, end, step: Callable, accumulators: list, carry: Any) -> tuple[list, Any]:
    """Runs step(i, accumulators, carry) -> (accumulators, carry) for first <= i < end."""
    return accumulators, jax.lax.fori_loop(first, end, lambda i, carry: step(i, accumulators, carry)[1], carry)

  @staticmethod
  def add_products(accumulators: list, pairs: Sequence[tuple[jax.Array, Any]]) -> list:
    """Adds A B to each accumulator, A in registers and B a tile in shared memory, and waits."""
    for accumulator, (a, b) in zip(accumulators, pairs):
      plgpu.wgmma(accumulator, a.astype(b.dtype), b)
    plgpu.wgmma_wait(0)
    return accumulators

  @staticmethod
  def overlapped(accumulator, scored, added, before, between, after) -> tuple[jax.Array, Any]:
    """Issues A B^T of `scored` and a second product that is added to the accumulator; waits for the first alone.

    before, between and after are called before the first product, between the two, and when both are issued. Returns
    (the first product, accumulator).
    """

    def products(scores):
      before()
      plgpu.wgmma(scores, scored[0], _transposed(scored[1]))
      if added is not None:
        between()
        plgpu.wgmma(accumulator, *added)
      after()
      return plgpu.wgmma_accumulator_load(scores, wait_n=0 if added is None else 1)

    return pl.run_scoped(products, plgpu.ACC((scored[0].shape[0], scored[1].shape[0]), jnp.float32)), accumulator

  @staticmethod
  def wait() -> None:
    """Waits for all products."""
    plgpu.wgmma_wait(0)

  @staticmethod
  def kept_in_place(x: jax.Array) -> jax.Array:
    """Returns x, which is not computed together with what is made of it."""
    return jax.lax.optimization_barrier(x)

  @staticmethod
  def tile_zeros(shape: tuple[int, int]) -> jax.Array:
    return plgpu.layout_cast(jnp.zeros(shape, jnp.float32), plgpu.Layout.WGMMA)

  @staticmethod
  def iota(shape: tuple[int, int], axis: int) -> jax.Array:
    return plgpu.broadcasted_iota(jnp.int32, shape, axis, layout=plgpu.Layout.WGMMA)

  @staticmethod
  def zeros(rows: int) -> jax.Array:
    """Returns a number for each row of a tile."""
    return plgpu.layout_cast(jnp.zeros((rows,), jnp.float32), plgpu.Layout.WGMMA.reduce(1))

  @staticmethod
  def along(ref: Any, axis: int, shape: tuple[int, int]) -> jax.Array:
    """Returns a vector in memory, one number for each row (axis 0) or column of a tile, as a tile."""
    layout = plgpu.Layout.WGMMA.reduce(1 - axis)
    vector = plgpu.load(ref, *(() if _IS_NEW else ((),)), layout=layout, optimized=False)
    return jax.lax.broadcast_in_dim(vector, shape, (axis,))


class Simulated:
  """In the interpreter: the same with values for registers."""

  @staticmethod
  def scores(pairs):
    return [_dot(a[...], b[...], 1) for a, b in pairs]

  @staticmethod
  def accumulated(loop, shapes, carry):
    return loop([jnp.zeros(shape, jnp.float32) for shape in shapes], carry)

  @staticmethod
  def repeat(first, end, step, accumulators, carry):
    return jax.lax.fori_loop(first, end, lambda i, both: step(i, *both), (accumulators, carry))

  @staticmethod
  def add_products(accumulators, pairs):
    totals = [total + _dot(a.astype(b.dtype), b[...], 0) for total, (a, b) in zip(accumulators, pairs)]
    # wgmma reads tiles through the proxy by which TMA writes them, these reads go through the other one: without a
    # fence between the two the next copy into the slot would be a race.
    plgpu.commit_smem()
    return totals

  @staticmethod
  def overlapped(accumulator, scored, added, before, between, after):
    before()
    scores = _dot(scored[0][...], scored[1][...], 1)
    if added is not None:
      between()
      accumulator = accumulator + _dot(added[0], added[1][...], 0)
    plgpu.commit_smem()
    after()
    return scores, accumulator

  @staticmethod
  def wait():
    pass

  @staticmethod
  def kept_in_place(x):
    return x

  @staticmethod
  def tile_zeros(shape):
    return jnp.zeros(shape, jnp.float32)

  @staticmethod
  def iota(shape, axis):
    return jax.lax.broadcasted_iota(jnp.int32, shape, axis)

  @staticmethod
  def zeros(rows):
    return jnp.zeros((rows,), jnp.float32)

  @staticmethod
  def along(ref, axis, shape):
    return jax.lax.broadcast_in_dim(ref[...], shape, (axis,))


_IS_NEW = hasattr(plgpu, "InterpretGPUParams")


def _transposed(ref: Any) -> Any:
  return ref.transpose((1, 0)) if _IS_NEW else plgpu.transpose_ref(ref, (1, 0))


def _dot(a: jax.Array, b: jax.Array, axis: int) -> jax.Array:
  return jax.lax.dot_general(a, b, (((1,), (axis,)), ((), ())), preferred_element_type=jnp.float32)
