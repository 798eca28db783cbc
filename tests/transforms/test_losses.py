"""Cross-entropy, its generalized form and squared error: closed forms, limits, and another library."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nurture.core import Context, Outputs, build
from nurture.testing import class_spec
from nurture.transforms.losses import LOSSES
from nurture.transforms.targets.label_smoothing import LabelSmoothing

SPEC = class_spec(num_examples=9, num_classes=4, input_shape=(3,), batch_size=5)


def value(config, logits, targets):
  term = build(LOSSES, config)
  ctx = Context(jnp.int32(0), jax.random.key(0), {}, targets, Outputs(logits, {}), {}, jnp.float32(0))
  return term.apply(term.init(SPEC), ctx)[0]


@pytest.fixture
def logits():
  return 3 * jax.random.normal(jax.random.key(1), (5, 4))


@pytest.fixture
def soft():
  return jax.nn.softmax(jax.random.normal(jax.random.key(2), (5, 4)))


def test_cross_entropy_is_optax(logits, soft):
  np.testing.assert_allclose(
    value("cross_entropy", logits, soft), optax.softmax_cross_entropy(logits, soft), rtol=1e-5
  )


def test_cross_entropy_of_one_hot_targets_reads_one_entry(logits):
  label = jnp.arange(5) % 4
  expected = -jax.nn.log_softmax(logits)[jnp.arange(5), label]
  np.testing.assert_allclose(value("cross_entropy", logits, jax.nn.one_hot(label, 4)), expected, rtol=1e-5)


def test_cross_entropy_gradient_is_p_minus_t(logits, soft):
  gradient = jax.grad(lambda z: value("cross_entropy", z, soft).sum())(logits)
  np.testing.assert_allclose(gradient, jax.nn.softmax(logits) - soft, atol=1e-6)


def test_smoothing_mixes_in_the_mean_over_classes(logits):
  hard, alpha = jax.nn.one_hot(jnp.arange(5) % 4, 4), 0.3
  smoothed = LabelSmoothing(alpha, "uniform")(None, hard)
  expected = (1 - alpha) * value("cross_entropy", logits, hard) - alpha * jax.nn.log_softmax(logits).mean(axis=-1)
  np.testing.assert_allclose(value("cross_entropy", logits, smoothed), expected, rtol=1e-5)


def test_the_logit_gap_of_smoothed_targets_is_the_optimum():
  alpha, num_classes = 0.1, 10
  hard = jax.nn.one_hot(jnp.array([3]), num_classes)
  smoothed = LabelSmoothing(alpha, "uniform")(None, hard)
  gap = np.log((1 - alpha + alpha / num_classes) / (alpha / num_classes))
  gradient = jax.grad(lambda z: value("cross_entropy", z, smoothed).sum())(gap * hard)
  assert abs(gap - 4.51) < 0.01
  np.testing.assert_allclose(gradient, 0, atol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_cross_entropy_at_extreme_logits(dtype):
  logits = jnp.array([[1e4, -1e4, 0.0, -jnp.inf], [-1e4, 1e4, 0.0, -jnp.inf]], dtype)
  targets = jnp.array([[1.0, 0, 0, 0], [1.0, 0, 0, 0]])
  values, gradient = jax.vjp(lambda z: value("cross_entropy", z, targets), logits)
  np.testing.assert_allclose(values, [0, 2 * float(jnp.array(1e4, dtype))], rtol=1e-6)
  assert values.dtype == jnp.float32
  np.testing.assert_allclose(gradient(jnp.ones(2))[0].astype(jnp.float32), [[0, 0, 0, 0], [-1, 1, 0, 0]], atol=1e-6)


def gce(q):
  return {"name": "generalized_cross_entropy", "q": q}


@pytest.mark.parametrize("q", [0.01, 0.3, 0.7, 1.0])
def test_generalized_cross_entropy_is_its_equation(logits, soft, q):
  p = np.asarray(jax.nn.softmax(logits), np.float64)
  for targets in (soft, jax.nn.one_hot(jnp.arange(5) % 4, 4)):
    np.testing.assert_allclose(value(gce(q), logits, targets), (targets * (1 - p**q) / q).sum(axis=-1), rtol=1e-5)


def test_generalized_cross_entropy_lies_between_cross_entropy_and_the_absolute_error(logits):
  hard = jax.nn.one_hot(jnp.arange(5) % 4, 4)
  np.testing.assert_allclose(value(gce(1e-6), logits, hard), value("cross_entropy", logits, hard), rtol=1e-4)
  absolute = jnp.abs(jax.nn.softmax(logits) - hard).sum(axis=-1)
  np.testing.assert_allclose(value(gce(1.0), logits, hard), absolute / 2, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("q", [0.01, 0.7, 1.0])
def test_generalized_cross_entropy_weighs_each_gradient_by_the_probability_of_the_label(logits, q):
  hard = jax.nn.one_hot(jnp.arange(5) % 4, 4)
  p = jax.nn.softmax(logits)
  gradient = jax.jit(jax.grad(lambda z, q: value(gce(q), z, hard).sum()))(logits, q)  # q may be traced
  np.testing.assert_allclose(gradient, (p * hard).sum(axis=-1, keepdims=True) ** q * (p - hard), atol=1e-6)


def test_generalized_cross_entropy_at_extreme_logits():
  logits = jnp.array([[1e4, -1e4, 0.0, -jnp.inf], [-1e4, 1e4, 0.0, -jnp.inf]])
  targets = jnp.array([[1.0, 0, 0, 0], [1.0, 0, 0, 0]])
  values, gradient = jax.vjp(lambda z: value(gce(0.5), z, targets), logits)
  np.testing.assert_allclose(values, [0, 2])  # 1/q at most
  np.testing.assert_array_equal(gradient(jnp.ones(2))[0], 0)


@pytest.mark.parametrize("config", ["cross_entropy", gce(0.7), {"name": "mse", "on": "logits"}])
def test_sequences_are_averaged_over_the_positions_that_count(logits, config):
  label = jnp.array([[0, 1, -1], [2, -1, -1], [-1, -1, -1]])
  sequence = jnp.stack([logits[:3], 2 * logits[:3], 3 * logits[:3]], axis=1)
  targets = jax.nn.one_hot(label, 4)
  single = np.stack([value(config, sequence[:, t], targets[:, t]) for t in range(3)], axis=1)
  expected = [(single[0, 0] + single[0, 1]) / 2, single[1, 0], 0]
  np.testing.assert_allclose(value(config, sequence, targets), expected, rtol=1e-5)


@pytest.mark.parametrize("config", ["cross_entropy", gce(0.7), {"name": "mse", "on": "probabilities"}])
def test_logits_of_few_bits_are_no_reason_to_compute_with_few(config, logits, soft):
  rounded = logits.astype(jnp.bfloat16)
  np.testing.assert_array_equal(value(config, rounded, soft), value(config, rounded.astype(jnp.float32), soft))


def test_mse_is_a_mean_over_classes_without_one_half():
  logits, targets = jnp.array([[1.0, 2.0, 3.0, 4.0]]), jnp.array([[0.0, 1.0, 0.0, 0.0]])
  np.testing.assert_allclose(value({"name": "mse", "on": "logits"}, logits, targets), [(1 + 1 + 9 + 16) / 4])


def test_mse_of_probabilities_is_the_brier_score_over_classes(logits, soft):
  expected = ((jax.nn.softmax(logits) - soft) ** 2).sum(axis=-1) / 4
  np.testing.assert_allclose(value({"name": "mse", "on": "probabilities"}, logits, soft), expected, rtol=1e-5)
  shifted = value({"name": "mse", "on": "probabilities"}, logits + 7.0, soft)
  np.testing.assert_allclose(shifted, expected, rtol=1e-4)
