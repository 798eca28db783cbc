"""The parts of `random_features` as numbers, tables and panels, with published values beside ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.studies import kernel_tasks
from nurture import reporting
from nurture.core import UserError
from nurture.ntk.eigenframework import fit_powerlaw, fitting_error, krr_predict, noise_threshold, optimal_fitting_ratio
from nurture.ntk.regression import learning_curve

NOISES = (0.0, 1.0, 5.0, 50.0)  # relative, s² = σ² / test error without noise and ridge
LARGE = 1e6  # samples that are as good as infinitely many
SMALL = 256  # samples of simulated regressions


class Task(NamedTuple):
  """What is published for a data set under the CNTK of Myrtle-10.

  Attributes:
    a, b: exponents.
    best: s² -> (test error, R = train / test) at the best of 50 ridges; mean of 5 trials at up to 30,000 samples.
  """

  a: float
  b: float
  best: Mapping[float, tuple[float, float]]


PUBLISHED_TASKS = {
  "CIFAR-10": Task(1.17, 1.14, {0: (0.4781, 0.030), 1: (0.6680, 0.176), 5: (0.8807, 0.718), 50: (0.9892, 0.968)}),
  "SVHN": Task(1.22, 1.20, {0: (0.3983, 0.053), 1: (0.6061, 0.230), 5: (0.8560, 0.652), 50: (0.9897, 0.954)}),
  "MNIST": Task(1.12, 1.36, {0: (0.0386, 0.001), 1: (0.0765, 0.001), 5: (0.2055, 0.159), 50: (0.7015, 0.796)}),
}
# Ridgeless test error by number of samples, the same kernel.
PUBLISHED_CURVES = {
  "cifar10": {10: 1.358, 94: 1.020, 985: 0.771, 4694: 0.626, 10244: 0.563},
  "mnist": {10: 0.882, 94: 0.347, 985: 0.133, 4694: 0.0743, 10244: 0.0582},
}


class Part(NamedTuple):
  """What a part of the study prints, draws and keeps."""

  text: str
  panels: Sequence[reporting.Panel]
  numbers: Mapping[str, Any]
  theory: str = "theory"  # what dashed lines are
  of: str = "draws"  # what members are


def rf_part(
  title: str, n: int, sizes: np.ndarray, ridges: np.ndarray, measured: kernel_tasks.Errors, theory: np.ndarray,
  published: Mapping[tuple[int, int], str],
) -> Part:
  """Returns the part of a sweep over features and ridges.

  Args:
    measured: [trials, sizes, ridges].
    theory: [sizes, ridges], test error.
    published: (k, 0 or 1 for the small or the large ridge) -> the official experiment (theory).
  """
  mean = measured.test.mean(axis=0)
  sem = measured.test.std(axis=0, ddof=1) / np.sqrt(len(measured.test))
  deviation = np.abs(mean / theory - 1)
  columns = [int(np.abs(np.log(ridges / ridge)).argmin()) for ridge in (10 ** (-7 / 3), 10 ** (1 / 3))]
  rows = []
  for k, which in published:
    row, column = int(np.abs(np.log(sizes / k)).argmin()), columns[which]
    ours = reporting.format_mean_sem(mean[row, column], sem[row, column], len(measured.test))
    rows.append([f"{ridges[column]:.3g}", sizes[row], ours, f"{theory[row, column]:.4g}", published[k, which]])
  tuned = mean.argmin(axis=1)
  best, best_theory = np.take_along_axis(mean, tuned[:, None], axis=1)[:, 0], theory.min(axis=1)
  peak = int(sizes[mean[:, columns[0]].argmax()])
  worst = np.unravel_index(deviation.argmax(), deviation.shape)
  lines = [
    reporting.markdown_table(["ridge", "k", "test error", "theory", "official (theory)"], rows), "",
    f"measured / theory - 1 over {mean.size} points: largest {deviation.max():.3f} (k = {sizes[worst[0]]}, ridge "
    f"{ridges[worst[1]]:.3g}, standard error {sem[worst] / theory[worst]:.3f}), median {np.median(deviation):.4f}",
    f"within 3 standard errors: {np.mean(np.abs(mean - theory) < 3 * sem):.1%} of the points",
    f"ridge {ridges[columns[0]]:.3g}: the test error peaks at k = {peak} (n = {n})",
    f"best ridge for each k: the largest rise from one k to the next is {_largest_rise(best):.2%} measured, "
    f"{_largest_rise(best_theory):.2%} in theory",
  ]
  labels = [f"ridge {ridges[column]:.3g}" for column in columns]
  over_k = {label: (sizes, measured.test[:, :, column]) for label, column in zip(labels, columns)}
  over_k["best ridge"] = sizes, np.take_along_axis(measured.test, tuned[None, :, None], axis=2)[..., 0]
  k_theory = {label: (sizes, theory[:, column]) for label, column in zip(labels, columns)}
  k_theory["best ridge"] = sizes, best_theory
  shown = sorted({int(np.abs(np.log(sizes / k)).argmin()) for k in (n / 4, n, 4 * n, sizes[-1])})
  panels = [
    reporting.Panel(title, "test error", over_k, theory=k_theory, xlabel="features k", log_x=True,
                    log_y=True),
    reporting.Panel(
      f"The same over the ridge (n = {n})", "test error",
      {f"k = {sizes[row]}": (ridges, measured.test[:, row]) for row in shown},
      theory={f"k = {sizes[row]}": (ridges, theory[row]) for row in shown}, xlabel="ridge", log_x=True, log_y=True),
  ]
  numbers = {
    "sizes": sizes, "ridges": ridges, "test": mean, "test_sem": sem, "train": measured.train.mean(axis=0),
    "theory": theory, "trials": len(measured.test), "largest_deviation": deviation.max(),
    "median_deviation": np.median(deviation), "peak": peak,
  }
  return Part("\n".join(lines), panels, numbers)


def _largest_rise(values: np.ndarray) -> float:
  return float(max(0.0, np.max(values[1:] / values[:-1] - 1)))


def large_task_sweep(a: float, b: float, noise: float, points: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns (R, test error) over ridges from 0 on, of a power-law task with 10^6 samples and relative noise s²."""
  lam, v2, counts = kernel_tasks.powerlaw_levels(a, b)
  ridgeless = krr_predict(lam, v2, LARGE, 0.0, 0.0, multiplicity=counts)
  ridges = np.concatenate([[0.0], LARGE * float(ridgeless.kappa) * np.geomspace(1e-4, 1e3, points)])
  sweep = krr_predict(lam, v2, LARGE, ridges, noise * float(ridgeless.test), multiplicity=counts)
  return np.asarray(sweep.train / sweep.test), np.asarray(sweep.test)


def fitting_part(
  tasks: Mapping[str, Task], modes: int, trials: int, points: int, seed: int, samples: int = SMALL
) -> Part:
  """Returns R at the best ridge by formula, in the eigenframework at 10^6 samples, and simulated at few samples."""
  index, rows, panels, numbers = np.arange(1, modes + 1, dtype=np.float64), [], [], {}
  trials = min(trials, 5)  # each with its labels drawn 8 times
  for name, (a, b, best) in tasks.items():
    series, curves = {}, {}
    lam, v2 = index**-a, index**-b
    base = krr_predict(lam, v2, samples, 0.0, 0.0)
    ridges = np.concatenate([[0.0], samples * float(base.kappa) * np.geomspace(1e-2, 1e2, points)])
    for noise in NOISES:
      ratio, test = large_task_sweep(a, b, noise, 8 * points)
      variance = noise * float(base.test)
      keys = [jax.random.fold_in(jax.random.key(seed), trial) for trial in range(trials)]
      drawn = [kernel_tasks.gaussian_trial(key, lam, v2, samples, (), ridges, variance) for key in keys]
      errors = kernel_tasks.Errors(*(np.concatenate(part).mean(axis=0) for part in zip(*drawn)))
      predicted = krr_predict(lam, v2, samples, ridges, variance)
      found = [errors.train[errors.test.argmin()] / errors.test.min(),
               float((predicted.train / predicted.test)[predicted.test.argmin()])]
      formula = optimal_fitting_ratio(a, b, noise)
      deviation = np.max(np.abs(errors.test / predicted.test - 1))
      rows.append([name, f"{noise:g}", f"{noise_threshold(a, b):.2f}", f"{formula:.3f}", f"{ratio[test.argmin()]:.3f}",
                   f"{found[1]:.3f}", f"{found[0]:.3f}", f"{best[noise][1]:.3f}", f"{best[noise][0]:.4f}"])
      numbers[f"{name}, {noise:g}"] = {
        "formula": formula, "eigenframework_large": ratio[test.argmin()], "eigenframework_small": found[1],
        "simulated": found[0], "largest_deviation": deviation, "published": best[noise]}
      shown = ratio < 0.9
      label = f"s² = {noise:g}"
      series[label] = ratio[shown], test[shown] / test[0]
      curves[label] = ratio[shown], fitting_error(ratio[shown], a, b, noise) / fitting_error(0.0, a, b, noise)
    panels.append(reporting.Panel(f"{name}: a = {a}, b = {b}", "test error / interpolating", series, theory=curves,
                                  xlabel="fitting ratio R = train / test error"))
  header = ["task", "s²", "threshold", "R*", "n = 10⁶", f"n = {samples}, M = {modes}", "simulated", "official R",
            "official test"]
  worst = max(entry["largest_deviation"] for entry in numbers.values())
  text = (f"{reporting.markdown_table(header, rows)}\n\nsimulated / theory - 1 of the test error at n = {samples}: "
          f"largest {worst:.3f} ({trials} trials)")
  return Part(text, panels, numbers, theory="formula")


def image_part(
  name: str, kernel: np.ndarray, y: np.ndarray, train: int, points: int, seed: int, published: Mapping[int, float],
  trials: int = 3,
) -> Part:
  """Returns exponents, learning curve and best ridges of any kernel matrix.

  Args:
    kernel: [N, N] of all examples; the block between test examples is not read.
    y: [N, C].
    train: examples to train on, the first ones.
    published: number of samples -> the official CNTK's ridgeless test error.
  """
  sizes = np.array(sorted({*kernel_tasks.feature_counts(train, 14).tolist(), *(n for n in published if n <= train)}))
  curve = learning_curve(kernel[:train, :train], kernel[train:, :train], y[:train], y[train:], sizes)
  kappa, low = 1 / curve.inverse_trace, train / 10
  a, excess = fit_powerlaw(sizes, kappa, low=low), fit_powerlaw(sizes, curve.test, low=low)
  b = 1 + excess.exponent
  scale, base = np.trace(kernel[:train, :train]) / train, curve.test[-1]
  ridges = np.concatenate([[0.0], scale * np.geomspace(1e-4, 1e4, points)])
  sweeps = kernel_tasks.noisy_sweep(kernel, y, train, [noise * base for noise in NOISES], ridges, trials, seed)
  try:
    formulas = [optimal_fitting_ratio(a.exponent, b, noise) for noise in NOISES]
    threshold = noise_threshold(a.exponent, b)
  except UserError:  # exponents that the theory does not cover
    formulas, threshold = [None] * len(NOISES), None
  rows, series, numbers = [], {}, {}
  for noise, formula, sweep in zip(NOISES, formulas, sweeps.values()):
    test, ratio = sweep.test.mean(axis=0), sweep.train.mean(axis=0) / sweep.test.mean(axis=0)
    best = int(test.argmin())
    sem = sweep.test[:, best].std(ddof=1) / np.sqrt(trials) if noise else 0.0
    clean = reporting.format_mean_sem(test[best] - noise * base, sem, trials)
    rows.append([f"{noise:g}", f"{ridges[best] / scale:.2g}", clean, f"{test[0] - noise * base:.4g}",
                 f"{ratio[best]:.3f}", reporting.tables.MISSING if formula is None else f"{formula:.3f}"])
    series[f"s² = {noise:g}"] = ridges[1:] / scale, test[1:] / test[0]
    numbers[f"{noise:g}"] = {"best_ridge": ridges[best], "test": test, "ratio": ratio, "formula": formula}
  lines = [
    f"a = {a.exponent:.3f} ± {a.sem:.3f} from Tr K⁻¹, b = {b:.3f} ± {excess.sem:.3f} from the ridgeless test error, "
    f"n = {low:.0f} to {train}; "
    + ("the theory does not cover these" if threshold is None else f"noise threshold {threshold:.2f}"),
    "", reporting.markdown_table(["n", "test error", "official CNTK"], [
      [n, f"{error:.4g}", published.get(int(n), reporting.tables.MISSING)] for n, error in zip(sizes, curve.test)]),
    "", reporting.markdown_table(
      ["s²", "best ridge / mean K(x, x)", "test error - σ²", "without ridge", "R there", "R* by formula"], rows),
  ]
  panels = [
    reporting.Panel("Without a ridge", "test error, 1 / Tr K⁻¹ (scaled)", {
      "test error": (sizes, curve.test), "1 / Tr K⁻¹": (sizes, kappa * curve.test[0] / kappa[0])}, theory={
      "test error": (sizes, excess(sizes)), "1 / Tr K⁻¹": (sizes, a(sizes) * curve.test[0] / kappa[0])},
      xlabel="samples n", log_x=True, log_y=True),
    reporting.Panel(f"Noisy labels, n = {train}", "test error / interpolating", series,
                    xlabel="ridge / mean K(x, x)", log_x=True, log_y=True),
  ]
  numbers = {"a": a.exponent, "a_sem": a.sem, "b": b, "b_sem": excess.sem, "threshold": threshold, "sizes": sizes,
             "test": curve.test, "kappa": kappa, "ridges": ridges, "noises": numbers, "kernel": name}
  return Part("\n".join(lines), panels, numbers, theory="fitted power law")
