"""Augmentations against their definitions, their identities, jit and vmap."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nurture.core import UserError, build
from nurture.data import AUGMENTATIONS, mixed_targets

_B = 6
_ROWS = {
  "pad_crop": {"name": "pad_crop", "pad": 2, "mode": "zero"},
  "flip": {"name": "flip", "probability": 0.5},
  "cutout": {"name": "cutout", "size": 3},
  "mixup": {"name": "mixup", "alpha": 0.7, "symmetric": True},
  "noise_input": {"name": "noise_input", "clamp": True},
}


def _batch(dtype=jnp.uint8, shape=(8, 7, 3)):
  image = jnp.asarray(np.random.default_rng(0).integers(1, 256, (_B, *shape)), dtype)
  return {"image": image, "label": jnp.arange(_B), "id": jnp.arange(_B), "weight": jnp.ones(_B)}


def _run(key, batch, **config):
  return build(AUGMENTATIONS, config)(key, batch)


def test_every_row_is_under_test():
  assert {*_ROWS, "regenerate"} == set(AUGMENTATIONS)  # that one needs a generated data set: test_synthetic


@pytest.mark.parametrize("name", _ROWS)
def test_jit_and_vmap_equal_the_plain_call(key, name):
  row = build(AUGMENTATIONS, _ROWS[name])
  batch = _batch(jnp.uint8 if row.stage == "before" else jnp.float32)
  keys = jax.random.split(key, 3)
  batched = jax.jit(jax.vmap(row, (0, None)))(keys, batch)
  for i, k in enumerate(keys):
    alone = row(k, batch)
    assert set(alone) == set(batched)
    for field, value in alone.items():
      np.testing.assert_allclose(batched[field][i], value, rtol=1e-6)
      assert batched[field].dtype == value.dtype
  assert alone["image"].dtype == batch["image"].dtype and alone["image"].shape == batch["image"].shape
  assert np.any(batched["image"][0] != batched["image"][1])  # keys matter
  for field in ("label", "id", "weight"):
    np.testing.assert_array_equal(alone[field], batch[field])


@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.float32])
@pytest.mark.parametrize("mode, numpy_mode", [("zero", "constant"), ("reflect", "reflect")])
def test_pad_crop_gives_a_window_of_the_padded_image(key, dtype, mode, numpy_mode):
  batch = _batch(dtype)
  corners = set()
  for seed in range(8):
    out = np.asarray(_run(jax.random.fold_in(key, seed), batch, name="pad_crop", pad=2, mode=mode)["image"])
    for before, after in zip(np.asarray(batch["image"]), out):
      padded = np.pad(before, ((2, 2), (2, 2), (0, 0)), mode=numpy_mode)
      windows = [(r, c) for r in range(5) for c in range(5) if np.array_equal(padded[r : r + 8, c : c + 7], after)]
      assert len(windows) == 1
      corners.update(windows)
  assert len(corners) > 15 and {0, 4} <= {r for r, _ in corners} and {0, 4} <= {c for _, c in corners}


def test_pad_zero_is_the_identity(key):
  np.testing.assert_array_equal(_run(key, _batch(), name="pad_crop", pad=0)["image"], _batch()["image"])


def test_flip_with_probability_one_mirrors_columns_and_undoes_itself(key):
  batch = _batch()
  once = _run(key, batch, name="flip", probability=1.0)
  np.testing.assert_array_equal(once["image"], np.asarray(batch["image"])[:, :, ::-1])
  np.testing.assert_array_equal(_run(key, once, name="flip", probability=1.0)["image"], batch["image"])
  np.testing.assert_array_equal(_run(key, batch, name="flip", probability=0.0)["image"], batch["image"])


def test_flip_probability_may_be_traced(key):
  batch = {"image": jnp.tile(jnp.arange(2.0)[None, None, :, None], (4000, 1, 1, 1))}
  share = jax.jit(lambda p: jnp.mean(_run(key, batch, name="flip", probability=p)["image"][:, 0, 0, 0]))
  for p in (0.2, 0.7):
    assert abs(share(p) - p) < 4 * np.sqrt(p * (1 - p) / 4000)


def test_cutout_removes_one_clipped_square(key):
  batch = _batch(jnp.float32)
  areas = set()
  for seed in range(12):
    out = np.asarray(_run(jax.random.fold_in(key, seed), batch, name="cutout", size=3)["image"])
    gone = np.all(out == 0, axis=-1)
    np.testing.assert_array_equal(out[~gone], np.asarray(batch["image"])[~gone])
    for mask in gone:
      rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
      assert mask.sum() == len(rows) * len(columns)
      assert np.ptp(rows) == len(rows) - 1 and np.ptp(columns) == len(columns) - 1
      areas.add((len(rows), len(columns)))
  # The centre lies inside, so 3 pixels lose at most one at a border.
  assert areas == {(2, 2), (2, 3), (3, 2), (3, 3)}
  np.testing.assert_array_equal(_run(key, batch, name="cutout", size=0)["image"], batch["image"])


@pytest.mark.parametrize("shape", [(8, 7, 3), (5,)])
def test_mixup_is_the_convex_combination_that_it_reports(key, shape):
  batch = _batch(jnp.float32, shape)
  out = _run(key, batch, name="mixup", alpha=0.7, symmetric=True)
  lam, index = np.asarray(out["mix_weight"]), np.asarray(out["mix_index"])
  assert lam.dtype == np.float32 and index.dtype == np.int32 and np.ptp(lam) == 0
  np.testing.assert_array_equal(np.sort(index), np.arange(_B))
  image = np.asarray(batch["image"], np.float64)
  np.testing.assert_allclose(out["image"], lam[0] * image + (1 - lam[0]) * image[index], rtol=1e-5)


def _lambdas(key, alpha, symmetric):
  batch = {"image": jnp.zeros((2, 1))}
  draw = lambda k, a: _run(k, batch, name="mixup", alpha=a, symmetric=symmetric)["mix_weight"][0]
  return np.asarray(jax.jit(jax.vmap(draw, (0, None)))(jax.random.split(key, 4000), alpha), np.float64)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 8.0])
def test_lambda_has_the_moments_of_beta(key, alpha):
  lam = _lambdas(key, alpha, True)
  variance = 1 / (4 * (2 * alpha + 1))
  assert abs(lam.mean() - 0.5) < 4 * np.sqrt(variance / 4000)
  assert abs(lam.var() / variance - 1) < 0.1
  assert lam.min() >= 0 and lam.max() <= 1 and lam.min() < 0.5 < lam.max()
  folded = _lambdas(key, alpha, False)
  np.testing.assert_allclose(folded, np.maximum(lam, 1 - lam), atol=1e-6)


def test_alpha_zero_is_the_identity_bit_for_bit(key):
  batch = _batch(jnp.float32)
  out = jax.jit(lambda a: _run(key, batch, name="mixup", alpha=a, symmetric=True))(0.0)
  np.testing.assert_array_equal(out["image"], batch["image"])
  np.testing.assert_array_equal(out["mix_weight"], 1.0)


def test_targets_are_mixed_as_the_images(key):
  one_hot = jax.nn.one_hot(jnp.arange(_B), 9)
  # Images that are their own targets must stay so.
  batch = _run(key, {**_batch(), "image": one_hot.reshape(_B, 1, 9, 1)}, name="mixup", alpha=1.0, symmetric=True)
  targets = mixed_targets(batch, one_hot)
  assert np.abs(targets - one_hot).max() > 0.05
  np.testing.assert_allclose(targets, batch["image"].reshape(_B, 9), atol=1e-6)


def test_mixed_targets_in_full():
  one_hot = jax.nn.one_hot(jnp.arange(_B), 9)
  batch = {"mix_index": jnp.array([1, 0, 2, 3, 4, 5]), "mix_weight": jnp.linspace(0.75, 0, _B)}
  targets = np.asarray(mixed_targets(batch, one_hot))
  np.testing.assert_allclose(targets[0], [0.75, 0.25] + [0] * 7, rtol=1e-6)
  np.testing.assert_array_equal(targets[2:], one_hot[2:])
  sequences = mixed_targets(batch, jnp.stack([one_hot, one_hot[::-1]], axis=1))
  np.testing.assert_allclose(sequences[:, 0], targets, rtol=1e-6)


def test_what_was_not_mixed_keeps_its_targets():
  one_hot = jax.nn.one_hot(jnp.arange(_B), 9)
  np.testing.assert_array_equal(mixed_targets({"label": jnp.arange(_B)}, one_hot), one_hot)
  batch = {"mix_index": jnp.arange(_B)[::-1], "mix_weight": jnp.ones(_B)}
  np.testing.assert_array_equal(mixed_targets(batch, one_hot), one_hot)


@pytest.mark.parametrize("config", [{"name": "pad_crop", "pad": -1}, {"name": "cutout", "size": -2}])
def test_a_negative_size_is_one_sentence(config):
  with pytest.raises(UserError, match="is -[12]; give a whole number"):
    build(AUGMENTATIONS, config)
