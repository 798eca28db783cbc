"""Probes on hand-made networks: exact over sets that are cut into padded pieces."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nurture.core import Network, Outputs, UserError, build
from nurture.data.arrays import padded_batches
from nurture.probes import PROBES, ProbeSpec
from nurture.testing import class_spec

K = 3


class Rows:
  """As much of a split as `padded_batches` needs."""

  def __init__(self, **fields):
    self._fields = {name: np.asarray(value) for name, value in fields.items()}

  def __len__(self):
    return len(self._fields["id"])

  @property
  def fields(self):
    return self._fields


def rows(label, true_label=None, **more):
  label = np.asarray(label, np.int32)
  truth = label if true_label is None else np.asarray(true_label, np.int32)
  return Rows(label=label, true_label=truth, id=np.arange(len(label), dtype=np.int32), **more)


def measure(config, net, variables, data=None, batch_size=2):
  spec = ProbeSpec(
    class_spec(num_examples=9, num_classes=K, input_shape=(K,), batch_size=2),
    lambda split, limit: jax.tree.map(jnp.asarray, padded_batches(data, batch_size)),
    net.model,
  )
  probe = build(PROBES, config)
  pieces = probe.prepare(spec, jax.random.key(0))
  sums = [jax.jit(functools.partial(probe, net))(variables, piece) for piece in pieces]
  return probe.finish(functools.reduce(lambda a, b: jax.tree.map(jnp.add, a, b), sums))


# The "images" are the logits.
ECHO = Network(
  model=None,
  inputs=lambda batch: batch["image"],
  apply=lambda variables, x: Outputs(x.astype(jnp.float32), {}),
  loss=lambda variables, batch: jnp.float32(0),
)


def logits_for(predicted, scale=1.0):
  return scale * np.eye(K, dtype=np.float32)[np.asarray(predicted)]


@pytest.mark.parametrize("batch_size", [1, 2, 5, 7])
def test_accuracy_is_exact_for_any_cut(batch_size):
  label, predicted = [0, 1, 2, 0, 1], [0, 1, 2, 1, 0]
  data = rows(label, image=logits_for(predicted, 2.0))
  result = measure({"name": "accuracy", "split": "test"}, ECHO, {}, data, batch_size)
  total = np.log(np.exp(2.0) + 2)
  np.testing.assert_allclose(result["accuracy"], 3 / 5, rtol=1e-6)
  np.testing.assert_allclose(result["loss"], (3 * (total - 2) + 2 * total) / 5, rtol=1e-6)


def test_accuracy_of_sequences_skips_ignored_positions():
  data = rows([[0, 1, -1], [2, -1, -1], [1, 1, 1]], image=logits_for([[0, 0, 0], [2, 2, 2], [1, 1, 0]]))
  result = measure({"name": "accuracy", "split": "test"}, ECHO, {}, data)
  np.testing.assert_allclose(result["accuracy"], 4 / 6, rtol=1e-6)
  total = np.log(np.e + 2)
  np.testing.assert_allclose(result["loss"], (6 * total - 4) / 6, rtol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_sequence_is_right_if_all_that_is_asked_of_it_is(batch_size):
  label = [[0, 1, -1], [2, -1, -1], [1, 1, 1], [-1, -1, -1], [0, 2, 1]]  # of the fourth, nothing is asked
  data = rows(label, image=logits_for([[0, 0, 0], [2, 2, 2], [1, 1, 0], [0, 0, 0], [0, 2, 1]]))
  result = measure({"name": "accuracy", "split": "test"}, ECHO, {}, data, batch_size)
  np.testing.assert_allclose(result["sequence_accuracy"], 2 / 4, rtol=1e-6)
  classes = measure({"name": "accuracy", "split": "test"}, ECHO, {}, rows([0, 1], image=logits_for([0, 1])))
  assert set(classes) == {"accuracy", "loss"}


def test_the_limit_reaches_the_data():
  asked = []
  spec = ProbeSpec(None, lambda split, limit: asked.append((split, limit)))
  for name in ("accuracy", "calibration", "gradient_norms"):
    build(PROBES, {"name": name, "split": "validation", "limit": 7}).prepare(spec, None)
  assert asked == [("validation", 7)] * 3


def test_memorization_counts_each_kind():
  #         clean: right, right, wrong   wrong label: says truth, the label, the label, neither
  label = [0, 1, 2, 0, 0, 1, 1]
  truth = [0, 1, 2, 1, 1, 2, 2]
  says = [0, 1, 0, 1, 0, 1, 0]
  result = measure("memorization", ECHO, {}, rows(label, truth, image=logits_for(says)), batch_size=3)
  expected = {
    "clean_count": 3, "clean_correct": 2 / 3, "clean_other": 1 / 3,
    "wrong_count": 4, "wrong_correct": 1 / 4, "wrong_memorized": 2 / 4, "wrong_other": 1 / 4,
  }
  assert set(result) == set(expected)
  for name, value in expected.items():
    np.testing.assert_allclose(result[name], value, rtol=1e-6, err_msg=name)


def test_memorization_of_an_empty_group_is_zero():
  result = measure("memorization", ECHO, {}, rows([0, 1, 2], image=logits_for([0, 1, 0])))
  assert result["wrong_count"] == 0
  assert all(result[name] == 0 for name in ("wrong_correct", "wrong_memorized", "wrong_other"))
  np.testing.assert_allclose(result["clean_correct"], 2 / 3, rtol=1e-6)


def linear_loss(variables, batch):
  """The weighted mean of <w, x> + b; its gradient is the mean of x, and 1."""
  params = variables["params"]
  values = batch["image"] @ params["dense"]["w"] + params["head"]["b"]
  return jnp.sum(values * batch["weight"]) / jnp.sum(batch["weight"])


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_gradient_norms_are_of_the_mean_over_the_set(batch_size):
  x = np.array([[3.0, 0, 0], [0, 6.0, 0], [0, 0, 0]], np.float32)
  variables = {"params": {"dense": {"w": jnp.zeros(3)}, "head": {"b": jnp.float32(0)}}, "batch_stats": {}}
  net = ECHO._replace(loss=linear_loss)
  result = measure("gradient_norms", net, variables, rows([0, 0, 0], image=x), batch_size)
  np.testing.assert_allclose(result["dense"], np.sqrt(1 + 4), rtol=1e-6)
  np.testing.assert_allclose(result["head"], 1, rtol=1e-6)
  np.testing.assert_allclose(result["global"], np.sqrt(1 + 4 + 1), rtol=1e-6)


def test_weight_statistics_are_numpys():
  kernel = jax.random.normal(jax.random.key(0), (4, 5)) + 0.5
  params = {"dense": {"kernel": kernel, "bias": jnp.array([3.0, 4.0])}}
  variables = {"params": params, "batch_stats": {"m": jnp.ones(9)}}
  result = measure("weight_statistics", ECHO, variables)
  kernel = np.asarray(kernel, np.float64)
  expected = {
    "dense/kernel/mean": kernel.mean(), "dense/kernel/std": kernel.std(), "dense/kernel/largest": np.abs(kernel).max(),
    "norm": np.sqrt((kernel**2).sum() + 25),
  }
  assert set(result) == set(expected)
  for name, value in expected.items():
    np.testing.assert_allclose(result[name], value, rtol=1e-5, err_msg=name)


class Doubling:
  """A module whose deployed form doubles the logits."""

  def deployed(self):
    return self

  def to_deploy(self, variables, *, force=False):
    assert force, "the slope is traced inside a probe"
    return {"factor": 2.0}

  def apply(self, variables, x):
    return Outputs(variables["factor"] * x.astype(jnp.float32), {})


def test_deployed_accuracy_is_of_the_merged_network_and_says_how_far_it_is():
  net = ECHO._replace(model=Doubling())
  data = rows([0, 1, 2, 0, 1], image=logits_for([0, 1, 0, 0, 2]))
  for batch_size in (2, 5):
    result = measure({"name": "deployed_accuracy", "split": "test"}, net, {}, data, batch_size)
    np.testing.assert_allclose(result["accuracy"], 3 / 5)
    np.testing.assert_allclose(result["difference"], 1.0, rtol=1e-6)  # |2 y - y| / |y|
    twice = rows([0, 1, 2, 0, 1], image=logits_for([0, 1, 0, 0, 2], scale=2))
    doubled = measure({"name": "accuracy", "split": "test"}, ECHO, {}, twice, batch_size)
    np.testing.assert_allclose(result["loss"], doubled["loss"], rtol=1e-6)


def test_deployed_accuracy_needs_a_model_that_can_be_merged():
  with pytest.raises(UserError, match="'deployed_accuracy' needs a model with a deployed form"):
    probe = build(PROBES, {"name": "deployed_accuracy", "split": "test"})
    probe.prepare(ProbeSpec(None, lambda *_: [], object()), None)


def test_tap_norms_are_over_examples_positions_and_features_alike():
  taps = {"000_conv": 2.0, "001_block0.relu": 3.0, "002_conv": 5.0}
  net = ECHO._replace(apply=lambda variables, x: Outputs(
    x, {name: factor * x[:, None, None] * jnp.ones((1, 4, 2, 1)) for name, factor in taps.items()}))
  x = np.random.default_rng(0).normal(size=(5, K)).astype(np.float32)
  for batch_size in (2, 5):
    result = measure({"name": "tap_norms", "kind": "conv"}, net, {}, rows([0, 1, 2, 0, 1], image=x), batch_size)
    assert list(result) == ["000_conv", "002_conv"]
    for name, value in result.items():
      np.testing.assert_allclose(value, taps[name] * np.sqrt(np.mean(x**2)), rtol=1e-6)
  with pytest.raises(UserError, match="did you mean 'conv'"):
    measure({"name": "tap_norms", "kind": "con"}, net, {}, rows([0, 1], image=x[:2]))
