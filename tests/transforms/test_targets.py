"""Label smoothing in its two conventions."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nurture.core import Context, UserError, build
from nurture.transforms.targets import TARGETS

K = 10


CONTEXT = Context(jnp.int32(0), jax.random.key(0), {}, None, None, {}, jnp.float32(0))


def smooth(targets, alpha, convention="uniform"):
  return build(TARGETS, {"name": "label_smoothing", "alpha": alpha, "convention": convention})(CONTEXT, targets)


@pytest.fixture
def one_hot():
  return jax.nn.one_hot(jnp.arange(6) % K, K)


def test_uniform_is_optax(one_hot):
  np.testing.assert_allclose(smooth(one_hot, 0.3), optax.smooth_labels(one_hot, 0.3), rtol=1e-6)


def test_other_classes_share_what_the_label_loses(one_hot):
  smoothed = np.asarray(smooth(one_hot, 0.27, "other_classes"))
  np.testing.assert_allclose(smoothed[one_hot == 1], 0.73, rtol=1e-6)
  np.testing.assert_allclose(smoothed[one_hot == 0], 0.03, rtol=1e-6)


def test_the_conventions_convert(one_hot):
  np.testing.assert_allclose(
    smooth(one_hot, 0.1, "other_classes"), smooth(one_hot, 0.1 * K / (K - 1), "uniform"), rtol=1e-5
  )


@pytest.mark.parametrize("convention", ["uniform", "other_classes"])
@pytest.mark.parametrize("traced", [False, True])
def test_zero_changes_no_bit(one_hot, convention, traced):
  targets = smooth(one_hot, 0.3)
  run = lambda alpha: smooth(targets, alpha, convention)
  np.testing.assert_array_equal(jax.jit(run)(0.0) if traced else run(0.0), targets)


@pytest.mark.parametrize("convention", ["uniform", "other_classes"])
def test_smoothing_is_linear_in_the_targets(one_hot, convention):
  soft = jax.nn.softmax(jax.random.normal(jax.random.key(1), (6, K)))
  mixed = smooth(0.3 * one_hot + 0.7 * soft, 0.2, convention)
  np.testing.assert_allclose(
    mixed, 0.3 * smooth(one_hot, 0.2, convention) + 0.7 * smooth(soft, 0.2, convention), rtol=1e-5
  )


@pytest.mark.parametrize("convention", ["uniform", "other_classes"])
def test_ignored_positions_stay_without_target(convention):
  targets = jax.nn.one_hot(jnp.array([[1, -1], [-1, 3]]), K)
  sums = smooth(targets, 0.4, convention).sum(axis=-1)
  np.testing.assert_allclose(sums, [[1, 0], [0, 1]], rtol=1e-6)


def test_the_convention_has_no_default():
  with pytest.raises(UserError, match="convention is missing"):
    build(TARGETS, {"name": "label_smoothing", "alpha": 0.1})
