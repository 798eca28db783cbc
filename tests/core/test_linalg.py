"""Decompositions one matrix at a time: against numpy, their derivatives, and what a batch becomes."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nurture.core import linalg, trees


@pytest.mark.parametrize("scale", [1e-37, 1e-30, 1e-20, 1.0, 1e19, 1e25, 1e37])
def test_norms_of_any_scale(scale):
  x = np.float32(scale) * np.array([[3.0, 0.0, -4.0], [0.0, 0.0, 12.0]], np.float32)
  np.testing.assert_allclose(linalg.norm(x) / scale, 13, rtol=1e-6)
  np.testing.assert_allclose(linalg.norm(x, axis=1) / scale, [5, 12], rtol=1e-6)
  np.testing.assert_allclose(linalg.norm(-np.abs(x)) / scale, 13, rtol=1e-6)
  np.testing.assert_allclose(linalg.norm(x, axis=0) / scale, [3, 0, 160**0.5], rtol=1e-6)
  np.testing.assert_allclose(trees.norm({"a": x[0], "b": [x[1:], jnp.zeros(0)]}) / scale, 13, rtol=1e-6)
  np.testing.assert_allclose(jax.grad(linalg.norm)(x), x / (13 * np.float32(scale)), rtol=1e-6)


def test_norms_that_are_no_numbers():
  """A norm above the largest number of its type, and what is infinite or no number already."""
  for norm in (linalg.norm, trees.norm):
    for entries, expected in (
      ([3e38, 3e38], np.inf), ([-np.inf, 1e30], np.inf), ([np.nan, 1.0], np.nan), ([np.inf, np.nan], np.nan),
      ([0.0, 0.0], 0.0), ([], 0.0), ([2e38, 2e38], 2.8284271e38),
    ):
      np.testing.assert_allclose(norm(jnp.array(entries, jnp.float32)), expected, rtol=1e-6)
  assert trees.norm({}) == 0
  half = linalg.norm(jnp.full(4, 256, jnp.bfloat16))
  assert half == 512 and half.dtype == jnp.float32
  with jax.enable_x64(True):
    np.testing.assert_allclose(linalg.norm(jnp.array([3e200, -4e200])), 5e200)
    np.testing.assert_allclose(linalg.norm(jnp.array([3e-200, -4e-200])), 5e-200)


def test_powers_of_two():
  x = np.array([0.0, 1.0, -1.5, 2.0, 3.99, 1e-30, 3e38, 0.1, np.inf, np.nan], np.float32)
  np.testing.assert_array_equal(
    linalg.power_of_two(x), np.float32([1, 1, 1, 2, 2, 2.0**-100, 2.0**126, 2.0**-4, 1, 1]))
  assert linalg.size_of(np.float32([0.3]), np.float32([[-5.0]]), jnp.zeros(0)) == 4 and linalg.size_of() == 1
  signed = jnp.array([-3.0, 3.0, -0.3])
  np.testing.assert_array_equal(linalg.power_of_two(signed), [2.0, 2.0, 0.25])
  slope = jax.grad(lambda x: jnp.sum(linalg.power_of_two(x) * x))(signed)
  np.testing.assert_array_equal(slope, [2.0, 2.0, 0.25])  # the power is a constant


def symmetric(key, *shape):
  m = jax.random.normal(key, shape, jnp.float64)
  return (m + m.swapaxes(-1, -2)) / 2


@pytest.mark.parametrize("name", ["eigh", "eigvalsh", "svd", "qr"])
def test_a_batch_is_what_its_matrices_are_and_no_batched_call(name, key):
  """A batched LAPACK call can wait for ever; in a loop each call has one matrix."""
  with jax.enable_x64(True):
    batch, function = symmetric(key, 2, 3, 6, 6), getattr(linalg, name)
    mapped = jax.jit(jax.vmap(jax.vmap(function)))
    theirs = jax.tree.leaves(getattr(jnp.linalg, name)(batch))
    for result, expected in zip(jax.tree.leaves(mapped(batch)), theirs):
      np.testing.assert_allclose(result, expected, atol=1e-13)
    calls = [line for line in mapped.lower(batch).as_text().splitlines() if "@lapack_" in line]
    assert calls and not any(re.search(r"\(tensor<\d+x\d+x\d+x", line) for line in calls)


def test_derivatives_are_those_of_jax(key):
  with jax.enable_x64(True):
    m, other = symmetric(key, 2, 5, 5)

    def total(decomposition):
      def f(m):
        values, vectors = decomposition(m)
        return jnp.sum(jnp.sin(values)) + jnp.sum(jnp.square(vectors * jnp.arange(5.0)[None]) * other)
      return f

    mine, theirs = total(linalg.eigh), total(jnp.linalg.eigh)
    np.testing.assert_allclose(jax.grad(mine)(m), jax.grad(theirs)(m), atol=1e-10)
    np.testing.assert_allclose(jax.jvp(mine, (m,), (other,))[1], jax.jvp(theirs, (m,), (other,))[1], atol=1e-10)
    values = lambda function: jax.vmap(jax.grad(lambda m: jnp.sum(function(m) ** 3)))(jnp.stack([m, other]))
    np.testing.assert_allclose(values(linalg.eigvalsh), values(jnp.linalg.eigvalsh), atol=1e-10)
    assert np.isfinite(jax.grad(mine)(jnp.eye(5))).all()


@pytest.mark.parametrize("shape", [(6, 3), (3, 6), (4, 4)])
def test_thin_decompositions_of_rectangles(shape, key):
  with jax.enable_x64(True):
    m = jax.random.normal(key, shape, jnp.float64)
    u, s, vt = linalg.svd(m)
    q, r = linalg.qr(m)
    small = min(shape)
    assert (u.shape, s.shape, vt.shape) == ((shape[0], small), (small,), (small, shape[1]))
    assert (q.shape, r.shape) == ((shape[0], small), (small, shape[1]))
    np.testing.assert_allclose(u @ jnp.diag(s) @ vt, m, atol=1e-13)
    np.testing.assert_allclose(q @ r, m, atol=1e-13)
    assert (np.diff(s) <= 0).all()


def test_vectors_of_one_value_do_not_turn_into_each_other(key):
  with jax.enable_x64(True):
    change = symmetric(key, 3, 3)
    (values, vectors), (slopes, turns) = jax.jvp(linalg.eigh, (jnp.diag(jnp.asarray([1.0, 1.0, 4.0])),), (change,))
    np.testing.assert_allclose(values, [1, 1, 4])
    np.testing.assert_allclose(slopes, np.diagonal(vectors.T @ change @ vectors), atol=1e-14)
    np.testing.assert_array_equal((vectors.T @ turns)[:2, :2], np.zeros((2, 2)))
    np.testing.assert_allclose((vectors.T @ turns)[0, 2], (vectors.T @ change @ vectors)[0, 2] / 3, atol=1e-14)
