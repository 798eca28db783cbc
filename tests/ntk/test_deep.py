"""Deep kernels: against the plain recursion, its limits, and at depths and dimensions where plain numbers fail."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nurture.core import UserError
from nurture.ntk.deep import deep_log_kernel, deep_signed_log_kernel, fc_kernel, log_kernel_of_cosines
from nurture.ntk.dual import erf, gelu, hermite, optimal_hermite, relu, sine
from nurture.ntk.predictors import one_nn_predict, smoother_predict

NONE = -math.inf
SQUARE = hermite([NONE, NONE, 0])


@pytest.fixture(autouse=True)
def double():
  with jax.enable_x64(True):
    yield


def sphere(n, d, seed=0, orthant=True):
  x = np.random.default_rng(seed).normal(size=(n, d))
  x = np.abs(x) if orthant else x
  return x / np.linalg.norm(x, axis=1, keepdims=True)


def plain(c, dual, depth, kind):
  """The recursion as it is written, in plain float64."""
  layer = jax.jit(lambda c: (dual.f(c), dual.df(c)))
  k = c
  for _ in range(depth):
    after, slope = map(np.asarray, layer(c))
    c, k = np.clip(after, -1, 1), after + k * slope
  return k if kind == "ntk" else c


@pytest.mark.parametrize("dual", [
  relu(), gelu(), optimal_hermite(3), SQUARE,
  *(pytest.param(dual, marks=pytest.mark.long) for dual in (
    sine(6.13539), optimal_hermite(1), hermite(np.log([0.3, 0.1, 0.6])),
  )),
], ids=lambda dual: f"{dual.name}-{dual.df1:.3g}")
def test_is_the_plain_recursion_on_the_whole_sphere(dual):
  x1, x2 = sphere(5, 3, orthant=False), sphere(4, 3, 1, orthant=False)
  x2[0], x2[1] = x1[0], -x1[1]
  c = np.clip(x1 @ x2.T, -1, 1)
  c[0, 0], c[1, 1] = 1, -1
  for depth in (1, 2, 7, 40):
    for kind in ("nngp", "ntk"):
      expected = plain(c, dual, depth, kind)
      # The plain recursion enlarges its own rounding error of 1 - c by f'(1) a layer.
      tolerance = 1e-13 * max(1, dual.df1) ** min(depth, 20)
      np.testing.assert_allclose(
        fc_kernel(x1, x2, dual, depth, kind), expected, rtol=tolerance, atol=1e-14 * np.abs(expected).max())
      if kind == "nngp" and dual.f0 > 0 and depth > 2:
        np.testing.assert_allclose(np.exp(deep_log_kernel(x1, x2, dual, depth)[0]), expected, rtol=1e-10)


def test_one_layer_of_error_functions():
  """Williams' formula, and the mean over random networks."""
  x = sphere(6, 4, orthant=False)
  williams = 2 / math.pi * np.arcsin(2 * x @ x.T / 3)
  np.testing.assert_allclose(fc_kernel(x, None, "erf", 1), williams / williams[0, 0], rtol=1e-12)
  weights = jax.random.normal(jax.random.key(0), (4, 200_000), jnp.float64)
  features = np.asarray(jax.scipy.special.erf(x @ weights))
  products = features[:, None] * features[None]
  spread = products.std(axis=-1) / math.sqrt(products.shape[-1])
  assert np.all(np.abs(products.mean(axis=-1) - williams) < 4.5 * spread)


def test_a_deep_linear_network_has_the_kernel_of_its_inputs():
  x = sphere(5, 3, orthant=False)
  for depth in (1, 17, 10**6):
    np.testing.assert_allclose(fc_kernel(x, None, "linear", depth, "ntk"), (depth + 1) * x @ x.T, rtol=1e-9)
    np.testing.assert_allclose(fc_kernel(x, None, "linear", depth), x @ x.T, rtol=1e-12)


def test_relu_converges_as_one_over_the_depth():
  """Angles 3 pi / L, kernels a quarter of their diagonal; all depths from the two sides of the closed form."""
  x = np.array([[1.0, 0.0], [math.cos(1), math.sin(1)]])
  ratios = {}
  for depth in (10, 100, 10**3, 10**4, 10**5):
    log_c = float(deep_log_kernel(x, None, "relu", depth)[0][0, 1])
    log_k, log_diagonal = deep_log_kernel(x, None, "relu", depth, "ntk")
    angle = 2 * math.asin(math.sqrt(-math.expm1(log_c) / 2))
    ratios[depth] = angle * depth / (3 * math.pi), math.exp(log_k[0, 1]) / (depth + 1)
    np.testing.assert_allclose(math.exp(log_diagonal), depth + 1, rtol=1e-12)
  printed = {10: (0.476, 0.3818), 100: (0.879, 0.2785), 1000: (0.983, 0.2539), 10**4: (0.998, 0.25048)}
  for depth, expected in printed.items():
    np.testing.assert_allclose(ratios[depth], expected, rtol=0, atol=5e-4)
  np.testing.assert_allclose(ratios[10**5], (1, 0.25), atol=3e-4)
  angle, k = 1.0, math.cos(1)
  for depth in range(1, 10**4 + 1):
    excess = angle**3 / 3 - angle**5 / 30 + angle**7 / 840 - angle**9 / 45360 if angle < 0.1 else (
      math.sin(angle) - angle * math.cos(angle))
    gap = 2 * math.sin(angle / 2) ** 2 - excess / math.pi
    angle, k = 2 * math.asin(math.sqrt(gap / 2)), 1 - gap + k * (1 - angle / math.pi)
    if depth in ratios:
      np.testing.assert_allclose(ratios[depth], (angle * depth / (3 * math.pi), k / (depth + 1)), rtol=1e-10)


# By the recursion in 50 digits: start angle, layers, how far the NTK is below its diagonal, end angle.
RELU_AT_SMALL_ANGLES = [
  (1e-6, 1, 3.18310886183525e-7, 9.99999893896699e-7), (1e-6, 20, 6.68448620039029e-5, 9.99997877938258e-7),
  (1e-6, 1000, 0.159285958261214, 9.99893907944438e-7), (0.001, 1, 0.000319309620842243, 0.000999893891067981),
  (0.001, 20, 0.0666315765262121, 0.000997882091550356), (0.001, 1000, 135.060869249991, 0.000904061569467865),
  (0.05, 1, 0.0183818236991928, 0.049733990517471), (0.05, 20, 2.87313570000949, 0.0451699561166891),
  (0.05, 1000, 703.50204736513, 0.00791139227758519), (0.0999, 1, 0.0415066445407958, 0.0988347217887425),
  (0.0999, 20, 5.01395224256928, 0.0822066495221039), (0.0999, 1000, 726.637421099593, 0.00858287982490381),
]


def test_relu_kernels_of_close_points_keep_their_digits():
  for angle, depth, below, end in RELU_AT_SMALL_ANGLES:
    log_c = math.log1p(-2 * math.sin(angle / 2) ** 2)
    k = math.exp(log_kernel_of_cosines(log_c, "relu", depth, "ntk")[0])
    np.testing.assert_allclose(k, depth + 1 - below, rtol=1e-11)
    np.testing.assert_allclose(depth + 1 - k, below, rtol=3e-8)
    gap = -math.expm1(log_kernel_of_cosines(log_c, "relu", depth)[0])
    np.testing.assert_allclose(2 * math.asin(math.sqrt(gap / 2)), end, rtol=1e-12)


def test_nearly_opposite_points_keep_their_digits():
  """By the recursion in 50 digits, at c = -1 + 1e-8 and -1 + 1e-12."""
  weights = lambda *values: hermite(np.log(np.maximum(values, 1e-300)))
  of = lambda gap, dual, depth: deep_signed_log_kernel(
    [[1.0, 0.0]], [[-math.sqrt(1 - gap * (2 - gap)), math.sqrt(gap * (2 - gap))]], dual, depth)[0]
  for gap, dual, depth, log in (
    (1e-8, optimal_hermite(50), 1, -1.3920929675620918e-7),
    (1e-12, optimal_hermite(1700), 100, -30584.6550806409),
    (1e-8, weights(0, 0, 0.001, 0.999), 1, -0.0020020326806932675),
  ):
    sign, value = of(gap, dual, depth)
    np.testing.assert_allclose(value, log, rtol=2e-7)  # of the gap itself 1e-8 are known
    assert sign == (-1 if dual.lowest == 0 else 1)


@pytest.mark.parametrize("d", [3, 3072, *(pytest.param(d, marks=pytest.mark.long) for d in (64, 784))])
def test_a_test_point_that_is_a_training_point_is_recognized(d):
  x = sphere(13, d, orthant=False)
  for rows in ([0], [12, 3, 6, 1, 0]):
    (_, log), diagonal = deep_signed_log_kernel(x[rows], x, optimal_hermite(d - 1), 1000, "ntk")
    assert [log[i, row] for i, row in enumerate(rows)] == [diagonal] * len(rows)


def test_beyond_the_range_of_logarithms():
  """The diagonal is always that of the depth; cosines below the least positive number count as it."""
  assert float(deep_log_kernel(sphere(2, 3), None, SQUARE, 10**6, "ntk")[1]) == pytest.approx((10**6 + 1) * math.log(2))
  log_k = log_kernel_of_cosines(np.array([-1e12, -1e3, -1.0]), SQUARE, 10**6)[0]
  assert np.isfinite(log_k).all() and log_k[0] == log_k[1] < log_k[2]


@pytest.mark.parametrize("dual", [optimal_hermite(3), erf()], ids=lambda dual: dual.name)
def test_the_closed_form_of_far_layers_is_the_recursion(dual):
  log_c = np.log([1e-6, 0.1, 0.7, 0.999])
  for kind in ("nngp", "ntk"):
    expected = plain(np.exp(log_c), dual, 400, kind)
    np.testing.assert_allclose(log_kernel_of_cosines(log_c, dual, 400, kind)[0], np.log(expected), atol=1e-10)
  limit = np.asarray(log_kernel_of_cosines(log_c, dual, 10**6)[0])
  earlier = np.asarray(log_kernel_of_cosines(log_c, dual, 10**6 - 1000)[0])
  np.testing.assert_allclose(limit - earlier, 1000 * dual.log_df0, rtol=1e-9)
  r = np.exp(np.asarray(log_kernel_of_cosines(log_c, dual, 10**6, "ntk")[0]) - limit)  # K / c ~ L
  np.testing.assert_allclose(r[:3], 10**6, rtol=1e-3)


@pytest.mark.parametrize(("dual", "alpha"), [(optimal_hermite(4), 4), (erf(), 0.888), (optimal_hermite(3071), 3071)])
def test_the_limit_is_singular_with_the_exponent(dual, alpha):
  """Averaged over one layer's factor f'(1) of the gap, where c_L / f'(0)^L may oscillate."""
  gaps = np.array([1e-6, 1e-6 * dual.df1**-10])
  log_k = np.asarray(log_kernel_of_cosines(np.log1p(-gaps), dual, 10**6)[0])
  slope = (log_k[1] - log_k[0]) / (math.log(gaps[1] / gaps[0]) / 2)  # of log K over log distance
  np.testing.assert_allclose(-slope, alpha, rtol=1e-3)


@pytest.mark.parametrize("dual", [
  optimal_hermite(3071), relu(), SQUARE,
  *(pytest.param(dual, marks=pytest.mark.long) for dual in (gelu(), hermite([NONE, NONE, NONE, -2.0, -1.0]))),
], ids=lambda dual: f"{dual.name}-{dual.lowest}")
def test_a_million_layers_are_finite(dual):
  x = sphere(8, 3072)
  x[1] = x[0]
  x[2:4] = np.eye(3072)[:2]
  x[4] = x[0] + 1e-13 * x[3]
  x[4] /= np.linalg.norm(x[4])
  x = np.concatenate([x, -x[:3]])
  for kind in ("nngp", "ntk") if dual.lowest else ("ntk",):
    (sign, log), diagonal = deep_signed_log_kernel(x, None, dual, 10**6, kind)
    assert np.isfinite(log).all() and np.isfinite(diagonal) and np.all(np.abs(sign) == 1)
    np.testing.assert_array_equal(np.diag(log), np.full(11, diagonal))
    np.testing.assert_array_equal(log[0, 1], diagonal)  # a duplicate
    assert np.all(log <= diagonal + 1e-9 * abs(diagonal))
    np.testing.assert_array_equal(log, np.asarray(log).T)


def test_squares_in_log_space_find_the_nearest_neighbour_at_any_depth():
  x, new, y = sphere(300, 3), sphere(200, 3, 1), np.random.default_rng(2).integers(0, 4, 300)
  nearest = one_nn_predict(x, y, new)
  for depth in (30, 100, 1000, 10**6):
    for kind in ("nngp", "ntk"):
      log_k, _ = deep_log_kernel(new, x, SQUARE, depth, kind)
      np.testing.assert_array_equal(smoother_predict(log_k, y), nearest)
  assert np.mean(smoother_predict(deep_log_kernel(new, x, SQUARE, 1)[0], y) == nearest) < 0.9


def test_bad_input():
  x = sphere(4, 3)
  cases = [
    (lambda: deep_log_kernel(x.astype(np.float32), None, "erf", 3), "x1 is float32"),
    (lambda: deep_log_kernel(x, None, "erf", 0), "at least 1 hidden layer"),
    (lambda: deep_log_kernel(x, None, "erf", 2.5), "whole number"),
    (lambda: deep_log_kernel(x, None, "erf", 10**400), "at most 1e\\+15"),
    (lambda: deep_log_kernel([[1.0, 0.0], [1.0]], None, "erf", 3), "rows of different lengths"),
    (lambda: deep_log_kernel(x, None, "selu", 3), "does not exist.*known: erf"),
    (lambda: deep_log_kernel(x, None, "erf", 3, "ntkk"), 'give "nngp" or "ntk"'),
    (lambda: deep_log_kernel(2 * x, None, "erf", 3), "length 2, but the kernels live on the unit sphere"),
    (lambda: deep_log_kernel(x, x[:, :2], "erf", 3), "x2 has a row of length"),
    (lambda: deep_log_kernel(x, sphere(2, 4), "erf", 3), "same space"),
    (lambda: deep_log_kernel(x[:0], None, "erf", 3), r"x1 is \[0, 3\]"),
    (lambda: deep_log_kernel(x[0], None, "erf", 3), r"x1 is \[3\]"),
    (lambda: deep_log_kernel(np.full((2, 2), np.nan), None, "erf", 3), "not finite"),
    (lambda: deep_log_kernel([["a"]], None, "erf", 3), "array of numbers"),
    (lambda: deep_log_kernel(x, -x, "erf", 3), "negative for 16 pairs.*deep_signed_log_kernel"),
    (lambda: log_kernel_of_cosines(0.1, "erf", 3), "not positive"),
  ]
  for call, message in cases:
    with pytest.raises(UserError, match=message):
      call()
  with jax.enable_x64(False), pytest.raises(UserError, match="enable_x64"):
    deep_log_kernel(x, None, "erf", 3)
