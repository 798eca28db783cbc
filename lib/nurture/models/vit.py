"""Vision transformers, with softmax or sigmoid attention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from nurture.attention.positions import sincos2d
from nurture.core import Outputs, Preset, UserError
from nurture.core.hints import Count, NonNegative, Share, Whole
from nurture.models.initializers import initializers
from nurture.models.layers import PatchConv
from nurture.models.taps import Taps
from nurture.models.transformer import EMBEDDING_INIT, EPSILON, apply_blocks, check_fields


class ViT(nn.Module):
  """Patches -> linear embedding -> positions -> pre-norm blocks -> layer norm -> pooling -> linear head.

      sigmoid attention:  O = sigmoid(Q K^T / sqrt(H) + b) V,    b = -log n

  Taps: "embed", the tokens with their positions; of each block, under "block3.", what `transformer.Block` says;
  "norm", the tokens after the last layer norm; "pool", the features of the head.

  Attributes:
    num_classes: K.
    patch: side of a patch in pixels; must divide the image's sides.
    width: D.
    depth: blocks.
    heads: of attention; must divide the width.
    mlp_dim: hidden units of the MLPs; 0 is 4 times the width.
    positions: a fixed table of sines and cosines, a learned one, or none (then the patches are a set).
    pool: "gap" averages the tokens; "cls" takes a learned token put before them, which has a learned position, too,
      and under "sincos2d" none.
    attention: "softmax" or "sigmoid".
    attention_bias: b of sigmoid attention: a number, "-log_n", or "learned", one for each head of each block, from
      -log n on. Softmax does without.
    reference_length: n; 0 is the number of tokens, with the cls token.
    attention_implementation: of `nurture.attention.sigmoid_attention` or `softmax_attention`; "auto" takes the best
      that serves the device, the dtype and the heads. All but "xla" differentiate once, in reverse.
    qk_norm: layer norm of queries and keys over the features of a head (scale and shift shared by the heads).
    layer_scale: initial value of a learned factor for each feature of both branches; 0 is none.
    hybrid_norm: layer norm of the attention branch's output (not of the MLP's), x + LN(Attention(LN(x))).
    dropout: rate after the embedding and every dense layer but those of queries, keys and values.
    head_zero_init: whether the head's weights start at 0.
    kernel_init, bias_init: rows of INITIALIZERS; positions and cls token start from N(0, 0.02^2).
    remat: whether to save memory by computing the inside of blocks again in the backward pass.
    scan: whether the blocks are one program run `depth` times, with stacked parameters: compiles faster.
    dtype: of the computation; parameters and logits are float32.

  Differs from the papers: Dosovitskiy et al. and DeiT start from truncated normals; DeiT lets the drop-path rate grow
  from 0, here it grows from rate / depth.

  References: Dosovitskiy et al. 2021, arXiv:2010.11929; Touvron et al. 2021, arXiv:2012.12877 (DeiT); Beyer et al.
  2022, arXiv:2205.01580 (average pooling, sincos2d); Ramapuram et al. 2024, arXiv:2409.04431 (sigmoid attention).
  """

  num_classes: Count
  patch: Count = 4
  width: Count = 64
  depth: Whole = 4
  heads: Count = 4
  mlp_dim: Whole = 0
  positions: Literal["sincos2d", "learned", "none"] = "sincos2d"
  pool: Literal["gap", "cls"] = "gap"
  attention: Literal["softmax", "sigmoid"] = "softmax"
  attention_bias: float | Literal["-log_n", "learned"] = "-log_n"
  reference_length: Whole = 0
  attention_implementation: Literal["auto", "xla", "xla_chunked", "mosaic_gpu", "mosaic_tpu", "cudnn"] = "auto"
  qk_norm: bool = False
  layer_scale: NonNegative = 0.0
  hybrid_norm: bool = False
  dropout: Share = 0.0
  head_zero_init: bool = False
  kernel_init: str | Mapping[str, Any] = "timm"
  bias_init: str | Mapping[str, Any] = "zeros"
  remat: bool = False
  scan: bool = False
  dtype: Literal["float32", "bfloat16"] = "float32"

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False, drop_path: Share | jax.Array = 0.0) -> Outputs:
    """Maps [B, H, W, C] float32 to `Outputs` with logits [B, K].

    Args:
      x: images.
      train: whether dropout and stochastic depth are on.
      drop_path: rate in [0, 1) of dropping either branch of the last block, [] or a number; less before it.
    """
    dtype, taps = jnp.dtype(self.dtype), Taps()
    self._check(x)
    x = self._tokens(x.astype(dtype), dtype)
    x = nn.Dropout(self.dropout, deterministic=not train)(taps("embed", x))
    x = apply_blocks(
      x, taps, self.depth, drop_path, remat=self.remat, scan=self.scan,
      attention_fields=dict(
        heads=self.heads, kv_heads=self.heads, attention=self.attention, bias=self.attention_bias,
        reference_length=self.reference_length or x.shape[1], causal=False, window=0, positions="none",
        qk_norm=self.qk_norm, implementation=self.attention_implementation,
      ),
      mlp_dim=self.mlp_dim or 4 * self.width, layer_scale=self.layer_scale, hybrid_norm=self.hybrid_norm,
      dropout=self.dropout, train=train, use_bias=True, kernel_init=self.kernel_init, bias_init=self.bias_init,
      dtype=dtype,
    )
    x = taps("norm", nn.LayerNorm(EPSILON, dtype=dtype, name="norm")(x))
    x = taps("pool", x[:, 0] if self.pool == "cls" else x.mean(axis=1))
    kernel = "zeros" if self.head_zero_init else self.kernel_init
    init = initializers(kernel, self.bias_init, fan_in=self.width)
    return taps.outputs(nn.Dense(self.num_classes, dtype=dtype, name="head", **init)(x))

  def _tokens(self, x: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Maps images to tokens [B, T, D], with their positions, the cls token first."""
    init = initializers(self.kernel_init, self.bias_init, fan_in=self.patch**2 * x.shape[-1])
    x = PatchConv(self.width, self.patch, dtype=dtype, name="embedding", **init)(x)
    batch, height, width, _ = x.shape
    x = x.reshape(batch, height * width, self.width)
    if self.positions == "sincos2d":
      x = x + jnp.asarray(sincos2d(height, width, self.width), dtype)[None]
    if self.pool == "cls":
      cls = self.param("cls", EMBEDDING_INIT, (1, 1, self.width), jnp.float32).astype(dtype)
      x = jnp.concatenate([jnp.broadcast_to(cls, (batch, 1, self.width)), x], axis=1)
    if self.positions == "learned":
      x = x + self._positions(x.shape[1]).astype(dtype)[None]
    return x

  def _positions(self, tokens: int) -> jax.Array:
    known: Any = self.get_variable("params", "positions")
    if known is not None and known.shape[0] != tokens:
      raise UserError(f"config.model has learned positions for {known.shape[0]} tokens, but the image has {tokens}; "
                      "give images of the size in training, or set config.model.positions to 'sincos2d'.")
    return self.param("positions", EMBEDDING_INIT, (tokens, self.width), jnp.float32)

  def _check(self, x: jax.Array) -> None:
    if x.ndim != 4:
      raise UserError(f"config.model is a vision transformer and needs images [H, W, C], not {x.shape[1:]}; "
                      "choose another model or data set.")
    if self.patch < 1 or x.shape[1] % self.patch or x.shape[2] % self.patch:
      raise UserError(f"config.model.patch is {self.patch}, which does not divide the image's {x.shape[1]} x "
                      f"{x.shape[2]} pixels; choose another patch.")
    if self.positions == "sincos2d" and self.width % 4:
      raise UserError(f"config.model.width is {self.width}, but positions of 'sincos2d' need a multiple of 4; choose "
                      "another width, or set config.model.positions to 'learned'.")
    check_fields(self, self.heads)


# Ti, S and B are 192, 384 and 768 wide.
VITS = {
  "vit": ViT,
  "vit_s16": Preset(ViT, patch=16, width=384, depth=12, heads=6),
  "vit_b16": Preset(ViT, patch=16, width=768, depth=12, heads=12, positions="learned", pool="cls"),
  "deit_ti16": Preset(ViT, patch=16, width=192, depth=12, heads=3, positions="learned", pool="cls"),
  "deit_s16": Preset(ViT, patch=16, width=384, depth=12, heads=6, positions="learned", pool="cls"),
  # For 32 x 32 images: 64 tokens, 83 million multiplications an image.
  "vit_cifar": Preset(ViT, patch=4, width=128, depth=6, heads=4),
}
