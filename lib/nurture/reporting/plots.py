"""Curves over training or over levels: a mean line with its standard error for each group of members."""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nurture.reporting.files import Path
from nurture.reporting.results import mean_and_sem
from nurture.reporting.style import (
  Style,
  add_axes,
  add_legend,
  figure_of,
  literal,
  name_axes,
  palette,
  plain_logarithm,
  save,
  shade,
  tick_levels,
)

FEW = 10  # up to so many members are drawn one by one beside their mean
_THEORY = (0, (4, 2.5))  # dashes


@dataclasses.dataclass(frozen=True)
class Panel:
  """One set of axes.

  Attributes:
    title: stands above the axes.
    ylabel: quantity and unit.
    series: label -> (steps [T], values [members, T] or [T]); nan where a member has no value.
    theory: label -> (steps [T], values [T]), drawn dashed over everything else and without a band; in black, or in a
      dark shade of the colour of the series that has the same label.
    xlabel: quantity and unit.
    levels: where the ticks of the x axis stand, with these numbers; () leaves them to matplotlib.
    names: texts of the levels instead.
    fraction: the values lie in [0, 1]; the axis reaches from 0 to 1, but for an end that all means stay more
      than a half away from.
    log_x, log_y: logarithmic axes.
    dots: draws the series as points with error bars, for few levels that a line of theory runs through.
  """

  title: str
  ylabel: str
  series: Mapping[str, tuple[Any, Any]]
  theory: Mapping[str, tuple[Any, Any]] = dataclasses.field(default_factory=dict)
  xlabel: str = "step"
  levels: Sequence[float] = ()
  names: Sequence[str] = ()
  fraction: bool = False
  log_x: bool = False
  log_y: bool = False
  dots: bool = False


def curves(
  path: Path, panels: Sequence[Panel], columns: int = 2, *, styles: Mapping[str, Style] | None = None,
  of: str = "members", theory: str = "theory",
) -> pathlib.Path:
  """Draws panels as one PNG of README width, a label in the same colour everywhere, with one legend below.

  The legend also says what lines and bands are, and of how many members.

  Args:
    path: of the file.
    panels: to draw.
    columns: panels side by side, at most.
    styles: of the labels, for pictures that share them; without, colours follow the order of the labels.
    of: what members are, "seeds" say.
    theory: what the dashed lines are that have the label of a series.

  Returns:
    The path of the file.

  Raises:
    UserError: if the file cannot be written.
  """
  columns = max(1, min(columns, len(panels)))
  rows = math.ceil(len(panels) / columns)
  styles = {**palette([label for panel in panels for label in panel.series]), **(styles or {})}
  figure = figure_of({1: 5.6, 2: 8.4}.get(columns, 2.8 * columns), 2.9 * rows)
  handles: dict[str, Any] = {}
  for i, panel in enumerate(panels):
    handles |= _draw(add_axes(figure, rows, columns, i + 1), panel, styles, theory) | handles
  note = _note(panels, of)
  if len(handles) > 1 or note:
    add_legend(figure, handles if len(handles) > 1 else {}, note)
  return save(figure, path)


def _note(panels: Sequence[Panel], of: str) -> str:
  """Returns what lines and bands mean and of how many; nothing where every series is one member."""
  counts = {}
  for panel in panels:
    for _, values in panel.series.values():
      values = np.atleast_2d(np.asarray(values, np.float64))
      counts[int(np.isfinite(values).any(axis=1).sum())] = panel.dots
  many = sorted(count for count in counts if count > 1)
  if not many:
    return ""
  n = f"{many[0]}" if len(many) == 1 else f"{many[0]} to {many[-1]}"
  what = "points and bars" if all(counts[count] for count in many) else "lines and bands"
  thin = f"; thin: single {of}" if any(count <= FEW and not counts[count] for count in many) else ""
  return f"{what}: mean ± standard error of n = {n} {of}{thin}"


def _draw(axes: Any, panel: Panel, styles: Mapping[str, Style], theory: str) -> dict[str, Any]:
  from matplotlib.lines import Line2D  # noqa: PLC0415

  handles = {}
  lowest, highest = math.inf, -math.inf
  for label, (steps, values) in panel.series.items():
    steps, values = np.asarray(steps), np.atleast_2d(np.asarray(values, np.float64))
    style, members = styles[label], len(values)
    mean, sem = mean_and_sem(values)
    if panel.dots:
      error = sem if members > 1 else None
      handles[label] = axes.errorbar(
        steps, mean, error, fmt="o", color=style.color, markersize=4, capsize=2, linewidth=1.2,
      )
    else:
      # What was run at few levels is known there only.
      handles[label] = draw_mean(axes, steps, values, style, marker="o" if len(panel.levels) else "")
    lowest = min(lowest, np.min(mean, where=np.isfinite(mean), initial=math.inf))
    highest = max(highest, np.max(mean, where=np.isfinite(mean), initial=-math.inf))
  for label, (steps, values) in panel.theory.items():
    color = shade(styles[label].color, -0.45) if label in panel.series else "black"
    line, = axes.plot(steps, values, color=color, linestyle=_THEORY, linewidth=1.3, zorder=5)
    line.set_path_effects(_halo())
    if label in panel.series:
      line = Line2D([], [], color="black", linestyle=_THEORY, linewidth=1.3)  # of all of them, in the legend
    handles[theory if label in panel.series else label] = line
  _decorate(axes, panel, lowest, highest)
  return handles


def draw_mean(
  axes: Any, steps: Any, values: Any, style: Style, label: str = "", *, marker: str = ""
) -> Any:
  """Draws the mean over members as a line, its standard error as a band, and few members as thin lines.

  Args:
    axes: of matplotlib.
    steps: [T].
    values: [members, T] or [T]; what is not finite is left out.
    style: of the line.
    label: for a legend.
    marker: at every step; a line of a single point has one anyway.

  Returns:
    The line of the mean.
  """
  steps, values = np.asarray(steps), np.atleast_2d(np.asarray(values, np.float64))
  mean, sem = mean_and_sem(values)
  if 1 < len(values) <= FEW:
    axes.plot(steps, values.T, color=style.color, linewidth=0.6, alpha=0.3)
  if len(values) > 1:
    axes.fill_between(steps, mean - sem, mean + sem, color=style.color, alpha=0.22, linewidth=0)
  line, = axes.plot(
    steps, mean, linewidth=1.7, marker="o" if np.isfinite(mean).sum() == 1 else marker or None, markersize=4,
    color=style.color, linestyle=style.dashes, label=literal(label) or None,
  )
  return line


def _halo() -> list[Any]:
  """Returns the white edge by which a line stands out from another one of nearly its colour behind it."""
  from matplotlib import patheffects  # noqa: PLC0415

  return [patheffects.Stroke(linewidth=2.8, foreground="white", alpha=0.8), patheffects.Normal()]


def _decorate(axes: Any, panel: Panel, lowest: float, highest: float) -> None:
  name_axes(axes, panel.title, panel.xlabel, panel.ylabel)
  if panel.log_x:
    axes.set_xscale("log")
    plain_logarithm(axes.xaxis)
  if len(panel.levels):
    tick_levels(axes, panel.levels, panel.names)
  if panel.log_y:
    axes.set_yscale("log")
    plain_logarithm(axes.yaxis)
  elif panel.fraction:
    bottom, top = axes.get_ylim()
    bottom = bottom if lowest > 0.5 else 0.0
    top = top if highest < 0.5 else 1.0
    margin = 0.02 * (top - bottom)  # so that a line at 0 or 1 is not cut in half
    axes.set_ylim(bottom - margin, top + margin)
