"""Networks of linen as a user writes them, and some that are wrong."""

import functools

from flax import linen as nn

from nurture.core import Outputs
from nurture.core.hints import Count, Share


class Net(nn.Module):
  num_classes: Count
  width: Count = 8
  dropout: Share = 0.0

  @nn.compact
  def __call__(self, x, train):
    x = nn.Dense(self.width, name="hidden")(x.reshape(len(x), -1))
    x = nn.relu(nn.BatchNorm(not train, momentum=0.9, name="norm")(x))
    return nn.Dense(self.num_classes, name="head")(nn.Dropout(self.dropout)(x, deterministic=not train))


class Model(Net):
  @nn.compact
  def __call__(self, x, train=False) -> Outputs:
    return Outputs(nn.Dense(self.num_classes)(x.reshape(len(x), -1)), {})


class Fields(nn.Module):
  num_classes: int

  @nn.compact
  def __call__(self, x):
    return nn.Dense(self.num_classes)(x["size"]) * x["image"].mean()


class Wrong(nn.Module):
  num_outputs: int

  @nn.compact
  def __call__(self, x):
    return nn.Dense(self.num_outputs + 1)(x.reshape(len(x), -1))


class Scaled(nn.Module):
  scale: float = 1.0

  @nn.compact
  def __call__(self, x):
    return self.scale * nn.Dense(10)(x.reshape(len(x), -1))


class Loud(nn.Module):
  def __call__(self, x):
    raise ValueError("no\n" * 500)


class Rows(nn.Module):
  @nn.compact
  def __call__(self, x):
    rows, columns = x.shape
    return nn.Dense(10)(x)


class Several(nn.Module):
  @nn.compact
  def __call__(self, x):
    return {"logits": nn.Dense(10)(x.reshape(len(x), -1))}


class Nothing(nn.Module):
  def __call__(self, x):
    return x.reshape(len(x), -1)[:, :10]


class Unknown:
  pass


Small = functools.partial(Net, width=3)
ready = Net(10)
