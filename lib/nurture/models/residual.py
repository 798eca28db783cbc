"""Residual blocks: two or three convolutions beside a shortcut, in the order of 2015 or of 2016."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from nurture.models import layers
from nurture.models.initializers import initializers
from nurture.models.taps import Taps


@dataclasses.dataclass(frozen=True)
class Layers:
  """The layers of one network; they share the fields that the network was given.

  Attributes:
    activation: a row of ACTIVATIONS.
    norm: a row of NORMS; with "none" the convolutions have a bias instead.
    kernel_init, bias_init: rows of INITIALIZERS, by name or with their numbers.
    dtype: of the computation.
  """

  activation: str
  norm: str
  kernel_init: str | Mapping[str, Any]
  bias_init: str | Mapping[str, Any]
  dtype: str

  def conv(self, name: str, x: jax.Array, features: int, kernel: int, stride: int = 1) -> jax.Array:
    """Convolves with padding (kernel - 1) / 2 on every side, as PyTorch does; "SAME" pads less on the left."""
    padding = (kernel - 1) // 2
    return nn.Conv(
      features, (kernel, kernel), (stride, stride), [(padding, padding)] * 2, use_bias=self.norm == "none",
      dtype=jnp.dtype(self.dtype), name=name, **self._init(kernel**2 * x.shape[-1]),
    )(x)

  def dense(self, name: str, x: jax.Array, features: int) -> jax.Array:
    """Maps [B, D] to [B, features]."""
    return nn.Dense(features, dtype=jnp.dtype(self.dtype), name=name, **self._init(x.shape[-1]))(x)

  def normalize(self, name: str, x: jax.Array, train: bool, taps: Taps, kind: str = "norm") -> jax.Array:
    """Normalizes and notes it; without a norm, nothing happens."""
    if self.norm == "none":
      return x
    return taps(kind, layers.NORMS[self.norm](train, dtype=jnp.dtype(self.dtype), name=name)(x))

  def activate(self, x: jax.Array, taps: Taps, prefix: str = "") -> jax.Array:
    """Applies the activation and notes it."""
    return taps(prefix + self.activation, layers.activation(self.activation)(x))

  def _init(self, fan_in: int) -> dict[str, Any]:
    return initializers(self.kernel_init, self.bias_init, fan_in)


class ResidualBlock(nn.Module):
  """y = act(S(x) + s F(x)), or y = S(x) + s F(x) where the activations come before the convolutions.

  F is 3x3(stride)-3x3, or 1x1-3x3(stride)-1x1 with four times the features at the end, each conv -> norm -> act with
  the last activation after the sum (He et al. 2016a, arXiv:1512.03385), or each norm -> act -> conv (He et al. 2016b,
  arXiv:1603.05027). S is the identity while the shape stays. Where it changes, "conv" projects with a 1x1(stride)
  convolution, normalized in the first order, plain and on the activated input in the second; "pad" takes every
  stride-th pixel and appends channels of zeros (option A of the first paper). With `activated_shortcut` S starts from
  the activated input everywhere: y = S(act(norm(x))) + s F(x).

  Taps: conv, norm and activation of F, "projection.conv" and "projection.norm" of S, "add" and the activation after it.

  Attributes:
    layers: what the layers are made of.
    features: of the convolutions within the block.
    stride: of the first 3x3 convolution.
    bottleneck: three convolutions instead of two.
    preactivation: the second order.
    shortcut: S; "none" leaves act(F(x)), or F(x), with an activation after every convolution.
    scale: s; 0.1 to 0.3 keeps very wide networks alive (Szegedy et al. 2016, arXiv:1602.07261, section 3.3).
    dropout: rate before every convolution of F but the first; stream "dropout".
    activated_shortcut: in the second order, S starts behind the first activation even where it is the identity.
  """

  layers: Layers
  features: int
  stride: int = 1
  bottleneck: bool = False
  preactivation: bool = False
  shortcut: Literal["conv", "pad", "none"] = "conv"
  scale: float = 1.0
  dropout: float = 0.0
  activated_shortcut: bool = False

  @nn.compact
  def __call__(
    self, x: jax.Array, train: bool, drop_path: float | jax.Array | None = None
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Maps [B, H, W, C] to ([B, H', W', C'], taps); drop_path [] is the rate at which F is dropped."""
    taps, source, branch = Taps(), x, x
    shapes = [(3, 1, self.stride), (3, 1, 1)]
    if self.bottleneck:
      shapes = [(1, 1, 1), (3, 1, self.stride), (1, 4, 1)]
    for i, (kernel, factor, stride) in enumerate(shapes):
      if self.preactivation:
        branch = self.layers.activate(self.layers.normalize(f"norm_{i}", branch, train, taps), taps)
        source = source if i else branch
      branch = nn.Dropout(self.dropout, deterministic=not train or not i, name=f"dropout_{i}")(branch)
      branch = taps("conv", self.layers.conv(f"conv_{i}", branch, factor * self.features, kernel, stride))
      if not self.preactivation:
        branch = self.layers.normalize(f"norm_{i}", branch, train, taps)
        branch = self.layers.activate(branch, taps) if i < len(shapes) - 1 else branch
    y = branch if self.shortcut == "none" else self._sum(x, source, branch, train, drop_path, taps)
    return y if self.preactivation else self.layers.activate(y, taps), taps.arrays

  def _sum(self, x, source, branch, train, drop_path, taps):
    """Returns S(x) + s F(x), where `source` is what a projection reads."""
    if drop_path is not None:
      branch = layers.DropPath(name="drop_path")(branch, drop_path, train)
    widths = x.shape[-1], branch.shape[-1]
    if self.stride == 1 and widths[0] == widths[1]:
      shortcut = source if self.activated_shortcut else x
    elif self.shortcut == "pad":
      shortcut = source[:, :: self.stride, :: self.stride]
      shortcut = jnp.pad(shortcut, [(0, 0)] * 3 + [(0, widths[1] - widths[0])])
    else:
      shortcut = taps("projection.conv", self.layers.conv("projection", source, widths[1], 1, self.stride))
      if not self.preactivation:
        shortcut = self.layers.normalize("projection_norm", shortcut, train, taps, "projection.norm")
    return taps("add", shortcut + jnp.asarray(self.scale, branch.dtype) * branch)
