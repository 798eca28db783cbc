"""A plain convolutional network from a list of layers, and the classic ones that such a list can say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from nurture.core import Outputs, Preset, UserError
from nurture.core.build import suggest
from nurture.core.hints import Count, Share
from nurture.models.checks import check_images, check_ranges
from nurture.models.initializers import initializers
from nurture.models.layers import NORMS, activation
from nurture.models.taps import Taps

_ITEMS = {
  "conv": "('conv', features, kernel[, stride[, padding]])",
  "dense": "('dense', units)",
  "max_pool": "('max_pool', size)",
  "avg_pool": "('avg_pool', size)",
  "global_avg_pool": "('global_avg_pool',)",
  "global_max_pool": "('global_max_pool',)",
  "pad_to": "('pad_to', size)",
}


class CNN(nn.Module):
  """Layers in the order of a list, then a linear head on what is left, flattened.

      ("conv", features, kernel[, stride[, padding]])   square; stride 1, padding kernel // 2 on every side;
                                                        with bias; then norm and activation
      ("dense", units)                                  flattens; then activation and dropout
      ("max_pool", size), ("avg_pool", size)            stride = size, no padding; then dropout
      ("global_avg_pool",), ("global_max_pool",)        [B, H, W, C] -> [B, C]
      ("pad_to", size)                                  zeros around the image, up to size x size

  Taps: the output of every convolution, norm, dense layer, activation and pool, not the logits.

  Attributes:
    num_classes: K.
    layers: as above.
    activation: a row of ACTIVATIONS.
    norm: after every convolution.
    dropout: rate after every pool and hidden dense layer; stream "dropout".
    kernel_init, bias_init: rows of INITIALIZERS, by name or with their numbers.
    dtype: of the computation; parameters and logits are float32.
  """

  num_classes: Count
  layers: tuple[tuple, ...]
  activation: str = "relu"
  norm: Literal["none", "batch", "layer"] = "none"
  dropout: Share = 0.0
  kernel_init: str | Mapping[str, Any] = "he"
  bias_init: str | Mapping[str, Any] = "zeros"
  dtype: Literal["float32", "bfloat16"] = "float32"

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> Outputs:
    """Maps [B, H, W, C] float32 to `Outputs` with logits [B, K]."""
    check_ranges(self)
    act, dtype, taps = activation(self.activation), jnp.dtype(self.dtype), Taps()
    init = lambda fan_in: initializers(self.kernel_init, self.bias_init, fan_in)
    drop = lambda x: nn.Dropout(self.dropout, deterministic=not train)(x)
    check_images(x.shape)
    x = x.astype(dtype)
    for i, item in enumerate(self.layers):
      kind, arguments = _check(i, item, x.shape)
      if kind == "conv":
        features, kernel, stride, padding = (*arguments, *(1, arguments[1] // 2)[len(arguments) - 2 :])
        x = nn.Conv(
          features, (kernel, kernel), (stride, stride), [(padding, padding)] * 2,
          dtype=dtype, name=f"conv_{i:02d}", **init(kernel**2 * x.shape[-1]),
        )(x)
        taps("conv", x)
        if self.norm != "none":
          x = taps("norm", NORMS[self.norm](train, dtype=dtype, name=f"norm_{i:02d}")(x))
        x = taps(self.activation, act(x))
      elif kind == "dense":
        x = x.reshape(x.shape[0], -1)
        x = taps("dense", nn.Dense(arguments[0], dtype=dtype, name=f"dense_{i:02d}", **init(x.shape[-1]))(x))
        x = drop(taps(self.activation, act(x)))
      elif kind == "pad_to":
        x = _pad_to(x, *arguments)
      else:
        x = drop(taps(kind, _POOLS[kind](x, *arguments)))
    x = x.reshape(x.shape[0], -1)
    return taps.outputs(nn.Dense(self.num_classes, dtype=dtype, name="head", **init(x.shape[-1]))(x))


_POOLS: dict[str, Any] = {
  "max_pool": lambda x, size: nn.max_pool(x, (size, size), (size, size)),
  "avg_pool": lambda x, size: nn.avg_pool(x, (size, size), (size, size)),
  "global_avg_pool": lambda x: x.mean(axis=(1, 2)),
  "global_max_pool": lambda x: x.max(axis=(1, 2)),
}


def _pad_to(x: jax.Array, size: int) -> jax.Array:
  around = [((size - n) // 2, size - n - (size - n) // 2) for n in x.shape[1:3]]
  return jnp.pad(x, [(0, 0), *around, (0, 0)])


def _check(index: int, item: Any, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
  """Returns the kind and the numbers of an item, or says what is wrong with it."""
  where = f"config.model.layers[{index}]"
  kind, *arguments = item if isinstance(item, (tuple, list)) and item else (item,)
  if kind not in _ITEMS:
    raise UserError(f"{where} is {item!r}; {suggest(kind, _ITEMS)}.")
  fewest = 2 if kind == "conv" else 1 if kind in ("dense", "max_pool", "avg_pool", "pad_to") else 0
  most = {"conv": 4}.get(kind, fewest)
  least = (1, 1, 1, 0)  # a padding may be 0
  if not fewest <= len(arguments) <= most or not all(isinstance(a, int) and a >= b for a, b in zip(arguments, least)):
    raise UserError(f"{where} is {item!r}; write {_ITEMS[kind]} with whole numbers of at least 1 (padding 0).")
  if kind != "dense" and len(shape) != 4:
    raise UserError(f"{where} is {item!r}, but what comes before it has left no image; put it earlier.")
  padding = arguments[3] if len(arguments) == 4 else arguments[1] // 2 if kind == "conv" else 0
  window = {"conv": arguments[1:2], "max_pool": arguments, "avg_pool": arguments}.get(kind)
  if (window and window[0] > min(shape[1:3]) + 2 * padding) or (kind == "pad_to" and arguments[0] < max(shape[1:3])):
    raise UserError(f"{where} is {item!r}, but the image is {shape[1]} x {shape[2]} there; choose another size.")
  return kind, tuple(arguments)


def _vgg(*stages: tuple[int, ...]) -> tuple[tuple, ...]:
  """Returns stages of 3x3 convolutions, each followed by a 2x2 max pool."""
  return tuple(
    layer for widths in stages for layer in (*(("conv", width, 3) for width in widths), ("max_pool", 2))
  )


# LeCun et al. 1998 in its modern reading: ReLU, max pooling, dense layers; 28 x 28 images are padded to 32 x 32.
LENET5 = Preset(CNN, layers=(
  ("pad_to", 32), ("conv", 6, 5, 1, 0), ("max_pool", 2), ("conv", 16, 5, 1, 0), ("max_pool", 2),
  ("dense", 120), ("dense", 84),
))
# Simonyan & Zisserman 2015, arXiv:1409.1556, configurations A, B, D and E for 32 x 32 images: with batch
# normalization, and one dense layer where the paper has three.
VGG11 = Preset(CNN, norm="batch", layers=_vgg((64,), (128,), (256, 256), (512, 512), (512, 512)))
VGG13 = Preset(CNN, norm="batch", layers=_vgg((64, 64), (128, 128), (256, 256), (512, 512), (512, 512)))
VGG16 = Preset(CNN, norm="batch", layers=_vgg((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3))
VGG19 = Preset(CNN, norm="batch", layers=_vgg((64, 64), (128, 128), (256,) * 4, (512,) * 4, (512,) * 4))
# The same idea at a size that a CPU trains: 20 million multiply-adds an image of 32 x 32.
VGG_SMALL = Preset(CNN, norm="batch", layers=(*_vgg((32,), (64,), (128, 128)), ("global_avg_pool",)))
