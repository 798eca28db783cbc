"""The multi-layer perceptron."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from nurture.core import Outputs, Preset
from nurture.core.hints import Count, Share, Whole
from nurture.models.checks import check_ranges
from nurture.models.initializers import initializers
from nurture.models.layers import NORMS, activation
from nurture.models.taps import Taps


class MLP(nn.Module):
  """`depth` hidden layers of `width` units, each dense -> norm -> activation -> dropout, and a linear head.

  Taps: the output of every dense layer ("000_dense"), norm and activation ("001_relu"), not the logits.

  Attributes:
    num_classes: K.
    depth: hidden layers; 0 is a linear model.
    width: units of every hidden layer.
    first_width: units of the first hidden layer instead; 0 takes `width`.
    activation: a row of ACTIVATIONS.
    norm: before the activation.
    dropout: rate after every activation; stream "dropout".
    kernel_init, bias_init: rows of INITIALIZERS, by name or with their numbers.
    dtype: of the computation; parameters and logits are float32.
  """

  num_classes: Count
  depth: Whole = 2
  width: Count = 128
  first_width: Whole = 0
  activation: str = "relu"
  norm: Literal["none", "batch", "layer"] = "none"
  dropout: Share = 0.0
  kernel_init: str | Mapping[str, Any] = "he"
  bias_init: str | Mapping[str, Any] = "zeros"
  dtype: Literal["float32", "bfloat16"] = "float32"

  def __post_init__(self):
    check_ranges(self)
    super().__post_init__()

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> Outputs:
    """Maps [B, ...] float32 to `Outputs` with logits [B, K]."""
    act, dtype, taps = activation(self.activation), jnp.dtype(self.dtype), Taps()
    x = x.reshape(x.shape[0], -1).astype(dtype)
    for i in range(self.depth):
      x = taps("dense", self._dense(f"dense_{i:02d}", (not i and self.first_width) or self.width, x))
      if self.norm != "none":
        x = taps("norm", NORMS[self.norm](train, dtype=dtype, name=f"norm_{i:02d}")(x))
      x = taps(self.activation, act(x))
      x = nn.Dropout(self.dropout, deterministic=not train)(x)
    return taps.outputs(self._dense("head", self.num_classes, x))

  def _dense(self, name: str, features: int, x: jax.Array) -> jax.Array:
    init = initializers(self.kernel_init, self.bias_init, fan_in=x.shape[-1])
    return nn.Dense(features, dtype=jnp.dtype(self.dtype), name=name, **init)(x)


# The fully connected guided networks of Subramaniam et al. 2024, arXiv:2410.20035, at their sizes: 49 linear layers,
# whose first is twice as wide, and 4. For 32 x 32 images take a smaller width.
DEEP_FCN = Preset(
  MLP, depth=48, width=1024, first_width=2048, norm="batch", dropout=0.1,
  kernel_init="torch_default", bias_init="torch_default",
)
WIDE_FCN = Preset(
  MLP, depth=3, width=8192, norm="batch", kernel_init="torch_default", bias_init="torch_default"
)
