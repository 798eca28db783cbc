"""Initial weights by name, each with the variance that its paper means.

Libraries differ under one name: jax's truncated_normal(0.02) has a standard deviation of 0.0176 because it is cut
at two sigma and not scaled back, and Caffe's "xavier" looks at the fan-in only. The rows here say what they draw.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.nn import initializers as jax_initializers

from lib.core import build

Initializer = Callable[[jax.Array, tuple[int, ...], Any], jax.Array]  # (key, shape, dtype) -> array


def normal(std: float = 0.0, gain: float = 0.0) -> Initializer:
  """N(0, std^2 + gain^2 / fan_in): a fixed width, one that follows the layer, or both. Both may be traced."""

  def init(key, shape, dtype=jnp.float32):
    fan_in = math.prod(shape[:-1])
    return jnp.sqrt(std**2 + gain**2 / fan_in).astype(dtype) * jax.random.normal(key, shape, dtype)

  return init


def lecun() -> Initializer:
  """N(0, 1 / fan_in). LeCun et al. 1998, "Efficient BackProp"."""
  return jax_initializers.variance_scaling(1.0, "fan_in", "normal")


def he() -> Initializer:
  """N(0, 2 / fan_in). He et al. 2015, arXiv:1502.01852, eq. 10."""
  return jax_initializers.variance_scaling(2.0, "fan_in", "normal")


def xavier() -> Initializer:
  """U(-a, a) with variance 2 / (fan_in + fan_out). Glorot & Bengio 2010, eq. 16."""
  return jax_initializers.variance_scaling(1.0, "fan_avg", "uniform")


def caffe_xavier() -> Initializer:
  """U(-a, a) with variance 1 / fan_in: what Caffe calls xavier."""
  return jax_initializers.variance_scaling(1.0, "fan_in", "uniform")


def torch_default() -> Initializer:
  """U(-a, a) with a = 1 / sqrt(fan_in): what PyTorch's linear and convolution layers start from."""
  return jax_initializers.variance_scaling(1.0 / 3.0, "fan_in", "uniform")


def orthogonal(scale: float = 1.0) -> Initializer:
  """Orthogonal rows or columns, times `scale`. Saxe et al. 2014, arXiv:1312.6120."""
  unscaled = jax_initializers.orthogonal()
  return lambda key, shape, dtype=jnp.float32: scale * unscaled(key, shape, dtype)


def zeros() -> Initializer:
  """Zero, where no gradient reaches a weight of a deep ReLU network."""
  return jax_initializers.zeros


INITIALIZERS = {
  "caffe_xavier": caffe_xavier,
  "he": he,
  "lecun": lecun,
  "normal": normal,
  "orthogonal": orthogonal,
  "torch_default": torch_default,
  "xavier": xavier,
  "zeros": zeros,
}


def initializer(config: str | Mapping[str, Any]) -> Initializer:
  """Returns the initializer that a model's `kernel_init` field names."""
  return build(INITIALIZERS, config, path="config.model.kernel_init")
