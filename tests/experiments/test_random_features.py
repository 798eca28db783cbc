"""The study of random features: its tasks against plain computations and theory, its tables, and the binary."""

import subprocess
import sys

import jax
import numpy as np
import pytest

from experiments.studies import kernel_tasks
from experiments.studies.random_features_tables import PUBLISHED_TASKS, image_part, large_task_sweep, rf_part
from nurture.ntk.eigenframework import krr_predict, optimal_fitting_ratio, rf_predict
from nurture.ntk.regression import feature_kernel, krr_fit_predict, rf_fit_predict
from nurture.reporting import read_json

RNG = np.random.default_rng(0)
RIDGES = np.array([0.01, 1.0])


@pytest.fixture(autouse=True)
def float64():
  with jax.enable_x64(True):
    yield


def test_growing_features_are_the_first_of_all():
  psi, phi = RNG.normal(size=(7, 12)), RNG.normal(size=(5, 12))
  draw = lambda index: (psi[:, 4 * index : 4 * index + 4], phi[:, 4 * index : 4 * index + 4])
  kernels = list(kernel_tasks.kernels_of_growing_features(draw, [1, 3, 4, 5, 11], block=4))
  assert [k for k, *_ in kernels] == [1, 3, 4, 5, 11]
  for k, across, within in kernels:
    np.testing.assert_allclose(across, psi[:, :k] @ phi[:, :k].T / k)
    np.testing.assert_allclose(within, phi[:, :k] @ phi[:, :k].T / k)


def test_errors_in_the_modes_are_those_of_predictions_at_the_unit_vectors():
  lam, n, k, draws = np.arange(1, 31) ** -1.5, 12, 9, 3
  root, psi, w = np.sqrt(lam), RNG.normal(size=(n, 30)), RNG.normal(size=(30, k))
  v, y = RNG.normal(size=(30, draws)), RNG.normal(size=(n, draws))
  phi = (psi * root) @ w
  test, train = kernel_tasks._mode_errors(root[:, None] * w @ phi.T / k, phi @ phi.T / k, y, v, RIDGES)
  learned = np.asarray(rf_fit_predict(phi, root[:, None] * w, y, RIDGES))
  fitted = np.asarray(rf_fit_predict(phi, phi, y, RIDGES))
  np.testing.assert_allclose(test, np.mean(np.sum((learned - v) ** 2, axis=1), axis=1))
  np.testing.assert_allclose(train, np.mean((fitted - y) ** 2, axis=(1, 2)))


def test_gaussian_features_and_inputs_behave_as_the_eigenframework_says():
  lam, n, noise, sizes = np.arange(1, 401) ** -1.5, 48, 0.5, [12, 200]
  keys = jax.random.split(jax.random.key(0), 12)
  for chosen in (sizes, []):
    trials = [kernel_tasks.gaussian_trial(key, lam, lam, n, chosen, RIDGES, noise, block=100) for key in keys]
    theory = rf_predict(lam, lam, n, np.array(chosen)[:, None], RIDGES[None], noise) if chosen else \
      krr_predict(lam, lam, n, RIDGES[None], noise)
    for name in ("test", "train"):
      values = np.array([getattr(trial, name) for trial in trials])
      sem = values.std(axis=0, ddof=1) / np.sqrt(len(keys))
      assert np.all(np.abs(values.mean(axis=0) - getattr(theory, name)) < 3.5 * sem)
      assert np.all(sem < 0.08 * values.mean(axis=0))


def test_a_pool_of_images_is_split_into_training_and_test():
  images = RNG.normal(size=(60, 4))
  y = np.sign(images[:, 0])
  errors = kernel_tasks.relu_trial(jax.random.key(0), images, y, 40, [5, 3000], np.array([1e-6, 1e4]), block=1000)
  assert errors.test.shape == errors.train.shape == (2, 2)
  np.testing.assert_allclose(errors.test[:, 1], 1, atol=1e-2)  # nothing is learned
  assert errors.train[1, 0] < 1e-3 < 0.05 < errors.train[0, 0]  # only many features interpolate
  assert 0.05 < errors.test[0, 0] < 0.9


def test_levels_sum_to_the_zeta_function():
  lam, v2, counts = kernel_tasks.powerlaw_levels(1.5, 2.0)
  np.testing.assert_allclose([counts @ lam, v2.sum()], [2.6123753486854883, np.pi**2 / 6], rtol=1e-6)


@pytest.mark.parametrize("name, noise", [("CIFAR-10", 1), ("MNIST", 1), ("MNIST", 5)])
def test_large_tasks_want_to_be_fitted_as_the_formula_says(name, noise):
  a, b, _ = PUBLISHED_TASKS[name]
  ratio, test = large_task_sweep(a, b, noise, 60)
  best, formula = test.argmin(), optimal_fitting_ratio(a, b, noise)
  assert ratio[max(best - 1, 0)] <= formula <= ratio[best + 1]
  assert (best == 0) == (formula == 0)


def test_noise_is_drawn_for_all_outputs_and_counts_in_the_test_error():
  x = RNG.normal(size=(40, 3))
  kernel, y = np.asarray(feature_kernel(x, x, "fourier")), RNG.normal(size=(40, 2))
  sweep = kernel_tasks.noisy_sweep(kernel, y, 30, [0.0, 4.0], RIDGES, 200, 0)
  rest = krr_fit_predict(kernel[:30, :30], kernel[30:, :30], y[:30], RIDGES) - y[None, 30:]
  np.testing.assert_allclose(sweep[0.0].test, np.tile(np.mean(np.sum(rest**2, axis=2), axis=1), (200, 1)))
  smoother = kernel[30:, :30] @ np.linalg.inv(kernel[:30, :30] + RIDGES[1] * np.eye(30))
  expected = sweep[0.0].test[0, 1] + 4.0 + 2.0 * np.sum(smoother**2) * 2 / 10  # σ² / 2 an output, 2 outputs
  np.testing.assert_allclose(sweep[4.0].test[:, 1].mean(), expected, rtol=0.05)


def test_tables_name_deviations_and_the_peak():
  sizes, ridges = np.array([10, 100, 250, 1000]), np.logspace(-3, 2, 31)
  theory = np.outer([1.0, 2.0, 4.0, 1.5], np.ones(31)) * np.linspace(2, 1, 31)[None]
  test = theory * np.array([0.99, 1.01])[:, None, None]
  test[:, 2, 0] *= 1.2
  part = rf_part("features", 256, sizes, ridges, kernel_tasks.Errors(test, test), theory, {(251, 0): "2.892 (2.906)"})
  assert part.numbers["largest_deviation"] == pytest.approx(0.2) and part.numbers["peak"] == 250
  assert "largest 0.200 (k = 250, ridge 0.001" in part.text and "2.892 (2.906)" in part.text
  assert "rise from one k to the next is 100.00% measured" in part.text


def test_any_kernel_has_exponents_and_best_ridges():
  x = RNG.normal(size=(90, 6))
  kernel, y = np.array(feature_kernel(x, x, "relu")), np.eye(3)[RNG.integers(3, size=90)]
  kernel[60:, 60:] = 0.0  # is not read
  part = image_part("kernel", kernel, y, 60, 7, 0, {10: 1.358, 985: 0.771})
  assert "1.358" in part.text and "0.771" not in part.text
  assert part.numbers["a"] > 0 and set(part.numbers["noises"]) == {"0", "1", "5", "50"}
  ratios = [entry["ratio"] for entry in part.numbers["noises"].values()]
  assert all(ratio[0] < 1e-6 and ratio[-1] > 0.8 for ratio in ratios)


@pytest.mark.long  # starts two programs
def test_the_binary_writes_a_run_directory(tmp_path):
  command = [sys.executable, "-m", "experiments.studies.random_features", f"--workdir={tmp_path}", "--dataset=digits",
             "--trials=2", "--n=20", "--modes=50", "--max_k=60", "--points=4", "--pool=80"]
  done = subprocess.run([*command, "--part=gaussian,relu"], capture_output=True, text=True, timeout=240)
  assert done.returncode == 0, done.stderr
  assert "measured / theory" in done.stdout and "2.892 (2.906)" in done.stdout
  assert all((tmp_path / "plots" / f"{part}.png").stat().st_size > 10_000 for part in ("gaussian", "relu"))
  assert np.shape(read_json(tmp_path / "results.json")["gaussian"]["test"]) == (4, 4)
  assert read_json(tmp_path / "manifest.json")["history"][-1]["reason"] == "finished"
  done = subprocess.run([*command, "--part=nothing"], capture_output=True, text=True, timeout=120)
  assert done.returncode == 2 and done.stderr.startswith("error: --part=nothing does not exist")
