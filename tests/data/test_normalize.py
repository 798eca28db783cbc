"""Normalizations against float64 statistics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nurture.data import NORMALIZATIONS, Split


def _split(inputs):
  return Split.clean(inputs, np.zeros(len(inputs)))


_PIXELS = np.random.default_rng(0).integers(0, 256, (50, 6, 5, 3), np.uint8)


@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_result_is_float32_of_the_same_shape(name):
  normalize = NORMALIZATIONS[name](_split(_PIXELS))
  out = jax.jit(normalize)(jnp.asarray(_PIXELS[:4]))
  assert out.dtype == jnp.float32 and out.shape == (4, 6, 5, 3)


def test_unit_maps_0_and_255_to_0_and_1():
  levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
  out = np.asarray(NORMALIZATIONS["unit"](_split(levels))(jnp.asarray(levels))).ravel()
  np.testing.assert_array_equal(out[[0, 255]], [0.0, 1.0])
  np.testing.assert_allclose(out, np.arange(256) / 255, rtol=2**-22)


def test_unit_leaves_floating_point_inputs_alone():
  vectors = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
  np.testing.assert_array_equal(NORMALIZATIONS["unit"](_split(vectors))(jnp.asarray(vectors)), vectors)


def test_standardize_gives_mean_0_and_standard_deviation_1_of_each_channel():
  out = np.asarray(NORMALIZATIONS["standardize"](_split(_PIXELS))(jnp.asarray(_PIXELS)), np.float64)
  np.testing.assert_allclose(out.mean((0, 1, 2)), 0, atol=1e-6)
  np.testing.assert_allclose(out.std((0, 1, 2)), 1, atol=1e-6)


def test_standardize_does_not_depend_on_the_scale():
  by_pixel = NORMALIZATIONS["standardize"](_split(_PIXELS))(jnp.asarray(_PIXELS))
  unit = (_PIXELS / 255).astype(np.float32)
  np.testing.assert_allclose(NORMALIZATIONS["standardize"](_split(unit))(jnp.asarray(unit)), by_pixel, atol=1e-5)


def test_a_constant_channel_becomes_zero():
  pixels = _PIXELS.copy()
  pixels[..., 1] = 7
  out = np.asarray(NORMALIZATIONS["standardize"](_split(pixels))(jnp.asarray(pixels)))
  np.testing.assert_array_equal(out[..., 1], 0)
  assert np.all(np.isfinite(out)) and out[..., 0].std() > 0.9


def test_standardize_works_per_feature_on_vectors():
  vectors = np.random.default_rng(0).normal(3, [1, 10, 100], size=(400, 3)).astype(np.float32)
  out = np.asarray(NORMALIZATIONS["standardize"](_split(vectors))(jnp.asarray(vectors)))
  np.testing.assert_allclose(out.std(0), 1, atol=1e-5)


def test_none_is_the_float32_of_what_is_stored():
  out = NORMALIZATIONS["none"](_split(_PIXELS))(jnp.asarray(_PIXELS))
  np.testing.assert_array_equal(out, _PIXELS.astype(np.float32))
