"""What the models share: activations by name, normalization by name, and stochastic depth."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from lib.core import lookup

ACTIVATIONS = {
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


NORMS = {
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


def depth_rate(rate: float | jax.Array, index: int | jax.Array, count: int) -> float | jax.Array:
  """Returns the drop-path rate of layer `index` of `count`: (index + 1) / count of the last layer's rate.

  Huang et al. 2016, eq. 4; the layer ratio of NASNet's ScheduledDropPath (Zoph et al. 2018, arXiv:1707.07012). timm
  and DeiT go from 0 in the first layer instead (index / (count - 1)).
  """
  return rate * (index + 1) / count
