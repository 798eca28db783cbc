"""Networks of haiku as a user writes them."""

import haiku as hk
import jax

from nurture.core.hints import Count, Share


class Net(hk.Module):
  def __init__(self, num_classes: Count, width: Count = 8, dropout: Share = 0.0, name=None):
    super().__init__(name)
    self.num_classes, self.width, self.dropout = num_classes, width, dropout

  def __call__(self, x, is_training):
    x = hk.Linear(self.width, name="hidden")(hk.Flatten()(x))
    x = jax.nn.relu(hk.BatchNorm(True, True, 0.9, name="norm")(x, is_training))
    if is_training:
      x = hk.dropout(hk.next_rng_key(), self.dropout, x)
    return hk.Linear(self.num_classes, name="head")(x)


class Fields(hk.Module):
  def __init__(self, num_classes: int):
    super().__init__()
    self.num_classes = num_classes

  def __call__(self, x):
    return hk.Linear(self.num_classes)(x["size"]) * x["image"].mean()


class Scaled(hk.Module):
  def __init__(self, scale: float = 1.0):
    super().__init__()
    self.scale = scale

  def __call__(self, x):
    return self.scale * hk.Linear(10)(hk.Flatten()(x))


def sequential(num_classes: int):
  return hk.transform(lambda x: hk.Linear(num_classes)(hk.Flatten()(x)))
