"""Softmax attention by cuDNN, through jax.nn."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from nurture.attention.call import UNBOUNDED, Call

_HEADS = (8, 128)  # features of a head, a multiple of the first and at most the second


def refusal(call: Call) -> str:
  """Returns why cuDNN cannot serve a call, as the end of a sentence; "" if it can."""
  _, _, queries, keys = call.shape
  features, values = call.query.shape[3], call.value.shape[3]
  band, step, most = call.band, *_HEADS
  dtypes = {x.dtype for x in (call.query, call.key, call.value)}
  if len(dtypes) > 1 or not dtypes <= {jnp.dtype(jnp.float16), jnp.dtype(jnp.bfloat16)}:
    return f"takes query, key and value all in float16 or all in bfloat16, not in {', '.join(map(str, dtypes))}"
  if any(x is not None for x in (call.bias, call.mask, call.slopes, call.query_ids)):
    return "takes no arrays of biases, masks, slopes, segments or lengths here; use implementation='xla'"
  if features % step or features > most or values != features:
    return f"takes heads of up to {most} features, a multiple of {step}, not {features} and {values}"
  if not band.is_full and (queries != keys or band.high != 0):
    return "takes a window or a causal mask only as a causal one with as many queries as keys"
  return ""


def softmax(call: Call) -> tuple[jax.Array, jax.Array]:
  """Returns softmax(logits) V [B, T, N, Hv] and the sums of the weights [B, T, N], which are 1."""
  # A bias that is one number for a head cancels, and without lengths and masks every query sees a key.
  out = jax.nn.dot_product_attention(
    call.query, call.key, call.value, scale=call.scale, is_causal=not call.band.is_full,
    local_window_size=None if call.band.low == -UNBOUNDED else (-call.band.low, 0), implementation="cudnn",
  )
  return out, jnp.ones(call.query.shape[:3], call.accumulator)
