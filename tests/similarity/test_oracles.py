"""The other measures against numpy and scipy, and error consistency against its formula and limits."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.spatial

from nurture import similarity
from nurture.core import UserError
from nurture.similarity import error_consistency, flatten
from nurture.similarity.decompositions import left_singular

cca, pwcca, procrustes, linear_regression = map(
  jax.jit, (similarity.cca, similarity.pwcca, similarity.procrustes, similarity.linear_regression)
)
svcca = jax.jit(similarity.svcca, static_argnames="variance")
rsa = jax.jit(similarity.rsa, static_argnames=("centred", "diagonal"))
knn_overlap = jax.jit(similarity.knn_overlap, static_argnames="k")


@pytest.fixture(autouse=True)
def float64():
  with jax.enable_x64(True):
    yield


def pair(n=20, dx=5, dy=4, rank=None):
  rng = np.random.default_rng(0)
  x = rng.normal(size=(n, dx)) * np.geomspace(1, 0.05, dx) + 1
  y = x @ rng.normal(size=(dx, dy)) + rng.normal(size=(n, dy))
  return x, y if rank is None else y[:, :rank] @ rng.normal(size=(rank, dy))


def variates(x, y):
  """Canonical variates of x and the correlations, from the whitened cross-covariance."""
  x, y = x - x.mean(0), y - y.mean(0)
  whiten = lambda a: np.real(scipy.linalg.inv(scipy.linalg.sqrtm(a.T @ a)))
  u, rho, _ = np.linalg.svd(whiten(x) @ x.T @ y @ whiten(y), full_matrices=False)
  return x @ whiten(x) @ u, rho


def leading(x):
  """Coordinates of x along the fewest principal directions that carry 99 % of its variance."""
  u, s, _ = np.linalg.svd(x - x.mean(0), full_matrices=False)
  count = next(k for k in range(1, len(s) + 1) if np.sum(s[:k] ** 2) >= 0.99 * np.sum(s**2))
  return (u * s)[:, :count]


@pytest.mark.parametrize("measure, value", [
  (cca, 3 / 4), (linear_regression, 3 / 4), (jax.jit(similarity.linear_cka), 3 / 4), (svcca, math.sqrt(3) / 2),
  (pwcca, math.sqrt(3) / 2), (procrustes, math.sqrt(2 - math.sqrt(3))),
])
def test_single_features_have_a_correlation(measure, value):
  """By hand: (-1, 0, 1) and (0, 0, 1), centred (-1, -1, 2) / 3, have the correlation 1 / sqrt(2 * 2 / 3)."""
  x, y = (np.array(values)[:, None] for values in ([-1.0, 0.0, 1.0], [0.0, 0.0, 1.0]))
  np.testing.assert_allclose([measure(x, y), measure(y, x), measure(x, -5 * y)], value, rtol=1e-10)


def test_canonical_correlations():
  x, y = pair()
  h, rho = variates(x, y)
  np.testing.assert_allclose(cca(x, y), np.mean(rho**2), rtol=1e-10)
  weights = np.abs(h.T @ (x - x.mean(0))).sum(1)
  np.testing.assert_allclose(pwcca(x, y), np.sum(weights * rho) / weights.sum(), rtol=1e-10)
  assert leading(x).shape[1] < 5  # one direction at least is left out
  np.testing.assert_allclose(svcca(x, y), np.mean(variates(leading(x), leading(y))[1]), rtol=1e-10)


def test_rank_not_width_counts():
  """Columns that repeat others change no span, hence no measure of spans."""
  x, y = pair(rank=2)
  for measure in (cca, pwcca, linear_regression, functools.partial(svcca, variance=1.0)):
    np.testing.assert_allclose(measure(x, y), measure(x, y[:, :2]), rtol=1e-10)
  np.testing.assert_allclose(cca(y, x), np.mean(variates(y[:, :2], x)[1] ** 2), rtol=1e-10)


def test_linear_regression_is_the_explained_variance():
  x, y = pair()
  a, b = x - x.mean(0), y - y.mean(0)
  residual = a - b @ np.linalg.lstsq(b, a)[0]
  np.testing.assert_allclose(linear_regression(x, y), 1 - np.sum(residual**2) / np.sum(a**2), rtol=1e-10)
  np.testing.assert_allclose(linear_regression(x @ np.ones((5, 1)), x), 1.0)


@pytest.mark.parametrize("dx, dy", [(5, 4), (5, 30), (40, 30)])
def test_procrustes_is_the_distance_after_the_best_rotation(dx, dy):
  x, y = pair(dx=dx, dy=dy)
  width = max(dx, dy)
  a, b = (np.pad(m - m.mean(0), ((0, 0), (0, width - m.shape[1]))) for m in (x, y))
  a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
  rotation, _ = scipy.linalg.orthogonal_procrustes(b, a)
  np.testing.assert_allclose(procrustes(x, y), np.linalg.norm(a - b @ rotation), rtol=1e-10)


@pytest.mark.parametrize("centred", [False, True])
def test_rsa_is_a_correlation_of_cosines(centred):
  x, y = pair()
  cosines = [1 - scipy.spatial.distance.pdist(m - centred * m.mean(0), "cosine") for m in (x, y)]
  value = rsa(x, y, centred=centred, diagonal=False)
  np.testing.assert_allclose(value, np.corrcoef(*cosines)[0, 1], rtol=1e-10)
  full = [scipy.spatial.distance.squareform(c) + np.eye(20) for c in cosines]
  np.testing.assert_allclose(rsa(x, y, centred=centred), np.corrcoef(*(f.ravel() for f in full))[0, 1], rtol=1e-10)


def test_rsa_of_a_zero_row():
  x, y = pair()
  x[3] = 0
  value, slope = jax.jit(jax.value_and_grad(rsa))(jnp.asarray(x), y)
  assert 0 < value < 1 and jnp.isfinite(slope).all()


@pytest.mark.parametrize("k", [1, 3, 19])
def test_knn_overlap_counts_shared_neighbours(k):
  x, y = pair()
  near = [scipy.spatial.KDTree(m).query(m, k + 1)[1][:, 1:] for m in (x, y)]
  shared = np.mean([len(set(a) & set(b)) / k for a, b in zip(*near)])
  np.testing.assert_allclose(knn_overlap(x, y, k=k), shared)
  assert k < 19 or shared == 1


def test_neighbours_and_shares_that_do_not_exist():
  x, y = pair()
  for k in (0, 20):
    with pytest.raises(UserError, match="k is .* from 1 to 19"):
      knn_overlap(x, y, k=k)
  for variance in (0, 1.5):
    with pytest.raises(UserError, match="variance"):
      svcca(x, y, variance=variance)


def test_singular_vectors_turn_between_groups_only():
  """A projector's derivative needs no turning within its own group, where singular values may nearly coincide."""
  rng = np.random.default_rng(3)
  u, v = (np.linalg.qr(rng.normal(size=(size, 4)))[0] for size in (7, 4))
  m, dm = (u * [2, 2 - 1e-12, 1, 0.5]) @ v.T, rng.normal(size=(7, 4))

  @jax.jit
  def projector(t):
    leading = left_singular(m + t * dm, lambda s: (jnp.arange(4) < 2).astype(jnp.int32))[0][:, :2]
    return leading @ leading.T

  slope = (projector(1e-6) - projector(-1e-6)) / 2e-6
  np.testing.assert_allclose(jax.jvp(projector, (0.0,), (1.0,))[1], slope, atol=1e-8)
  equal = (u * [2, 2 - 4e-15, 1, 0]) @ v.T
  apart = lambda t: left_singular(equal + t * dm, lambda s: jnp.arange(4))
  # Equal singular values do not turn, though rounding makes them differ, and a singular value 0 has no direction.
  assert all(jnp.abs(leaf).max() < 100 for leaf in jax.jit(lambda t: jax.jvp(apart, (t,), (1.0,)))(0.0)[1])


def test_flatten_keeps_the_samples():
  x = jnp.arange(24.0).reshape(2, 3, 2, 2)
  np.testing.assert_array_equal(flatten(x), np.arange(24.0).reshape(2, 12))
  assert flatten(x[:, 0, 0, 0]).shape == (2, 1)
  with pytest.raises(UserError, match="no axes"):
    flatten(jnp.float32(1))


def test_error_consistency():
  rng = np.random.default_rng(4)
  a = rng.random(50) < 0.7
  b = np.where(rng.random(50) < 0.4, a, rng.random(50) < 0.6)
  expected = a.mean() * b.mean() + (1 - a.mean()) * (1 - b.mean())
  kappa = (np.mean(a == b) - expected) / (1 - expected)
  np.testing.assert_allclose(error_consistency(a, b), kappa, rtol=1e-6)
  padded = [np.r_[side, [True] * 9] for side in (a, b)]
  np.testing.assert_allclose(error_consistency(*padded, np.r_[np.ones(50), np.zeros(9)]), kappa, rtol=1e-6)
  assert jax.jit(error_consistency)(a.astype(np.float32), b).dtype == jnp.float32


@pytest.mark.parametrize("a, b, kappa", [
  ([1, 1, 0], [1, 1, 0], 1),
  ([1, 0, 1, 0], [0, 1, 0, 1], -1),
  ([1, 1, 0, 0], [1, 0, 1, 0], 0),
  ([1, 1, 1], [1, 1, 1], 0),
  ([0, 0, 0], [0, 0, 0], 0),
  ([1, 1, 1], [1, 0, 0], 0),
  ([1, 1, 1], [0, 0, 0], 0),
  ([], [], 0),
])
def test_error_consistency_at_its_limits(a, b, kappa):
  a, b = jnp.array(a, bool), jnp.array(b, bool)
  np.testing.assert_allclose(error_consistency(a, b), kappa, atol=1e-6)
  assert float(error_consistency(a, b, jnp.zeros(a.shape))) == 0


@pytest.mark.parametrize("shapes, words", [
  ([(3,), (4,)], r"\[3\] and correct_b \[4\]"), ([(3, 2), (3, 2)], r"\[3, 2\] and"), ([(3,), (3,), (2,)], "one entry"),
])
def test_error_consistency_of_different_examples(shapes, words):
  with pytest.raises(UserError, match=words):
    error_consistency(*map(jnp.ones, shapes))
