"""float32 against float64 definitions in numpy, where columns are 1e-10 to 1e10 in size, repeat, or vanish."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.spatial

from lib.similarity import MEASURES, gram, linear_cka, rsa
from lib.similarity.decompositions import principal_subspace
from lib.similarity.gram import standardized
from tests.similarity.test_cka import ratio

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


def whitened(x):
  """All singular values are 1."""
  return np.linalg.qr(centre(x))[0]


UNITS = [
  lambda x: x, lambda x: 1e10 * x, lambda x: 1e-10 * x, lambda x: 1e30 * x, on_column(1e10, 0), on_column(1e-10, 1),
  lambda x: x * np.geomspace(1e-10, 1e10, x.shape[1]), lambda x: x * np.geomspace(1, 1e-4, x.shape[1]), whitened,
  on_column(0.0, 2), lambda x: np.concatenate([x[:, :-1], -3e5 * x[:, :1]], axis=1),
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
