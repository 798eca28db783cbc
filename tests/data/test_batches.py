"""Preprocessing: gathering, stages in their order, draws that do not depend on their neighbours, traced numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nurture.core import UserError
from nurture.data import Dataset, Split, device_fields, gather, preprocess
from nurture.data.tasks import Classification


def _dataset(shape=(8, 8, 3), name="image"):
  rng = np.random.default_rng(0)
  split = Split.clean({name: rng.integers(0, 256, (20, *shape), np.uint8)}, rng.integers(0, 4, 20))
  return Dataset.read("toy", split, split.take(np.arange(6)), Classification(tuple("abcd")))


def _config(normalize="unit", **augment):
  return {"normalize": normalize, "augment": augment}


_MIXUP = {"name": "mixup", "alpha": 1.0, "symmetric": True}


def test_gather_takes_whole_rows_and_weighs_them_one():
  data = _dataset()
  fields = device_fields(data.train)
  assert fields["image"].dtype == jnp.uint8
  batch = jax.jit(gather)(fields, jnp.array([3, 19, 3]))
  assert set(batch) == {"image", "label", "true_label", "id", "weight"}
  np.testing.assert_array_equal(batch["id"], [3, 19, 3])
  np.testing.assert_array_equal(batch["image"], data.train.inputs["image"][[3, 19, 3]])
  np.testing.assert_array_equal(batch["label"], data.train.label[[3, 19, 3]])
  np.testing.assert_array_equal(batch["weight"], np.ones(3, np.float32))


@pytest.mark.parametrize("normalize", ["unit", "standardize", "none"])
def test_without_augmentation_a_training_batch_is_the_evaluation_input(key, normalize):
  data = _dataset()
  pre = preprocess(_config(normalize), data)
  batch = gather(device_fields(data.train), jnp.arange(20))
  np.testing.assert_array_equal(pre.train_batch(key, batch)["image"], pre.inputs(batch))
  assert pre.inputs(batch).dtype == jnp.float32


def test_the_training_split_alone_decides_the_normalization():
  data = _dataset()
  pre = preprocess(_config("standardize"), data)
  mean, std = data.train.inputs["image"].mean((0, 1, 2)), data.train.inputs["image"].std((0, 1, 2))
  out = pre.inputs({"image": jnp.asarray(data.test.inputs["image"])})
  np.testing.assert_allclose(out, (data.test.inputs["image"] - mean) / std, atol=1e-5)


def test_padding_before_and_cutout_after_normalization(key):
  data = _dataset()
  batch = gather({"image": jnp.full((4, 8, 8, 3), 51, jnp.uint8)}, jnp.arange(4))
  pre = preprocess(_config("standardize", cut={"name": "cutout", "size": 4}, crop={"name": "pad_crop", "pad": 4}), data)
  mean, std = data.train.moments["image"]
  levels = {"black": (0 - mean[0]) / std[0], "image": (51 - mean[0]) / std[0], "cut": 0.0}
  found = np.unique(np.asarray(pre.train_batch(key, batch)["image"])[..., 0].round(4))
  np.testing.assert_allclose(found, sorted(levels.values()), atol=1e-3)


def test_an_added_augmentation_leaves_the_draws_of_the_others_alone(key):
  data = _dataset()
  fields = device_fields(data.train)
  alone = preprocess(_config(mix=_MIXUP), data)
  both = preprocess(_config(crop="pad_crop", mix=_MIXUP), data)
  batch = gather(fields, jnp.arange(8))
  a, b = alone.train_batch(key, batch), both.train_batch(key, batch)
  np.testing.assert_array_equal(a["mix_index"], b["mix_index"])
  np.testing.assert_array_equal(a["mix_weight"], b["mix_weight"])
  assert np.any(a["image"] != b["image"])


def test_two_rows_of_a_kind_draw_apart(key):
  data = _dataset()
  pre = preprocess(_config("none", one="flip", two="flip"), data)
  batch = gather(device_fields(data.train), jnp.arange(20))
  changed = np.any(np.asarray(pre.train_batch(key, batch)["image"]) != data.train.inputs["image"], axis=(1, 2, 3))
  assert 0 < changed.sum() < 20  # with the same draws, the second would undo the first


def test_a_traced_alpha_can_be_vmapped(key):
  data = _dataset()
  fields = device_fields(data.train)

  def weight(alpha):
    pre = preprocess(_config("standardize", mix={**_MIXUP, "alpha": alpha}), data)
    return pre.train_batch(key, gather(fields, jnp.arange(4)))["mix_weight"][0]

  alphas = jnp.array([0.0, 0.3, 1.0])
  np.testing.assert_allclose(jax.jit(jax.vmap(weight))(alphas), [weight(float(a)) for a in alphas], rtol=1e-5)


def test_the_moments_are_computed_once():
  data = _dataset()
  preprocess(_config("standardize"), data)
  kept = data.train.moments["image"]
  preprocess(_config("standardize"), data)
  assert data.train.moments["image"][0] is kept[0]


def test_tokens_become_int32_and_nothing_else(key):
  data = _dataset((5,), "tokens")
  pre = preprocess(_config("standardize"), data)
  batch = pre.train_batch(key, gather(device_fields(data.train), jnp.arange(20)))
  np.testing.assert_array_equal(batch["tokens"], data.train.inputs["tokens"])
  assert batch["tokens"].dtype == jnp.int32 and data.input_shapes == {"tokens": (5,)}


@pytest.mark.parametrize("name, row", [("tokens", _MIXUP), ("image", "flip"), ("tokens", "pad_crop")])
def test_an_augmentation_that_does_not_fit_the_inputs_is_one_sentence(name, row):
  with pytest.raises(UserError, match=r"data.augment.change needs .*remove it"):
    preprocess(_config(change=row), _dataset((5,), name))


def test_vectors_can_be_mixed(key):
  data = _dataset((5,), "image")
  pre = preprocess(_config(mix=_MIXUP), data)
  batch = pre.train_batch(key, gather(device_fields(data.train), jnp.arange(4)))
  x, lam = data.train.inputs["image"][:4] / 255, np.asarray(batch["mix_weight"])[0]
  np.testing.assert_allclose(batch["image"], lam * x + (1 - lam) * x[batch["mix_index"]], atol=1e-6)


@pytest.mark.parametrize("config, words", [
  (_config("units"), "data.normalize.name is 'units', .*did you mean 'unit'"),
  (_config(crop={"name": "pad_crop", "padding": 3}), "data.augment.crop.padding does not exist"),
  (_config(mix={"name": "mixup", "alpha": 1.0}), "data.augment.mix.symmetric is missing"),
])
def test_a_bad_piece_names_its_path(config, words):
  with pytest.raises(UserError, match=words):
    preprocess(config, _dataset())
