"""Merging of layers that are linear in a row: structural re-parameterization."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Affine(NamedTuple):
  """A convolution or dense layer.

  Attributes:
    kernel: [..., in, out]; a depthwise one is [h, w, 1, channels].
    bias: [out].
  """

  kernel: jax.Array
  bias: jax.Array


def fold_norm(
  layer: Affine, params: Mapping[str, jax.Array], statistics: Mapping[str, jax.Array], *, epsilon: float
) -> Affine:
  """Returns the layer that does what `layer` and a batch normalization after it do in evaluation mode.

      t = γ / sqrt(σ² + ε),    W' = W t,    b' = β + (b - μ) t        (t along the output channels)

  Args:
    layer: depthwise or not, in the dtype of the result.
    params: {"scale", "bias"} of the normalization, γ and β.
    statistics: {"mean", "var"}, μ and σ².
    epsilon: ε.
  """
  cast = lambda array: jnp.asarray(array, layer.kernel.dtype)
  factor = cast(params["scale"]) / jnp.sqrt(cast(statistics["var"]) + epsilon)
  kernel = layer.kernel * factor.reshape((1,) * (layer.kernel.ndim - 1) + (-1,))
  return Affine(kernel, cast(params["bias"]) + (layer.bias - cast(statistics["mean"])) * factor)


def chain(first: Affine, second: Affine) -> Affine:
  """Returns the one layer that does what a layer and a dense layer (1x1 convolution) after it do.

      W[..., i, o] = sum_m W1[..., i, m] W2[m, o],    b = b1 W2 + b2

  Zero padding of the first layer is no obstacle: it comes before both.
  """
  highest = jax.lax.Precision.HIGHEST
  kernel = jnp.einsum("...im,mo->...io", first.kernel, second.kernel, precision=highest)
  return Affine(kernel, jnp.einsum("m,mo->o", first.bias, second.kernel, precision=highest) + second.bias)
