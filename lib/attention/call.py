"""What an attention asks for, checked once and in the normal form that every implementation reads."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from lib.core import UserError

Bias = str | float | jax.Array | None

# Segment ids that no caller's meet: tokens beyond a sequence length see nothing and are seen by nothing.
_NO_QUERY, _NO_KEY = np.iinfo(np.int32).min, np.iinfo(np.int32).max


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
    learned: those of "head_bias" and "slopes" that may be asked for their gradients; the others are constants.
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


def make_call(
  query: jax.Array,
  key: jax.Array,
  value: jax.Array,
  bias: Bias,
  mask: jax.Array | None,
  *,
  scale: float | jax.Array | None,
  is_causal: bool,
  causal_offset: int | None,
  local_window_size: int | tuple[int, int] | None,
  query_seq_lengths: jax.Array | None,
  key_value_seq_lengths: jax.Array | None,
  q_segment_ids: jax.Array | None,
  kv_segment_ids: jax.Array | None,
  alibi_slopes: jax.Array | None,
  reference_length: int | None,
) -> Call:
  """Returns the normal form of the arguments of `sigmoid_attention` and `softmax_attention`.

  Raises:
    UserError: as said there.
  """
  _check_shapes(query, key, value)
  (batch, queries, heads, features), keys = query.shape, key.shape[1]
  shape = batch, heads, queries, keys
  dtype = jnp.promote_types(query.dtype, jnp.float32)
  if scale is None:
    scale = 1 / math.sqrt(features)
  elif not isinstance(scale, (int, float)):
    query, scale = (query * scale).astype(query.dtype), 1.0
  offset = keys - queries if causal_offset is None else causal_offset
  head_bias, dense, known = _bias(bias, shape, dtype, reference_length)
  if mask is not None:
    _check_broadcast("mask", mask, shape)
    if mask.dtype != bool:
      raise UserError(f"the mask of attention has dtype {mask.dtype}; give booleans, or add a bias instead.")
  learned = ("head_bias",) if head_bias is not None and known is None else ()
  slopes = None
  if alibi_slopes is not None:
    slopes = jnp.asarray(alibi_slopes, dtype)
    if slopes.shape != (heads,):
      raise UserError(f"alibi_slopes has shape {slopes.shape}, but there are {heads} heads; give one slope for each.")
    slopes = slopes[None]
    learned += ("slopes",) if isinstance(alibi_slopes, jax.Array) else ()
  if (q_segment_ids is None) != (kv_segment_ids is None):
    raise UserError("attention has segment ids of one side only; give q_segment_ids and kv_segment_ids.")
  query_ids = _ids("q", q_segment_ids, "query", query_seq_lengths, (batch, queries), _NO_QUERY)
  key_ids = _ids("kv", kv_segment_ids, "key_value", key_value_seq_lengths, (batch, keys), _NO_KEY)
  if query_ids is None and key_ids is not None:
    query_ids = jnp.zeros((batch, queries), jnp.int32)
  if key_ids is None and query_ids is not None:
    key_ids = jnp.zeros((batch, keys), jnp.int32)
  band = _band(is_causal, local_window_size, offset)
  return Call(query, key, value, head_bias, slopes, dense, None if mask is None else jnp.asarray(mask), query_ids,
              key_ids, float(scale), band, offset, known, learned)


def _bias(bias: Bias, shape, dtype, reference_length) -> tuple[jax.Array | None, jax.Array | None, float | None]:
  """Returns (bias of each head [1, N], dense bias of four axes, the one number that is known), each or None."""
  if isinstance(bias, str):
    if bias != "-log_n":
      raise UserError(f"the bias of attention is {bias!r}; give '-log_n', a number or an array.")
    length = shape[-1] if reference_length is None else reference_length
    if length < 1:
      raise UserError(f"the reference length of attention is {length}; '-log_n' needs a length of at least 1.")
    bias = -math.log(length)
  heads = shape[1]
  if bias is None or isinstance(bias, (int, float)):
    known = float(bias or 0)
    return (jnp.full((1, heads), known, dtype) if known else None), None, known
  bias = jnp.asarray(bias, dtype)
  if bias.ndim == 0:
    return jnp.broadcast_to(bias[None, None], (1, heads)), None, None
  if bias.shape == (heads,):
    return bias[None], None, None
  if bias.ndim == 1:
    raise UserError(f"the bias of attention has {bias.size} numbers for {heads} heads; give one for each.")
  _check_broadcast("bias", bias, shape)
  return None, bias, None


def _band(is_causal: bool, window: int | tuple[int, int] | None, offset: int) -> Band:
  low, high = -UNBOUNDED, 0 if is_causal else UNBOUNDED
  if window is not None:
    left, right = (window, window) if isinstance(window, int) else window
    if left < 0 or right < 0:
      raise UserError(f"local_window_size is {window}; give numbers of keys of at least 0.")
    low, high = -left, min(high, right)
  moved = lambda bound: bound if abs(bound) == UNBOUNDED else bound + offset
  return Band(moved(low), moved(high))


def _ids(side: str, ids, kind: str, lengths, shape: tuple[int, int], beyond: int) -> jax.Array | None:
  """Returns segment ids [B, L] in which the tokens from the sequence length on have an id of their own."""
  if ids is not None:
    ids = _of_shape(f"{side}_segment_ids", ids, shape).astype(jnp.int32)
  if lengths is None:
    return ids
  inside = np.arange(shape[1])[None] < _of_shape(f"{kind}_seq_lengths", lengths, shape[:1])[:, None]
  return jnp.where(inside, jnp.zeros(shape, jnp.int32) if ids is None else ids, beyond)


def _check_shapes(query: jax.Array, key: jax.Array, value: jax.Array) -> None:
  if not query.ndim == key.ndim == value.ndim == 4:
    raise UserError(f"attention has query {query.shape}, key {key.shape} and value {value.shape}; give four axes each, "
                    "[batch, length, heads, features].")
  if query.shape[0] != key.shape[0] or query.shape[3] != key.shape[3] or key.shape[:3] != value.shape[:3]:
    raise UserError(f"attention has query {query.shape}, key {key.shape} and value {value.shape}; batch and features "
                    "of query and key must agree, and batch, length and heads of key and value.")
  if query.shape[2] % key.shape[2]:
    raise UserError(f"attention has {query.shape[2]} query heads and {key.shape[2]} key heads; the first must be a "
                    "multiple of the second.")


def _check_broadcast(name: str, array: jax.Array, shape: tuple[int, ...]) -> None:
  if array.ndim != 4 or any(a not in (1, n) for a, n in zip(array.shape, shape)):
    raise UserError(f"the {name} of attention has shape {array.shape}, which does not broadcast to {shape}; give it "
                    "four axes, [batch, heads, queries, keys], each full or 1.")


def _of_shape(name: str, array: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  if jnp.shape(array) != shape:
    raise UserError(f"{name} of attention has shape {jnp.shape(array)}; it must be {shape}.")
  return jnp.asarray(array)
