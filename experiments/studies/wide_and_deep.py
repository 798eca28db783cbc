"""Infinitely wide networks of growing depth as classifiers: three limits, one of which is Bayes-consistent.

  python -m experiments.studies.wide_and_deep --workdir=runs/wide_and_deep

With growing depth a wide fully connected network becomes a nearest-neighbour classifier, a majority vote, or a singular
kernel smoother |x - x'|^-alpha, and the activation alone decides which (Radhakrishnan, Belkin & Uhler 2022,
arXiv:2204.14126). Where alpha is the dimension of the data the limit is Bayes-consistent; for every dimension there is
an activation of three terms that gives it.

Data as in the official code: two Dirichlet distributions with priors 0.4 and 0.6, projected on the unit sphere of R^d
(of dimension d - 1), drawn again while two points coincide. Lines are Bayes (the densities are known), 1-NN, the
Hilbert estimate of dimension d - 1, and the majority class. The kernel predicts as a smoother, sign(sum_j K_j y_j),
from logarithms. Beside it stands, for the optimal NNGP of 30 to 100 layers, kernel regression with a jitter of 1e-8 of
the diagonal: with fewer layers it tells of rounding only, with more it is the smoother.

Takes 21 s on 2 CPU cores. With 10^6 layers the optimal NNGP gives .735, .932, .887, .879 for d = 2, 3, 5, 9 (standard
errors .003 to .007), the Hilbert estimate .735, .932, .887, .880, 1-NN .685, .917, .852, .857 and the majority .603,
.593, .605, .593; pure h2 equals 1-NN and ReLU the majority in every draw. The NTK needs L >> n^(2/D) layers: at 100 it
gives .693, .923, .874, .874, at 10^6 .711, .932, .887, .879. At this n shallow kernels are often better than the limits
(.758 for the optimal NNGP of 3 layers at d = 2, where Bayes has .759): the theorem is about n to infinity.

Kernels depend on a pair of points by its cosine alone: each is computed for 8,192 cosines, equally spaced in
log(-log c), and interpolated linearly, which keeps the order of points.

Differs from the official code: NNGP *and* NTK (there all activations but ReLU run as NNGP, though the paper is about
the NTK), logarithms instead of plain float64, the smoother beside regression, n = 1,000 instead of 10,000, and standard
errors over seeds. "sine" is the official sin(sqrt(a) u) of each set: a = 1, 2.676, 6.13539, 13.8258.
"""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from nurture import reporting, terminal
from nurture.core import UserError
from nurture.ntk import predictors
from nurture.ntk.deep import log_kernel_of_cosines
from nurture.ntk.dual import Dual, classify, erf, hermite, optimal_hermite, relu, sine, singularity_exponent
from nurture.ntk.sphere import log_cosines
from nurture.reporting.style import DASHES, SUPERSCRIPTS, add_axes, add_legend, figure_of, name_axes, save, tick_levels

_WORKDIR = flags.DEFINE_string(
  "workdir", None, "Directory for results.json, manifest.json and the plot.", **terminal.SHARED,
)
_N = flags.DEFINE_integer("n", 1000, "Training points, and as many test points.", lower_bound=2, **terminal.SHARED)
_SEEDS = flags.DEFINE_integer("seeds", 5, "Draws of the data.", lower_bound=1, **terminal.SHARED)
_DEPTHS = flags.DEFINE_list("depths", ["1", "3", "10", "30", "100", "1000", "1000000"], "Numbers of hidden layers.")
_DIMENSIONS = flags.DEFINE_list("dimensions", ["2", "3", "5", "9"], "Data sets, by the d of R^d; some of 2, 3, 5, 9.")
flags.mark_flag_as_required("workdir")

DIRICHLET = {
  2: ([1, 2], [2, 1]),
  3: ([0.5, 0.5, 2.5], [2.5, 0.1, 0.5]),
  5: ([3, 1, 2, 1, 1], [1, 2, 2, 2, 3]),
  9: ([1, 2, 1, 2, 1, 1, 1, 1, 1], [1, 1, 1, 2, 3, 4, 2, 2, 1]),
}
PRIOR = (0.4, 0.6)
SINES = {2: 1.0, 3: 2.676, 5: 6.13539, 9: 13.8258}
KINDS = ("nngp", "ntk")
BASELINES = ("Bayes", "Hilbert", "1-NN", "majority")
CELLS = 8192  # of the table over cosines
TICKS = (0.05, 0.06, 0.08, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)
JITTER = 1e-8
SOLVED = range(30, 101)  # depths of kernel regression


class Data(NamedTuple):
  """One draw of training and test points, and what Bayes' rule says of the latter."""

  x_train: np.ndarray  # [n, d], on the unit sphere
  y_train: np.ndarray  # [n] -1 or 1
  x_test: np.ndarray
  y_test: np.ndarray
  bayes: np.ndarray


def activations(d: int) -> dict[str, Dual]:
  """Returns the activations compared on the sphere of R^d."""
  h2 = hermite((-math.inf, -math.inf, 0.0))
  return {"optimal": optimal_hermite(d - 1), "pure h2": h2, "ReLU": relu(), "erf": erf(), "sine": sine(SINES[d])}


def draw(d: int, n: int, seed: int) -> Data:
  """Draws n training and n test points of the set of R^d."""
  rng = np.random.default_rng([seed, d])
  alphas = np.array(DIRICHLET[d], float)
  while True:
    label = rng.choice(2, size=2 * n, p=PRIOR)
    gammas = np.maximum(rng.gamma(alphas[label]), 1e-300)
    shares = gammas / gammas.sum(axis=1, keepdims=True)
    x = shares / np.linalg.norm(shares, axis=1, keepdims=True)
    if len(np.unique(x, axis=0)) == 2 * n and len(set(label[:n])) == 2:
      break
  constants = [math.lgamma(a.sum()) - sum(map(math.lgamma, a)) for a in alphas]
  log_density = np.log(np.maximum(shares, 1e-300)) @ (alphas - 1).T + constants
  best = np.argmax(log_density + np.log(PRIOR), axis=1)
  y, best = 2 * label - 1, 2 * best - 1
  return Data(x[:n], y[:n], x[n:], y[n:], best[n:])


class Grid(NamedTuple):
  """Cosines for the table: log(-log c) = start + step * i, for i < CELLS."""

  start: float
  step: float

  def points(self) -> np.ndarray:
    """Returns the logarithms of the cosines, [CELLS]."""
    return -np.exp(self.start + self.step * np.arange(CELLS))

  def place(self, log_c: np.ndarray) -> np.ndarray:
    """Returns where in the table the cosines lie, in cells."""
    return np.clip((np.log(-log_c) - self.start) / self.step, 0, CELLS - 1 - 1e-9)


def grid_of(log_c: Sequence[np.ndarray]) -> Grid:
  """Returns the grid that reaches over all these logarithms of cosines."""
  ends = np.log([-max(values[values < 0].max() for values in log_c), -min(values.min() for values in log_c)])
  return Grid(float(ends[0]), float(ends[1] - ends[0]) / (CELLS - 1))


@jax.jit
def interpolate(table: jax.Array, place: jax.Array) -> jax.Array:
  """Returns log K at the places [...] in a table [CELLS]."""
  cell = place.astype(jnp.int32)
  share = place - cell
  return table[cell] * (1 - share) + table[cell + 1] * share


def compare(d: int, n: int, depths: Sequence[int], seeds: int) -> dict[str, Any]:
  """Returns the test accuracies on the set of R^d, as lists over seeds:

    {"baselines": {name: [seeds]}, "smoother" and "regression": {kind: {activation: {depth: [seeds]}}}}.
  """
  draws = [draw(d, n, seed) for seed in range(seeds)]
  accuracy = lambda predicted, data: float(np.mean(predicted == data.y_test))
  baselines: dict[str, list[float]] = {name: [] for name in BASELINES}
  methods = {method: {kind: {} for kind in KINDS} for method in ("smoother", "regression")}
  with jax.enable_x64(True):
    for data in draws:
      predicted = (
        data.bayes, predictors.hilbert_predict(data.x_train, data.y_train, data.x_test, d - 1),
        predictors.one_nn_predict(data.x_train, data.y_train, data.x_test),
        predictors.majority_predict(data.y_train, n),
      )
      for name, labels in zip(BASELINES, predicted):
        baselines[name].append(accuracy(labels, data))
    cosines = jax.jit(lambda a, b: log_cosines(a, b).log)
    test = [np.asarray(cosines(data.x_test, data.x_train)) for data in draws]
    train = [np.array(cosines(data.x_train, data.x_train)) for data in draws]
    for values in train:
      np.fill_diagonal(values, -1.0)  # not read
    grid = grid_of(test + train)
    test, train = ([jnp.asarray(grid.place(values)) for values in part] for part in (test, train))
    for kind in KINDS:
      for name, dual in activations(d).items():
        for depth in depths:
          table, log_diagonal = log_kernel_of_cosines(grid.points(), dual, depth, kind)
          smoothed, solved = [], []
          for data, to_train, among in zip(draws, test, train):
            log_k = interpolate(table, to_train)
            smoothed.append(accuracy(predictors.smoother_predict(log_k, data.y_train), data))
            if (name, kind) == ("optimal", "nngp") and depth in SOLVED:
              labels = predictors.ridgeless_predict(
                log_k, interpolate(table, among), log_diagonal, data.y_train, jitter=JITTER)
              solved.append(accuracy(labels, data))
          methods["smoother"][kind].setdefault(name, {})[depth] = smoothed
          if solved:
            methods["regression"][kind].setdefault(name, {})[depth] = solved
  return {"baselines": baselines, **methods}


def rows(d: int, measured: Mapping[str, Any], depths: Sequence[int]) -> list[list[str]]:
  """Returns the lines of the table for one set: accuracy, mean ± standard error, at each depth."""
  lines = []
  for method in ("smoother", "regression"):
    for kind in KINDS:
      for name, by_depth in measured[method][kind].items():
        dual = activations(d)[name]
        limit = classify(dual)
        limit = f"alpha {singularity_exponent(dual):.4g}" if limit == "singular" else limit
        label = f"{name}, {kind.upper()}" + (", regression" if method == "regression" else "")
        lines.append([f"R^{d}", label, limit, *(_cell(by_depth.get(depth, [])) for depth in depths)])
  return lines


def _cell(values: Sequence[float]) -> str:
  summary = reporting.summarize(values)
  return reporting.format_mean_sem(summary["mean"], summary["sem"], summary["n"])


def plot(path: pathlib.Path, results: Mapping[int, Mapping[str, Any]], depths: Sequence[int]) -> pathlib.Path:
  """Draws the test error over depth, a column for each set, NNGP above NTK; black lines are the baselines."""
  figure, handles = figure_of(3.0 * len(results) + 0.6, 5.8), {}
  styles = reporting.palette([name for of in results.values() for name in of["smoother"][KINDS[0]]])
  draws = max(len(of["baselines"]["Bayes"]) for of in results.values())
  for column, (d, measured) in enumerate(results.items()):
    lowest, highest = (1 - np.mean(measured["baselines"][name]) for name in ("Bayes", "majority"))
    for row, kind in enumerate(KINDS):
      axis = add_axes(figure, 2, len(results), row * len(results) + column + 1)
      for name, by_depth in measured["smoother"][kind].items():
        errors = 1 - np.array([by_depth[depth] for depth in depths])
        sem = errors.std(axis=1, ddof=1) / math.sqrt(draws) if draws > 1 else None
        handles[name] = axis.errorbar(
          depths, errors.mean(axis=1), sem, color=styles[name].color, marker="o", markersize=3.5, capsize=2,
          linewidth=1.4,
        )
      for (name, values), dashes in zip(measured["baselines"].items(), DASHES):
        handles[name] = axis.axhline(1 - np.mean(values), color="black", linewidth=1.1, linestyle=dashes, zorder=5)
      axis.set(xscale="log", yscale="log", yticks=TICKS, ylim=(0.9 * lowest, max(1.15 * highest, 1.2 * lowest)))
      axis.yaxis.set_major_formatter("{x:g}")
      axis.yaxis.set_minor_formatter("")
      title = f"R{str(d).translate(SUPERSCRIPTS)}, {kind.upper()}"
      name_axes(axis, title, "hidden layers" if row else "", "" if column else "test error")
      tick_levels(axis, depths)
  note = f"points and bars: mean ± standard error of n = {draws} draws; black: baselines, their mean"
  add_legend(figure, handles, note if draws > 1 else "")
  return save(figure, path)


def main(argv: Sequence[str]) -> None:
  del argv
  dimensions, depths = chosen(_DIMENSIONS.value, _DEPTHS.value)
  settings = {"n": _N.value, "seeds": _SEEDS.value, "depths": depths, "dimensions": dimensions}
  terminal.enable_compilation_cache()
  results: dict[int, Any] = {}
  with reporting.study(_WORKDIR.value, settings, range(_SEEDS.value)) as study:
    with reporting.Progress(len(dimensions), "data sets") as progress:
      for d in dimensions:
        results[d] = compare(d, _N.value, depths, _SEEDS.value)
        study.done += 1
        progress.update(study.done)
    table = [line for d in dimensions for line in rows(d, results[d], depths)]
    lines = [[f"R^{d}", d - 1, *map(_cell, results[d]["baselines"].values())] for d in dimensions]
    print(reporting.markdown_table(["set", "D", *BASELINES], lines) + "\n")
    print(reporting.markdown_table(["set", "kernel", "limit", *(f"L = {depth:,}" for depth in depths)], table))
    path = plot(study.picture("wide_and_deep"), results, depths)
    written = study.write({"accuracy": {f"R^{d}": value for d, value in results.items()}})
  print(f"\n{path}\n{study.seconds:.0f} s; {written} holds all numbers.")


def chosen(dimensions: Sequence[str], depths: Sequence[str]) -> tuple[list[int], list[int]]:
  """Returns the sets and the depths, ascending, that the flags name.

  Raises:
    UserError: if one is no whole number, a set does not exist, or a depth is below 1.
  """
  numbers = {}
  for name, words in (("dimensions", dimensions), ("depths", depths)):
    if not words or not all(word.strip().isdecimal() for word in words):
      raise UserError(f"--{name}={','.join(words)} is not possible; give whole numbers with commas between them.")
    numbers[name] = sorted({int(word) for word in words})
  if unknown := [d for d in numbers["dimensions"] if d not in DIRICHLET]:
    raise UserError(f"--dimensions has {unknown[0]}, but there are sets in R^2, R^3, R^5 and R^9; give some of these.")
  if numbers["depths"][0] < 1:
    raise UserError("--depths has 0; a network has at least 1 hidden layer.")
  return numbers["dimensions"], numbers["depths"]


if __name__ == "__main__":
  terminal.run(main)
