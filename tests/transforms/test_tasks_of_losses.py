"""Losses of numbers and of pairs, beside loops over their equations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nurture.core import Context, Outputs
from nurture.data.tasks import Pairs
from nurture.transforms.losses import LOSSES


def value(name, predictions, targets, weight=None, **fields):
  weight = jnp.ones(len(predictions)) if weight is None else jnp.asarray(weight)
  outputs = Outputs(jnp.asarray(predictions), {})
  context = Context(jnp.int32(0), None, {"weight": weight}, jnp.asarray(targets), outputs, {}, jnp.float32(0))
  return np.asarray(jax.jit(lambda: LOSSES[name](**fields).apply((), context)[0])())


def test_huber_is_squared_near_and_absolute_far():
  errors = np.float32([[0.5, -0.5], [3.0, 0.0], [-1.0, 10.0]])
  by_hand = np.where(np.abs(errors) <= 2, errors**2 / 2, 2 * (np.abs(errors) - 1)).mean(axis=1)
  np.testing.assert_allclose(value("huber", errors + 7, np.full((3, 2), 7.0), delta=2.0), by_hand, rtol=1e-6)


@pytest.mark.parametrize("padded", [0, 2])
def test_ranking_compares_each_example_with_those_below_it(padded):
  rng = np.random.default_rng(0)
  n, d = 7, 2
  score, target = rng.normal(size=(n, d)).astype(np.float32), rng.integers(0, 4, (n, d)).astype(np.float32)  # with ties
  weight = np.arange(n) < n - padded
  expected = np.zeros((n, d))
  for i in range(n):
    for k in range(d):
      below = [j for j in range(n) if weight[j] and target[i, k] > target[j, k]]
      expected[i, k] = np.mean([np.log1p(np.exp(score[j, k] - score[i, k])) for j in below]) if below else 0.0
  result = value("ranking", score, target, weight.astype(np.float32))
  np.testing.assert_allclose(result, expected.mean(axis=1), rtol=1e-5)
  other = value("ranking", score, 3 * target - 5, weight.astype(np.float32))
  np.testing.assert_array_equal(other, result)  # the order only


@pytest.mark.parametrize("label", [[0, 1, 2, 3, 4], [2, 0, 2, 1, 0]], ids=["each its own", "shared"])
@pytest.mark.parametrize("padded", [0, 1])
def test_contrast_is_the_cross_entropy_in_both_directions(label, padded):
  n = len(label)
  s = 3 * np.random.default_rng(1).normal(size=(n, n)).astype(np.float32)
  weight = np.float32(np.arange(n) < n - padded)
  targets = Pairs().targets({"label": jnp.array(label), "weight": jnp.asarray(weight)})
  real = n - padded
  expected = []
  for i in range(real):
    mates = [j for j in range(real) if label[j] == label[i]]
    forward = np.mean([np.log(np.exp(s[i, :real]).sum()) - s[i, j] for j in mates])
    backward = np.mean([np.log(np.exp(s[:real, i]).sum()) - s[j, i] for j in mates])
    expected.append((forward + backward) / 2)
  np.testing.assert_allclose(value("contrastive", s, targets, weight)[:real], expected, rtol=1e-5)
  if not padded and label == [0, 1, 2, 3, 4]:  # the published form
    labels = jnp.arange(n)
    rows, columns = (-jax.nn.log_softmax(x, axis=1)[labels, labels] for x in (jnp.asarray(s), jnp.asarray(s).T))
    np.testing.assert_allclose(value("contrastive", s, targets), (rows + columns) / 2, rtol=1e-5)
