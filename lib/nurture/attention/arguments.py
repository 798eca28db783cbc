"""Checks of the arguments of attention, and the normal form that they are brought to."""

from __future__ import annotations

import math
import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nurture.attention.call import UNBOUNDED, Band, Call
from nurture.core import UserError

Bias = str | float | jax.Array | None

# Segment ids that no caller's meet: tokens beyond a sequence length see nothing and are seen by nothing.
_NO_QUERY, _NO_KEY = np.iinfo(np.int32).min, np.iinfo(np.int32).max
_FAR = 2**28  # of places and windows, so that sums of a few of them stay in int32
_DTYPES = ("float16", "bfloat16", "float32", "float64")


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
  query, key, value = (_array(name, x, "iufcb") for name, x in (("query", query), ("key", key), ("value", value)))
  _check_shapes(query, key, value)
  (batch, queries, heads, _), keys = query.shape, key.shape[1]
  shape = batch, heads, queries, keys
  dtype = jnp.promote_types(query.dtype, jnp.float32)
  query, scale = _scaled(query, scale)
  offset = keys - queries if causal_offset is None else _integer("causal_offset", causal_offset, -_FAR)
  head_bias, dense, known, learned = _bias(bias, shape, dtype, reference_length)
  if mask is not None:
    mask = _array("mask", mask, "b", "; give booleans, or add a bias instead")
    _check_broadcast("mask", mask, shape)
  slopes = None
  if alibi_slopes is not None:
    slopes = _array("alibi_slopes", alibi_slopes, "iuf").astype(dtype)
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
  return Call(query, key, value, head_bias, slopes, dense, mask, query_ids, key_ids, scale, band, offset, known,
              learned)


def _scaled(query: jax.Array, scale: float | jax.Array | None) -> tuple[jax.Array, float]:
  """Returns the query and the number that multiplies the logits; a scale that is an array goes into the query."""
  if scale is None:
    return query, 1 / math.sqrt(query.shape[3])
  number = _number("scale", scale)
  if number is not None:
    return query, number
  scale = _array("scale", scale, "iuf")
  fits = scale.ndim in (0, 4) and all(a in (1, n) for a, n in zip(scale.shape, (*query.shape[:3], 1)))
  if not fits:
    raise UserError(f"the scale of attention has shape {scale.shape}; give a number, or an array that broadcasts to "
                    f"{(*query.shape[:3], 1)}, a number for each query and head.")
  return (query * scale).astype(query.dtype), 1.0


def _bias(bias: Bias, shape, dtype, reference_length):
  """Returns (bias of each head [1, N], dense bias of four axes, the one number that is known, which are learned)."""
  length = shape[-1] if reference_length is None else _integer("reference_length", reference_length, 1)
  if isinstance(bias, str):
    if bias != "-log_n":
      raise UserError(f"the bias of attention is {bias!r}; give '-log_n', a number or an array.")
    bias = -math.log(length)
  heads = shape[1]
  known = 0.0 if bias is None else _number("bias", bias)
  if known is not None:
    return (jnp.full((1, heads), known, dtype) if known else None), None, known, ()
  learned = isinstance(bias, jax.Array)
  bias = _array("bias", bias, "iuf", "; give numbers, and booleans as the mask").astype(dtype)
  if bias.shape in ((), (heads,)):
    return jnp.broadcast_to(bias[None], (1, heads)), None, None, ("head_bias",) if learned else ()
  if bias.ndim == 1:
    raise UserError(f"the bias of attention has {bias.size} numbers for {heads} heads; give one for each.")
  _check_broadcast("bias", bias, shape)
  return None, bias, None, ("bias",) if learned else ()


def _band(is_causal: bool, window: int | tuple[int, int] | None, offset: int) -> Band:
  if not isinstance(is_causal, (bool, np.bool_)):
    raise UserError(f"is_causal is {is_causal!r}; give True or False.")
  low, high = -UNBOUNDED, 0 if is_causal else UNBOUNDED
  if window is not None:
    both = window if isinstance(window, (tuple, list)) else (window, window)
    if len(both) != 2:
      raise UserError(f"local_window_size is {window!r}; give a number of keys, or (before, after).")
    left, right = (_integer("local_window_size", keys, 0) for keys in both)
    low, high = -left, min(high, right)
  moved = lambda bound: bound if abs(bound) == UNBOUNDED else bound + offset
  return Band(moved(low), moved(high))


def _ids(side: str, ids, kind: str, lengths, shape: tuple[int, int], beyond: int) -> jax.Array | None:
  """Returns segment ids [B, L] in which the tokens from the sequence length on have an id of their own."""
  if ids is not None:
    name = f"{side}_segment_ids"
    if not isinstance(ids, jax.core.Tracer) and np.size(ids) and not (
      np.min(ids) > _NO_QUERY and np.max(ids) < _NO_KEY
    ):
      raise UserError(f"{name} of attention reach from {np.min(ids)} to {np.max(ids)}; give ids between -2^31 and "
                      "2^31 - 1, both excluded.")
    ids = _of_shape(name, _array(name, ids, "iu"), shape).astype(jnp.int32)
  if lengths is None:
    return ids
  name = f"{kind}_seq_lengths"
  inside = np.arange(shape[1])[None] < _of_shape(name, _array(name, lengths, "iu"), shape[:1])[:, None]
  return jnp.where(inside, jnp.zeros(shape, jnp.int32) if ids is None else ids, beyond)


_KINDS = {"b": "booleans", "iu": "whole numbers", "iuf": "real numbers", "iufcb": "an array"}


def _array(name: str, x: Any, kinds: str, hint: str = "") -> jax.Array:
  """Returns x as an array whose dtype is of one of the kinds, as letters of NumPy."""
  try:
    array = jnp.asarray(x)
  except (TypeError, ValueError) as error:
    raise UserError(f"{name} of attention is {type(x).__name__}, of which jax makes no array; give "
                    f"{_KINDS[kinds]}.") from error
  floating = jnp.issubdtype(array.dtype, jnp.floating)  # bfloat16 is of no kind of NumPy's
  if not (floating and "f" in kinds or array.dtype.kind in kinds):
    raise UserError(f"{name} of attention has dtype {array.dtype}{hint or '; give ' + _KINDS[kinds]}.")
  return array


def _integer(name: str, x: Any, least: int) -> int:
  """Returns a whole number that is known when the program is traced."""
  try:
    if isinstance(x, (bool, np.bool_)):
      raise TypeError
    number = operator.index(x)
  except TypeError as error:
    raise UserError(f"{name} of attention is {x!r}; give a whole number that is known when the program is "
                    "traced.") from error
  if number < least:
    raise UserError(f"{name} of attention is {number}; give a number of at least {least}.")
  if number > _FAR and name != "local_window_size":
    raise UserError(f"{name} of attention is {number}; give a number of at most {_FAR}.")
  return min(number, _FAR)


def _number(name: str, x: Any) -> float | None:
  """Returns x as a number if it is one that is known when the program is traced, not an array; None otherwise."""
  if not isinstance(x, (int, float, np.number)) or isinstance(x, (bool, np.complexfloating)):
    return None
  if not math.isfinite(x):
    raise UserError(f"the {name} of attention is {x}; give a finite number.")
  return float(x)


def _check_shapes(query: jax.Array, key: jax.Array, value: jax.Array) -> None:
  shapes = f"attention has query {query.shape}, key {key.shape} and value {value.shape}"
  for name, x in (("query", query), ("key", key), ("value", value)):
    if x.dtype.name not in _DTYPES:
      raise UserError(f"attention has {name} of dtype {x.dtype}; give one of {', '.join(_DTYPES)}.")
  if not query.ndim == key.ndim == value.ndim == 4:
    raise UserError(f"{shapes}; give four axes each, [batch, length, heads, features].")
  if 0 in (*query.shape, *key.shape, *value.shape):
    raise UserError(f"{shapes}; no axis may be empty.")
  if query.shape[0] != key.shape[0] or query.shape[3] != key.shape[3] or key.shape[:3] != value.shape[:3]:
    raise UserError(f"{shapes}; batch and features of query and key must agree, and batch, length and heads of key and "
                    "value.")
  if query.shape[2] % key.shape[2]:
    raise UserError(f"attention has {query.shape[2]} query heads and {key.shape[2]} key heads; the first must be a "
                    "multiple of the second.")


def _check_broadcast(name: str, array: jax.Array, shape: tuple[int, ...]) -> None:
  if array.ndim != 4 or any(a not in (1, n) for a, n in zip(array.shape, shape)):
    raise UserError(f"the {name} of attention has shape {array.shape}, which does not broadcast to {shape}; give it "
                    "four axes, [batch, heads, queries, keys], each full or 1.")


def _of_shape(name: str, array: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  if array.shape != shape:
    raise UserError(f"{name} of attention has shape {array.shape}; it must be {shape}.")
  return array
