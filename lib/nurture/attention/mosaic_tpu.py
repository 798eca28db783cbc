"""FlashSigmoid on TPUs, in Pallas: one kernel forward, two backward, for queries and for keys and values.

Blocks of keys outside the band are neither computed nor fetched. The grid's last axis runs over what is summed up, in a
float32 accumulator that stays in VMEM.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from nurture.attention.call import Call
from nurture.core import UserError

LANES, SUBLANES = 128, 8
KINDS = {"cotangent": "out", "head_bias": "sums", "slopes": "sums"}  # of results; others are known by their own names
_DTYPES = (jnp.float32, jnp.bfloat16)


@dataclasses.dataclass(frozen=True)
class MosaicTPU:
  """The implementation "mosaic_tpu"; see `nurture.attention.flash.Kernel`.

  Attributes:
    block_q, block_k: numbers of queries and keys in a block, multiples of 128; fewer where there are fewer.
    interpret: runs on any platform, for tests: True, or a `pltpu.InterpretParams`.
  """

  block_q: int = 512
  block_k: int = 512
  interpret: bool | pltpu.InterpretParams = False

  def __post_init__(self):
    for name in ("block_q", "block_k"):
      size = getattr(self, name)
      if not isinstance(size, int) or size < 1 or size % LANES:
        raise UserError(f"MosaicTPU has {name}={size!r}; give a multiple of {LANES}.")

  def refusal(self, call: Call) -> str:
    dtypes = {x.dtype for x in (call.query, call.key, call.value)}
    if len(dtypes) > 1 or not dtypes <= {jnp.dtype(d) for d in _DTYPES}:
      return f"takes query, key and value all in float32 or all in bfloat16, not in {', '.join(map(str, dtypes))}"
    if call.bias is not None or call.mask is not None:
      return "takes no mask, and a bias only as one number or one for each head; use implementation='xla_chunked'"
    return ""

  def forward(self, call: Call) -> jax.Array:
    return _Blocks(call, self).forward()

  def backward(self, call: Call, cotangent: jax.Array) -> Call:
    return _Blocks(call, self).backward(cotangent)


class _Blocks:
  """A call cut into blocks; what the end of the sequence lacks is zeros, which add nothing to any result.

  Inside, arrays are [B, heads, tokens, features], and kernels know their operands by name.
  """

  def __init__(self, call: Call, settings: MosaicTPU):
    self.call, self.settings = call, settings
    self.batch, self.heads, queries, keys = call.shape
    self.q, self.k = (_block(size, n) for size, n in ((settings.block_q, queries), (settings.block_k, keys)))
    self.rows, self.columns = -(-queries // self.q), -(-keys // self.k)
    self.queries, self.keys = self.rows * self.q, self.columns * self.k
    self.operands = {
      "query": self._laid_out(call.query, self.queries), "key": self._laid_out(call.key, self.keys),
      "value": self._laid_out(call.value, self.keys),
    }
    for name in ("head_bias", "slopes"):
      if (x := getattr(call, name)) is not None:
        self.operands[name] = x.astype(jnp.float32)
    if call.query_ids is not None and call.key_ids is not None:
      # Every lane or sublane holds a copy, as the comparison of a block wants them.
      query_ids, key_ids = _padded(call.query_ids, 1, self.queries), _padded(call.key_ids, 1, self.keys)
      self.operands["query_ids"] = jnp.broadcast_to(query_ids[:, :, None], (*query_ids.shape, LANES))
      self.operands["key_ids"] = jnp.broadcast_to(key_ids[:, None], (self.batch, SUBLANES, self.keys))

  def _laid_out(self, x: jax.Array, length: int) -> jax.Array:
    return _padded(x.transpose(0, 2, 1, 3), 2, length)

  def _as_given(self, x: jax.Array, like: jax.Array) -> jax.Array:
    return x.transpose(0, 2, 1, 3)[:, : like.shape[1]].astype(like.dtype)

  # The two orders of the grid: (batch, head, row, column) and (batch, key head, column, query head of it and row).

  def by_rows(self, b, n, i, j):
    """Returns (batch, query head, row, column, whether the band meets the block) at a place of the grid."""
    first, end = self.call.band.blocks_of(i, self.q, self.k, self.call.shape[3])
    return b, n, i, _nearest(j, first, end, self.columns), (first <= j) & (j < end)

  def by_columns(self, b, kv, j, step):
    g, i = jax.lax.div(step, np.int32(self.rows)), jax.lax.rem(step, np.int32(self.rows))
    first, end = self.call.band.transposed.blocks_of(j, self.k, self.q, self.call.shape[2])
    return b, kv * self.call.group + g, _nearest(i, first, end, self.rows), j, (first <= i) & (i < end)

  def spec(self, name: str, place) -> pl.BlockSpec:
    """Returns the block of an operand or result, known by its name, at a place of the grid."""
    features, values, group = self.call.query.shape[3], self.call.value.shape[3], np.int32(self.call.group)
    row, column = lambda b, n, i, j: (b, n, i, 0), lambda b, n, i, j: (b, jax.lax.div(n, group), j, 0)
    shape, index = {
      "query": ((1, 1, self.q, features), row),
      "out": ((1, 1, self.q, values), row),
      "key": ((1, 1, self.k, features), column),
      "value": ((1, 1, self.k, values), column),
      "query_ids": ((1, self.q, LANES), lambda b, n, i, j: (b, i, 0)),
      "key_ids": ((1, SUBLANES, self.k), lambda b, n, i, j: (b, 0, j)),
      "sums": ((1, 1, 1, SUBLANES, LANES), lambda b, n, i, j: (b, n, i, 0, 0)),
    }[KINDS.get(name, name)]
    return pl.BlockSpec(shape, lambda *at: index(*place(*at)[:4]))

  def run(self, body, operands: dict[str, jax.Array], outputs: dict[str, jax.ShapeDtypeStruct], place, grid):
    """Runs a kernel over a grid whose last axis sums up.

    body(refs, block): adds a block to the accumulators. Accumulators and outputs have the same names.
    """
    names = list(operands)
    specs = {name: self.spec(name, place) for name in outputs}
    scratch = [pltpu.VMEM(spec.block_shape[-2:], jnp.float32) for spec in specs.values()]  # type: ignore[index, arg-type]
    in_specs = [
      pl.BlockSpec(memory_space=pltpu.SMEM) if name in ("head_bias", "slopes") else self.spec(name, place)
      for name in names
    ]

    def kernel(*refs):
      given = dict(zip(names, refs))
      results = dict(zip(outputs, refs[len(names):]))
      totals = dict(zip(outputs, refs[len(names) + len(outputs):]))
      at = [pl.program_id(axis) for axis in range(4)]
      *block, meets = place(*at)

      @pl.when(at[3] == 0)
      def _():
        for total in totals.values():
          total[...] = jnp.zeros(total.shape, total.dtype)

      @pl.when(meets)
      def _():
        body(given, totals, *block)

      @pl.when(at[3] == grid[3] - 1)
      def _():
        for name, result in results.items():
          result[...] = totals[name][...].reshape(result.shape).astype(result.dtype)

    return dict(zip(outputs, pl.pallas_call(
      kernel,
      grid=grid,
      in_specs=in_specs,
      out_specs=list(specs.values()),
      out_shape=list(outputs.values()),
      scratch_shapes=scratch,
      compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel", "parallel", "arbitrary")),
      interpret=self.settings.interpret,
    )(*operands.values())))

  def weights(self, refs, b, n, i, j) -> tuple[jax.Array, jax.Array]:
    """Returns the weights of a block [q, k] in float32, and the distances that slopes multiply."""
    call = self.call
    logits = call.scale * _product(refs["query"][0, 0], refs["key"][0, 0], (1, 1))
    t = i * self.q + jax.lax.broadcasted_iota(jnp.int32, logits.shape, 0)
    s = j * self.k + jax.lax.broadcasted_iota(jnp.int32, logits.shape, 1)
    distance = jnp.abs(t + call.offset - s).astype(jnp.float32)
    if call.head_bias is not None:
      logits += refs["head_bias"][b if call.head_bias.shape[0] > 1 else 0, n]
    if call.slopes is not None:
      logits -= refs["slopes"][b if call.slopes.shape[0] > 1 else 0, n] * distance
    weights = jax.nn.sigmoid(logits)
    if not call.band.is_full:
      weights = jnp.where(call.band.sees(t, s), weights, 0.0)
    if call.query_ids is not None:
      query_ids = jnp.tile(refs["query_ids"][0], (1, self.k // LANES))
      weights = jnp.where(query_ids == refs["key_ids"][0, :1], weights, 0.0)
    return weights, distance

  def forward(self) -> jax.Array:
    call = self.call

    def body(refs, totals, *block):
      weights, _ = self.weights(refs, *block)
      value = refs["value"][0, 0]
      totals["out"][...] += _product(weights.astype(value.dtype), value, (1, 0))

    out = {"out": jax.ShapeDtypeStruct((self.batch, self.heads, self.queries, call.value.shape[3]), call.query.dtype)}
    grid = (self.batch, self.heads, self.rows, self.columns)
    return self._as_given(self.run(body, self.operands, out, self.by_rows, grid)["out"], call.query)

  def d_logits(self, refs, *block) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns the gradient by the logits of a block [q, k], the weights, and the distances."""
    weights, distance = self.weights(refs, *block)
    d_weights = _product(refs["cotangent"][0, 0], refs["value"][0, 0], (1, 1))
    return weights * (1 - weights) * d_weights, weights, distance

  def backward(self, cotangent: jax.Array) -> Call:
    call = self.call
    operands = self.operands | {"cotangent": self._laid_out(cotangent.astype(call.query.dtype), self.queries)}
    like = lambda name: jax.ShapeDtypeStruct(self.operands[name].shape, self.operands[name].dtype)

    def row(refs, totals, *block):
      d_logits, _, distance = self.d_logits(refs, *block)
      key = refs["key"][0, 0]
      totals["query"][...] += call.scale * _product(d_logits.astype(key.dtype), key, (1, 0))
      if "head_bias" in totals:
        totals["head_bias"][...] += jnp.full((SUBLANES, LANES), jnp.sum(d_logits))
      if "slopes" in totals:
        totals["slopes"][...] -= jnp.full((SUBLANES, LANES), jnp.sum(d_logits * distance))

    def column(refs, totals, *block):
      d_logits, weights, _ = self.d_logits(refs, *block)
      query, given = refs["query"][0, 0], refs["cotangent"][0, 0]
      totals["key"][...] += call.scale * _product(d_logits.astype(query.dtype), query, (0, 0))
      totals["value"][...] += _product(weights.astype(given.dtype), given, (0, 0))

    sums = jax.ShapeDtypeStruct((self.batch, self.heads, self.rows, SUBLANES, LANES), jnp.float32)
    by_row = {"query": like("query")} | {name: sums for name in call.learned}
    gradients = self.run(row, operands, by_row, self.by_rows, (self.batch, self.heads, self.rows, self.columns))
    grid = (self.batch, self.heads // call.group, self.columns, self.rows * call.group)
    gradients |= self.run(column, operands, {name: like(name) for name in ("key", "value")}, self.by_columns, grid)
    new: dict[str, Any] = dict.fromkeys(("query_ids", "key_ids"))
    new |= {name: self._as_given(gradients[name], getattr(call, name)) for name in ("query", "key", "value")}
    for name in ("head_bias", "slopes"):
      array = getattr(call, name)
      if name in call.learned:
        total = gradients[name][..., 0, 0].sum(axis=2)
        new[name] = (total if array.shape[0] > 1 else total.sum(axis=0, keepdims=True)).astype(array.dtype)
      elif array is not None:
        new[name] = jnp.zeros_like(array)
    return dataclasses.replace(call, **new)


def _nearest(i: jax.Array, first: jax.Array, end: jax.Array, blocks: int) -> jax.Array:
  """Returns the block of first .. end - 1 that is nearest to i, one that is fetched anyway; some block if none is."""
  return jnp.clip(jnp.clip(i, first, jnp.maximum(end - 1, first)), 0, blocks - 1)


def _product(a: jax.Array, b: jax.Array, axes: tuple[int, int]) -> jax.Array:
  """Returns the product of two matrices over an axis of each, in float32."""
  precision = jax.lax.Precision.HIGHEST if a.dtype == jnp.float32 else jax.lax.Precision.DEFAULT
  contract = ((axes[0],), (axes[1],)), ((), ())
  return jax.lax.dot_general(a, b, contract, precision=precision, preferred_element_type=jnp.float32)


def _block(size: int, length: int) -> int:
  """Returns the size of the blocks of a sequence: a multiple of 128, no larger than needed."""
  return min(size, -(-length // LANES) * LANES)


def _padded(x: jax.Array, axis: int, length: int) -> jax.Array:
  return jnp.pad(x, [(0, length - n if a == axis else 0) for a, n in enumerate(x.shape)])
