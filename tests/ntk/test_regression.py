"""Ridge regression: against plain solves, both sides against each other, and against the eigenframework."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nurture.core import UserError
from nurture.ntk.eigenframework import fit_powerlaw, krr_predict, rf_predict
from nurture.ntk.regression import feature_kernel, krr_fit_predict, learning_curve, random_features, rf_fit_predict

RNG = np.random.default_rng(0)
X, X_TEST = RNG.normal(size=(30, 5)), RNG.normal(size=(7, 5))
Y = RNG.normal(size=(30, 2))
RIDGES = np.array([1e-3, 0.1, 10.0])


@pytest.fixture(autouse=True)
def float64():
  with jax.enable_x64(True):
    yield


@pytest.fixture
def kernels():
  return feature_kernel(X, X, "fourier"), feature_kernel(X_TEST, X, "fourier")


def test_one_decomposition_does_what_separate_solves_do(kernels):
  k, k_test = kernels
  plain = np.stack([k_test @ np.linalg.solve(k + ridge * np.eye(30), Y) for ridge in RIDGES])
  swept = krr_fit_predict(k, k_test, Y, RIDGES)
  assert swept.shape == (3, 7, 2)
  np.testing.assert_allclose(swept, plain, rtol=1e-9, atol=1e-12)
  np.testing.assert_allclose([krr_fit_predict(k, k_test, Y, float(ridge)) for ridge in RIDGES], plain, rtol=1e-9)
  np.testing.assert_allclose(krr_fit_predict(k, k_test, Y[:, 0], RIDGES), plain[..., 0], rtol=1e-9, atol=1e-12)
  dual = krr_fit_predict(k, np.eye(30), Y, RIDGES)
  np.testing.assert_allclose(k_test @ dual, plain, rtol=1e-9, atol=1e-12)
  with_jitter = krr_fit_predict(k, k_test, Y, 0.1, jitter=0.4)  # the diagonal is 1
  np.testing.assert_allclose(with_jitter, krr_fit_predict(k, k_test, Y, 0.5))
  compiled = jax.jit(krr_fit_predict)(k, k_test, Y, RIDGES)
  np.testing.assert_allclose(compiled, swept, rtol=1e-9, atol=1e-12)


def test_without_a_ridge_it_interpolates_and_a_singular_kernel_takes_the_least_norm(kernels):
  np.testing.assert_allclose(krr_fit_predict(kernels[0], kernels[0], Y, 0), Y, atol=1e-9)
  linear = functools.partial(feature_kernel, kind="gaussian")  # of rank 5
  least_squares = np.linalg.lstsq(X, Y, rcond=None)[0]
  np.testing.assert_allclose(krr_fit_predict(linear(X, X), linear(X_TEST, X), Y, 0), X_TEST @ least_squares, atol=1e-9)


@pytest.mark.parametrize("k", [8, 90, pytest.param(30, marks=pytest.mark.long)])
def test_both_sides_agree_with_the_kernel_of_the_features(k):
  rng = np.random.default_rng(k)
  phi, phi_test = rng.normal(size=(30, k)), rng.normal(size=(7, k))
  ridges = [0.0, 1e-3, 1.0]
  sides = [rf_fit_predict(phi, phi_test, Y, ridges, side=side) for side in ("samples", "features", "auto")]
  np.testing.assert_allclose(sides[0], sides[1], rtol=1e-7, atol=1e-7)
  np.testing.assert_array_equal(sides[2], sides[1 if k < 30 else 0])
  as_kernel = krr_fit_predict(phi @ phi.T / k, phi_test @ phi.T / k, Y, ridges[1:])
  np.testing.assert_allclose(sides[0][1:], as_kernel, rtol=1e-7, atol=1e-9)
  np.testing.assert_allclose(sides[0][0], phi_test @ np.linalg.pinv(phi) @ Y, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", ["relu", "gaussian", "fourier"])
def test_products_of_features_have_the_kernel_as_their_mean(kind, key):
  x = np.concatenate([X[:3], -X[:1], np.zeros((1, 5))])
  phi = random_features(key, x, 40_000, kind, length=1.5)
  products = phi[:, None] * phi[None]
  errors = products.mean(-1) - feature_kernel(x, x, kind, length=1.5)
  assert np.all(np.abs(errors) < 5 * products.std(-1) / np.sqrt(40_000) + 1e-12)
  np.testing.assert_array_equal(random_features(key, x[:2], 10, kind), random_features(key, x, 10, kind)[:2])


def test_the_relu_kernel_at_three_angles():
  x = np.array([[1.0, 0.0], [0.0, 2.0], [-1.0, 0.0]])
  kernel = feature_kernel(x, x, "relu")
  np.testing.assert_allclose(kernel[0], [0.5, 1 / np.pi, 0.0], atol=1e-9)
  np.testing.assert_allclose(np.diag(kernel), [0.5, 2.0, 0.5])


@pytest.mark.parametrize("ridge", [0.0, 0.05])
def test_the_learning_curve_is_that_of_separate_regressions(kernels, ridge):
  k, k_test = kernels
  y_test = RNG.normal(size=(7, 2))
  curve = learning_curve(k, k_test, Y, y_test, [1, 11, 30], ridge)
  for n, error, trace in zip(*curve):
    rest = krr_fit_predict(k[:n, :n], k_test[:, :n], Y[:n], ridge) - y_test
    np.testing.assert_allclose(error, np.mean(np.sum(rest**2, axis=1)), rtol=1e-7)
    np.testing.assert_allclose(trace, np.trace(np.linalg.inv(k[:n, :n] + ridge * np.eye(n))), rtol=1e-9)
  flat = learning_curve(k, k_test, Y[:, 0], y_test[:, 0], [30], ridge).test
  rest = krr_fit_predict(k, k_test, Y[:, 0], ridge) - y_test[:, 0]
  np.testing.assert_allclose(flat[0], np.mean(rest**2), rtol=1e-7)


def gaussian_task(seed, n, k, ridges, noise, a=1.5, modes=800, draws=8):
  """Returns the exact test error of random Gaussian features on a power-law task, [R], a mean over draws of labels."""
  rng = np.random.default_rng(seed)
  root = np.arange(1, modes + 1) ** (-a / 2)
  psi, w = rng.normal(size=(n, modes)), rng.normal(size=(modes, k))
  v = root[:, None] * rng.choice([-1.0, 1.0], size=(modes, draws))
  y = psi @ v + np.sqrt(noise) * rng.normal(size=(n, draws))
  learned = rf_fit_predict((psi * root) @ w, root[:, None] * w, y, ridges)  # predictions on the unit vectors
  return np.mean(np.sum((np.asarray(learned) - v) ** 2, axis=1), axis=-1) + noise


@pytest.mark.parametrize("k", [20, 64, *(pytest.param(k, marks=pytest.mark.long) for k in (60, 400))])
def test_the_eigenframework_tells_what_random_features_do(k):
  n, ridges, noise, lam = 64, np.array([0.05, 1.0]), 0.5, np.arange(1, 801) ** -1.5
  measured = np.array([gaussian_task(seed, n, k, ridges, noise) for seed in range(16)])
  mean, sem = measured.mean(0), measured.std(0, ddof=1) / np.sqrt(16)
  theory = rf_predict(lam, lam, n, k, ridges, noise).test
  assert np.all(np.abs(mean - theory) < 3 * sem)
  assert np.all(sem < 0.08 * theory)


def test_exponents_are_found_from_the_data():
  """Kernel and labels of a power-law task: Tr K_n^-1 tells a, the learning curve b."""
  a, b, modes, n = 1.6, 2.0, 2000, 300
  index, rng = np.arange(1, modes + 1), np.random.default_rng(1)
  psi = rng.normal(size=(n + 400, modes))
  kernel = (psi * index**-a) @ psi.T
  y = psi @ (index[:, None] ** (-b / 2) * rng.choice([-1.0, 1.0], size=(modes, 20)))
  sizes = np.unique(np.geomspace(40, n, 6).astype(int))
  curve = learning_curve(kernel[:n, :n], kernel[n:, :n], y[:n], y[n:], sizes)
  theory = krr_predict(index**-a, index**-b, sizes, 0.0, 0.0)
  np.testing.assert_allclose(curve.test / 20, theory.test, rtol=0.15)
  np.testing.assert_allclose(1 / curve.inverse_trace, theory.kappa, rtol=0.1)
  assert fit_powerlaw(sizes, 1 / curve.inverse_trace).exponent == pytest.approx(a, abs=0.15)
  assert 1 + fit_powerlaw(sizes, curve.test).exponent == pytest.approx(b, abs=0.1)


def test_ridges_below_rounding_are_the_limit_of_ridge_zero():
  """Of a kernel of low rank, and of one that is singular to rounding, alone and in a sweep."""
  draw = np.random.default_rng(0).normal
  x, new = draw(size=(60, 5)), draw(size=(20, 5))
  y = x @ draw(size=5) + 0.1 * draw(size=60)
  least_squares = new @ np.linalg.lstsq(x, y, rcond=None)[0]
  tiny = [0.0, 1e-30, 1e-20, 1e-16, 1e-14]
  for prediction in krr_fit_predict(x @ x.T, new @ x.T, y, tiny):
    np.testing.assert_allclose(prediction, least_squares, atol=1e-10)
  for side in ("samples", "features"):
    for prediction in rf_fit_predict(x, new, y, tiny, side=side):
      np.testing.assert_allclose(prediction, least_squares, atol=1e-10)
  smooth = feature_kernel(x, x, "fourier", length=30.0), feature_kernel(new, x, "fourier", length=30.0)
  zero, *others = krr_fit_predict(*smooth, y, tiny)
  for prediction in others:
    np.testing.assert_allclose(prediction, zero, atol=1e-2)


@pytest.mark.parametrize("change, words", [
  ({"ridges": -0.1}, "ridges are -0.1"), ({"ridges": [0.1, np.nan]}, "ridges are"),
  ({"ridges": np.ones((2, 1))}, "ridges has shape"), ({"y": np.ones(3)}, "have shapes"),
  ({"k_test": np.ones((3, 2))}, "have shapes"), ({"k_train": np.ones((4, 3))}, "have shapes"),
  ({"k_train": np.zeros((0, 0)), "y": np.zeros(0)}, "n of at least 1"),
  ({"k_train": np.diag([1.0, 1.0, 1.0, -0.5])}, "not positive semi-definite"),
  ({"k_train": np.diag([1.0, 1.0, 1.0, -0.5]), "ridges": 0.1}, "not positive definite"),
  ({"k_train": np.diag([1.0, 1.0, 1.0, -0.5]), "ridges": 2.0}, "not positive semi-definite"),
  ({"jitter": -1.0}, "jitter is -1.0"), ({"jitter": np.nan}, "jitter is nan"),
  ({"k_train": np.triu(np.ones((4, 4)))}, "not symmetric"), ({"y": np.array([1, 2, 3, np.inf])}, "y holds nan"),
  ({"k_train": np.eye(4, dtype=np.float32)}, "k_train is float32"), ({"y": np.ones(4, np.float32)}, "y is float32"),
])
def test_bad_input_is_one_sentence(change, words):
  arguments = {"k_train": np.eye(4), "k_test": np.ones((3, 4)), "y": np.ones(4), "ridges": [0.1, 1.0]}
  assert krr_fit_predict(**arguments).shape == (2, 3)
  with pytest.raises(UserError, match=words):
    krr_fit_predict(**arguments | change)


@pytest.mark.parametrize("call, words", [
  (lambda key: rf_fit_predict(np.ones((4, 0)), np.ones((3, 0)), np.ones(4), 0.1), "k of at least 1"),
  (lambda key: rf_fit_predict(np.ones((4, 2)), np.ones((3, 3)), np.ones(4), 0.1), "have shapes"),
  (lambda key: rf_fit_predict(np.ones((4, 2)), np.ones((3, 2)), np.ones(4), -1.0), "ridges are"),
  (lambda key: rf_fit_predict(np.ones((4, 2)), np.ones((3, 2)), np.ones(4), 1.0, side="both"), "side is 'both'"),
  (lambda key: random_features(key, X, 0), "num_features is 0"),
  (lambda key: random_features(key, X, 2.5), "num_features is 2.5"),
  (lambda key: random_features(key, X[:, :0], 3), "x has shape"),
  (lambda key: feature_kernel(X, X[:, :1]), "the same space"),
  (lambda key: learning_curve(np.eye(4), np.ones((0, 4)), np.ones(4), np.ones(0), [2, 4]), "k_test has 0 rows"),
  (lambda key: learning_curve(np.eye(4), np.ones((3, 4)), np.ones(4), np.ones(3), [2, 4], [0.1, 1.0]), "one ridge"),
  (lambda key: random_features(key, X.astype(np.float32), 3), "x is float32"),
  (lambda key: random_features(key, X[0], 3), "x has shape"),
  (lambda key: random_features(key, X, 3, "tanh"), "kind of features is 'tanh'"),
  (lambda key: feature_kernel(X, X, "fourier", length=0.0), "length is 0"),
  (lambda key: learning_curve(np.eye(4), np.ones((3, 4)), np.ones(4), np.ones(3), [2, 5]), "sizes are"),
  (lambda key: learning_curve(np.eye(4), np.ones((3, 4)), np.ones(4), np.ones(2), [2, 4]), "have shapes"),
  (lambda key: learning_curve(np.ones((4, 4)), np.ones((3, 4)), np.ones(4), np.ones(3), [2, 4]), "larger ridge"),
])
def test_bad_features_and_sizes_are_one_sentence(call, words, key):
  with pytest.raises(UserError, match=words):
    call(key)


def test_without_64_bits_it_refuses(key):
  with jax.enable_x64(False):
    calls = (
      lambda: krr_fit_predict(np.eye(4), np.eye(4), np.ones(4), 0.1),
      lambda: rf_fit_predict(np.eye(4), np.eye(4), np.ones(4), 0.1),
      lambda: random_features(key, jnp.ones((2, 2)), 3),
      lambda: learning_curve(np.eye(4), np.eye(4), np.ones(4), np.ones(4), [2]),
    )
    for call in calls:
      with pytest.raises(UserError, match=r"with jax.enable_x64\(True\)"):
        call()
