"""Main effects and interactions of the axes of a factorial study, from a run whose axes all have two levels.

  python -m experiments.interactions DIR [--metric=test/accuracy ...] [--out=DIR]

With k axes, off and on, and z_a = -1 or +1 the level of axis a, the effect of a set S of axes on a metric y is

      E_S = 2^(1-k) sum over the 2^k combinations of y prod_{a in S} z_a

For one axis that is the mean with it less the mean without it; for two, half of what one changes about the effect of
the other. Each seed gives an effect of its own, so effects are paired by seed, and standard errors are over seeds.
Prints all 2^k - 1 effects, largest first, and draws them and the lines of every pair of axes.
"""

import itertools
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags

from experiments import terminal
from lib import reporting
from lib.core import UserError
from lib.core.build import suggest

_METRIC = flags.DEFINE_multi_string("metric", ["test/accuracy"], "Metric to analyse; may be given several times.")
_OUT = flags.DEFINE_string("out", None, "Directory for interactions.md and plots/. Default: the run's own.")


def main(argv: Sequence[str]) -> None:
  if len(argv) != 2:
    raise UserError("give one run directory: python -m experiments.interactions DIR.")
  directory = pathlib.Path(argv[1])
  if not (directory / "results.json").exists():
    raise UserError(f"{directory} is not a finished run (it has no results.json); train it to its end first.")
  members = reporting.read_json(directory / "results.json")["members"]
  out, text, panels = pathlib.Path(_OUT.value or directory), [], []
  for metric in _METRIC.value:
    axes, values = responses(members, metric)
    estimated = effects(values)
    order = sorted(estimated, key=lambda chosen: -abs(float(np.mean(estimated[chosen]))))
    name = lambda chosen, axes=axes: " × ".join(axes[i] for i in chosen)
    rows = []
    for chosen in order:
      summary = reporting.summarize(estimated[chosen])
      ratio = summary["mean"] / summary["sem"] if summary["sem"] else math.nan
      shown = reporting.format_mean_sem(summary["mean"], summary["sem"], summary["n"])
      rows.append([name(chosen), shown, f"{ratio:.1f}" if math.isfinite(ratio) else "–"])
    off, on = (reporting.summarize(values[(level,) * len(axes)]) for level in (0, 1))
    text += [
      f"{metric}, {values.shape[-1]} seeds: {_shown(off)} with all off, {_shown(on)} with all on.", "",
      reporting.markdown_table(["effect of", metric, "times its s.e."], rows), "",
    ]
    shown = {name(chosen): estimated[chosen] for chosen in _by_size(estimated)}
    panels.append(reporting.Intervals(metric, "effect", shown, zero=True))
    file = out / "plots" / f"pairs_{metric.replace('/', '_')}.png"
    lines = reporting.curves(file, pairs(axes, values, metric), columns=3)
    text += [f"![{metric} of every pair of axes](plots/{lines.name})", ""]
  print("\n".join(line for line in text if not line.startswith("![")))
  plot = reporting.intervals(out / "plots" / "effects.png", panels)
  page = ["# Effects", "", *text, "![Effects](plots/effects.png)", ""]
  reporting.replace_file(out / "interactions.md", "\n".join(page))
  print(plot)


def responses(members: Sequence[Mapping[str, Any]], metric: str) -> tuple[list[str], np.ndarray]:
  """Returns the names of the k axes, and the metric as an array [2, ..., 2, seeds].

  Raises:
    UserError: if an axis has other than two levels, a member died, or the metric was not measured.
  """
  axes = list(members[0]["values"])
  levels = {axis: list(dict.fromkeys(member["values"][axis] for member in members)) for axis in axes}
  for axis, found in levels.items():
    if len(found) != 2:
      raise UserError(f"the axis {axis!r} has {len(found)} levels, {', '.join(map(str, found))}; give it two.")
  if len(axes) < 2:
    raise UserError("the run's grid has fewer than two axes, so there are no interactions; see experiments.report.")
  seeds = sorted({member["seed"] for member in members})
  values = np.full((2,) * len(axes) + (len(seeds),), np.nan)
  for member in members:
    if metric not in member["metrics"]:
      raise UserError(f"{metric!r} was not measured; {suggest(metric, member['metrics'])}.")
    if member["died_at"] is None:
      at = tuple(levels[axis].index(member["values"][axis]) for axis in axes)
      values[(*at, seeds.index(member["seed"]))] = member["metrics"][metric]
  whole = np.isfinite(values).reshape(-1, len(seeds)).all(axis=0)
  if not whole.any():
    raise UserError("no seed has all combinations alive, so no effect can be computed; lower the learning rate.")
  return axes, values[..., whole]


def effects(values: np.ndarray) -> dict[tuple[int, ...], np.ndarray]:
  """Returns {axes: effect of each seed [seeds]} for every set of axes of a response [2, ..., 2, seeds]."""
  k = values.ndim - 1
  signs = [np.array([-1.0, 1.0]).reshape([2 if i == j else 1 for j in range(k)] + [1]) for i in range(k)]
  result = {}
  for size in range(1, k + 1):
    for chosen in itertools.combinations(range(k), size):
      contrast = values * math.prod(signs[i] for i in chosen)
      result[chosen] = contrast.sum(axis=tuple(range(k))) / 2 ** (k - 1)
  return result


def pairs(axes: Sequence[str], values: np.ndarray, metric: str) -> list[reporting.Panel]:
  """Returns a panel for every pair of axes: the metric against one of them, a line for each level of the other."""
  panels = []
  for i, j in itertools.combinations(range(len(axes)), 2):
    others = tuple(k for k in range(len(axes)) if k not in (i, j))
    mean = values.mean(axis=others)  # [2, 2, seeds]
    series = {f"{axes[j]} {name}": ([0, 1], mean[:, level].T) for level, name in enumerate(("off", "on"))}
    panels.append(reporting.Panel(f"{axes[i]} × {axes[j]}", metric, series, xlabel=f"{axes[i]} (0 off, 1 on)"))
  return panels


def _by_size(estimated: Mapping[tuple[int, ...], np.ndarray]) -> list[tuple[int, ...]]:
  return sorted(estimated, key=lambda chosen: (len(chosen), -abs(float(np.mean(estimated[chosen])))))


def _shown(summary: Mapping[str, Any]) -> str:
  return reporting.format_mean_sem(summary["mean"], summary["sem"], summary["n"])


if __name__ == "__main__":
  terminal.run(main, takes_arguments=True)
