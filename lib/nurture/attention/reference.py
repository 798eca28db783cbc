"""Sigmoid and softmax attention in plain jax.numpy: the specification that a faster implementation is tested against.

Differentiable any number of times, forward and reverse; memory O(T S). Computed in float32, or float64 for float64; how
exact a device's products of float32 are, `jax.default_matmul_precision` says.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from nurture.attention.call import Call


def sigmoid(call: Call) -> tuple[Float[Array, "B T N Hv"], Float[Array, "B T N"]]:
  """Returns sigmoid(logits) V [B, T, N, Hv] and the sums of the weights [B, T, N]."""
  scores, seen = logits(call), visible(call)
  if seen is None:
    return _weighted_sum(call, jax.nn.sigmoid(scores))
  # The inner choice keeps what is masked out of the gradients, whatever it is.
  return _weighted_sum(call, jnp.where(seen, jax.nn.sigmoid(jnp.where(seen, scores, 0)), 0))


def softmax(call: Call) -> tuple[Float[Array, "B T N Hv"], Float[Array, "B T N"]]:
  """Returns softmax(logits) V [B, T, N, Hv] and the sums of the weights [B, T, N], 0 or 1."""
  scores, mask = logits(call), visible(call)
  # The second choice keeps exp finite where it is masked: 0 times infinity would make gradients nan.
  seen: Any = np.ones((1, 1, 1, 1), bool) if mask is None else mask
  largest = jax.lax.stop_gradient(jnp.where(seen, scores, -jnp.inf).max(axis=-1, keepdims=True))
  shifted = jnp.where(seen, scores - jnp.where(jnp.isfinite(largest), largest, 0), 0)
  unnormalized = jnp.where(seen, jnp.exp(shifted), 0)
  total = unnormalized.sum(axis=-1, keepdims=True)
  return _weighted_sum(call, unnormalized / jnp.where(total > 0, total, 1))


def logits(call: Call) -> Float[Array, "B N T S"]:
  """Returns scale Q K^T + b - slope distance, [B, N, T, S]."""
  dtype, (_, _, queries, keys) = call.accumulator, call.shape
  key = jnp.repeat(call.key, call.group, axis=2)
  scores = call.scale * jnp.einsum("btnh,bsnh->bnts", call.query.astype(dtype), key.astype(dtype))
  if call.head_bias is not None:
    scores = scores + call.head_bias[:, :, None, None]
  if call.bias is not None:
    scores = scores + call.bias
  if call.slopes is not None:
    distance = jnp.abs(jnp.arange(keys)[None] - jnp.arange(queries)[:, None] - call.offset).astype(dtype)
    scores = scores - call.slopes[:, :, None, None] * distance[None, None]
  return scores


def visible(call: Call) -> Bool[Array, "#B #N #T #S"] | None:
  """Returns where a query sees a key, bool, of four axes that broadcast to [B, N, T, S]; None is everywhere."""
  _, _, queries, keys = call.shape
  parts = [] if call.mask is None else [call.mask]
  if not call.band.is_full:
    parts.append(call.band.sees(jnp.arange(queries)[:, None], jnp.arange(keys)[None])[None, None])
  if call.query_ids is not None and call.key_ids is not None:
    parts.append(call.query_ids[:, None, :, None] == call.key_ids[:, None, None, :])
  return functools.reduce(jnp.logical_and, parts) if parts else None


def _weighted_sum(call: Call, weights: jax.Array) -> tuple[jax.Array, jax.Array]:
  value = jnp.repeat(call.value, call.group, axis=2).astype(weights.dtype)
  out = jnp.einsum("bnts,bsnh->btnh", weights, value).astype(call.query.dtype)
  return out, weights.sum(axis=-1).transpose(0, 2, 1)
