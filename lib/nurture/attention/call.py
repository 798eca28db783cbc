"""The normal form of a call of attention, which every implementation reads."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

UNBOUNDED = 2**30  # further than any key


@dataclasses.dataclass(frozen=True)
class Band:
  """The keys that a query sees by its place: query t sees key s if low <= s - t <= high.

  A causal mask, a window and their offset are all one band.
  """

  low: int = -UNBOUNDED
  high: int = UNBOUNDED

  @property
  def is_full(self) -> bool:
    return self == Band()

  def sees(self, t, s):
    """Returns where the queries at t see the keys at s; integers or arrays that broadcast."""
    return (s - t >= self.low) & (s - t <= self.high)

  def blocks_of(self, i, size: int, block: int, keys: int):
    """Returns (first, end) of the blocks of keys, `block` each, that any query of block i, `size` each, may see.

    i may be traced, and so are the results then; where no key is seen, end <= first.
    """
    first = _clip(i * size + self.low, keys)
    end = _clip(i * size + size + self.high, keys)
    if isinstance(i, int):
      return first // block, -(-end // block)
    return jax.lax.div(first, np.int32(block)), jax.lax.div(end + (block - 1), np.int32(block))

  def inner_blocks_of(self, start, size: int, block: int):
    """Returns (first, end) of the blocks of keys that all of the queries start .. start + size - 1 see; unclipped."""
    first = jax.lax.max(start + (size - 1 + self.low), np.int32(0)) + np.int32(block - 1)
    end = jax.lax.max(start + (1 + self.high), np.int32(0))
    return jax.lax.div(first, np.int32(block)), jax.lax.div(end, np.int32(block))

  @property
  def transposed(self) -> Band:
    """The band in which queries and keys have changed places."""
    return Band(-self.high, -self.low)


def _clip(x, high: int):
  if isinstance(x, int):
    return min(max(x, 0), high)
  return jax.lax.max(jax.lax.min(x, np.int32(high)), np.int32(0))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Call:
  """One call of attention, in normal form.

      logit of query t, key s and head n  =  scale q_t . k_s + head_bias_n + bias - slopes_n |t + offset - s|

  Attributes:
    query: [B, T, N, H].
    key, value: [B, S, K, H] and [B, S, K, Hv]; N is a multiple of K.
    head_bias: [1 or B, N] float, or None for 0.
    slopes: [1 or B, N] float, or None for 0.
    bias: of four axes that broadcast to [B, N, T, S], or None for 0.
    mask: bool, of four axes that broadcast to [B, N, T, S], or None; True where a query sees a key.
    query_ids, key_ids: [B, T] and [B, S] int32, or both None; a query sees the keys of its own id.
    scale: of the logits.
    band: a query sees the keys in it.
    offset: place of query 0 among the keys.
    known_bias: the bias where it is one number that is known before the program runs, else None.
    learned: those of "head_bias", "slopes" and "bias" that may be asked for their gradients; the others are constants.
  """

  query: jax.Array
  key: jax.Array
  value: jax.Array
  head_bias: jax.Array | None
  slopes: jax.Array | None
  bias: jax.Array | None
  mask: jax.Array | None
  query_ids: jax.Array | None
  key_ids: jax.Array | None
  scale: float = dataclasses.field(metadata={"static": True})
  band: Band = dataclasses.field(metadata={"static": True})
  offset: int = dataclasses.field(metadata={"static": True})
  known_bias: float | None = dataclasses.field(metadata={"static": True})
  learned: tuple[str, ...] = dataclasses.field(metadata={"static": True})

  @property
  def shape(self) -> tuple[int, int, int, int]:
    """[B, N, T, S], of the logits."""
    batch, queries, heads, _ = self.query.shape
    return batch, heads, queries, self.key.shape[1]

  @property
  def group(self) -> int:
    """How many query heads read one key head."""
    return self.query.shape[2] // self.key.shape[2]

  @property
  def accumulator(self) -> jnp.dtype:
    """float32, or float64 for float64."""
    return jnp.promote_types(self.query.dtype, jnp.float32)


ARRAYS = tuple(field.name for field in dataclasses.fields(Call) if not field.metadata.get("static"))


def varying(x: jax.Array, call: Call) -> jax.Array:
  """Returns x, inside a jax.shard_map as an array that differs between the devices if one of the call's does.

  The start of a loop and the gradients of a call need to be of the type of what they become.
  """
  if not jax.sharding.get_abstract_mesh().manual_axes:
    return x
  zeros = [(leaf[(0,) * leaf.ndim] == 0).astype(jnp.int32) * 0 for leaf in jax.tree.leaves(call)]
  return x + sum(zeros).astype(x.dtype)
