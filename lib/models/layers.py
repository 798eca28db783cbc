"""What the plain models share: activations by name, normalization by name, and taps in call order."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from lib.core import Outputs, lookup

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

NORMS = {
  "batch": lambda train, **kw: nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5, **kw),
  "layer": lambda train, **kw: nn.LayerNorm(epsilon=1e-5, **kw),
}


def activation(name: str) -> Any:
  """Returns an activation by name."""
  return lookup(ACTIVATIONS, name, path="config.model.activation")


class Taps:
  """Collects intermediate arrays under names whose sorted order is the call order ("003_dense").

  The number goes first and is padded with zeros because jit sorts the keys of a dict.
  """

  def __init__(self):
    self._arrays: dict[str, jax.Array] = {}

  def __call__(self, kind: str, array: jax.Array) -> jax.Array:
    """Notes an array and returns it."""
    self._arrays[f"{len(self._arrays):03d}_{kind}"] = array
    return array

  def outputs(self, logits: jax.Array) -> Outputs:
    """Returns the model's outputs, the logits in float32."""
    return Outputs(logits.astype(jnp.float32), dict(self._arrays))
