"""Networks of nnx as a user writes them, and some that are wrong."""

import math

import jax
from flax import nnx

from nurture.core.hints import Count, Share


class Net(nnx.Module):
  def __init__(self, num_classes: Count, input_shape: tuple, width: Count = 8, dropout: Share = 0.0, *, rngs: nnx.Rngs):
    self.layers = nnx.List([nnx.Linear(math.prod(input_shape), width, rngs=rngs), nnx.BatchNorm(width, rngs=rngs)])
    self.dropout = nnx.Dropout(dropout, rngs=rngs)
    self.head = nnx.Linear(width, num_classes, rngs=rngs)

  def __call__(self, x):
    x = x.reshape(len(x), -1)
    for layer in self.layers:
      x = layer(x)
    return self.head(self.dropout(nnx.relu(x)))


def sequential(num_classes: int, input_shape: tuple, *, rngs: nnx.Rngs):
  return nnx.Sequential(lambda x: x.reshape(len(x), -1), nnx.Linear(math.prod(input_shape), num_classes, rngs=rngs))


def seeded(num_classes: int):
  return nnx.Linear(8, num_classes, rngs=nnx.Rngs(0))


class Scaled(nnx.Module):
  def __init__(self, scale: float = 1.0, *, rngs: nnx.Rngs):
    self.first, self.last = nnx.Linear(64, 8, rngs=rngs), nnx.Linear(8, 10, rngs=rngs)
    self.scale = scale

  def __call__(self, x, rate=1.0, *, deterministic: bool):
    x = rate * jax.checkpoint(self.first)(x.reshape(len(x), -1))
    return self.scale * self.last(x if deterministic else -x)


class Fields(nnx.Module):
  def __init__(self, num_classes: int, input_shape: dict, *, rngs: nnx.Rngs):
    self.head = nnx.Linear(input_shape["size"][0], num_classes, rngs=rngs)

  def __call__(self, x):
    return self.head(x["size"]) * x["image"].mean()


class Noisy(nnx.Module):
  def __init__(self, num_classes: int, dropout: float, *, rngs: nnx.Rngs):
    self.head, self.rngs = nnx.Linear(64, num_classes, rngs=rngs), rngs

  def __call__(self, x, train):
    x = x.reshape(len(x), -1)
    return self.head(x + jax.random.normal(self.rngs.noise(), x.shape) if train else x)


class Wide(nnx.Module):
  def __init__(self, *, rngs: nnx.Rngs):
    self.head = nnx.Linear(65, 10, rngs=rngs)

  def __call__(self, x):
    return self.head(x.reshape(len(x), -1))
