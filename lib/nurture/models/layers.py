"""Layers that models share: activations by name, normalization by name, and stochastic depth."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from nurture.core import hints, lookup
from nurture.core.hints import Share

ACTIVATIONS: dict[str, Any] = {
  "elu": jax.nn.elu,
  "erf": jax.lax.erf,
  "gelu": lambda x: jax.nn.gelu(x, approximate=False),
  "leaky_relu": jax.nn.leaky_relu,
  "linear": lambda x: x,
  "relu": jax.nn.relu,
  "sigmoid": jax.nn.sigmoid,
  "silu": jax.nn.silu,
  "sine": jnp.sin,
  "softplus": jax.nn.softplus,
  "tanh": jnp.tanh,
}


def batch_norm(train: bool, *, momentum: float = 0.9, epsilon: float = 1e-5, **fields: Any) -> nn.BatchNorm:
  """Batch normalization with PyTorch's defaults, whose momentum 0.1 is 0.9 here (flax's own default is 0.99).

  Differs from PyTorch: the running variance averages the biased variance of the batches, not the unbiased one.
  """
  return nn.BatchNorm(use_running_average=not train, momentum=momentum, epsilon=epsilon, **fields)


NORMS: dict[str, Any] = {
  "batch": batch_norm,
  "layer": lambda train, *, epsilon=1e-5, **fields: nn.LayerNorm(epsilon=epsilon, **fields),
}


def activation(name: str) -> Any:
  """Returns an activation by name."""
  return lookup(ACTIVATIONS, name, path="config.model.activation")


class DropPath(nn.Module):
  """Stochastic depth: drops a residual branch for whole examples, and scales what is left by 1 / (1 - rate).

  The rate is an argument, so a schedule can move it without a new program. The stream is "dropout".

  Reference: Huang et al. 2016, arXiv:1603.09382.
  """

  @nn.compact
  def __call__(self, x: jax.Array, rate: float | jax.Array, train: bool) -> jax.Array:
    """Maps a branch [B, ...] to the branch with examples zeroed; rate in [0, 1], [] or a number."""
    if not train or (isinstance(rate, (int, float)) and rate == 0):
      return x
    keep = 1.0 - jnp.asarray(rate, jnp.float32)
    kept = jax.random.uniform(self.make_rng("dropout"), (x.shape[0], *(1,) * (x.ndim - 1))) < keep
    return x * jnp.where(kept, 1.0 / jnp.maximum(keep, 1e-6), 0.0).astype(x.dtype)


def depth_rate(rate: Share | jax.Array, index: int | jax.Array, count: int) -> float | jax.Array:
  """Returns the drop-path rate of layer `index` of `count`: (index + 1) / count of the last layer's rate.

  Huang et al. 2016, eq. 4; the layer ratio of NASNet's ScheduledDropPath (Zoph et al. 2018, arXiv:1707.07012). timm
  and DeiT go from 0 in the first layer instead (index / (count - 1)).
  """
  hints.check("drop_path", rate, Share)
  return rate * (index + 1) / count


class DepthwiseConv(nn.Module):
  """A square depthwise convolution of odd size, stride 1 and zero padding that keeps the image's size.

  On CPU it is a sum of shifted images: XLA's grouped convolution is many times slower there.

  Attributes:
    size: side of the kernel [size, size, 1, C].
    use_bias: whether to add [C].
    kernel_init, bias_init: flax initializers.
    dtype: of the computation.
  """

  size: int
  use_bias: bool = True
  kernel_init: Any = nn.initializers.lecun_normal()
  bias_init: Any = nn.initializers.zeros
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [B, H, W, C] to [B, H, W, C]."""
    channels, dtype = x.shape[-1], jnp.dtype(self.dtype)
    shape = (self.size, self.size, 1, channels)
    kernel = self.param("kernel", self.kernel_init, shape, jnp.float32).astype(dtype)
    x = shifted_sum(x, kernel) if jax.default_backend() == "cpu" else grouped_conv(x, kernel)
    if self.use_bias:
      x = x + self.param("bias", self.bias_init, (channels,), jnp.float32).astype(dtype)[None, None, None]
    return x


class PatchConv(nn.Module):
  """A convolution whose stride is its size, as a matrix product over patches; rows and columns left over are dropped.

  The same numbers and parameters as flax's convolution, but a product runs fast inside loops and vmap on CPU.

  Attributes:
    features: channels of the result.
    patch: side of the kernel [patch, patch, C, features].
    kernel_init, bias_init: flax initializers.
    dtype: of the computation.
  """

  features: int
  patch: int
  kernel_init: Any = nn.initializers.lecun_normal()
  bias_init: Any = nn.initializers.zeros
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [B, H, W, C] to [B, H // patch, W // patch, features]."""
    batch, height, width, channels = x.shape
    side, h, w = self.patch, height // self.patch, width // self.patch
    kernel = self.param("kernel", self.kernel_init, (side, side, channels, self.features), jnp.float32)
    bias = self.param("bias", self.bias_init, (self.features,), jnp.float32)
    x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=jnp.dtype(self.dtype))
    x = x[:, : h * side, : w * side].reshape(batch, h, side, w, side, channels)
    x = x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, h, w, side**2 * channels)
    return x @ kernel.reshape(side**2 * channels, self.features) + bias[None, None, None]


def grouped_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Returns the depthwise convolution of [B, H, W, C] and [k, k, 1, C] by XLA's grouped convolution."""
  pad = kernel.shape[0] // 2
  return jax.lax.conv_general_dilated(
    x, kernel, (1, 1), [(pad, pad)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=x.shape[-1]
  )


def shifted_sum(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Returns the depthwise convolution of [B, H, W, C] and [k, k, 1, C] as a sum over the k x k shifts."""
  size, (height, width) = kernel.shape[0], x.shape[1:3]
  dtype = jnp.promote_types(x.dtype, jnp.float32)  # of the sum
  padded = jnp.pad(x, [(0, 0), *[(size // 2,) * 2] * 2, (0, 0)]).astype(dtype)
  total, kernel = jnp.zeros(x.shape, dtype), kernel.astype(dtype)
  for i in range(size):
    for j in range(size):
      total = total + padded[:, i : i + height, j : j + width] * kernel[i, j, 0][None, None, None]
  # An identity that stays in the program: without it XLA's library for matrix products takes a part of the sum into the
  # product that follows, and the rest is no longer one loop but many.
  total = jax.lax.reduce_precision(total, jnp.finfo(dtype).nexp, jnp.finfo(dtype).nmant)
  return total.astype(x.dtype)


def adaptive_max_pool(x: jax.Array, size: int) -> jax.Array:
  """Returns [B, size, size, C]: the maxima of windows i from floor(i H / size) to ceil((i + 1) H / size).

  PyTorch's adaptive pooling: windows overlap where size does not divide H. Needs H, W >= size.
  """
  for axis in (1, 2):
    length = x.shape[axis]
    start = [i * length // size for i in range(size)]
    stop = [-(-(i + 1) * length // size) for i in range(size)]
    widest = max(b - a for a, b in zip(start, stop))
    rows = jnp.array([[min(a + k, b - 1) for k in range(widest)] for a, b in zip(start, stop)])
    x = jnp.take(x, rows, axis=axis).max(axis=axis + 1)
  return x
