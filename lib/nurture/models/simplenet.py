"""SimpleNet v1: thirteen convolutions, max pooling and nothing else, as its two published implementations have it.

The Caffe code is that of the paper; the PyTorch code came later and differs in normalization, dropout and initial
weights. Every difference is a field named after its source.

Reference: Hasanpour et al. 2016, arXiv:1608.06037; Coderx7/SimpleNet (Caffe) and Coderx7/SimpleNet_Pytorch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from nurture.core import Outputs, Preset, UserError
from nurture.core.hints import Count, Positive, Share
from nurture.models.checks import check_images, check_ranges
from nurture.models.initializers import initializers
from nurture.models.layers import batch_norm
from nurture.models.taps import Taps

# Strides of the first convolutions for large images, by mode and 0-based convolution; all modes reach 28 x 28 from
# 224 x 224 before the first pool.
STRIDES = {0: {}, 1: {0: 2, 1: 2, 2: 2}, 2: {0: 2, 1: 2, 3: 2}, 3: {0: 2, 1: 2, 4: 2}, 4: {0: 2, 2: 2, 4: 2}}


class SimpleNet(nn.Module):
  """Convolutions with batch normalization and ReLU, 2x2 max pools between, a global max pool and a linear head.

  Placements, by source:
    norms     "torch": after every convolution. "caffe": after the first ten only, and the seventh pools before it
              normalizes.
    dropout   "torch": whole channels, after every pool (the published logs; its code today has none).
              "caffe": single units, after every activation but the last (12 times); where a pool follows, after the
              pool, except at the ninth, where it comes before.
    init      "torch": xavier_uniform_ with gain sqrt(2), biases and head PyTorch's default. "caffe": Caffe's xavier, a
              normal of std 0.01 for convolutions 3, 4 and 5, biases 0.
    rounding  a pool of an odd side, "torch": drops the last row. "caffe": pools it alone.

  Taps: every conv, norm, relu and pool.

  Attributes:
    num_classes: K.
    layers: (filters, kernel) for a convolution, "pool" for a pool. Odd kernels keep the size; even ones have no padding
      (Caffe's default).
    scale: multiplies all widths, rounded.
    stride_mode: a row of STRIDES.
    norms, dropout_placement, init_style, pool_rounding: as above.
    dropout: rate at the places above; stream "dropout".
    drop_rates: ((layer, rate), ...) of more dropout of whole channels after single layers, counted from 0 with pools;
      the number of layers itself stands for the global pool. What the PyTorch code calls drop_rates; there 15 is the
      global pool of every network, and on CIFAR, with 17 layers, the last pool before it too.
    dtype: of the computation; parameters and logits are float32.
  """

  num_classes: Count
  layers: tuple[Any, ...]
  scale: Positive = 1.0
  stride_mode: int = 0
  norms: Literal["torch", "caffe"] = "torch"
  dropout: Share = 0.0
  dropout_placement: Literal["torch", "caffe"] = "torch"
  drop_rates: tuple[Any, ...] = ()
  init_style: Literal["torch", "caffe"] = "torch"
  pool_rounding: Literal["torch", "caffe"] = "torch"
  dtype: Literal["float32", "bfloat16"] = "float32"

  def __post_init__(self):
    if self.stride_mode not in STRIDES:
      raise UserError(f"config.model.stride_mode is {self.stride_mode}; give one of {', '.join(map(str, STRIDES))}.")
    check_ranges(self)
    if all(layer == "pool" for layer in self.layers):
      raise UserError("config.model.layers has no convolution; give at least one (filters, kernel).")
    for i, layer in enumerate(self.layers):
      pair = isinstance(layer, (tuple, list)) and len(layer) == 2 and all(isinstance(n, int) and n > 0 for n in layer)
      if layer != "pool" and not pair:
        raise UserError(f"config.model.layers[{i}] is {layer!r}; write (filters, kernel) with whole numbers of at "
                        "least 1, or 'pool'.")
    for entry in self.drop_rates:
      pair = isinstance(entry, (tuple, list)) and len(entry) == 2 and all(isinstance(n, (int, float)) for n in entry)
      if not (pair and entry[0] in range(len(self.layers) + 1) and 0 <= entry[1] <= 1):
        raise UserError(f"config.model.drop_rates has {entry!r}; write (layer, rate) with a layer from 0 to "
                        f"{len(self.layers)}, which is the global pool, and a rate from 0 to 1.")
    if not min(round(layer[0] * self.scale) for layer in self.layers if layer != "pool"):
      raise UserError(f"config.model.scale is {self.scale}, which leaves a layer without filters; give a larger one.")
    super().__post_init__()

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> Outputs:
    """Maps [B, H, W, C] float32 to `Outputs` with logits [B, K]."""
    check_images(x.shape)
    taps, dtype, rates = Taps(), jnp.dtype(self.dtype), {int(layer): rate for layer, rate in self.drop_rates}
    strides, convolutions = STRIDES[self.stride_mode], sum(layer != "pool" for layer in self.layers)
    norm = lambda i, x: taps("norm", batch_norm(train, momentum=0.95, dtype=dtype, name=f"norm_{i:02d}")(x))
    relu = lambda x: taps("relu", jax.nn.relu(x))
    pool = lambda layer, x: taps("max_pool", self._pool(layer, x))
    drop = lambda x, rate, axes=(): nn.Dropout(rate, broadcast_dims=axes, deterministic=not train)(x)
    caffe_drop = lambda x: drop(x, self.dropout if self.dropout_placement == "caffe" else 0.0)
    torch_drop = lambda x: drop(x, self.dropout if self.dropout_placement == "torch" else 0.0, (1, 2))

    x, i = x.astype(dtype), 0  # i: convolutions so far
    pooled = False  # whether the pool at hand has been applied inside the convolution before it
    for layer, item in enumerate(self.layers):
      if item == "pool":
        if not pooled:
          x = torch_drop(pool(layer, x))
          x = x if i == 9 else caffe_drop(x)
        pooled = False
      else:
        i += 1
        x = taps("conv", self._conv(i, item, strides.get(i - 1, 1), layer, x))
        pools_next = layer + 1 < len(self.layers) and self.layers[layer + 1] == "pool"
        if self.norms == "caffe" and i == 7 and pools_next:
          x, pooled = torch_drop(pool(layer + 1, x)), True
        if self.norms == "torch" or i <= 10:
          x = norm(i, x)
        x = relu(x)
        if i < convolutions and (pooled or not pools_next or i == 9):
          x = caffe_drop(x)
      x = drop(x, rates.get(layer, 0.0), (1, 2))
    x = taps("global_max_pool", x.max(axis=(1, 2)))
    x = drop(x, rates.get(len(self.layers), 0.0))
    style = ("torch_default",) * 2 if self.init_style == "torch" else ("caffe_xavier", "zeros")
    return taps.outputs(nn.Dense(self.num_classes, dtype=dtype, name="head", **initializers(*style, x.shape[-1]))(x))

  def _conv(self, i: int, item: tuple[int, int], stride: int, layer: int, x: jax.Array) -> jax.Array:
    """Applies convolution i, counted from 1."""
    filters, kernel = round(item[0] * self.scale), item[1]
    padding = kernel // 2 if kernel % 2 else 0
    if min(x.shape[1:3]) + 2 * padding < kernel:
      raise UserError(f"config.model.layers[{layer}] is {item!r}, but the image is {x.shape[1]} x {x.shape[2]} there; "
                      "give larger images or fewer pools.")
    style: tuple[Any, Any] = ({"name": "xavier", "gain": math.sqrt(2)}, "torch_default")
    if self.init_style == "caffe":
      style = ({"name": "normal", "std": 0.01} if i in (3, 4, 5) else "caffe_xavier", "zeros")
    return nn.Conv(
      filters, (kernel,) * 2, (stride,) * 2, [(padding,) * 2] * 2, dtype=jnp.dtype(self.dtype), name=f"conv_{i:02d}",
      **initializers(*style, kernel**2 * x.shape[-1]),
    )(x)

  def _pool(self, layer: int, x: jax.Array) -> jax.Array:
    if min(x.shape[1:3]) < 2 and self.pool_rounding == "torch":
      raise UserError(f"config.model.layers[{layer}] is a pool, but the image is {x.shape[1]} x {x.shape[2]} there; "
                      "give larger images or fewer pools.")
    odd = [(0, side % 2 if self.pool_rounding == "caffe" else 0) for side in x.shape[1:3]]
    return nn.max_pool(x, (2, 2), (2, 2), odd)


def _layers(*items: int | tuple[int, int] | str) -> tuple[Any, ...]:
  """Returns the list with 3x3 where no kernel is given."""
  return tuple((item, 3) if isinstance(item, int) else item for item in items)


P = "pool"
_CAFFE: Mapping[str, Any] = {"norms": "caffe", "dropout_placement": "caffe", "init_style": "caffe",
                             "pool_rounding": "caffe"}
_5M = _layers(64, 128, 128, 128, P, 128, 128, 256, P, 256, 256, P, 512, (2048, 1), (256, 1), P, 256)
_310K = _layers(64, 32, 32, 32, P, 32, 32, 64, P, 64, 64, P, 128, (256, 1), (64, 1), P, 64)
_460K = _layers(32, 32, 32, 64, P, 64, 64, 64, P, 64, 64, P, 96, 96, 96, P, (100, 1))
_460K_TORCH = _layers(32, 32, 32, 64, P, 64, 64, 64, P, 64, 64, P, 96, (96, 1), (96, 1), P, 100)
# Weights published with early PyTorch code have one pool too many, after the tenth convolution.
_EXTRA_POOL = _layers(64, 128, 128, 128, P, 128, 128, 256, P, 256, 256, P, 512, P, (2048, 1), (256, 1), P, 256)
_MNIST = _layers(64, 128, 128, 128, P, 128, 128, 256, P, 256, 256, P, 512, (512, 2), (256, 2), P, 256)
_IMAGENET = _layers(64, *(128,) * 5, P, *(256,) * 3, 512, P, (2048, 1), (256, 1), 256)
_IMAGENET_9M = _layers(128, *(192,) * 5, P, *(320,) * 3, 640, P, (2560, 1), (320, 1), 320)

SIMPLENETS = {
  "simplenet": SimpleNet,
  "simplenet_cifar_5m": Preset(SimpleNet, layers=_5M),
  "simplenet_cifar_5m_caffe": Preset(SimpleNet, layers=_5M, dropout=0.2, **_CAFFE),
  "simplenet_cifar_5m_extra_pool": Preset(SimpleNet, layers=_EXTRA_POOL, dropout=0.1),
  "simplenet_cifar_310k": Preset(SimpleNet, layers=_310K),
  "simplenet_cifar_310k_caffe": Preset(SimpleNet, layers=_310K, **_CAFFE),
  # The paper's 460K network; the function of that name in the PyTorch code has 385,790 parameters.
  "simplenet_cifar_460k": Preset(SimpleNet, layers=_460K, **_CAFFE),
  "simplenet_cifar_460k_torch": Preset(SimpleNet, layers=_460K_TORCH),
  # The network released as 99.75 % on MNIST: 2x2 kernels where the paper has 1x1, and dropout despite its name.
  "simplenet_mnist": Preset(SimpleNet, layers=_MNIST, dropout=0.2, **_CAFFE),
  **{
    f"simplenet_{name}_m{mode}": Preset(SimpleNet, layers=layers, scale=scale, stride_mode=mode)
    for name, layers, scale in (
      ("small_05", _IMAGENET, 0.5), ("small_075", _IMAGENET, 0.75), ("5m", _IMAGENET, 1.0), ("9m", _IMAGENET_9M, 1.0)
    )
    for mode in (1, 2, 3, 4)
  },
}
