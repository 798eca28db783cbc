"""A linear network, the parts of a training step around it, and its step by hand in float64."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from nurture.core import Outputs
from nurture.core.schedules import as_schedule
from nurture.data.batches import Preprocess
from nurture.testing import class_spec
from nurture.training import step as steps
from nurture.transforms.losses import LOSSES
from nurture.transforms.optimizers import build_optimizer

D, K = 3, 4
ROOT = jax.random.key(5)
BATCH = {
  "image": jnp.asarray([[0.5, -1.0, 2.0], [1.5, 0.25, -0.5], [-2.0, 1.0, 0.0], [0.75, 0.5, 1.0]]),
  "label": jnp.asarray([1, 0, 3, 1], jnp.int32),
  "id": jnp.arange(4, dtype=jnp.int32),
  "weight": jnp.ones(4),
}


class Linear(nn.Module):
  """x W + b + shift, with a collection that counts the calls in training."""

  @nn.compact
  def __call__(self, x, train=False, shift=0.0):
    kernel = self.param("kernel", nn.initializers.normal(0.5), (D, K))
    bias = self.param("bias", nn.initializers.normal(0.5), (K,))
    calls = self.variable("counts", "calls", lambda: jnp.float32(0.0))
    if train:
      calls.value += 1.0
    return Outputs(x @ kernel + bias[None] + shift, {})


@dataclasses.dataclass(frozen=True)
class Call:
  """A loss term, target or gradient transform made of one function, for the tests."""

  function: object

  def init(self, spec):
    return jnp.float32(0.0)

  def apply(self, state, ctx):
    return self.function(ctx), state + 1

  def __call__(self, *args):
    return self.function(*args)


def term(value, weight=1.0):
  return steps.WeightedTerm(value if hasattr(value, "apply") else Call(value), as_schedule(weight, path="weight"))


def make_parts(**changes):
  """Plain gradient descent on the cross-entropy at a rate of 1; changes are fields of Parts."""
  parts = {
    "spec": class_spec(num_examples=4, num_classes=K, input_shape=(D,), batch_size=4),
    "steps": 10,
    "preprocess": Preprocess({"image": lambda x: x.astype(jnp.float32)}, {}),
    "model": Linear(),
    "scheduled": {}, "references": {}, "targets": {},
    "losses": {"ce": term(LOSSES["cross_entropy"]())},
    "gradients": {},
    "optimizer": build_optimizer({"name": "sgd", "learning_rate": 1.0}),
    "parameters": {},
  }
  return steps.Parts(**parts | changes)


def update(parts, state, batch=BATCH, references=None):
  return jax.jit(lambda s, b: steps.update(parts, s, b, ROOT, references or {}))(state, batch)


def by_hand(params, batch, terms, smoothing=0.0):
  """Returns the value of each term and the gradient of the weighted sum, in float64.

  Args:
    terms: {"ce" or "mse": weight in the sum}.
    smoothing: share of every target that moves to all classes alike.
  """
  w, b = (np.asarray(params[name], np.float64) for name in ("kernel", "bias"))
  x, weight = np.asarray(batch["image"], np.float64), np.asarray(batch["weight"], np.float64)
  y = (1 - smoothing) * np.eye(K)[np.asarray(batch["label"])] + smoothing / K
  z = x @ w + b
  log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
  share = (weight / weight.sum())[:, None]
  values = {"ce": -(share * y * log_p).sum(), "mse": (share * (z - y) ** 2).sum() / K}
  slopes = {"ce": share * (np.exp(log_p) - y), "mse": share * 2 * (z - y) / K}
  slope = sum(factor * slopes[name] for name, factor in terms.items())
  return {name: values[name] for name in terms}, {"kernel": x.T @ slope, "bias": slope.sum(axis=0)}


def norm(tree):
  return np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(tree)))


def close(tree, expected, tolerance=2e-6):
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), dict(tree), expected)
