"""A causal transformer decoder: a language model, with softmax or sigmoid attention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from nurture.attention.positions import sinusoidal
from nurture.core import Outputs, UserError
from nurture.core.hints import Count, NonNegative, Share, Whole
from nurture.models.initializers import initializers
from nurture.models.taps import Taps
from nurture.models.transformer import EMBEDDING_INIT, EPSILON, apply_blocks, check_fields


class Decoder(nn.Module):
  """Token embedding -> positions -> pre-norm blocks with causal attention -> layer norm -> logits of the next token.

      sigmoid attention:  O = sigmoid(Q K^T / sqrt(H) + b) V,    b = -log n,    n = max_length

  n is the same for every row, though row t sees t + 1 tokens only, and stays when a shorter or longer text comes in.

  Taps: "embed", the tokens with their positions; of each block, under "block3.", what `transformer.Block` says;
  "norm", the tokens after the last layer norm.

  Attributes:
    num_classes: K, the vocabulary.
    width: D.
    depth: blocks.
    heads: of attention; must divide the width.
    kv_heads: heads of keys and values, which the query heads share in equal groups; 0 is `heads`.
    mlp_dim: hidden units of the MLPs; 0 is 4 times the width.
    max_length: n, the length in training; longer texts are refused with learned positions only.
    positions: added to the embedding ("sinusoidal", "learned"), in attention ("rope", "alibi"), or none.
    attention: "softmax" or "sigmoid".
    attention_bias: b of sigmoid attention: a number, "-log_n", or "learned", one for each head of each block, from
      -log n on. Softmax does without.
    attention_implementation: of `nurture.attention.sigmoid_attention` or `softmax_attention`; "auto" takes the best
      that serves the device, the dtype and the heads. All but "xla" differentiate once, in reverse.
    qk_norm: layer norm of queries and keys over the features of a head (scale and shift shared by the heads).
    layer_scale: initial value of a learned factor for each feature of both branches; 0 is none.
    hybrid_norm: layer norm of the attention branch's output (not of the MLP's), x + LN(Attention(LN(x))).
    use_bias: of the dense layers, the head's too; layer norms keep their shift.
    tied: whether the head is the embedding, transposed and without bias.
    window: how many earlier tokens a token sees beside itself; 0 is all.
    dropout: rate after the embedding and every dense layer but those of queries, keys and values.
    kernel_init, bias_init: rows of INITIALIZERS; embedding and learned positions start from N(0, 0.02^2).
    remat: whether to save memory by computing the inside of blocks again in the backward pass.
    scan: whether the blocks are one program run `depth` times, with stacked parameters: compiles faster.
    dtype: of the computation; parameters and logits are float32.

  References: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners"; Ainslie et al. 2023,
  arXiv:2305.13245 (grouped heads); Su et al. 2021, arXiv:2104.09864 (rope); Press et al. 2022, arXiv:2108.12409
  (alibi); Ramapuram et al. 2024, arXiv:2409.04431 (sigmoid attention).
  """

  num_classes: Count
  width: Count = 128
  depth: Whole = 4
  heads: Count = 4
  kv_heads: Whole = 0
  mlp_dim: Whole = 0
  max_length: Count = 256
  positions: Literal["sinusoidal", "learned", "rope", "alibi", "none"] = "rope"
  attention: Literal["softmax", "sigmoid"] = "softmax"
  attention_bias: float | Literal["-log_n", "learned"] = "-log_n"
  attention_implementation: Literal["auto", "xla", "xla_chunked", "mosaic_gpu", "mosaic_tpu", "cudnn"] = "auto"
  qk_norm: bool = False
  layer_scale: NonNegative = 0.0
  hybrid_norm: bool = False
  use_bias: bool = True
  tied: bool = False
  window: Whole = 0
  dropout: Share = 0.0
  kernel_init: str | Mapping[str, Any] = "timm"
  bias_init: str | Mapping[str, Any] = "zeros"
  remat: bool = False
  scan: bool = False
  dtype: Literal["float32", "bfloat16"] = "float32"

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False, drop_path: Share | jax.Array = 0.0) -> Outputs:
    """Maps tokens [B, T] int32 in [0, K) to `Outputs` with logits [B, T, K], of the token after each.

    Args:
      x: tokens.
      train: whether dropout and stochastic depth are on.
      drop_path: rate in [0, 1) of dropping either branch of the last block, [] or a number; less before it.
    """
    dtype, taps, length = jnp.dtype(self.dtype), Taps(), x.shape[-1]
    self._check(x)
    embedding = nn.Embed(self.num_classes, self.width, embedding_init=EMBEDDING_INIT, dtype=dtype, name="embedding")
    x = embedding(x)
    if self.positions == "sinusoidal":
      x = x + jnp.asarray(sinusoidal(length, self.width), dtype)[None]
    elif self.positions == "learned":
      table = self.param("positions", EMBEDDING_INIT, (self.max_length, self.width), jnp.float32)
      x = x + table[:length].astype(dtype)[None]
    x = nn.Dropout(self.dropout, deterministic=not train)(taps("embed", x))
    x = apply_blocks(
      x, taps, self.depth, drop_path, remat=self.remat, scan=self.scan,
      attention_fields=dict(
        heads=self.heads, kv_heads=self.kv_heads or self.heads, attention=self.attention, bias=self.attention_bias,
        reference_length=self.max_length, causal=True, window=self.window, positions=self.positions,
        qk_norm=self.qk_norm, implementation=self.attention_implementation,
      ),
      mlp_dim=self.mlp_dim or 4 * self.width, layer_scale=self.layer_scale, hybrid_norm=self.hybrid_norm,
      dropout=self.dropout, train=train, use_bias=self.use_bias, kernel_init=self.kernel_init,
      bias_init=self.bias_init, dtype=dtype,
    )
    x = taps("norm", nn.LayerNorm(EPSILON, dtype=dtype, name="norm")(x))
    if self.tied:
      return taps.outputs(embedding.attend(x))
    init = initializers(self.kernel_init, self.bias_init, fan_in=self.width)
    return taps.outputs(nn.Dense(self.num_classes, use_bias=self.use_bias, dtype=dtype, name="head", **init)(x))

  def _check(self, x: jax.Array) -> None:
    if x.ndim != 2 or not jnp.issubdtype(x.dtype, jnp.integer):
      raise UserError(f"config.model is a decoder and needs tokens [T] of whole numbers, not {x.dtype} {x.shape[1:]}; "
                      "choose another model or data set.")
    if not x.shape[1]:
      raise UserError("the text is empty; give at least one token.")
    if self.positions == "learned" and x.shape[1] > self.max_length:
      raise UserError(f"the text has {x.shape[1]} tokens, but there are learned positions for {self.max_length} only; "
                      "raise config.model.max_length, or set config.model.positions to 'rope' or 'alibi'.")
    check_fields(self, self.kv_heads or self.heads)
    if self.positions == "rope" and self.width // self.heads % 2:
      raise UserError(f"config.model.width / heads is {self.width // self.heads}, but positions of 'rope' rotate pairs "
                      "of features; choose config.model.width and heads so that it is even.")
    if self.positions == "sinusoidal" and self.width % 2:
      raise UserError(f"config.model.width is {self.width}, but positions of 'sinusoidal' need an even one; choose "
                      "another width, or set config.model.positions to 'learned'.")
