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

from nurture import reporting, terminal
from nurture.core import UserError

_METRIC = flags.DEFINE_multi_string(
  "metric", ["test/accuracy"], "Metric to analyse; may be given several times.", **terminal.SHARED,
)
_OUT = flags.DEFINE_string(
  "out", None, "Directory for interactions.md and plots/. Default: the run's own.", **terminal.SHARED,
)


def main(argv: Sequence[str]) -> None:
  if len(argv) != 2:
    raise UserError("give one run directory: python -m experiments.interactions DIR.")
  directory = pathlib.Path(argv[1])
  members = reporting.read_results(directory)["members"]
  out, text, panels = pathlib.Path(_OUT.value or directory), [], []
  for metric in _METRIC.value:
    axes, values = reporting.responses(members, metric)
    estimated = reporting.effects(values)
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
