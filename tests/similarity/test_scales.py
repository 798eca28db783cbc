"""float32 against float64 definitions in numpy, where columns are 1e-10 to 1e10 in size, repeat, or vanish."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.spatial

from nurture.similarity import MEASURES, cka_of_sums, gram, hsic_sums, linear_cka, linear_regression, rsa, svcca
from nurture.similarity import pwcca as pwcca_in_float32
from nurture.similarity.decompositions import negligible, principal_subspace
from nurture.similarity.gram import recentred, squared_distances, standardized
from tests.similarity.test_cka import ratio
from tests.similarity.test_gradients import WIDTHS, value_and_gradients
from tests.similarity.test_gradients import pair as small_pair

N, DX, DY = 24, 6, 4
RANDOM = np.random.default_rng(0)


def centre(x):
  return x - x.mean(0)


def basis(x):
  """Orthonormal, of the span of the centred columns, each at length 1: whatever their scales."""
  lengths = np.linalg.norm(centre(x), axis=0)
  u, s, _ = np.linalg.svd(centre(x)[:, lengths > 0] / lengths[lengths > 0], full_matrices=False)
  return u[:, s > 1e-6 * s[0]]


def correlations(x, y):
  qx, qy = basis(x), basis(y)
  u, rho, _ = np.linalg.svd(qx.T @ qy, full_matrices=False)
  return qx @ u, rho


def leading(x):
  u, s, _ = np.linalg.svd(centre(x), full_matrices=False)
  shares = np.cumsum(s**2) / np.sum(s**2)
  return (u * s)[:, : np.searchsorted(shares, 0.99) + 1]


def unit(x):
  return centre(x) / np.linalg.norm(centre(x))


def gaussian(x):
  d = scipy.spatial.distance.cdist(unit(x), unit(x), "sqeuclidean")
  return np.exp(-d / (2 * 0.5**2 * np.median(d)))


def cosines(x):
  x = x / np.linalg.norm(x, axis=1, keepdims=True)
  return (x @ x.T).ravel()


def pwcca(x, y):
  h, rho = correlations(x, y)
  weights = np.abs(h.T @ centre(x)).sum(1)
  return np.sum(weights * rho) / np.sum(weights)


def knn(x, y):
  nearest = [np.argsort(scipy.spatial.distance.cdist(m, m) + np.diag([np.inf] * N))[:, :10] for m in (x, y)]
  return np.mean([len(set(a) & set(b)) / 10 for a, b in zip(*nearest)])


def cka(x, y, debiased):
  return ratio(unit(x) @ unit(x).T, unit(y) @ unit(y).T, debiased)


DEFINITIONS = {
  "linear_cka": functools.partial(cka, debiased=False),
  "linear_cka_debiased": functools.partial(cka, debiased=True),
  "rbf_cka": lambda x, y: ratio(gaussian(x), gaussian(y), False),
  "rbf_cka_debiased": lambda x, y: ratio(gaussian(x), gaussian(y), True),
  "rsa": lambda x, y: np.corrcoef(cosines(x), cosines(y))[0, 1],
  "rsa_centred": lambda x, y: np.corrcoef(cosines(centre(x)), cosines(centre(y)))[0, 1],
  "procrustes": lambda x, y: np.sqrt(2 - 2 * np.linalg.svd(unit(x).T @ unit(y))[1].sum()),
  "cca": lambda x, y: np.mean(correlations(x, y)[1] ** 2),
  "svcca": lambda x, y: np.mean(correlations(leading(x), leading(y))[1]),
  "pwcca": pwcca,
  "linear_regression": lambda x, y: np.sum((basis(y).T @ unit(x)) ** 2),
  "knn_overlap": knn,
}


def pair(seed):
  rng = np.random.default_rng(seed)
  x = rng.normal(size=(N, DX)) + 0.5
  return x, x @ rng.normal(size=(DX, DY)) + rng.normal(size=(N, DY))


def on_column(scale, i):
  return lambda x: x * np.where(np.arange(x.shape[1]) == i, scale, 1.0)


def two_far_out(x):
  """Samples 0 and 1 lie 60 times farther from the mean than the others, on opposite sides."""
  return centre(x) * np.where(np.arange(N) < 2, 0, 1)[:, None] + np.eye(N)[:, :2] @ np.array([[60.0], [-60.0]]) * x[:1]


def whitened(x):
  """All singular values are 1."""
  return np.linalg.qr(centre(x))[0]


UNITS = [
  lambda x: x, lambda x: 1e10 * x, lambda x: 1e-10 * x, lambda x: 1e30 * x, on_column(1e10, 0), on_column(1e-10, 1),
  lambda x: x * np.geomspace(1e-10, 1e10, x.shape[1]), lambda x: x * np.geomspace(1, 1e-4, x.shape[1]), whitened,
  on_column(0.0, 2), two_far_out, lambda x: np.concatenate([x[:, :-1], -3e5 * x[:, :1]], axis=1),
]


def cases():
  pairs = [pair(seed) for seed in range(3)]
  sides = [(f(x), y) for f in UNITS for x, y in pairs[:1]] + [(x, f(y)) for f in UNITS for x, y in pairs[1:2]]
  sides += [(f(x), f(y)) for f in UNITS for x, y in pairs[2:]]
  return [tuple(side.astype(np.float32) for side in p) for p in sides]


@functools.cache
def in_float32():
  """Returns the values of every measure for all cases, {name: [cases]}, and those between Gram matrices."""
  stacked = [jnp.stack(sides) for sides in zip(*cases())]

  @jax.jit
  @jax.vmap
  def every(x, y):
    grams = {name: measure for name, measure in MEASURES.items() if measure.accepts_gram}
    return (
      {name: measure(x, y) for name, measure in MEASURES.items()},
      {name: measure(gram(x), gram(y)) for name, measure in grams.items()},
    )

  return jax.device_get(every(*stacked))


@pytest.mark.parametrize("name", MEASURES)
def test_float32_is_the_definition_at_every_scale_of_a_column(name):
  exact = [DEFINITIONS[name](*(side.astype(np.float64) for side in p)) for p in cases()]
  of_features, of_grams = in_float32()
  np.testing.assert_allclose(of_features[name], exact, atol=2e-5)
  if name in of_grams:
    np.testing.assert_allclose(of_grams[name], exact, atol=2e-5)


@pytest.mark.parametrize("name, sides", [("cca", (0, 1)), ("linear_regression", (1,)), ("pwcca", (1,))])
def test_units_of_columns_change_neither_value_nor_slope_of_a_span(name, sides):
  pair = [side.astype(np.float32) for side in small_pair(WIDTHS[0])]
  value, gradients = value_and_gradients(name)(*pair)
  for side in sides:
    for units in (1e10, 1e-10, np.geomspace(1e-10, 1e10, pair[side].shape[1])):
      units = np.broadcast_to(np.float32(units), pair[side].shape[1:])
      scaled, slopes = value_and_gradients(name)(*(units[None] * m if i == side else m for i, m in enumerate(pair)))
      np.testing.assert_allclose(scaled, value, rtol=1e-5)
      np.testing.assert_allclose(slopes[side] * units[None], gradients[side], atol=1e-5)


def near(n, distance, sign=1):
  """Returns two columns of one length whose difference is that much shorter than their sum, or the other way round."""
  a, b = np.linalg.qr(centre(np.random.default_rng(1).normal(size=(n, 2))))[0].T
  return np.stack([a + distance * b, sign * (a - distance * b)], axis=1)


@pytest.mark.parametrize("x, rank", [
  (RANDOM.normal(size=(N, 3)), 3),
  (RANDOM.normal(size=(N, 3)) * [1e-30, 1, 1e30], 3),
  (RANDOM.normal(size=(N, 1)) * [1, 1e10, -1e-10], 1),
  (RANDOM.normal(size=(N, 3)) * [1, 0, 0], 1),
  (RANDOM.normal(size=(N, 3)) * [1, 0, 0] + [0, 0.1, 1e9], 1),
  (RANDOM.normal(size=(N, 3)) * [1, 1e-7, 1e-8] + [0, 1, 1], 1),  # constant but for rounding
  (RANDOM.normal(size=(N, 3)) * [1, 3e-7, 0] + [0, 1, 0], 1),
  (RANDOM.normal(size=(N, 3)) * [1, 3e-6, 0] + [0, 1, 0], 2),
  (RANDOM.normal(size=(N, N + 6)), N - 1),
  (near(N, 2e-5), 2), (near(N, 2e-6), 1),  # between them 10 sqrt(24) eps
  (near(4000, 2e-4), 2), (near(4000, 2e-5), 1),
  (near(N, 2e-5).repeat(100, axis=1), 2), (near(N, 2e-6).repeat(100, axis=1), 1),
  (np.zeros((N, 2)), 0),
])
def test_the_rank_is_of_directions_and_not_of_units(x, rank):
  q, found = jax.jit(lambda x: principal_subspace(standardized(x)))(x.astype(np.float32))
  assert found == rank
  np.testing.assert_allclose(q.T @ q, np.diag(np.arange(q.shape[1]) < rank), atol=1e-5)
  if rank == 2:  # a kept direction is one: what it spans is there
    np.testing.assert_allclose(q @ (q.T @ np.float32(centre(x))), centre(x), atol=1e-5 * np.abs(x).max())


def test_a_direction_that_counts_has_its_slope():
  """A direction a little above rounding is kept, so that the slope along it is as large as it is."""
  x, y = small_pair(WIDTHS[0])
  y = np.concatenate([near(14, 8e-6), y[:, :1]], axis=1).astype(np.float32)
  slope = jax.jit(jax.grad(lambda x, y: linear_regression(x, y), argnums=1))
  found = slope(x.astype(np.float32), y)
  with jax.enable_x64(True):
    exact = slope(x, y.astype(float))
  assert np.abs(exact).max() > 1e3
  np.testing.assert_allclose(found, exact, atol=0.1 * np.abs(exact).max())


def test_close_correlations_turn_in_float32_as_in_float64():
  pairs = [small_pair(WIDTHS[0], seed) for seed in range(3)]
  gaps = [np.diff(correlations(*pair)[1]) for pair in pairs]
  assert 0.01 < np.min(np.abs(gaps)) < 0.08
  for x, y in pairs:
    found = value_and_gradients("pwcca")(x.astype(np.float32), y.astype(np.float32))[1]
    with jax.enable_x64(True):
      exact = value_and_gradients("pwcca")(jnp.asarray(x), jnp.asarray(y))[1]
    for a, b in zip(found, exact):
      np.testing.assert_allclose(a, b, atol=1e-4)


def test_all_of_the_variance_is_every_component_that_is_no_rounding():
  draws = RANDOM.normal(size=(20, 14, 5)).astype(np.float32) * np.geomspace(1, 1e-4, 5, dtype=np.float32)
  assert (jax.jit(jax.vmap(lambda x: principal_subspace(x, 1.0)))(draws)[1] == 5).all()
  run = jax.jit(svcca, static_argnames="variance")
  plane = whitened(RANDOM.normal(size=(14, 2))).astype(np.float32)  # two components of half of the variance each
  for variance, count in ((0.49, 1), (0.51, 2)):
    top = run(plane, plane, variance=variance)
    assert top == pytest.approx(1) and principal_subspace(plane, variance)[1] == count
  exactly = np.float32([[1, 0], [-1, 0], [0, 1], [0, -1]])
  assert principal_subspace(exactly, 0.5)[1] == 1  # the fewest that carry a half


@pytest.mark.parametrize("side, least", [("gram", 3e-4), ("feature", 1.5e-3)])
def test_kernels_of_which_rounding_is_left_are_like_nothing(side, least):
  """Points equally far from each other have the debiased kernel 0; nearly so, one that counts."""
  rng = np.random.default_rng(2)
  y, d = rng.normal(size=(8, 5)).astype(np.float32), rng.normal(size=(8, 8))
  run = jax.jit(lambda x, y: linear_cka(x, y, debiased=True, side=side))
  simplices = np.linalg.qr(rng.normal(size=(20, 8, 8)))[0].astype(np.float32)
  every = jax.jit(lambda xs: jax.lax.map(lambda x: jnp.stack([run(x, y), run(y, x), run(x, x)]), xs))
  assert (every(np.concatenate([simplices, simplices + 3, np.eye(8, dtype=np.float32)[None]])) == 0).all()
  for distance in (0.02, least):
    nearly = (simplices[0] + distance * d).astype(np.float32)
    exact = cka(nearly.astype(float), y.astype(float), debiased=True)
    np.testing.assert_allclose(run(nearly, y), exact, atol=5e-3)
    assert abs(exact) > 0.02


EPS = np.finfo(np.float32).eps


@pytest.mark.parametrize("left, trace", [(16, 0), (17, 1)])
def test_a_kernel_is_rounding_up_to_8_eps_of_its_trace(left, trace):
  """1 everywhere and `left` eps more on the diagonal: the trace is 2 before and `left` eps after centring."""
  assert jnp.trace(recentred(jnp.ones((2, 2)) + left * EPS * jnp.eye(2))) == trace


@pytest.mark.parametrize("shape", [(9, 4), (4, 9)])
def test_singular_values_are_rounding_up_to_10_eps_of_the_longer_side(shape):
  np.testing.assert_allclose(negligible(jnp.float32([2, 1]), shape), [10 * 3 * EPS * 2], rtol=1e-6)


def test_distances_are_not_negative():
  np.testing.assert_array_equal(squared_distances(jnp.float32([[2, 0.5], [0.5, 3]])), [[0, 4], [4, 0]])
  np.testing.assert_array_equal(squared_distances(jnp.float32([[1, 1 + EPS], [1 + EPS, 1]])), np.zeros((2, 2)))


def test_correlations_do_not_exceed_1():
  draws = RANDOM.normal(size=(50, 14, 5)).astype(np.float32)
  for measure in (svcca, pwcca_in_float32):
    values = jax.jit(jax.vmap(lambda x, measure=measure: measure(x, -x[:, ::-1])))(draws)
    assert values.max() <= 1 and values.min() > 1 - 1e-5


def test_cosines_that_rounding_makes_do_not_vary():
  rng = np.random.default_rng(3)
  y = rng.normal(size=(8, 5)).astype(np.float32)
  ray = np.outer(rng.uniform(1, 2, size=8), rng.normal(size=5)).astype(np.float32)  # one direction
  run = jax.jit(rsa, static_argnames=("centred", "diagonal"))
  assert run(ray, y) == run(y, ray) == 0
  simplex = np.linalg.qr(rng.normal(size=(8, 8)))[0].astype(np.float32)
  assert run(simplex, y, centred=True, diagonal=False) == 0 and run(simplex, y, centred=True) > 0.1
  fan = ray + 0.02 * y  # cosines from 0.999 on
  exact = np.corrcoef(cosines(fan.astype(float)), cosines(y.astype(float)))[0, 1]
  np.testing.assert_allclose(run(fan, y), exact, atol=1e-3)


@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_sums_over_batches_bear_the_scales_they_state(scale):
  x, y = (side.astype(np.float32) for side in pair(4))
  run = jax.jit(lambda x, y: cka_of_sums(hsic_sums(x, y)))
  np.testing.assert_allclose(run(np.float32(scale) * x, y / np.float32(scale)), run(x, y), rtol=1e-4)


def test_definitions_do_not_see_the_units_of_columns_either():
  x, y = pair(5)
  for units in UNITS[:7]:
    np.testing.assert_allclose(DEFINITIONS["cca"](units(x), units(y)), DEFINITIONS["cca"](x, y), rtol=1e-6)


def test_samples_near_the_mean_keep_their_cosines():
  """Two samples lie 400 times farther out than the others, on opposite sides, and first."""
  others, ends = (np.arange(N) >= 2)[:, None], np.eye(N)[:, :2] @ np.array([[400.0], [-400.0]])
  pairs = [(centre(x) * others + ends * x[:1], y) for x, y in map(pair, range(6))]
  exact = [np.corrcoef(cosines(centre(np.float64(np.float32(x)))), cosines(centre(y)))[0, 1] for x, y in pairs]
  xs, ys = (np.stack(sides).astype(np.float32) for sides in zip(*pairs))
  found = jax.jit(jax.vmap(lambda x, y: rsa(x, y, centred=True)))(xs, ys)
  np.testing.assert_allclose(found, exact, atol=2e-4)


@pytest.mark.parametrize("name", [name for name, measure in MEASURES.items() if measure.accepts_gram])
def test_a_sub_batch_of_equal_samples_is_constant_and_one_of_near_samples_is_not(name):
  x, y = pair(7)
  spreads = (0, 1e-7, 2e-7, 3e-7, 5e-7, 1e-6, 3e-6, 0.01)
  *equal, near = (np.concatenate([x[:11], x[11:12] + s * x[11:]]).astype(np.float32) for s in spreads)
  rows, measure = jnp.arange(11, N), MEASURES[name]
  run = jax.jit(lambda x, y: measure(gram(x).take(rows), y))
  y = y[11:].astype(np.float32)
  for x in equal:
    np.testing.assert_allclose(run(x, y), 0.0 if measure.is_similarity else 1.0, atol=1e-6)
  if name != "knn_overlap":  # whose definition here is of N samples
    exact = DEFINITIONS[name](near[11:].astype(float), y.astype(float))
    np.testing.assert_allclose(run(near, y), exact, atol=5e-3)
