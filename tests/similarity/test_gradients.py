"""Gradients against finite differences and at the limits: constant and equal input, scales, offsets."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nurture.similarity import MEASURES, Gram, gram, linear_cka, procrustes

EVERY = pytest.mark.parametrize("name", MEASURES)
WIDTHS = ((5, 4), (20, 17))  # fewer features than samples, and more
N = 14


def pair(widths, seed=0):
  rng = np.random.default_rng(seed)
  x = rng.normal(size=(N, widths[0]))
  return x, np.tanh(x @ rng.normal(size=widths)) + 0.5 * rng.normal(size=(N, widths[1])) + 0.3


@functools.cache
def value_and_gradients(name):
  return jax.jit(jax.value_and_grad(MEASURES[name].function, argnums=(0, 1)))


@EVERY
@pytest.mark.parametrize("widths", WIDTHS)
def test_gradient_is_the_slope_and_obeys_the_invariances(name, widths):
  measure = MEASURES[name]
  with jax.enable_x64(True):
    x, y = (jnp.asarray(side) for side in pair(widths))
    _, gradients = value_and_gradients(name)(x, y)
    if not measure.differentiable:
      assert all((g == 0).all() for g in gradients)
      return
    if widths == WIDTHS[0]:  # what is made of spans says nothing where they are everything
      assert all(jnp.max(jnp.abs(g)) > 1e-3 for g in gradients)
    rng = np.random.default_rng(1)
    dx, dy = (jnp.asarray(rng.normal(size=side.shape)) for side in (x, y))
    steps = 1e-5 * jnp.array([-2, -1, 1, 2])
    along = jax.jit(lambda sx, sy: jax.lax.map(lambda s: measure.function(x + sx * s * dx, y + sy * s * dy), steps))
    for g, d, side, (sx, sy) in zip(gradients, (dx, dy), (x, y), ((1.0, 0.0), (0.0, 1.0))):
      far_below, below, above, far_above = along(sx, sy)
      slope = (8 * (above - below) - (far_above - far_below)) / 12e-5
      np.testing.assert_allclose(jnp.sum(g * d), slope, rtol=1e-6, atol=2e-9)
      np.testing.assert_allclose(jnp.sum(g * side), 0, atol=1e-12)
      moves = float(jnp.max(jnp.abs(g.sum(0))))
      assert moves < 1e-12 if "translation" in measure.invariances else moves > 1e-5


@EVERY
def test_constant_input_is_unlike_everything_and_has_gradient_0(name):
  measure, (x, y) = MEASURES[name], pair(WIDTHS[0])
  y = y.astype(np.float32)
  run = value_and_gradients(name)
  for constant in (0.0, 0.1, -1e4 / 3):
    x = np.full((N, 5), constant, np.float32)
    for other, distance in ((y, 1.0), (x[:, :4], 0.0)):  # of the origin
      value, gradients = run(x, other)
      np.testing.assert_allclose(value, 0.0 if measure.is_similarity else distance, atol=1e-6)
      assert (gradients[0] == 0).all() and jnp.isfinite(gradients[1]).all()


@EVERY
def test_gradient_is_finite_where_input_is_degenerate(name):
  x, y = (side.astype(np.float32) for side in pair(WIDTHS[0]))
  doubled = np.concatenate([x[:7], x[:7]])
  flat = np.outer(x[:, 0], np.ones(5, np.float32))
  run = value_and_gradients(name)
  equal = np.pad(y, ((0, 0), (0, 1)))
  alone = x * (np.arange(N) == 0)[:, None]
  for a, b in ((doubled, y), (flat, y), (doubled, np.concatenate([y[:7], y[:7]])), (alone, y)):
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(run(a, b)))
  assert all(jnp.isfinite(leaf).all() and jnp.abs(leaf).max() < 1 + 1e-5 for leaf in jax.tree.leaves(run(equal, y)))


@EVERY
def test_float32_bears_scales_and_offsets(name):
  measure = MEASURES[name]
  x, y = (np.round(side * 64).astype(np.float32) / 64 for side in pair(WIDTHS[0]))  # so that x + 1e4 is exact
  run = value_and_gradients(name)
  value, (gradient, _) = run(x, y)
  for scale in (2.0**-27, 2.0**-33, 2.0**33):
    scaled, (g, _) = run(scale * x, y / scale)
    np.testing.assert_allclose(scaled, value, rtol=1e-5)
    np.testing.assert_allclose(scale * g, gradient, atol=1e-5)
  if "translation" in measure.invariances:
    shifted, (g, _) = run(x + 1e4, y - 1e4)
    assert shifted == value  # to the last bit: centring loses nothing
    np.testing.assert_allclose(g, gradient, atol=1e-5)


def test_gradients_through_gram_matrices():
  """A Gram of the trained side, computed once for several comparisons, passes the gradient on; procrustes cuts it."""
  with jax.enable_x64(True):
    x, y = (jnp.asarray(side) for side in pair(WIDTHS[1]))
    slope = lambda function: jax.jit(jax.grad(function))(x)
    direct = slope(lambda x: linear_cka(x, y))
    np.testing.assert_allclose(slope(lambda x: linear_cka(gram(x).take(jnp.arange(N)), y)), direct, atol=1e-12)
    np.testing.assert_allclose(slope(lambda x: linear_cka(x, gram(y))), direct, atol=1e-12)
    expected = slope(lambda x: procrustes(x, y))
    np.testing.assert_allclose(slope(lambda x: procrustes(x, gram(y))), expected, atol=1e-7)
    assert (slope(lambda x: procrustes(gram(x), y)) == 0).all()


@pytest.mark.parametrize("name", ["linear_cka", "procrustes", "svcca"])
def test_second_derivatives_go_forward_over_reverse(name):
  with jax.enable_x64(True):
    x, y = (jnp.asarray(side) for side in pair(WIDTHS[0]))
    gradient = jax.jit(jax.grad(MEASURES[name].function))
    d = jnp.asarray(np.random.default_rng(2).normal(size=x.shape))
    _, curvature = jax.jit(lambda x, d: jax.jvp(lambda x: gradient(x, y), (x,), (d,)))(x, d)
    slope = (gradient(x + 1e-5 * d, y) - gradient(x - 1e-5 * d, y)) / 2e-5
    if name == "linear_cka":
      np.testing.assert_allclose(curvature, slope, atol=1e-8)
    assert jnp.isfinite(curvature).all()


def test_descent_makes_features_alike():
  x, y = (side.astype(np.float32) for side in pair((20, 17), seed=4))
  x = np.random.default_rng(5).normal(size=x.shape).astype(np.float32) * np.geomspace(1, 0.05, 20, dtype=np.float32)
  loss = MEASURES["linear_cka"].dissimilarity
  step = lambda x, _: (x - 5.0 * jax.grad(loss)(x, y), loss(x, y))
  _, losses = jax.jit(lambda x: jax.lax.scan(step, x, None, 300))(x)
  assert losses[0] > 0.3 and losses[-1] < 0.05


def test_neighbours_pass_no_gradient_to_a_kernel_that_is_zero():
  kernel = gram(jnp.asarray(np.random.default_rng(0).normal(size=(N, 3)))).values
  overlap = lambda k: MEASURES["knn_overlap"].function(Gram(k), Gram(kernel))
  value, slope = jax.value_and_grad(overlap)(jnp.zeros((N, N)))
  assert value == 0 and not slope.any()
