"""The eigenframework: limits, closed forms, published values, another way to solve it, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nurture.core import UserError
from nurture.ntk.eigenframework import (
  fit_powerlaw,
  fitting_error,
  held_out_error,
  krr_predict,
  learnability,
  noise_threshold,
  optimal_fitting_ratio,
  overfitting_is_obligatory,
  rf_predict,
  task_learnability,
)

INDEX = np.arange(1, 2001, dtype=np.float64)
LAM, V2 = INDEX**-1.5, INDEX**-1.2


@pytest.fixture(autouse=True)
def float64():
  with jax.enable_x64(True):
    yield


def bisect(falling, low, high, steps=200):
  """Returns the root of a falling function, in the logarithm of its argument."""
  for _ in range(steps):
    middle = np.sqrt(low * high)
    low, high = (middle, high) if falling(middle) > 0 else (low, middle)
  return np.sqrt(low * high)


def nested(lam, v2, n, k, ridge, noise):
  """The eigenframework as published: a bisection in κ within one in γ, and the errors in q and z."""
  kappa_of = lambda g: bisect(lambda kappa: np.sum(lam / (lam + g)) + ridge / kappa - n, 1e-40, 1e40) \
    if np.sum(lam / (lam + g)) < n else 1e40
  gamma = bisect(lambda g: np.sum(lam / (lam + g)) + k * kappa_of(g) / g - k, 1e-20, 1e10)
  kappa, z, q = kappa_of(gamma), np.sum(lam / (lam + gamma)), np.sum((lam / (lam + gamma)) ** 2)
  modes = gamma / (lam + gamma) - kappa * lam / (lam + gamma) ** 2 * k / (k - q)
  test = (modes @ v2 + noise) / (1 - (q * (k - 2 * z) + z**2) / (n * (k - q)))
  return test, (ridge / (n * kappa)) ** 2 * test, kappa, gamma, z, q


@pytest.mark.parametrize("n, k, ridge, noise", [
  (40, 100, 0.3, 0.2), (100, 40, 0.01, 0.0), (60, 60, 1e-3, 0.5), (7.5, 3e4, 20.0, 0.1), (300, 20, 5.0, 1.0),
])
def test_the_nested_bisections_of_the_official_solver_agree(n, k, ridge, noise):
  np.testing.assert_allclose(rf_predict(LAM, V2, n, k, ridge, noise), nested(LAM, V2, n, k, ridge, noise), rtol=1e-9)


@pytest.mark.parametrize("k, ridge, published, digits", [  # official predictions, n = 256, noise 0.5, 10,000 modes
  (100, 10 ** (-7 / 3), 1.369, 3), (255, 10 ** (-7 / 3), 2.906, 3),
  (100, 10 ** (1 / 3), 1.013, 3), (255, 10 ** (1 / 3), 0.939, 3),
])
def test_published_predictions(k, ridge, published, digits):
  lam = np.arange(1, 10_001) ** -1.5
  assert round(float(rf_predict(lam, lam, 256, k, ridge, 0.5).test), digits) == published


def test_infinitely_many_features_are_the_kernel():
  n, ridge = np.array([3.0, 50.0, 400.0])[:, None], np.array([0.0, 1e-3, 2.0])[None]
  kernel = krr_predict(LAM, V2, n, ridge, 0.3)
  assert kernel.test.shape == (3, 3)
  np.testing.assert_allclose(rf_predict(LAM, V2, n, 1e13, ridge, 0.3), kernel, rtol=1e-9)
  np.testing.assert_array_equal(kernel.kappa, kernel.gamma)
  learned = learnability(LAM, kernel.kappa)
  np.testing.assert_allclose(learned.sum(-1) + np.where(ridge > 0, ridge / kernel.kappa, 0), n * np.ones((1, 3)))
  np.testing.assert_allclose(learned.sum(-1)[:, :1], n)  # conserved without a ridge
  amplification = n / (n - (learned**2).sum(-1))
  np.testing.assert_allclose(kernel.test, amplification * ((1 - learned) ** 2 @ V2 + 0.3))
  np.testing.assert_allclose(kernel.train, np.where(ridge > 0, ridge / n / kernel.kappa, 0.0) ** 2 * kernel.test)
  np.testing.assert_allclose(task_learnability(LAM, V2, kernel.gamma), (learned @ V2) / V2.sum())


def test_a_flat_spectrum_in_closed_form():
  """Of M equal eigenvalues, κ solves a quadratic equation."""
  m, n, ridge, noise = 80, 30.0, 0.7, 0.2
  lam, v2 = np.full(m, 0.5), np.linspace(0, 1, m)
  # n κ (λ + κ) = M λ κ + δ (λ + κ)
  kappa = np.max(np.roots([n, n * 0.5 - m * 0.5 - ridge, -ridge * 0.5]))
  learned = 0.5 / (0.5 + kappa)
  expected = n / (n - m * learned**2) * ((1 - learned) ** 2 * v2.sum() + noise)
  ours = krr_predict(lam, v2, n, ridge, noise)
  np.testing.assert_allclose(ours.kappa, kappa)
  np.testing.assert_allclose(ours.test, expected)
  ridgeless = krr_predict(lam, v2, n, 0, noise)  # L = n / M
  np.testing.assert_allclose(ridgeless.test, ((1 - n / m) ** 2 * v2.sum() + noise) / (1 - n / m), rtol=1e-12)


@pytest.mark.parametrize("n, k, expected", [
  (100, 40, {"z": 40, "kappa": 0, "ratio": 0.6**2}),
  (40, 100, {"z": 40, "ratio": 0}),
  (50, 50, {"z": 50, "test": np.inf, "train": 0, "kappa": 0}),
  (4000, 3000, {"z": 2000, "gamma": 0, "kappa": 0, "test": 0.4, "ratio": 0.25}),  # least squares
  (2000, 3000, {"z": 2000, "test": np.inf, "train": 0}),
  (3000, 500, {"z": 500, "kappa": 0, "ratio": (5 / 6) ** 2}),
])
def test_limits_without_a_ridge(n, k, expected):
  got = rf_predict(LAM, V2, n, k, 0, 0.2)
  assert not any(np.isnan(value) for value in got)
  for name, value in expected.items():
    np.testing.assert_allclose(got.train / got.test if name == "ratio" else getattr(got, name), value, atol=1e-12)
  if np.isfinite(got.test):  # and they are approached
    np.testing.assert_allclose(rf_predict(LAM, V2, n, k, 1e-11, 0.2), got, rtol=1e-4, atol=1e-4)
  else:
    assert rf_predict(LAM, V2, n, k, 1e-11, 0.2).test > 1e3


def test_eigenvalues_of_zero_are_noise():
  lam, v2 = np.array([1.0, 0.5, 0.0, 0.0]), np.array([1.0, 1.0, 0.3, 0.1])
  np.testing.assert_allclose(krr_predict(lam, v2, 10, 0, 0.2).test, 10 / 8 * 0.6)
  with_ridge, without = krr_predict(lam, v2, 10, 0.1, 0.2), krr_predict(lam[:2], v2[:2], 10, 0.1, 0.6)
  np.testing.assert_allclose(with_ridge, without)
  np.testing.assert_array_equal(krr_predict(lam, np.array([1.0, 1.0, 0, 0]), 2, 0, 0.0).test, 0)


def test_levels_stand_for_their_modes():
  lam, v2, counts = np.array([1.0, 0.1]), np.array([1.0, 2.0]), np.array([3, 50])
  spread = np.repeat(lam, counts), np.repeat(v2 / counts, counts)
  settings = (20, 35, 0.05, 0.1)
  ours = rf_predict(lam, v2, *settings, multiplicity=counts)
  np.testing.assert_allclose(ours, rf_predict(*spread, *settings), rtol=1e-12)


def error(settings):
  return rf_predict(LAM, V2, *settings).test


errors, gradient = jax.jit(jax.vmap(error)), jax.jit(jax.grad(error))
second_by_ridge = jax.jit(jax.grad(lambda settings: jax.grad(error)(settings)[2]))


def test_maps_compiles_and_differentiates():
  grid = [np.array([20.0, 70.0]), np.array([50.0, np.inf]), np.array([0.0, 0.1]), np.array([0.5, 0.0])]
  at_once = jax.jit(jax.vmap(lambda *s: rf_predict(LAM, V2, *s)))(*grid)
  one_by_one = [rf_predict(LAM, V2, *settings) for settings in zip(*grid)]
  np.testing.assert_allclose(at_once, np.transpose(one_by_one), rtol=1e-12)
  settings = np.array([60.0, 50.0, 0.05, 0.3])
  steps = 1e-6 * settings[:, None] * np.eye(4)
  by_differences = (errors(settings + steps) - errors(settings - steps)) / (2e-6 * settings)
  np.testing.assert_allclose(gradient(settings), by_differences, rtol=1e-5)
  assert np.isnan(errors(np.array([[0.0, 50.0, 0.1, 0.1]] * 4))).all()


@pytest.mark.parametrize("settings", [(50.0, 50.0, 0.1, 0.3), (60.0, 50.0, 0.05, 0.3), (50.0, np.inf, 0.1, 0.01)])
def test_derivatives_at_equal_n_and_k_and_second_ones(settings):
  """The peak of double descent lies at n = k, where every minimum and maximum has two sides."""
  settings = np.array(settings)
  finite = np.isfinite(settings)
  steps = 1e-4 * np.where(finite, settings, 0.0) * np.eye(4)
  by_differences = (errors(settings + steps) - errors(settings - steps))[finite] / (2e-4 * settings[finite])
  np.testing.assert_allclose(gradient(settings)[finite], by_differences, rtol=1e-4)
  slopes = gradient(settings + steps[2])[2] - gradient(settings - steps[2])[2]
  np.testing.assert_allclose(second_by_ridge(settings)[2], slopes / (2e-4 * settings[2]), rtol=1e-4)


def test_small_errors_keep_their_digits():
  """One mode, no noise: E_te = n (1 - L)² / (n - L²), with 1 - L = κ / (λ + κ); and the peak at vanishing ridges."""
  for ridge in (1e-2, 1e-8, 1e-14):
    half = (100 - 1 - ridge) / 2  # n κ² + ... : κ solves n (1 + κ) κ = κ + δ (1 + κ)
    kappa = ridge / (half + np.sqrt(half**2 + 100 * ridge))
    missed = kappa / (1 + kappa)
    expected = 100 * missed**2 / (100 - (1 - missed) ** 2)
    np.testing.assert_allclose(krr_predict([1.0], [1.0], 100, ridge, 0.0).test, expected, rtol=1e-12)
  lam = np.arange(1, 2001) ** -1.5
  tests = [float(rf_predict(lam, lam, 256, 256, ridge, 0.5).test) for ridge in (1e-20, 1e-24, 1e-28, 1e-32)]
  np.testing.assert_allclose(np.divide(tests[1:], tests[:-1]), 100.0, rtol=1e-6)  # E_te ~ δ^(-1/2)


def test_a_grid_may_have_axes_of_its_own():
  k, ridge = np.array([5.0, 6.0]), np.array([0.1, 0.2, 0.3])[:, None]
  grid = rf_predict(LAM, V2, 20, k, ridge, 0.5)
  assert grid.test.shape == (3, 2)
  assert float(grid.test[2, 1]) == pytest.approx(float(rf_predict(LAM, V2, 20, 6.0, 0.3, 0.5).test), rel=1e-12)


def test_the_mean_over_a_pool_is_that_of_its_two_parts():
  prediction = krr_predict(LAM, V2, 100, 1.0, 0.0)
  held_out = held_out_error(prediction, 100, 2000)
  np.testing.assert_allclose((100 * prediction.train + 1900 * held_out) / 2000, prediction.test)


def levels(a, b, decades=60):
  """A power-law spectrum of 10^decades modes: the first 1,000, then bins of about 1 % in the index."""
  edges = np.concatenate([np.arange(1, 1001), np.geomspace(1000, 10.0**decades, int(230 * (decades - 3)))[1:]]) - 0.5
  power_sum = lambda p: (edges[:-1] ** (1 - p) - edges[1:] ** (1 - p)) / (p - 1)
  first = np.arange(len(edges) - 1) < 999
  centre = np.where(first, edges[:-1] + 0.5, 0)
  counts = np.diff(edges)
  lam = np.where(first, np.maximum(centre, 1) ** -a, power_sum(a) / counts)
  v2 = np.where(first, np.maximum(centre, 1) ** -b, power_sum(b))
  return lam, v2, counts


@pytest.mark.parametrize("a, b, noise", [
  (1.3, 1.2, 1.0), (1.5, 1.8, 0.0), (1.5, 1.3, 0.0), (1.4, 1.5, 5.0), (2.0, 3.0, 0.3),
])
def test_the_optimal_fitting_ratio_is_where_large_tasks_have_their_minimum(a, b, noise):
  n = 1e6
  lam, v2, counts = levels(a, b)
  predict = lambda ridge, noise: krr_predict(lam, v2, n, ridge, noise, multiplicity=counts)
  ridgeless = predict(0, 0.0)
  ridge = np.concatenate([[0], n * float(ridgeless.kappa) * np.geomspace(1e-6, 10, 120)])
  sweep = predict(ridge, noise * float(ridgeless.test))
  ratio = np.asarray(sweep.train / sweep.test)
  best = np.argmin(sweep.test)
  neighbours = ratio[[max(best - 1, 0), best + 1]]
  formula = optimal_fitting_ratio(a, b, noise)
  assert neighbours[0] - 2e-3 <= formula <= neighbours[1] + 2e-3
  assert overfitting_is_obligatory(a, b, noise) == (formula == 0) == (best == 0)
  shape = fitting_error(ratio, a, b, noise)
  np.testing.assert_allclose(sweep.test / sweep.test[0], shape / shape[0], rtol=0.01)


def test_thresholds_of_the_published_tasks():
  assert noise_threshold(1.12, 1.36) == pytest.approx(1.79, abs=0.005)  # MNIST
  assert overfitting_is_obligatory(1.12, 1.36, np.array([0, 1, 5, 50])).tolist() == [True, True, False, False]
  ratios = optimal_fitting_ratio(1.17, 1.14, np.array([0, 1, 5, 50]))  # CIFAR-10
  assert round(float(ratios[0]), 3) == 0.024 and np.all(np.diff(ratios) > 0)
  assert not overfitting_is_obligatory(1.17, 1.14, 0)
  assert round(optimal_fitting_ratio(1.22, 1.20, 0), 3) == 0.006  # SVHN
  s = noise_threshold(1.12, 1.36)
  assert optimal_fitting_ratio(1.12, 1.36, s) == 0 < optimal_fitting_ratio(1.12, 1.36, 1.01 * s) < 1e-4


def test_a_power_law_is_found():
  x = np.geomspace(1, 1e4, 30)
  law = fit_powerlaw(x, 3 * x**-1.7)
  np.testing.assert_allclose([law.exponent, law.prefactor, law.sem], [1.7, 3, 0], atol=1e-9)
  np.testing.assert_allclose(law(x), 3 * x**-1.7)
  bent = np.where(x < 10, 3.0, 3 * x**-0.5)
  assert fit_powerlaw(x, bent, low=10).exponent == pytest.approx(0.5)
  noisy = fit_powerlaw(x, x**-1.7 * np.exp(0.1 * np.random.default_rng(0).normal(size=30)))
  assert 0 < abs(noisy.exponent - 1.7) < 4 * noisy.sem < 0.05


@pytest.mark.parametrize("change, words", [
  ({"n": 0}, "n is 0"), ({"k": 0}, "k is 0"), ({"n": -3}, "n is -3"), ({"n": np.inf}, "n is inf"),
  ({"ridge": -0.1}, "ridge is -0.1"), ({"noise": -1}, "noise is -1"), ({"noise": np.nan}, "noise is nan"),
  ({"k": np.array([5, 0])}, "k is 0"), ({"k": None}, "k is None; give a number"),
  ({"k": np.ones(3), "ridge": np.ones(4)}, r"k \[3\], ridge \[4\].* do not broadcast"),
  ({"lam": np.array([1.0, -1e-3])}, "lam holds values below 0"), ({"v2": np.array([1.0, np.nan])}, "v2 holds"),
  ({"lam": np.zeros(2)}, "no eigenvalue above 0"), ({"lam": np.ones((2, 2))}, "have shapes"),
  ({"v2": np.ones(3)}, "have shapes"), ({"lam": np.ones(0), "v2": np.ones(0)}, "have shapes"),
  ({"lam": np.ones(2, np.float32)}, "lam is float32"), ({"v2": jnp.ones(2, jnp.bfloat16)}, "v2 is bfloat16"),
])
def test_bad_input_is_one_sentence(change, words):
  arguments = {"lam": [1, 0.5], "v2": [1, 1], "n": 10, "k": 5, "ridge": 0.1, "noise": 0.1}
  assert np.isfinite(rf_predict(**arguments).test)
  with pytest.raises(UserError, match=words):
    rf_predict(**arguments | change)


def test_without_64_bits_it_refuses():
  with jax.enable_x64(False):
    for call in (lambda: krr_predict(LAM, V2, 10, 0, 0), lambda: rf_predict(LAM, V2, 10, 5, 0, 0),
                 lambda: learnability(LAM, 0.1)):
      with pytest.raises(UserError, match=r"with jax.enable_x64\(True\)"):
        call()
    assert optimal_fitting_ratio(1.5, 1.2, 0.0) > 0  # on the host


@pytest.mark.parametrize("call, words", [
  (lambda: noise_threshold(1.0, 1.2), "a > 1"), (lambda: noise_threshold(1.2, 4.0), "b < 2 a"),
  (lambda: optimal_fitting_ratio(1.2, 0.9, 0), "1 < b"),
  (lambda: optimal_fitting_ratio(1.2, 1.1, -1), "relative noise"),
  (lambda: fitting_error(1.0, 1.2, 1.1, 0), "fitting ratio"), (lambda: fit_powerlaw([1, 2], [1, 0]), "positive"),
  (lambda: fit_powerlaw([1, 2], [1, 2], low=1.5), "two different x"),
  (lambda: fit_powerlaw([1, 2], [1]), "have shapes"), (lambda: fitting_error(-0.1, 1.2, 1.1, 0), "fitting ratio"),
  (lambda: optimal_fitting_ratio([1.2, 1.3, 1.4], [1.1, 1.2], 0), "do not broadcast"),
])
def test_bad_exponents_are_one_sentence(call, words):
  with pytest.raises(UserError, match=words):
    call()
