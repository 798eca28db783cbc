"""Probes at sizes whose squares leave float32."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nurture.probes.gradient_norms import GradientNorms
from nurture.probes.mutual_information import mutual_information
from nurture.probes.spectral_density import SpectralDensity
from nurture.probes.term_gradients import TermGradients
from nurture.probes.weight_statistics import WeightStatistics

DRAWS = np.random.default_rng(0)
A, B = ({"w": DRAWS.normal(size=(4, 3)).astype(np.float32), "b": DRAWS.normal(size=3).astype(np.float32)} for _ in "ab")


def times(scale, tree):
  return jax.tree.map(lambda leaf: np.float32(scale) * leaf, tree)


@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_measures_have_the_unit_of_what_they_measure(scale):
  weights = lambda tree: WeightStatistics()(None, {"params": tree}, {})
  norms = lambda tree: GradientNorms().finish({"gradient": times(5, tree), "count": 5.0})
  terms = lambda tree: {
    name: value for name, value in TermGradients().finish({"gradients": {"a": tree, "b": B}, "count": 1.0}).items()
    if name == "norm/a"
  }
  for measure in (weights, norms, terms):
    found, expected = measure(times(scale, A)), measure(A)
    assert expected
    for name, value in expected.items():
      np.testing.assert_allclose(float(found[name]) / scale, value, rtol=1e-5, err_msg=name)


def test_cosines_of_gradients_have_no_unit():
  flat = [np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(tree)]).astype(float) for tree in (A, B)]
  exact = flat[0] @ flat[1] / np.linalg.norm(flat[0]) / np.linalg.norm(flat[1])
  for a, b in ((1, 1), (1e-25, 1e-25), (1e25, 1e25), (1e25, 1e-25)):
    found = TermGradients().finish({"gradients": {"a": times(a, A), "b": times(b, B)}, "count": 1.0})
    np.testing.assert_allclose(found["cosine/a.b"], exact, rtol=1e-5)
  assert TermGradients().finish({"gradients": {"a": times(0, A), "b": B}, "count": 1.0})["cosine/a.b"] == 0


@pytest.mark.parametrize("a, b", [(1e-25, 0.0), (1e25, 0.0), (1.0, 1000.0), (-1e-10, 1e-8)])
def test_information_has_no_unit_and_no_origin(a, b):
  y = np.round(64 * DRAWS.normal(size=(20, 1)) + DRAWS.normal(size=(20, 8))).astype(np.float32)
  run = jax.jit(mutual_information)
  np.testing.assert_allclose(run(np.float32(a) * y + np.float32(b)), run(y), rtol=1e-4)
  assert 1.0 < run(y) < np.log(20)


@pytest.mark.parametrize("size", [1e-25, 5.0, -1e25, 0.0])
def test_the_density_of_one_eigenvalue_is_one_bump_there(size):
  """The Hessian of size |theta|^2 / 2 is a multiple of the identity."""
  net = types.SimpleNamespace(loss=lambda variables, piece: size * jnp.sum(jnp.square(variables["params"]["w"])) / 2)
  piece = {"chunks": {"weight": jnp.ones((1, 2))}, "key": jax.random.key(0)}
  probe = SpectralDensity(vectors=2, steps=4, bins=99, width=0.1)
  found = jax.jit(lambda params: probe(net, {"params": params}, piece))({"w": jnp.ones(6)})
  np.testing.assert_allclose([found["largest"], found["smallest"]], [size, size], rtol=1e-5)
  np.testing.assert_allclose(found["trace"], 6 * size, rtol=1e-5)
  unit = abs(size) or 1.0
  grid, density = np.asarray(found["grid"], float) / unit, np.asarray(found["density"], float) * unit
  np.testing.assert_allclose(np.trapezoid(density, grid), 1, rtol=0.02)
  np.testing.assert_allclose(np.trapezoid(density * grid, grid), size / unit, atol=0.02)
  np.testing.assert_allclose(np.sqrt(np.trapezoid(density * (grid - size / unit) ** 2, grid)), 0.1, rtol=0.05)
