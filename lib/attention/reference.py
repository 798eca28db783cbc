"""Sigmoid and softmax attention in plain jax.numpy: the specification that a faster implementation is tested against.

Differentiable any number of times, forward and reverse; memory O(T S).
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from lib.core import UserError

Bias = str | float | jax.Array | None


def sigmoid_attention(
  query: jax.Array,
  key: jax.Array,
  value: jax.Array,
  bias: Bias = "-log_n",
  mask: jax.Array | None = None,
  *,
  scale: float | None = None,
  is_causal: bool = False,
  causal_offset: int | None = None,
  local_window_size: int | tuple[int, int] | None = None,
  query_seq_lengths: jax.Array | None = None,
  key_value_seq_lengths: jax.Array | None = None,
  q_segment_ids: jax.Array | None = None,
  kv_segment_ids: jax.Array | None = None,
  alibi_slopes: jax.Array | None = None,
  reference_length: int | None = None,
  return_row_sum: bool = False,
) -> jax.Array | tuple[jax.Array, jax.Array]:
  """Weighs each value by the sigmoid of its logit; the weights of a query are not normalized.

      O = sigmoid(scale Q K^T + b) V,    b = -log n

  With b = -log n a weight is about exp(logit) / n, so that a row sums to about 1 as under softmax. n is a constant of
  the run, the training or maximum length, for every row alike; it is not the number of keys that a row sees.

  Args:
    query: [B, T, N, H]: batch, queries, heads, features.
    key: [B, S, K, H] with N divisible by K; query head n reads key head n // (N / K).
    value: [B, S, K, Hv].
    bias: b, added to the scaled logits: "-log_n", a number (None is 0), [N] for each head, or an array of four axes
      that broadcasts to [B, N, T, S].
    mask: bool, of four axes that broadcast to [B, N, T, S]; True where a query sees a key.
    scale: of the logits; None is 1 / sqrt(H).
    is_causal: query t sees the keys up to t + causal_offset.
    causal_offset: place of the first query among the keys, for the causal mask, the window and ALiBi; None is S - T,
      where the last query meets the last key.
    local_window_size: (left, right), how many keys a query sees before and after its own place; a number is both.
    query_seq_lengths, key_value_seq_lengths: [B] int; tokens from there on are masked.
    q_segment_ids, kv_segment_ids: [B, T] and [B, S] int; a query sees the keys of its own segment.
    alibi_slopes: [N], adds -slope |t + causal_offset - s| to the logits.
    reference_length: n of "-log_n"; None is S.
    return_row_sum: whether to return the sums of the weights, too.

  Returns:
    [B, T, N, Hv] in the dtype of the query, computed in float32 or, for float64, in float64. A masked key has weight
    0 and a query that sees no key gives 0, both exactly. With return_row_sum, (that, sums [B, T, N]), the sums in
    the dtype of the computation.

  Raises:
    UserError: for shapes that do not fit together, a negative window, or a bias that is none of the above.

  Differs from jax.nn.dot_product_attention in its arguments: T != S is aligned at the end, not at the start
  (causal_offset=0); bias may be a word, a number or one number for each head; the batch axis is not optional.

  Reference: Ramapuram et al. 2024, "Theory, Analysis, and Best Practices for Sigmoid Self-Attention",
  arXiv:2409.04431.
  """
  _check(query, key, value)
  logits = _logits(query, key, bias, scale, causal_offset, alibi_slopes, reference_length)
  visible = _visible(query, key, mask, is_causal, causal_offset, local_window_size, query_seq_lengths,
                     key_value_seq_lengths, q_segment_ids, kv_segment_ids)
  return _weighted_sum(jnp.where(visible, jax.nn.sigmoid(logits), 0), value, query.dtype, return_row_sum)


def softmax_attention(
  query: jax.Array,
  key: jax.Array,
  value: jax.Array,
  bias: Bias = None,
  mask: jax.Array | None = None,
  *,
  scale: float | None = None,
  is_causal: bool = False,
  causal_offset: int | None = None,
  local_window_size: int | tuple[int, int] | None = None,
  query_seq_lengths: jax.Array | None = None,
  key_value_seq_lengths: jax.Array | None = None,
  q_segment_ids: jax.Array | None = None,
  kv_segment_ids: jax.Array | None = None,
  alibi_slopes: jax.Array | None = None,
  reference_length: int | None = None,
  return_row_sum: bool = False,
) -> jax.Array | tuple[jax.Array, jax.Array]:
  """Weighs the values by the softmax of the logits over the keys that a query sees: O = softmax(scale Q K^T + b) V.

  Arguments, result and errors are those of `sigmoid_attention`; a bias that is one number for a head cancels.

  Differs from jax.nn.dot_product_attention as said there, and a query that sees no key gives 0, not the mean of all
  values.

  Reference: Vaswani et al. 2017, arXiv:1706.03762, eq. 1.
  """
  _check(query, key, value)
  logits = _logits(query, key, bias, scale, causal_offset, alibi_slopes, reference_length)
  visible = _visible(query, key, mask, is_causal, causal_offset, local_window_size, query_seq_lengths,
                     key_value_seq_lengths, q_segment_ids, kv_segment_ids)
  # The second choice keeps exp finite where it is masked: 0 times infinity would make gradients nan.
  largest = jax.lax.stop_gradient(jnp.where(visible, logits, -jnp.inf).max(axis=-1, keepdims=True))
  shifted = jnp.where(visible, logits - jnp.where(jnp.isfinite(largest), largest, 0), 0)
  unnormalized = jnp.where(visible, jnp.exp(shifted), 0)
  total = unnormalized.sum(axis=-1, keepdims=True)
  return _weighted_sum(unnormalized / jnp.where(total > 0, total, 1), value, query.dtype, return_row_sum)


def _logits(query, key, bias, scale, causal_offset, alibi_slopes, reference_length) -> jax.Array:
  """Returns scale Q K^T + b - slope distance, [B, N, T, S], in float32 or float64."""
  (_, queries, heads, features), keys = query.shape, key.shape[1]
  dtype = _accumulator(query)
  key = jnp.repeat(key, heads // key.shape[2], axis=2)
  logits = jnp.einsum("btnh,bsnh->bnts", query.astype(dtype), key.astype(dtype))
  logits = logits * (1 / math.sqrt(features) if scale is None else scale) + _bias(bias, logits, reference_length)
  if alibi_slopes is not None:
    slopes = jnp.asarray(alibi_slopes, dtype)
    if slopes.shape != (heads,):
      raise UserError(f"alibi_slopes has shape {slopes.shape}, but there are {heads} heads; give one slope for each.")
    distance = np.abs(_relative_positions(queries, keys, causal_offset)).astype(dtype)
    logits = logits - slopes[None, :, None, None] * distance
  return logits


def _bias(bias: Bias, logits: jax.Array, reference_length: int | None) -> float | jax.Array:
  """Returns what to add to the logits: a number, or an array of four axes."""
  if isinstance(bias, str):
    if bias != "-log_n":
      raise UserError(f"the bias of attention is {bias!r}; give '-log_n', a number or an array.")
    length = logits.shape[-1] if reference_length is None else reference_length
    if length < 1:
      raise UserError(f"the reference length of attention is {length}; '-log_n' needs a length of at least 1.")
    return -math.log(length)
  bias = jnp.asarray(0 if bias is None else bias, logits.dtype)
  if bias.ndim == 0:
    return bias
  if bias.shape == logits.shape[1:2]:
    return bias[None, :, None, None]
  if bias.ndim == 1:
    raise UserError(f"the bias of attention has {bias.size} numbers for {logits.shape[1]} heads; give one for each.")
  _check_broadcast("bias", bias, logits.shape)
  return bias


def _visible(
  query, key, mask, is_causal, causal_offset, window, query_lengths, key_lengths, query_segments, key_segments
) -> jax.Array:
  """Returns where a query sees a key, bool, of four axes that broadcast to [B, N, T, S]."""
  (batch, queries, heads, _), keys = query.shape, key.shape[1]
  relative = _relative_positions(queries, keys, causal_offset)
  parts = [np.ones((1, 1, queries, keys), bool)]
  if is_causal:
    parts.append(relative <= 0)
  if window is not None:
    left, right = (window, window) if isinstance(window, int) else window
    if left < 0 or right < 0:
      raise UserError(f"local_window_size is {window}; give numbers of keys of at least 0.")
    parts.append((relative >= -left) & (relative <= right))
  if mask is not None:
    _check_broadcast("mask", mask, (batch, heads, queries, keys))
    if mask.dtype != bool:
      raise UserError(f"the mask of attention has dtype {mask.dtype}; give booleans, or add a bias instead.")
    parts.append(mask)
  if query_lengths is not None:
    inside = np.arange(queries)[None] < _of_shape("query_seq_lengths", query_lengths, (batch,))[:, None]
    parts.append(inside[:, None, :, None])
  if key_lengths is not None:
    inside = np.arange(keys)[None] < _of_shape("key_value_seq_lengths", key_lengths, (batch,))[:, None]
    parts.append(inside[:, None, None, :])
  if (query_segments is None) != (key_segments is None):
    raise UserError("attention has segment ids of one side only; give q_segment_ids and kv_segment_ids.")
  if query_segments is not None:
    query_segments = _of_shape("q_segment_ids", query_segments, (batch, queries))
    key_segments = _of_shape("kv_segment_ids", key_segments, (batch, keys))
    parts.append(query_segments[:, None, :, None] == key_segments[:, None, None, :])
  return functools.reduce(jnp.logical_and, parts)


def _relative_positions(queries: int, keys: int, offset: int | None) -> np.ndarray:
  """Returns the place of each key minus that of each query, [1, 1, T, S]."""
  offset = keys - queries if offset is None else offset
  return (np.arange(keys)[None] - (np.arange(queries)[:, None] + offset))[None, None]


def _weighted_sum(weights, value, dtype, return_row_sum):
  value = jnp.repeat(value, weights.shape[1] // value.shape[2], axis=2).astype(weights.dtype)
  out = jnp.einsum("bnts,bsnh->btnh", weights, value).astype(dtype)
  return (out, weights.sum(axis=-1).transpose(0, 2, 1)) if return_row_sum else out


def _accumulator(array: jax.Array) -> jnp.dtype:
  return jnp.promote_types(array.dtype, jnp.float32)


def _check(query: jax.Array, key: jax.Array, value: jax.Array) -> None:
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
