"""Initial weights by name, each with the variance that its paper means.

Libraries differ under one name: jax's truncated_normal(0.02) has a standard deviation of 0.0176 because it is cut
at two sigma and not scaled back, and Caffe's "xavier" looks at the fan-in only. The rows here say what they draw.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.nn import initializers as jax_initializers

from nurture.core import Preset, UserError, build
from nurture.core.hints import NonNegative, Whole

Initializer = Callable[[jax.Array, tuple[int, ...], Any], jax.Array]  # (key, shape, dtype) -> array


def normal(std: NonNegative = 0.0, gain: NonNegative = 0.0) -> Initializer:
  """N(0, std^2 + gain^2 / fan_in): a fixed width, one that follows the layer, or both. Both may be traced."""

  def init(key, shape, dtype=jnp.float32):
    fan_in = math.prod(shape[:-1])
    return jnp.sqrt(std**2 + gain**2 / fan_in).astype(dtype) * jax.random.normal(key, shape, dtype)

  return init


def lecun() -> Initializer:
  """N(0, 1 / fan_in). LeCun et al. 1998, "Efficient BackProp"."""
  return jax_initializers.variance_scaling(1.0, "fan_in", "normal")


def he(fan: Literal["fan_in", "fan_out"] = "fan_in") -> Initializer:
  """N(0, 2 / fan). He et al. 2015, arXiv:1502.01852, eq. 10 and 14; torchvision's ResNets take the fan-out."""
  return jax_initializers.variance_scaling(2.0, fan, "normal")


def xavier(gain: NonNegative = 1.0) -> Initializer:
  """U(-a, a) with variance 2 gain^2 / (fan_in + fan_out). Glorot & Bengio 2010, eq. 16; PyTorch's xavier_uniform_."""
  return jax_initializers.variance_scaling(gain**2, "fan_avg", "uniform")


def caffe_xavier() -> Initializer:
  """U(-a, a) with variance 1 / fan_in: what Caffe calls xavier."""
  return jax_initializers.variance_scaling(1.0, "fan_in", "uniform")


def torch_default(fan_in: Whole = 0) -> Initializer:
  """U(-a, a) with a = 1 / sqrt(fan_in): what PyTorch's linear and convolution layers start from, biases included.

  fan_in is read from the shape if it is 0; a bias, whose shape does not tell, gets it from its layer.
  """

  def init(key, shape, dtype=jnp.float32):
    bound = 1 / math.sqrt(fan_in or math.prod(shape[:-1]))
    return jax.random.uniform(key, shape, dtype, -bound, bound)

  return init


def random_walk(nonlinearity: Literal["relu", "linear"] = "relu") -> Initializer:
  """N(0, g^2 / N), N = fan_in, such that the log norm of the back-propagated gradient walks without drift.

      g = sqrt(2) exp(1.2 / (max(N, 6) - 2.4)) for ReLU,    g = exp(1 / (2 N)) for linear units

  Sussillo & Abbott 2014, arXiv:1412.6558; the constants of ReLU are a fit to simulations, as TensorFlow had them.
  """

  def init(key, shape, dtype=jnp.float32):
    width = math.prod(shape[:-1])
    gain = math.exp(1 / (2 * width))
    if nonlinearity == "relu":
      gain = math.sqrt(2) * math.exp(1.2 / (max(width, 6) - 2.4))
    return gain / math.sqrt(width) * jax.random.normal(key, shape, dtype)

  return init


def orthogonal(scale: float = 1.0) -> Initializer:
  """Orthogonal rows or columns, times `scale`. Saxe et al. 2014, arXiv:1312.6120."""
  unscaled = jax_initializers.orthogonal()

  def init(key, shape, dtype=jnp.float32):
    return scale * unscaled(key, shape, dtype)

  return init


def constant(value: float) -> Initializer:
  """The same value everywhere."""

  def init(key, shape, dtype=jnp.float32):
    return jnp.broadcast_to(jnp.asarray(value, dtype), shape)

  return init


def zeros() -> Initializer:
  """Zero, where no gradient reaches a weight of a deep ReLU network."""
  return jax_initializers.zeros


INITIALIZERS = {
  "caffe_xavier": caffe_xavier,
  "constant": constant,
  "he": he,
  "he_fan_out": Preset(he, fan="fan_out"),
  "lecun": lecun,
  "normal": normal,
  "orthogonal": orthogonal,
  "random_walk": random_walk,
  "timm": Preset(normal, std=0.02),  # its trunc_normal_(std=.02) cuts at +-2, a hundred sigma
  "torch_default": torch_default,
  "xavier": xavier,
  "zeros": zeros,
}


_OF_BIASES = ("constant", "normal", "timm", "torch_default", "zeros")  # need no fan-in, or are told it


def initializers(
  kernel: str | Mapping[str, Any], bias: str | Mapping[str, Any], fan_in: int
) -> dict[str, Any]:
  """Returns flax's arguments for what a model's `kernel_init` and `bias_init` fields name; fan_in is the layer's."""
  name = bias if isinstance(bias, str) else bias.get("name")
  if name in INITIALIZERS and name not in _OF_BIASES:
    raise UserError(f"config.model.bias_init is {name!r}, which needs a matrix; give one of {', '.join(_OF_BIASES)}.")
  return {
    "kernel_init": build(INITIALIZERS, kernel, path="config.model.kernel_init"),
    "bias_init": build(INITIALIZERS, bias, path="config.model.bias_init", fan_in=fan_in),
  }
