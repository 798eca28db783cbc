"""Networks of equinox as a user writes them."""

import math

import equinox as eqx
import jax

from nurture.core.hints import Count, Share


class Net(eqx.Module):
  hidden: eqx.nn.Linear
  norm: eqx.nn.BatchNorm | None
  dropout: eqx.nn.Dropout
  head: eqx.nn.Linear

  def __init__(self, num_classes: Count, input_shape: tuple, width: Count = 8, dropout: Share = 0.0, norm: bool = True,
               *, key: jax.Array):
    first, second = jax.random.split(key)
    self.hidden = eqx.nn.Linear(math.prod(input_shape), width, key=first)
    self.norm = eqx.nn.BatchNorm(width, axis_name="batch", mode="batch") if norm else None
    self.dropout = eqx.nn.Dropout(dropout)
    self.head = eqx.nn.Linear(width, num_classes, key=second)

  def __call__(self, x, state, key=None):
    x = self.hidden(x.ravel())
    if self.norm:
      x, state = self.norm(x, state)
    return self.head(self.dropout(jax.nn.relu(x), key=key)), state


class Fields(eqx.Module):
  head: eqx.nn.Linear

  def __init__(self, num_classes: int, input_shape: dict, *, key: jax.Array):
    self.head = eqx.nn.Linear(input_shape["size"][0], num_classes, key=key)

  def __call__(self, x):
    return self.head(x["size"]) * x["image"].mean()


class Scaled(eqx.Module):
  scale: float
  head: eqx.nn.Linear

  def __init__(self, scale: float = 1.0, *, key: jax.Array):
    self.scale, self.head = scale, eqx.nn.Linear(64, 10, key=key)

  def __call__(self, x):
    return self.scale * self.head(x.ravel())


def sequential(num_classes: int, input_shape: tuple, *, key: jax.Array):
  flat, layer = eqx.nn.Lambda(lambda x: x.ravel()), eqx.nn.Linear(math.prod(input_shape), num_classes, key=key)
  return eqx.nn.Sequential([flat, layer])
