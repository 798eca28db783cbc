"""Dual activations: against quadrature of the activation functions themselves, at their ends, and the taxonomy."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nurture.core import UserError
from nurture.ntk import dual as duals
from nurture.ntk.dual import (
  DUALS,
  classify,
  erf,
  gelu,
  hermite,
  linear,
  optimal_hermite,
  relu,
  sine,
  singularity_exponent,
)

NONE = -math.inf
ALL = {
  "relu": relu(), "erf": erf(), "sine": sine(2.676), "high sine": sine(13.8258), "gelu": gelu(), "linear": linear(),
  "D=1": optimal_hermite(1), "D=2": optimal_hermite(2), "D=8": optimal_hermite(8), "c^2": hermite([NONE, NONE, 0]),
  "mean": hermite(np.log([0.3, 0.1, 0.6])),
}


@pytest.fixture(autouse=True)
def double():
  with jax.enable_x64(True):
    yield


def quadrature(dual, c, order=90):
  """E[phi(u) phi(v)] at correlation c by a Gauss-Hermite product rule."""
  nodes, weights = np.polynomial.hermite_e.hermegauss(order)
  weights = weights / weights.sum()
  v = c * nodes[:, None] + math.sqrt(1 - c * c) * nodes[None]
  phi = lambda u: np.asarray(dual.phi(jnp.asarray(u)))
  return weights @ (phi(nodes)[:, None] * phi(v)) @ weights


@pytest.mark.parametrize("name", ALL)
def test_is_the_mean_product_of_the_activation(name):
  dual = ALL[name]
  tolerance = 2e-2 if name == "relu" else 1e-9  # quadrature converges slowly at a kink
  for c in (-0.8, 0.0, 0.3, 1.0):
    np.testing.assert_allclose(dual.f(c), quadrature(dual, c), atol=tolerance)
  np.testing.assert_allclose(dual.f0, dual.f(0.0), atol=1e-15)
  np.testing.assert_allclose([dual.df0, dual.df1], dual.df(np.array([0.0, 1.0])), rtol=1e-12)
  c = np.array([-0.9, -0.2, 0.05, 0.55, 0.65, 0.95])
  slope = (np.asarray(dual.f(c + 1e-5)) - dual.f(c - 1e-5)) / 2e-5
  np.testing.assert_allclose(dual.df(c), slope, atol=2e-8)
  np.testing.assert_allclose(dual.elasticity(c), c * slope / dual.f(c), rtol=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_both_ends_keep_their_digits(name):
  dual = ALL[name]
  delta = np.array([1e-14, 1e-8, 1e-3, 0.3, 0.9, 1.4, 2.0])
  np.testing.assert_allclose(dual.one_minus_f(delta), 1 - np.asarray(dual.f(1 - delta)), atol=1e-15)
  # Next after f'(1) delta comes a term of order delta^(3/2) for ReLU and delta^2 for all others.
  np.testing.assert_allclose(dual.one_minus_f(delta[:2]), dual.df1 * delta[:2], rtol=1e-4 if name == "relu" else 1e-6)
  np.testing.assert_allclose(dual.one_minus_f(1e-14), -np.asarray(dual.log_f(-1e-14)), rtol=1e-6)
  log_c = np.array([-1e4, -50.0, -3.0, -0.51, -0.49, -1e-3])
  with np.errstate(divide="ignore"):
    np.testing.assert_allclose(dual.log_f(log_c[2:]), np.log(dual.f(np.exp(log_c[2:]))), rtol=1e-11, atol=1e-14)
  np.testing.assert_allclose(dual.log_f(log_c[:2]), dual.lowest * log_c[:2] + dual.log_lowest, rtol=1e-12)
  np.testing.assert_allclose(dual.elasticity(np.array([0.0, 1.0])), [dual.lowest, dual.df1], rtol=1e-12)


def test_arc_cosine_kernels_at_the_three_angles():
  cosines = np.array([1.0, 0.0, -1.0])
  np.testing.assert_allclose(relu().f(cosines), [1, 1 / math.pi, 0], atol=1e-15)
  np.testing.assert_allclose(relu().df(cosines), [1, 1 / 2, 0], atol=1e-15)


# As printed: four digits, alpha of the optimal ones the dimension.
ALPHA = [
  (erf(), 0.9136, 1.226, 0.888), (sine(1), 0.8509, 1.313, 1.186), (optimal_hermite(1), 0.5, 4, 1.0),
  (sine(2.676), 0.3702, 2.701, 2.0), (optimal_hermite(2), 0.5, 2, 2.0), (sine(6.13539), 0.02656, 6.135, 4.0),
  (optimal_hermite(4), 0.25, 2, 4.0), (sine(13.8258), 2.737e-5, 13.83, 8.0), (optimal_hermite(8), 0.0625, 2, 8.0),
]


@pytest.mark.parametrize(("dual", "df0", "df1", "alpha"), ALPHA, ids=[f"{d.name}-{a:g}" for d, *_, a in ALPHA])
def test_singularity_exponents_of_the_official_activations(dual, df0, df1, alpha):
  np.testing.assert_allclose([dual.df0, dual.df1], [df0, df1], rtol=5e-4)
  np.testing.assert_allclose(singularity_exponent(dual), alpha, rtol=5e-4)


@pytest.mark.parametrize("dimension", [1, 2, 3, 7, 100, 2044, 3071])
def test_optimal_activations_have_the_dimension_as_exponent(dimension):
  dual = optimal_hermite(dimension)
  assert classify(dual) == "singular"
  np.testing.assert_allclose(singularity_exponent(dual), dimension, rtol=1e-12)
  np.testing.assert_allclose(dual.f(1.0), 1, rtol=1e-14)
  assert (dual.df0 == 0) == (dimension > 2044 + 100)  # f'(0) itself underflows there, its logarithm does not


@pytest.mark.parametrize("a", [1e-8, 1e-3, 0.0999, 0.1001, 2.0, 50.0, 200.0, 800.0])
def test_sines_of_any_frequency(a):
  """Against log (sinh(a c) / sinh(a)) = a (c - 1) + log1p(-exp(-2 a c)) - log1p(-exp(-2 a)), and its ends."""
  dual, c = sine(a), np.array([1e-3, 0.3, 0.605, 0.608, 0.9, 1 - 1e-9])
  log_sinh = lambda x: x + np.log(-np.expm1(-2 * x))
  np.testing.assert_allclose(dual.log_f(np.log(c)), log_sinh(a * c) - log_sinh(a), rtol=1e-9, atol=1e-13)
  np.testing.assert_allclose(dual.elasticity(c), a * c / np.tanh(a * c), rtol=1e-9)
  small = -a * a / 6 * (1 - a * a / 30), a * a / 3 * (1 - 7 * a * a / 30)
  if a < 0.01:
    np.testing.assert_allclose([dual.log_df0, dual.log_df1], small, rtol=1e-9)
    assert singularity_exponent(dual) == pytest.approx(1, abs=2e-6)
  elif a < 2:
    assert singularity_exponent(dual) == pytest.approx(1 + 0.2 * a * a, rel=1e-4)  # both branches at 0.1
  else:
    np.testing.assert_allclose(dual.log_df0, math.log(2 * a) - log_sinh(a), rtol=1e-12)


def test_derivatives_are_right_where_formulas_meet():
  for name, dual in ALL.items():
    c = jnp.array([-1.0, 0.0, 0.5, 1.0])
    np.testing.assert_allclose(jax.jit(jax.vmap(jax.grad(dual.f)))(c), dual.df(c), rtol=1e-12, err_msg=name)


def test_the_three_classes():
  limits = {name: classify(dual) for name, dual in ALL.items() if name != "linear"}
  of = lambda limit: {name for name, value in limits.items() if value == limit}
  assert of("majority") == {"relu", "gelu", "mean"} and of("1nn") == {"c^2"}
  assert classify("relu") == "majority" and classify({"name": "sine", "a": 3}) == "singular"
  assert classify(hermite([NONE, NONE, NONE, 0.0, 2.0])) == "1nn"


@pytest.mark.parametrize(("phi", "closed"), [
  (jax.scipy.special.erf, erf()), (lambda u: jax.nn.gelu(u, approximate=False), gelu()),
  pytest.param(lambda u: jnp.sin(math.sqrt(2.676) * u), sine(2.676), marks=pytest.mark.long),
  pytest.param(optimal_hermite(3).phi, optimal_hermite(3), marks=pytest.mark.long),
])
def test_any_smooth_activation_becomes_a_series(phi, closed):
  series = duals.from_activation(phi)
  c = np.linspace(-1, 1, 9)
  np.testing.assert_allclose(series.f(c), closed.f(c), atol=1e-10)
  np.testing.assert_allclose(series.df1, closed.df1, rtol=1e-8)
  assert classify(series) == classify(closed)
  u = jnp.array([-30.0, -1.0, 0.0, 0.5, 7.0])
  np.testing.assert_allclose(series.phi(u) / series.phi(u)[3], phi(u) / phi(u)[3], rtol=1e-12)
  nodes, weights = np.polynomial.hermite_e.hermegauss(60)
  assert weights @ np.square(series.phi(jnp.asarray(nodes))) / weights.sum() == pytest.approx(1, rel=1e-5)


def test_bad_input():
  cases = [
    (lambda: classify("selu"), "dual.name is 'selu', which does not exist.*known"),
    (lambda: classify({"name": "sine"}), "dual.a is missing"),
    (lambda: classify(linear()), "none of the three classes"),
    (lambda: singularity_exponent("relu"), "has the limit 'majority' and no exponent"),
    (lambda: optimal_hermite(0), "D is 0"),
    (lambda: optimal_hermite(1.5), "D is 1.5"),
    (lambda: sine(-1.0), "positive number"),
    (lambda: hermite([NONE, NONE]), "give log h_i\\^2"),
    (lambda: hermite([0.0, math.nan]), "give log h_i\\^2"),
    (lambda: duals.from_activation(jnp.abs), r"E\[phi\^2\] beyond degree 200"),
    (lambda: duals.from_activation(jax.nn.relu, degree=2000), r"E\[phi'\^2\] beyond degree 2000"),
    (lambda: duals.from_activation("tanh"), "such as jnp.tanh"),
    (lambda: duals.from_activation(lambda u: u > 0), "to bool"),
    (lambda: duals.from_activation(jnp.tanh, degree=2.5), "whole number"),
    (lambda: hermite("abc"), "give log h_i"),
    (lambda: hermite([[0.0], [0.0, 1.0]]), "give log h_i"),
    (lambda: classify(relu), r"the function relu; call it, as in relu\(\)"),
    (lambda: sine(True), "positive number"),
    (lambda: optimal_hermite(np.complex128(3)), "D is"),
    (lambda: erf().f([[1.0], [0.1, 0.2]]), "rows of different lengths"),
    (lambda: relu().one_minus_f(-1.0), "delta has values outside"),
    (lambda: erf().log_f(1.0), "log_c has values outside"),
    (lambda: erf().f(math.nan), "outside"),
    (lambda: duals.from_activation(jnp.zeros_like), "0 everywhere"),
    (lambda: duals.from_activation(lambda u: jnp.log(u)), "finite"),
    (lambda: erf().f(1.5), "outside"),
    (lambda: erf().f(np.float32(0.5)), "float32"),
  ]
  for call, message in cases:
    with pytest.raises(UserError, match=message):
      call()
  with jax.enable_x64(False):
    for call in (lambda: relu().f(0.5), lambda: duals.from_activation(jnp.tanh)):
      with pytest.raises(UserError, match="enable_x64"):
        call()
    assert singularity_exponent(optimal_hermite(3)) == pytest.approx(3)  # needs no arrays
    assert optimal_hermite(3).phi(jnp.ones(2)).dtype == jnp.float32
  assert sine(np.int64(2)) == sine(np.float32(2)) == duals.sin(2) == duals.as_dual({"name": "sin", "a": 2})
  assert set(DUALS) >= {"relu", "erf", "sine", "gelu", "hermite", "linear", "optimal_hermite"}
