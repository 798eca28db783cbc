"""Curves over training: a mean line with its standard error for each group of members."""

from __future__ import annotations

import dataclasses
import io
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nurture.reporting.files import Path, replace_file
from nurture.reporting.results import mean_and_sem

# Okabe and Ito's colours, which stay apart for all common kinds of colour blindness; without yellow, which
# vanishes on white. Dashes tell a second round of the same colours from the first.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#333333")
DASHES = ("-", (0, (4, 1.5)), (0, (1, 1.2)))
FEW = 10  # up to so many members are drawn one by one beside their mean


@dataclasses.dataclass(frozen=True)
class Panel:
  """One set of axes.

  Attributes:
    title: stands above the axes.
    ylabel: quantity and unit.
    series: label -> (steps [T], values [members, T] or [T]); nan where a member has no value.
    theory: label -> (steps [T], values [T]), drawn dashed and without a band; in black, or in the colour of
      the series that has the same label.
    xlabel: quantity and unit.
    fraction: the values lie in [0, 1]; the axis reaches from 0 to 1, but for an end that all means stay more
      than a half away from.
    log_x, log_y: logarithmic axes.
  """

  title: str
  ylabel: str
  series: Mapping[str, tuple[Any, Any]]
  theory: Mapping[str, tuple[Any, Any]] = dataclasses.field(default_factory=dict)
  xlabel: str = "step"
  fraction: bool = False
  log_x: bool = False
  log_y: bool = False


def curves(path: Path, panels: Sequence[Panel], columns: int = 2) -> pathlib.Path:
  """Draws panels as one PNG of README width, a label in the same colour everywhere, with one legend below.

  Returns:
    The path of the file.

  Raises:
    UserError: if the file cannot be written.
  """
  from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
  from matplotlib.figure import Figure  # noqa: PLC0415

  columns = max(1, min(columns, len(panels)))
  rows = math.ceil(len(panels) / columns)
  styles = _styles([label for panel in panels for label in panel.series])
  names = list(dict.fromkeys(label for panel in panels for label in (*panel.series, *panel.theory)))
  fit = max(1, int((110 if columns > 1 else 72) / (max(map(len, names), default=0) + 8)))  # labels in a line
  lines = math.ceil(len(names) / fit)
  height = 2.9 * rows + 0.4 + 0.2 * max(0, lines - 2)  # a long legend must not take the room of the axes
  figure = Figure(figsize=(8.4 if columns > 1 else 5.6, height), layout="constrained")
  FigureCanvasAgg(figure)  # a canvas of its own: no pyplot, no state that outlives this call
  figure.get_layout_engine().set(w_pad=0.09, h_pad=0.09)
  handles: dict[str, Any] = {}
  for i, panel in enumerate(panels):
    handles |= _draw(figure.add_subplot(rows, columns, i + 1), panel, styles)
  if len(handles) > 1:
    figure.legend(
      handles.values(), map(literal, handles), loc="outside lower center", ncols=math.ceil(len(names) / lines),
      frameon=False, fontsize=9.5, handlelength=2.2, columnspacing=1.6,
    )
  picture = io.BytesIO()
  figure.savefig(picture, format="png", dpi=200, metadata={"Software": None})
  replace_file(path, picture.getvalue())
  return pathlib.Path(path)


def literal(text: str) -> str:
  """Returns text as matplotlib shows it unchanged: what stands between dollars it would read as a formula, or fail."""
  return text.replace("$", r"\$")


def _styles(labels: Sequence[str]) -> dict[str, dict[str, Any]]:
  unique = list(dict.fromkeys(labels))
  return {
    label: {"color": COLORS[i % len(COLORS)], "linestyle": DASHES[i // len(COLORS) % len(DASHES)]}
    for i, label in enumerate(unique)
  }


def _draw(axes: Any, panel: Panel, styles: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
  handles = {}
  lowest, highest = math.inf, -math.inf
  for label, (steps, values) in panel.series.items():
    steps, values = np.asarray(steps), np.atleast_2d(np.asarray(values, np.float64))
    color, members = styles[label]["color"], len(values)
    mean, sem = mean_and_sem(values)
    if 1 < members <= FEW:
      axes.plot(steps, values.T, color=color, linewidth=0.6, alpha=0.3)
    if members > 1:
      axes.fill_between(steps, mean - sem, mean + sem, color=color, alpha=0.22, linewidth=0)
    marker = "o" if np.isfinite(mean).sum() == 1 else None  # a single point has no line to see
    handles[label], = axes.plot(steps, mean, linewidth=1.7, marker=marker, markersize=4, **styles[label])
    lowest = min(lowest, np.min(mean, where=np.isfinite(mean), initial=math.inf))
    highest = max(highest, np.max(mean, where=np.isfinite(mean), initial=-math.inf))
  for label, (steps, values) in panel.theory.items():
    color = styles[label]["color"] if label in styles else "black"
    line, = axes.plot(steps, values, color=color, linestyle=(0, (5, 2)), linewidth=1.1, zorder=5)
    handles.setdefault(label, line)
  _decorate(axes, panel, lowest, highest)
  return handles


def _decorate(axes: Any, panel: Panel, lowest: float, highest: float) -> None:
  axes.set_title(literal(panel.title), fontsize=11, loc="left", fontweight="bold", pad=7)
  axes.set_xlabel(literal(panel.xlabel), fontsize=10)
  axes.set_ylabel(literal(panel.ylabel), fontsize=10)
  axes.tick_params(labelsize=9.5, length=3, color="#999999")
  axes.grid(True, color="#E4E4E4", linewidth=0.7)
  axes.set_axisbelow(True)
  axes.spines[["top", "right"]].set_visible(False)
  axes.spines[["left", "bottom"]].set_color("#999999")
  axes.margins(x=0.01)
  if panel.log_x:
    axes.set_xscale("log")
  if panel.log_y:
    axes.set_yscale("log")
  elif panel.fraction:
    bottom, top = axes.get_ylim()
    bottom = bottom if lowest > 0.5 else 0.0
    top = top if highest < 0.5 else 1.0
    margin = 0.02 * (top - bottom)  # so that a line at 0 or 1 is not cut in half
    axes.set_ylim(bottom - margin, top + margin)
