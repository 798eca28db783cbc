"""Sigmoid attention in memory linear in the number of tokens: blocks of queries times blocks of keys, in jax.numpy.

The weights of a row are not normalized, so that sums over blocks are exact: nothing is rescaled, and nothing but the
arguments is kept for the backward pass. Blocks outside the band are skipped.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nurture.attention.call import Call, varying
from nurture.core.hints import Count, check_argument

_WEIGHTS = 2**26  # bytes of the weights of a block, if the sizes of blocks are not given
_LEAST, _MOST = 64, 512


@dataclasses.dataclass(frozen=True)
class Chunked:
  """The implementation "xla_chunked"; see `nurture.attention.flash.Kernel`.

  Takes 4 B N block_q block_k bytes for the weights of a block, and a few times that forward and backward, besides
  arguments and results.

  Attributes:
    block_q, block_k: numbers of queries and keys in a block; None takes the largest power of two from 64 to 512 whose
      weights fill at most 64 MiB.
  """

  block_q: int | None = None
  block_k: int | None = None

  def __post_init__(self):
    for name in ("block_q", "block_k"):
      meaning = "a whole number of at least 1, or None"
      check_argument(f"{name} of Chunked", getattr(self, name), Count | None, meaning)

  def refusal(self, call: Call) -> str:
    del call
    return ""

  def forward(self, call: Call) -> jax.Array:
    blocks = _Blocks(call, self)

    def row(i):
      query = blocks.query(i)
      total = varying(jnp.zeros((*query.shape[:-1], call.value.shape[-1]), call.accumulator), call)

      def add(j, total):
        return total + jnp.einsum("bkgts,bskh->btkgh", blocks.weights(query, i, j), blocks.value(j))

      return jax.lax.fori_loop(*blocks.range(i), add, total).astype(call.query.dtype)

    return blocks.joined(jax.lax.map(row, jnp.arange(blocks.rows, dtype=jnp.int32)))

  def backward(self, call: Call, cotangent: jax.Array) -> Call:
    blocks = _Blocks(call, self)
    cotangents = blocks.split(cotangent)

    def row(carry, i):
      query, given = blocks.query(i), cotangents[i].astype(call.accumulator)

      def add(j, carry):
        d_query, d_call = carry
        weights, key = blocks.weights(query, i, j), blocks.key(j)
        d_logits = weights * (1 - weights) * jnp.einsum("btkgh,bskh->bkgts", given, blocks.value(j))
        d_query = d_query + jnp.einsum("bkgts,bskh->btkgh", d_logits, key.astype(d_logits.dtype))
        d_call = d_call | {
          "key": blocks.added(d_call["key"], j, jnp.einsum("bkgts,btkgh->bskh", d_logits, query)),
          "value": blocks.added(d_call["value"], j, jnp.einsum("bkgts,btkgh->bskh", weights, given)),
        }
        return d_query, d_call | blocks.added_biases(d_call, d_logits, i, j)

      start = varying(jnp.zeros(query.shape, call.accumulator), call)
      d_query, carry = jax.lax.fori_loop(*blocks.range(i), add, (start, carry))
      return carry, d_query

    gradients, d_query = jax.lax.scan(row, blocks.zeros(), jnp.arange(blocks.rows, dtype=jnp.int32))
    scaled = {"query": call.scale * blocks.joined(d_query), "key": call.scale * gradients.pop("key")}
    return blocks.as_call(gradients | scaled)


class _Blocks:
  """A call cut into blocks; what the end of the sequence lacks is zeros, which add nothing to any result.

  Padded keys have values of 0, so their weights do not count; padded queries are cut off, and their cotangents are 0.
  """

  def __init__(self, call: Call, sizes: Chunked):
    self.call = call
    batch, heads, queries, keys = call.shape
    most = max(int(math.sqrt(_WEIGHTS / (4 * batch * heads))), 1)
    size = min(max(2 ** (most.bit_length() - 1), _LEAST), _MOST)
    self.q, self.k = min(sizes.block_q or size, queries), min(sizes.block_k or size, keys)
    self.rows, self.columns = -(-queries // self.q), -(-keys // self.k)
    self.queries = self.split(call.query)
    self.keys, self.values = (self._padded(x, 1, self.columns * self.k) for x in (call.key, call.value))
    self.ids = None if call.query_ids is None or call.key_ids is None else (
      self._padded(call.query_ids, 1, self.rows * self.q), self._padded(call.key_ids, 1, self.columns * self.k)
    )
    self.dense = {name: self._padded_dense(x) for name in ("bias", "mask") if (x := getattr(call, name)) is not None}

  @staticmethod
  def _padded(x: jax.Array, axis: int, size: int) -> jax.Array:
    return jnp.pad(x, [(0, size - n if a == axis else 0) for a, n in enumerate(x.shape)])

  def _padded_dense(self, x: jax.Array) -> jax.Array:
    for axis, size in ((2, self.rows * self.q), (3, self.columns * self.k)):
      x = x if x.shape[axis] == 1 else self._padded(x, axis, size)
    return x

  def split(self, x: jax.Array) -> jax.Array:
    """Returns [B, T, N, H] as [rows, B, q, K, G, H]."""
    batch, _, heads, features = x.shape
    x = self._padded(x, 1, self.rows * self.q)
    x = x.reshape(batch, self.rows, self.q, heads // self.call.group, self.call.group, features)
    return jnp.moveaxis(x, 1, 0)

  def joined(self, x: jax.Array) -> jax.Array:
    """Undoes `split`."""
    rows, batch, q, kv_heads, group, features = x.shape
    return jnp.moveaxis(x, 0, 1).reshape(batch, rows * q, kv_heads * group, features)[:, : self.call.shape[2]]

  def query(self, i: jax.Array) -> jax.Array:
    return self.queries[i].astype(self.call.accumulator)

  def key(self, j: jax.Array) -> jax.Array:
    return self._at(self.keys, j).astype(self.call.accumulator)

  def value(self, j: jax.Array) -> jax.Array:
    return self._at(self.values, j).astype(self.call.accumulator)

  def _at(self, x: jax.Array, j: jax.Array) -> jax.Array:
    return jax.lax.dynamic_slice_in_dim(x, j * self.k, self.k, 1)

  def range(self, i: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns (first, end) of the blocks of keys that block i of queries may see."""
    return self.call.band.blocks_of(i, self.q, self.k, self.call.shape[3])

  def weights(self, query: jax.Array, i: jax.Array, j: jax.Array) -> jax.Array:
    """Returns the weights [B, K, G, q, k] of a block."""
    call = self.call
    logits = call.scale * jnp.einsum("btkgh,bskh->bkgts", query, self.key(j))
    t, s = (i * self.q + jnp.arange(self.q))[:, None], (j * self.k + jnp.arange(self.k))[None]
    if call.head_bias is not None:
      logits = logits + self._by_head(call.head_bias)
    if "bias" in self.dense:
      logits = logits + self._dense("bias", i, j)
    if call.slopes is not None:
      logits = logits - self._by_head(call.slopes) * self._distance(i, j)[None, None, None]
    weights = jax.nn.sigmoid(logits)
    if not call.band.is_full:
      weights = jnp.where(call.band.sees(t, s)[None, None, None], weights, 0)
    if "mask" in self.dense:
      weights = jnp.where(self._dense("mask", i, j), weights, 0)
    if self.ids is not None:
      query_ids = jax.lax.dynamic_slice_in_dim(self.ids[0], i * self.q, self.q, 1)
      seen = query_ids[:, :, None] == self._at(self.ids[1], j)[:, None]
      weights = jnp.where(seen[:, None, None], weights, 0)
    return weights

  def _distance(self, i: jax.Array, j: jax.Array) -> jax.Array:
    t, s = i * self.q + jnp.arange(self.q), j * self.k + jnp.arange(self.k)
    return jnp.abs(t[:, None] + self.call.offset - s[None]).astype(self.call.accumulator)

  def _by_head(self, x: jax.Array) -> jax.Array:
    """Returns [1 or B, N] as [1 or B, K, G, 1, 1]."""
    return x.reshape(x.shape[0], -1, self.call.group, 1, 1)

  def _corner(self, x: jax.Array, i: jax.Array, j: jax.Array) -> tuple[tuple, tuple]:
    """Returns the start and size of a block of an array of four axes, some of them 1."""
    q, k = x.shape[2] > 1, x.shape[3] > 1
    zero = np.int32(0)
    return (zero, zero, i * self.q * q, j * self.k * k), (*x.shape[:2], self.q if q else 1, self.k if k else 1)

  def _dense(self, name: str, i: jax.Array, j: jax.Array) -> jax.Array:
    """Returns a block of the bias or mask as [1 or B, 1 or K, 1 or G, 1 or q, 1 or k]."""
    x = jax.lax.dynamic_slice(self.dense[name], *self._corner(self.dense[name], i, j))
    heads = (1, 1) if x.shape[1] == 1 else (-1, self.call.group)
    return x.reshape(x.shape[0], *heads, *x.shape[2:])

  def zeros(self) -> dict[str, jax.Array]:
    """Returns the gradients to begin with, of all but the query."""
    call, arrays = self.call, {"key": self.keys, "value": self.values}
    arrays |= {name: self.dense["bias"] if name == "bias" else getattr(call, name) for name in call.learned}
    return {name: varying(jnp.zeros(x.shape, call.accumulator), call) for name, x in arrays.items()}

  def added(self, total: jax.Array, j: jax.Array, block: jax.Array) -> jax.Array:
    """Returns a gradient of the keys or values with that of a block added."""
    return jax.lax.dynamic_update_slice_in_dim(total, self._at(total, j) + block, j * self.k, 1)

  def added_biases(self, totals: dict[str, jax.Array], d_logits: jax.Array, i, j) -> dict[str, jax.Array]:
    """Returns the gradients of biases and slopes with those of a block added; d_logits is [B, K, G, q, k]."""
    new = {}
    if "head_bias" in totals:
      new["head_bias"] = totals["head_bias"] + self._per_head(d_logits, totals["head_bias"])
    if "slopes" in totals:
      weighted = -d_logits * self._distance(i, j)[None, None, None]
      new["slopes"] = totals["slopes"] + self._per_head(weighted, totals["slopes"])
    if "bias" in totals:
      total = totals["bias"]
      start, size = self._corner(total, i, j)
      batch, kv_heads, group, q, k = d_logits.shape
      block = d_logits.reshape(batch, kv_heads * group, q, k)
      block = block.sum(axis=[a for a in range(4) if total.shape[a] == 1], keepdims=True)
      block = jax.lax.dynamic_slice(total, start, size) + block
      new["bias"] = jax.lax.dynamic_update_slice(total, block, start)
    return new

  @staticmethod
  def _per_head(x: jax.Array, like: jax.Array) -> jax.Array:
    """Returns [B, K, G, q, k] summed to [1 or B, N]."""
    total = x.sum(axis=(3, 4)).reshape(x.shape[0], -1)
    return total.sum(axis=0, keepdims=True) if like.shape[0] == 1 else total

  def as_call(self, gradients: dict[str, jax.Array]) -> Call:
    """Returns gradients as a call: of the shapes and dtypes of the arrays, None for what has no gradient."""
    call = self.call
    arrays: dict[str, Any] = dict.fromkeys(("mask", "query_ids", "key_ids"))
    for name in ("head_bias", "slopes", "bias"):  # those that are no constants are among the gradients
      arrays[name] = None if getattr(call, name) is None else jnp.zeros_like(getattr(call, name))
    for name, gradient in gradients.items():
      like = getattr(call, name)
      arrays[name] = gradient[tuple(slice(n) for n in like.shape)].astype(like.dtype)
    return dataclasses.replace(call, **arrays)
