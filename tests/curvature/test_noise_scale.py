"""The gradient noise scale where it is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nurture.core import UserError
from nurture.curvature.noise_scale import batch_gradients, noise_and_signal, simple_noise_scale

MEAN, STD = np.array([0.3, -0.4]), np.array([1.0, 2.0])  # |G|^2 = 0.25, tr Sigma = 5


def gradient(batch):
  """Of the mean of |x - theta|^2 / 2 at theta = 0: minus the mean of the examples."""
  return {"theta": -jnp.mean(batch, axis=0)}


def test_a_gaussian_quadratic_has_the_noise_scale_of_its_moments():
  draws = np.random.default_rng(0).normal(MEAN, STD, size=(500, 8, 50, 2)).astype(np.float32)

  @jax.jit
  @jax.vmap
  def estimate(batches):  # 8 batches of 50, and all of them
    total, squares = batch_gradients(gradient, batches)
    return noise_and_signal(squares / 8, jnp.sum(jnp.square(total["theta"] / 8)), 50, 400)

  noise, signal = estimate(draws)
  for values, exact in ((noise, 5.0), (signal, 0.25)):
    assert abs(values.mean() - exact) < 4 * values.std() / 500**0.5 < 0.1 * exact
  np.testing.assert_allclose(simple_noise_scale(noise.mean(), signal.mean()), 20, rtol=0.1)


def test_noise_is_the_sample_variance_of_the_batches_gradients():
  draws = np.random.default_rng(1).normal(MEAN, STD, size=(6, 3, 2))
  total, squares = batch_gradients(gradient, jnp.asarray(draws, jnp.float32))
  noise, signal = noise_and_signal(squares / 6, jnp.sum(jnp.square(total["theta"] / 6)), 3, 18)
  each = draws.mean(axis=1)
  np.testing.assert_allclose(noise, 3 * each.var(axis=0, ddof=1).sum(), rtol=1e-5)
  np.testing.assert_allclose(signal, (each.mean(axis=0) ** 2).sum() - noise / 18, rtol=1e-4)


def test_limits_and_mistakes():
  same = jnp.ones((4, 3, 2))
  total, squares = batch_gradients(gradient, same)
  noise, signal = noise_and_signal(squares / 4, jnp.sum(jnp.square(total["theta"] / 4)), 3, 12)
  np.testing.assert_allclose([noise, signal, simple_noise_scale(noise, signal)], [0, 2, 0], atol=1e-6)
  assert np.isnan(simple_noise_scale(jnp.float32(1), jnp.array([0.0, -1.0]))).all()
  with pytest.raises(UserError, match="give at least one"):
    batch_gradients(gradient, jnp.ones((0, 3, 2)))
  for sizes in ((0, 4), (4, 4), (8, 4)):
    with pytest.raises(UserError, match="the smaller first"):
      noise_and_signal(jnp.ones(()), jnp.ones(()), *sizes)
