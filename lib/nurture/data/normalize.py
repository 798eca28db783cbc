"""Normalization of a stored input field: affine maps, fitted to the training split on the host."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from nurture.data.arrays import Split


@dataclasses.dataclass(frozen=True, eq=False)
class Affine:
  """(x - mean) scale in float32.

  A product, as XLA turns some divisions by a constant into one: so the same pixel gives the same bits everywhere.

  Attributes:
    mean, scale: [C] float32 (or [1], for all channels alike); the mean in the units in which the inputs are stored.
  """

  mean: np.ndarray
  scale: np.ndarray

  def __call__(self, inputs: jax.Array) -> jax.Array:
    shape = (1,) * (inputs.ndim - 1) + (-1,)
    return (inputs.astype(jnp.float32) - self.mean.reshape(shape)) * self.scale.reshape(shape)


def unit(split: Split, field: str = "image") -> Affine:
  """uint8 pixels to [0, 1], x / 255; inputs that are floating point are left alone."""
  largest = 255 if split.inputs[field].dtype == np.uint8 else 1
  return _affine(np.zeros(1), np.full(1, largest))


def standardize(split: Split, field: str = "image") -> Affine:
  """Mean 0 and standard deviation 1 of each channel (of each feature for [n, D]) over the training split.

  A channel that never varies becomes 0.
  """
  mean, std = split.moments[field]
  return _affine(mean, np.where(std > 0, std, 1.0))


def none(split: Split, field: str = "image") -> Affine:
  """The stored values, as float32."""
  return _affine(np.zeros(1), np.ones(1))


NORMALIZATIONS = {"unit": unit, "standardize": standardize, "none": none}


def _affine(mean: np.ndarray, std: np.ndarray) -> Affine:
  return Affine(mean.astype(np.float32), (1.0 / std).astype(np.float32))
