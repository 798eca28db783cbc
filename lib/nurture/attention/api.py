"""Sigmoid and softmax attention, by an implementation that is named or chosen."""

from __future__ import annotations

import dataclasses
import importlib
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from nurture.attention import cudnn, reference
from nurture.attention.arguments import Bias, make_call
from nurture.attention.call import Call
from nurture.attention.flash import Kernel, attend
from nurture.core import UserError
from nurture.core.build import suggest

# Beside "xla", which is reference.py. Imported when they are asked for, since Pallas takes time to load.
KERNELS = {
  "xla_chunked": ("nurture.attention.chunked", "Chunked"),
  "mosaic_gpu": ("nurture.attention.mosaic_gpu", "MosaicGPU"),
  "mosaic_tpu": ("nurture.attention.mosaic_tpu", "MosaicTPU"),
}
SIGMOID = ("xla", *KERNELS)
SOFTMAX = ("xla", "cudnn")

# Beyond this, memory that is quadratic in the number of tokens is not worth its speed.
_LARGE_WEIGHTS = 2**28  # bytes
_HOPPER = "9.0"
_CUDNN = ("8", "9", "10", "11", "12")  # compute capabilities, before the point


def sigmoid_attention(
  query: Float[Array, "B T N H"],
  key: Float[Array, "B S K H"],
  value: Float[Array, "B S K Hv"],
  bias: Bias = "-log_n",
  mask: Bool[Array, "#B #N #T #S"] | None = None,
  *,
  scale: float | Float[Array, " ..."] | None = None,
  is_causal: bool = False,
  causal_offset: int | None = None,
  local_window_size: int | tuple[int, int] | None = None,
  query_seq_lengths: Int[Array, " B"] | None = None,
  key_value_seq_lengths: Int[Array, " B"] | None = None,
  q_segment_ids: Int[Array, "B T"] | None = None,
  kv_segment_ids: Int[Array, "B S"] | None = None,
  alibi_slopes: Float[Array, " N"] | None = None,
  reference_length: int | None = None,
  implementation: str | Kernel | None = None,
  return_row_sum: bool = False,
) -> Float[Array, "B T N Hv"] | tuple[Float[Array, "B T N Hv"], Float[Array, "B T N"]]:
  """Weighs each value by the sigmoid of its logit; the weights of a query are not normalized.

      O = sigmoid(scale Q K^T + b) V,    b = -log n

  With b = -log n a weight is about exp(logit) / n, so that a row sums to about 1 as under softmax. n is a constant of
  the run, the training or maximum length, for every row alike; it is not the number of keys that a row sees.

  Implementations:
    "xla": plain jax.numpy, O(T S) memory, differentiable any number of times, forward and reverse.
    "xla_chunked": the same in blocks, O(T + S) memory.
    "mosaic_gpu": a kernel for Hopper GPUs, for bfloat16 and float16 and 64, 128 or 256 features.
    "mosaic_tpu": a kernel for TPUs, for bfloat16 and float32.

  The last two take a bias only as a number or one for each head, and no mask; they take windows, lengths, segments and
  slopes, and skip what a window or a causal mask hides. All but "xla" differentiate once and in reverse only, so that
  jax.jvp, jax.hessian and jax.linearize need "xla".

  Args:
    query: [B, T, N, H]: batch, queries, heads, features.
    key: [B, S, K, H] with N divisible by K; query head n reads key head n // (N / K).
    value: [B, S, K, Hv].
    bias: b, added to the scaled logits: "-log_n", a number (None is 0), [N] for each head, or an array of four axes
      that broadcasts to [B, N, T, S]. Arrays of jax have gradients, those of numpy are constants.
    mask: bool, of four axes that broadcast to [B, N, T, S]; True where a query sees a key.
    scale: of the logits; None is 1 / sqrt(H). An array, which may be traced, is multiplied into the query and rounded
      with it: of no axes, or of four that broadcast to [B, T, N, 1].
    is_causal: query t sees the keys up to t + causal_offset.
    causal_offset: place of the first query among the keys, for the causal mask, the window and ALiBi; None is S - T,
      where the last query meets the last key.
    local_window_size: (left, right), how many keys a query sees before and after its own place; a number is both.
    query_seq_lengths: [B] int; queries from there on are masked.
    key_value_seq_lengths: [B] int; keys from there on are masked.
    q_segment_ids: [B, T] int, between -2^31 and 2^31 - 1, both excluded; a query sees the keys of its own segment.
    kv_segment_ids: [B, S] int, likewise.
    alibi_slopes: [N], adds -slope |t + causal_offset - s| to the logits.
    reference_length: n of "-log_n"; None is S.
    implementation: by name, or an object with its settings such as `Chunked(block_k=256)`, which may be lowered for a
      platform that is not there. None takes the best that serves the call on the default device: its kernel, else
      "xla", or "xla_chunked" where the weights (of one member, under jax.vmap) would fill more than 256 MiB.
    return_row_sum: whether to return the sums of the weights, too. Under "xla" they are at hand; the others compute
      attention a second time, with values of 1 and rounded like the output, which jax.jit leaves out where nobody reads
      it.

  Returns:
    [B, T, N, Hv] in the dtype of the query, computed in float32 or, for float64, in float64. A masked key has weight
    0 and a query that sees no key gives 0, both exactly (if the values are finite: 0 times infinity is not 0). With
    return_row_sum, (that, sums [B, T, N]), in the dtype of the computation.

  Raises:
    UserError: for shapes or dtypes that do not fit together, an empty axis, a negative window, a bias that is none of
      the above, or an implementation that cannot serve the call; it says why.

  Differs from jax.nn.dot_product_attention in its arguments: T != S is aligned at the end, not at the start
  (causal_offset=0); bias may be a word, a number or one number for each head; the batch axis is not optional.

  Reference: Ramapuram et al. 2024, "Theory, Analysis, and Best Practices for Sigmoid Self-Attention",
  arXiv:2409.04431.
  """
  call = make_call(
    query, key, value, bias, mask, scale=scale, is_causal=is_causal, causal_offset=causal_offset,
    local_window_size=local_window_size, query_seq_lengths=query_seq_lengths,
    key_value_seq_lengths=key_value_seq_lengths, q_segment_ids=q_segment_ids, kv_segment_ids=kv_segment_ids,
    alibi_slopes=alibi_slopes, reference_length=reference_length,
  )
  kernel = _kernel(call, implementation)
  if kernel is None:
    out, total = reference.sigmoid(call)
    return (out, total) if return_row_sum else out
  out = attend(kernel, call)
  if not return_row_sum:
    return out
  ones = dataclasses.replace(call, value=jnp.ones_like(call.value))
  return out, attend(kernel, ones)[..., 0].astype(call.accumulator)


def softmax_attention(
  query: Float[Array, "B T N H"],
  key: Float[Array, "B S K H"],
  value: Float[Array, "B S K Hv"],
  bias: Bias = None,
  mask: Bool[Array, "#B #N #T #S"] | None = None,
  *,
  scale: float | Float[Array, " ..."] | None = None,
  is_causal: bool = False,
  causal_offset: int | None = None,
  local_window_size: int | tuple[int, int] | None = None,
  query_seq_lengths: Int[Array, " B"] | None = None,
  key_value_seq_lengths: Int[Array, " B"] | None = None,
  q_segment_ids: Int[Array, "B T"] | None = None,
  kv_segment_ids: Int[Array, "B S"] | None = None,
  alibi_slopes: Float[Array, " N"] | None = None,
  reference_length: int | None = None,
  implementation: Literal["xla", "cudnn"] | None = None,
  return_row_sum: bool = False,
) -> Float[Array, "B T N Hv"] | tuple[Float[Array, "B T N Hv"], Float[Array, "B T N"]]:
  """Weighs the values by the softmax of the logits over the keys that a query sees: O = softmax(scale Q K^T + b) V.

  Arguments, result and errors are those of `sigmoid_attention`; a bias that is one number for a head cancels.

  Implementations: "xla", plain jax.numpy with O(T S) memory; "cudnn", that of jax.nn.dot_product_attention, for float16
  and bfloat16 on an NVIDIA GPU, without arrays for bias, mask, slopes, segments or lengths; it differentiates once, in
  reverse. None takes the second where it serves the call.

  Differs from jax.nn.dot_product_attention as said there, and a query that sees no key gives 0, not the mean of all
  values.

  Reference: Vaswani et al. 2017, arXiv:1706.03762, eq. 1.
  """
  call = make_call(
    query, key, value, bias, mask, scale=scale, is_causal=is_causal, causal_offset=causal_offset,
    local_window_size=local_window_size, query_seq_lengths=query_seq_lengths,
    key_value_seq_lengths=key_value_seq_lengths, q_segment_ids=q_segment_ids, kv_segment_ids=kv_segment_ids,
    alibi_slopes=alibi_slopes, reference_length=reference_length,
  )
  if implementation not in (None, *SOFTMAX):
    raise UserError(
      f"softmax attention has no implementation {implementation!r}; {suggest(str(implementation), SOFTMAX)}."
    )
  refusal = cudnn.refusal(call) or _elsewhere("cudnn")
  if implementation == "cudnn" and refusal:
    raise UserError(f"the implementation 'cudnn' of softmax attention {refusal}.")
  if implementation == "xla" or refusal:
    out, total = reference.softmax(call)
  else:
    out, total = cudnn.softmax(call)
  return (out, total) if return_row_sum else out


def kernel(name: str) -> Kernel:
  """Returns the implementation of a name, with its default settings.

  Raises:
    UserError: for an unknown name.
  """
  if name not in KERNELS:
    raise UserError(f"sigmoid attention has no kernel {name!r}; {suggest(name, tuple(KERNELS))}.")
  module, which = KERNELS[name]
  return getattr(importlib.import_module(module), which)()


def _kernel(call: Call, implementation: str | Kernel | None) -> Kernel | None:
  """Returns what computes a call, None for the plain form.

  Raises:
    UserError: for an unknown name, or an implementation that cannot serve the call here.
  """
  if implementation == "xla":
    return None
  if implementation is None:
    for name in ("mosaic_gpu", "mosaic_tpu"):
      if not _elsewhere(name) and not kernel(name).refusal(call):
        return kernel(name)
    large = math.prod(call.shape) * call.accumulator.itemsize > _LARGE_WEIGHTS
    return kernel("xla_chunked") if large else None
  chosen: Any = implementation
  name = type(implementation).__name__
  refusal = ""
  if isinstance(implementation, str):
    if implementation not in SIGMOID:
      raise UserError(
        f"sigmoid attention has no implementation {implementation!r}; {suggest(implementation, SIGMOID)}."
      )
    chosen, name = kernel(implementation), implementation
    refusal = _elsewhere(name)
  elif isinstance(implementation, type) or not hasattr(implementation, "refusal"):
    raise UserError(f"the implementation of sigmoid attention is {implementation!r}; give {', '.join(SIGMOID)} or an "
                    "object such as Chunked().")
  refusal = refusal or chosen.refusal(call)
  if refusal:
    raise UserError(f"the implementation {name!r} of sigmoid attention {refusal}.")
  return chosen


def _elsewhere(name: str) -> str:
  """Returns why a kernel does not run on the default device, as the end of a sentence; "" if it does."""
  platform = _platform()
  if name == "mosaic_tpu":
    return "" if platform == "tpu" else f"runs on TPUs, and the default device is a {platform}"
  capability = str(getattr(jax.devices()[0], "compute_capability", "")) if platform == "gpu" else ""
  device = f"gpu of compute capability {capability}" if capability else platform
  if name == "mosaic_gpu" and capability != _HOPPER:
    return f"runs on Hopper GPUs, of compute capability {_HOPPER}, and the default device is a {device}"
  if name == "cudnn" and capability.partition(".")[0] not in _CUDNN:
    return f"runs on NVIDIA GPUs of compute capability {_CUDNN[0]}.0 and more, and the default device is a {device}"
  return ""


def _platform() -> str:
  """Returns the platform that computations go to unless they are told otherwise."""
  device = jax.config.jax_default_device  # type: ignore[attr-defined]
  return jax.default_backend() if device is None else getattr(device, "platform", device)
