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
from nurture.reporting.style import DASHES, GRAY, number, shade

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
  measured = {metric: reporting.responses(members, metric) for metric in _METRIC.value}  # before a picture
  for metric, (axes, values) in measured.items():
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
    words, styles = reporting.words_of(metric), reporting.palette(axes)
    panels.append(reporting.Intervals(words.title, f"effect ({words.axis})", shown, zero=True))
    file = out / "plots" / f"pairs_{metric.replace('/', '_')}.png"
    levels = {axis: list(dict.fromkeys(member["values"][axis] for member in members)) for axis in axes}
    shaded = by_level(levels, styles)
    lines = reporting.curves(file, pairs(levels, values, metric), columns=3, styles=shaded, of="seeds")
    text += [f"![{metric} of every pair of axes](plots/{lines.name})", ""]
  print("\n".join(line for line in text if not line.startswith("![")))
  # An axis has its colour in all pictures; a product of axes has none.
  gray = {label: reporting.Style(GRAY) for panel in panels for label in panel.values}
  plot = reporting.intervals(out / "plots" / "effects.png", panels, styles={**gray, **styles}, of="seeds")
  page = ["# Effects", "", *text, "![Effects](plots/effects.png)", ""]
  reporting.replace_file(out / "interactions.md", "\n".join(page))
  print(plot)


def pairs(levels: Mapping[str, Sequence[Any]], values: np.ndarray, metric: str) -> list[reporting.Panel]:
  """Returns a panel for every pair of axes: the metric against one of them, a line for each level of the other.

  Args:
    levels: axis -> its two levels.
    values: [2, ..., 2, seeds].
    metric: what they are.
  """
  panels, axes, title = [], list(levels), reporting.words_of(metric).title
  ylabel = title[0].lower() + title[1:]
  for i, j in itertools.combinations(range(len(axes)), 2):
    others = tuple(k for k in range(len(axes)) if k not in (i, j))
    mean = values.mean(axis=others)  # [2, 2, seeds]
    series = {label: ([0, 1], mean[:, at].T) for at, label in enumerate(_labels(axes[j], levels[axes[j]]))}
    panels.append(reporting.Panel(
      f"{axes[i]} × {axes[j]}", ylabel, series, xlabel=axes[i], levels=(0, 1),
      names=[number(level) for level in levels[axes[i]]],
    ))
  return panels


def _labels(axis: str, levels: Sequence[Any]) -> list[str]:
  return [f"{axis}: {number(level)}" for level in levels]


def by_level(
  levels: Mapping[str, Sequence[Any]], styles: Mapping[str, reporting.Style]
) -> dict[str, reporting.Style]:
  """Returns the style of each level of an axis: its colour, for the first level pale and dashed."""
  found = {}
  for axis, style in styles.items():
    first, second = _labels(axis, levels[axis])
    found |= {first: reporting.Style(shade(style.color, 0.4), DASHES[1]), second: style}
  return found


def _by_size(estimated: Mapping[tuple[int, ...], np.ndarray]) -> list[tuple[int, ...]]:
  return sorted(estimated, key=lambda chosen: (len(chosen), -abs(float(np.mean(estimated[chosen])))))


def _shown(summary: Mapping[str, Any]) -> str:
  return reporting.format_mean_sem(summary["mean"], summary["sem"], summary["n"])


if __name__ == "__main__":
  terminal.run(main, takes_arguments=True)
