"""Layers of transformers: multi-head attention with softmax or sigmoid weights, the MLP, the pre-norm block."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from nurture.attention import alibi_slopes, sigmoid_attention, softmax_attention
from nurture.attention.positions import rope
from nurture.core import UserError, memory
from nurture.models.checks import check_ranges
from nurture.models.initializers import initializers
from nurture.models.layers import ACTIVATIONS, DropPath, depth_rate
from nurture.models.taps import Taps

EPSILON = 1e-6  # of every layer norm but those of queries and keys
QK_EPSILON = 1e-5
EMBEDDING_INIT = nn.initializers.normal(0.02)


class Attention(nn.Module):
  """Multi-head self-attention: projections, an optional norm of queries and keys, attention, output projection.

  Attributes:
    heads, kv_heads: N query heads share K key and value heads.
    attention: how logits become weights.
    bias: b of sigmoid attention: a number, "-log_n", or "learned" for each head from -log_n on.
    reference_length: n of "-log_n".
    causal, window: whether a token sees itself and earlier tokens only, and how many of those; 0 is all.
    positions: "rope" rotates queries and keys, "alibi" penalizes distance, anything else does nothing here.
    implementation: of attention; "auto" takes the best that serves.
    qk_norm: LayerNorm over the features of a head, with scale and shift shared by the heads, before "rope".
    use_bias: of the projections.
    kernel_init, bias_init, dtype: as in the models.
  """

  heads: int
  kv_heads: int
  attention: str
  bias: float | str
  reference_length: int
  causal: bool
  window: int
  positions: str
  qk_norm: bool
  implementation: str
  use_bias: bool
  kernel_init: str | Mapping[str, Any]
  bias_init: str | Mapping[str, Any]
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Maps [B, T, D] to (the result, the same before the output projection, the sums of the weights [B, T, N])."""
    batch, length, width = x.shape
    features = width // self.heads
    query = self._dense("query", width, x).reshape(batch, length, self.heads, features)
    key = self._dense("key", self.kv_heads * features, x).reshape(batch, length, self.kv_heads, features)
    value = self._dense("value", self.kv_heads * features, x).reshape(batch, length, self.kv_heads, features)
    if self.qk_norm:
      query = nn.LayerNorm(QK_EPSILON, dtype=self.dtype, name="query_norm")(query)
      key = nn.LayerNorm(QK_EPSILON, dtype=self.dtype, name="key_norm")(key)
    if self.positions == "rope":
      query, key = rope(query), rope(key)
    attend: Any = sigmoid_attention if self.attention == "sigmoid" else softmax_attention
    out, mass = attend(
      query, key, value, self._bias(),
      is_causal=self.causal,
      local_window_size=(self.window, 0) if self.window else None,
      alibi_slopes=alibi_slopes(self.heads) if self.positions == "alibi" else None,
      reference_length=self.reference_length,
      implementation=None if self.implementation == "auto" else self.implementation,
      return_row_sum=True,
    )
    out = out.reshape(batch, length, width)
    return self._dense("out", width, out), out, mass.astype(self.dtype)

  def _bias(self) -> float | str | jax.Array:
    if not isinstance(self.bias, str) or self.bias != "learned":
      return self.bias
    start = nn.initializers.constant(-math.log(self.reference_length))
    return self.param("attention_bias", start, (self.heads,), jnp.float32)

  def _dense(self, name: str, features: int, x: jax.Array) -> jax.Array:
    init = initializers(self.kernel_init, self.bias_init, fan_in=x.shape[-1])
    return nn.Dense(features, use_bias=self.use_bias, dtype=self.dtype, name=name, **init)(x)


class Block(nn.Module):
  """A pre-norm transformer block, with exact GELU.

      x <- x + g_1 Norm(Attention(LN(x))),    x <- x + g_2 MLP(LN(x))

  Norm is there with `hybrid_norm` only: it bounds the branch whose size grows with the number of tokens under sigmoid
  attention; the MLP acts on each token alone and has none. g_1 and g_2 are there with `layer_scale` only.

  Taps: "attention_mass", the sums of the weights [B, T, N]; "attention", the weighted sums of the values, and
  "projection", what the output projection makes of them; "dense" and "gelu", before and after the nonlinearity; "mlp",
  what comes of them; "add", the residual stream after each branch. Branches are tapped before norm and g.

  Attributes:
    attention_fields: of `Attention`, without use_bias and what follows it.
    mlp_dim: hidden units.
    layer_scale: initial value of g_1 and g_2, each [D]; 0 is none.
    hybrid_norm: as above.
    dropout: after the output projection, the GELU and the MLP; stream "dropout".
    train: whether dropout and stochastic depth are on.
    use_bias, kernel_init, bias_init, dtype: as in the models.

  References: Vaswani et al. 2017, arXiv:1706.03762; Xiong et al. 2020, arXiv:2002.04745 (pre-norm); Touvron et al.
  2021, arXiv:2103.17239 (LayerScale); Ramapuram et al. 2024, arXiv:2409.04431 (hybrid norm).
  """

  attention_fields: Mapping[str, Any]
  mlp_dim: int
  layer_scale: float
  hybrid_norm: bool
  dropout: float
  train: bool
  use_bias: bool
  kernel_init: str | Mapping[str, Any]
  bias_init: str | Mapping[str, Any]
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array, rate: jax.Array | None) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Maps [B, T, D] to ([B, T, D], taps); rate, [] or None for 0, is that of dropping each of the branches."""
    taps, width = Taps(), x.shape[-1]
    dense = dict(use_bias=self.use_bias, kernel_init=self.kernel_init, bias_init=self.bias_init, dtype=self.dtype)
    y, out, mass = Attention(**self.attention_fields, **dense, name="attention")(self._norm("attention_norm", x))
    taps("attention_mass", mass)
    taps("attention", out)
    taps("projection", y)
    if self.hybrid_norm:
      y = self._norm("attention_out_norm", y)
    x = taps("add", x + self._branch("attention", y, rate))
    y = taps("dense", self._dense("mlp_in", self.mlp_dim, self._norm("mlp_norm", x)))
    y = taps("gelu", ACTIVATIONS["gelu"](y))
    y = taps("mlp", self._dense("mlp_out", width, self._drop(y)))
    return taps("add", x + self._branch("mlp", y, rate)), taps.arrays

  def _branch(self, name: str, y: jax.Array, rate: jax.Array | None) -> jax.Array:
    if self.layer_scale != 0:
      scale = self.param(f"{name}_scale", nn.initializers.constant(self.layer_scale), y.shape[-1:], jnp.float32)
      y = y * scale.astype(y.dtype)[None, None]
    y = self._drop(y)
    return y if rate is None else DropPath()(y, rate, self.train)

  def _drop(self, x: jax.Array) -> jax.Array:
    return nn.Dropout(self.dropout, deterministic=not self.train)(x)

  def _norm(self, name: str, x: jax.Array) -> jax.Array:
    return nn.LayerNorm(EPSILON, dtype=self.dtype, name=name)(x)

  def _dense(self, name: str, features: int, x: jax.Array) -> jax.Array:
    init = initializers(self.kernel_init, self.bias_init, fan_in=x.shape[-1])
    return nn.Dense(features, use_bias=self.use_bias, dtype=self.dtype, name=name, **init)(x)


def apply_blocks(
  x: jax.Array, taps: Taps, depth: int, drop_path: float | jax.Array, *, remat: bool, scan: bool, **fields: Any
) -> jax.Array:
  """Returns x after `depth` blocks and appends their taps; to be called inside a compact method, once.

  The parameters are those of "block_00", "block_01", ... or, scanned, those of "blocks" with an axis of layers first.

  Args:
    x: [B, T, D].
    taps: of the model; gets "block0.attention_mass" and so on.
    depth: blocks.
    drop_path: rate of the last block, [] or a number.
    remat: whether the backward pass computes the inside of a block again instead of keeping it.
    scan: whether the blocks are one program run `depth` times.
    **fields: of `Block`.
  """
  # A plain 0 stays a plain 0, which needs no random stream; remat and scan would trace it.
  none = isinstance(drop_path, (int, float)) and drop_path == 0
  rates: Any = None if none else depth_rate(drop_path, jnp.arange(depth, dtype=jnp.float32), depth)
  block = nn.remat(Block, prevent_cse=not scan) if remat else Block
  if scan and depth:
    layers = nn.scan(
      block, variable_axes={"params": 0}, split_rngs={"params": True, "dropout": True}, length=depth
    )(**fields, name="blocks")
    x, stacked = layers(x, rates)
    taps.extend_scanned("block", stacked)
    return x
  for i in range(depth):
    x, arrays = block(**fields, name=f"block_{i:02d}")(x, None if none else rates[i])
    taps.extend(f"block{i}", arrays)
  return x


def check_fields(model: Any, kv_heads: int) -> None:
  """Raises UserError for numbers out of range, heads that do not divide the width, or a bias that would do nothing."""
  check_ranges(model)
  # Tables of positions are made on the host while a network is traced; matrices of the width would be larger still.
  memory.check({"config.model.width": 4 * model.width**2 * min(model.depth, 1)}, memory.free_bytes(), "the network")
  if model.width % model.heads:
    raise UserError(f"config.model.width is {model.width}, which config.model.heads = {model.heads} does not divide; "
                    "choose another width or number of heads.")
  if kv_heads < 1 or model.heads % kv_heads:
    raise UserError(f"config.model.heads is {model.heads}, which config.model.kv_heads = {kv_heads} does not divide; "
                    "choose another number of kv_heads, or 0 for as many as heads.")
  if model.attention == "softmax" and isinstance(model.attention_bias, str) and model.attention_bias == "learned":
    raise UserError("config.model.attention_bias is 'learned', but softmax attention cancels it; set "
                    "config.model.attention to 'sigmoid', or leave attention_bias out.")
