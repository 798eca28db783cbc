"""Calls of sigmoid attention that every implementation has to get right, and the float64 reference they are held to."""

import jax
import jax.numpy as jnp
import numpy as np

from nurture.attention import alibi_slopes, sigmoid_attention

# name: (batch, queries, keys, heads, kv_heads), fields. "per head" and "array" are drawn.
CASES = {
  "one token": ((1, 1, 1, 1, 1), {}),
  "full": ((2, 16, 16, 2, 2), {}),
  "odd lengths, shared heads": ((2, 17, 11, 4, 2), {}),
  "more keys, one key head": ((1, 5, 23, 3, 1), {"bias": 0.0}),
  "causal": ((1, 19, 19, 2, 1), {"is_causal": True, "bias": -10.0}),
  "causal, more queries": ((1, 21, 9, 1, 1), {"is_causal": True}),
  "causal, more keys": ((2, 9, 21, 2, 2), {"is_causal": True, "bias": "per head"}),
  "causal, aligned at the start": ((1, 9, 21, 2, 1), {"is_causal": True, "causal_offset": 0}),
  "window": ((1, 25, 25, 2, 1), {"local_window_size": (3, 2), "bias": "per head"}),
  "causal window": ((1, 25, 25, 1, 1), {"local_window_size": 4, "is_causal": True}),
  "window that sees nothing": ((1, 6, 6, 1, 1), {"local_window_size": (1, 1), "causal_offset": 90}),
  "slopes": ((2, 13, 13, 4, 2), {"alibi_slopes": "alibi", "bias": "per head"}),
  "causal slopes, more keys": ((1, 7, 18, 2, 1), {"alibi_slopes": "alibi", "is_causal": True}),
  "segments": ((2, 18, 15, 2, 1), {"segments": True, "bias": "per head"}),
  "lengths": ((3, 14, 20, 2, 2), {"query_seq_lengths": (14, 3, 0), "key_value_seq_lengths": (20, 1, 7)}),
  "everything": ((2, 22, 26, 4, 2), {
    "is_causal": True, "local_window_size": (9, 0), "segments": True, "alibi_slopes": "alibi", "bias": "per head",
    "key_value_seq_lengths": (26, 20), "scale": 0.3,
  }),
}


def arguments(name, features=8, seed=0, cases=None):
  """Returns (differentiable arrays {name: float64}, the other arguments) of a case, of CASES or more."""
  (batch, queries, keys, heads, kv_heads), fields = (CASES | (cases or {}))[name]
  draws, fields = np.random.default_rng(seed), dict(fields)
  arrays = {
    "query": draws.normal(size=(batch, queries, heads, features)),
    "key": draws.normal(size=(batch, keys, kv_heads, features)),
    "value": draws.normal(size=(batch, keys, kv_heads, features)),
  }
  if fields.get("bias") == "per head":
    arrays["bias"] = np.linspace(-4, 0.5, heads)
    del fields["bias"]
  if fields.get("alibi_slopes") == "alibi":
    arrays["alibi_slopes"] = np.asarray(alibi_slopes(heads), np.float64)
    del fields["alibi_slopes"]
  for side in ("query", "key_value"):
    if f"{side}_seq_lengths" in fields:
      fields[f"{side}_seq_lengths"] = np.array(fields[f"{side}_seq_lengths"])
  if fields.pop("segments", False):
    fields["q_segment_ids"] = np.sort(draws.integers(0, 3, (batch, queries)))
    fields["kv_segment_ids"] = np.sort(draws.integers(0, 4, (batch, keys)))
  return arrays, fields


def value_and_gradients(arrays, fields, **changes):
  """Returns (output, {name: gradient}) of a fixed weighting of the output."""

  def weighted(arrays):
    out = sigmoid_attention(**arrays, **fields, **changes)
    weights = np.random.default_rng(1).integers(-8, 9, out.shape) / 8.0  # exact in every dtype
    return jnp.sum(weights * out.astype(jnp.promote_types(out.dtype, jnp.float32))), out

  gradients, out = jax.jit(jax.grad(weighted, has_aux=True))(arrays)
  return out, gradients


def reference(arrays, fields):
  """Returns what `value_and_gradients` should, by the plain form in float64."""
  with jax.enable_x64(True):
    wide = {name: jnp.asarray(np.asarray(x, np.float64)) for name, x in arrays.items()}
    return jax.tree.map(np.asarray, value_and_gradients(wide, fields, implementation="xla"))
