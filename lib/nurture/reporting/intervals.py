"""Groups side by side: each member a dot, the mean with its standard error."""

from __future__ import annotations

import dataclasses
import pathlib
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np

from nurture.reporting.files import Path
from nurture.reporting.results import mean_and_sem
from nurture.reporting.style import (
  GRAY,
  Style,
  add_axes,
  add_legend,
  figure_of,
  literal,
  name_axes,
  palette,
  plain_logarithm,
  save,
)

_COLUMNS = 4
_LETTERS = 40  # in a line of a name


@dataclasses.dataclass(frozen=True)
class Intervals:
  """One set of axes, a row a group.

  Attributes:
    title: stands above the axes.
    xlabel: quantity and unit.
    values: label -> values [members]; what is not finite is left out.
    errors: label -> standard error of the mean, where members are not independent; else that of the values.
    zero: whether a line marks 0, for differences.
    log_x: a logarithmic axis.
  """

  title: str
  xlabel: str
  values: Mapping[str, Sequence[float]]
  errors: Mapping[str, float | None] = dataclasses.field(default_factory=dict)
  zero: bool = False
  log_x: bool = False


def intervals(
  path: Path, panels: Sequence[Intervals], *, styles: Mapping[str, Style] | None = None, of: str = "members"
) -> pathlib.Path:
  """Draws panels side by side, four to a line, as one PNG; all have the rows of the first, from the top.

  Args:
    path: of the file.
    panels: to draw.
    styles: of the labels, for pictures that share them.
    of: what members are, "seeds" say.

  Returns:
    The path of the file.

  Raises:
    UserError: if the file cannot be written.
  """
  labels, columns = list(panels[0].values), min(len(panels), _COLUMNS)
  lines = -(-len(panels) // columns)
  styles = {**palette(labels), **(styles or {})}
  names = [textwrap.fill(literal(label), _LETTERS, break_on_hyphens=False) for label in labels]
  widest = max(len(line) for name in names for line in name.split("\n"))
  height = 0.3 + 0.15 * max(name.count("\n") for name in names)  # of a row
  figure = figure_of(max(2.2, 0.4 + 0.08 * widest) + 3.1 * columns, lines * (1.1 + height * len(labels)))
  counts = set()
  for i, panel in enumerate(panels):
    axes = add_axes(figure, lines, columns, i + 1)
    for row, label in enumerate(labels):
      color = styles[label].color
      values = np.asarray(panel.values.get(label, ()), np.float64).reshape(-1)
      values = values[np.isfinite(values)]
      counts.add(len(values))
      if len(values):
        mean, sem = mean_and_sem(values[:, None])
        error = panel.errors.get(label)
        axes.plot(values, np.full(len(values), row), "o", color=color, markersize=3.5, alpha=0.25, markeredgewidth=0)
        bar = sem if error is None else [error]
        axes.errorbar(mean, [row], xerr=bar, fmt="o", color=color, markersize=5, capsize=3, linewidth=1.6)
    _decorate(axes, panel, names if i % columns == 0 else [""] * len(names))
  if many := sorted(count for count in counts if count > 1):
    n = f"{many[0]}" if len(many) == 1 else f"{many[0]} to {many[-1]}"
    add_legend(figure, {}, f"points and bars: mean ± standard error of n = {n} {of}; pale: single {of}")
  return save(figure, path)


def _decorate(axes, panel: Intervals, names: Sequence[str]) -> None:
  name_axes(axes, panel.title, panel.xlabel)
  axes.set_yticks(range(len(names)), names)
  axes.set_ylim(len(names) - 0.5, -0.5)
  axes.grid(False, axis="y")
  if panel.log_x:
    axes.set_xscale("log")
    plain_logarithm(axes.xaxis)
  if panel.zero:
    axes.axvline(0, color=GRAY, linewidth=1)
