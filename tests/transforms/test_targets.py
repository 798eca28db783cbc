"""Label smoothing in its two conventions, and the targets' half of mixup."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nurture.core import Context, UserError, build
from nurture.data.augment import Mixup
from nurture.transforms.targets import TARGETS

K = 10


def context(batch=None):
  return Context(jnp.int32(0), jax.random.key(0), batch or {}, None, None, {}, jnp.float32(0))


def smooth(targets, alpha, convention="uniform"):
  return build(TARGETS, {"name": "label_smoothing", "alpha": alpha, "convention": convention})(context(), targets)


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


def test_mixup_mixes_targets_as_the_augmentation_mixes_images(key, one_hot):
  # Images that are their own targets must stay so.
  images = one_hot.reshape(6, 1, K, 1)
  batch = Mixup(alpha=1.0, symmetric=True)(key, {"image": images})
  targets = TARGETS["mixup"]()(context(batch), one_hot)
  assert np.abs(targets - one_hot).max() > 0.05
  np.testing.assert_allclose(targets, batch["image"].reshape(6, K), atol=1e-6)


def test_mixup_in_full(one_hot):
  batch = {"mix_index": jnp.array([1, 0, 2, 3, 4, 5]), "mix_weight": jnp.full(6, 0.75)}
  targets = np.asarray(TARGETS["mixup"]()(context(batch), one_hot))
  np.testing.assert_allclose(targets[0], [0.75, 0.25] + [0] * 8, rtol=1e-6)
  np.testing.assert_array_equal(targets[2:], one_hot[2:])


def test_mixup_of_sequences(one_hot):
  batch = {"mix_index": jnp.array([1, 0, 2, 3, 4, 5]), "mix_weight": jnp.linspace(0, 1, 6)}
  sequence = jnp.stack([one_hot, one_hot[::-1]], axis=1)
  mixed = TARGETS["mixup"]()(context(batch), sequence)
  np.testing.assert_allclose(mixed[:, 0], TARGETS["mixup"]()(context(batch), one_hot), rtol=1e-6)


def test_mixup_leaves_what_was_not_mixed(one_hot):
  np.testing.assert_array_equal(TARGETS["mixup"]()(context({"label": jnp.arange(6)}), one_hot), one_hot)
  batch = {"mix_index": jnp.array([5, 4, 3, 2, 1, 0]), "mix_weight": jnp.ones(6)}
  np.testing.assert_array_equal(TARGETS["mixup"]()(context(batch), one_hot), one_hot)
