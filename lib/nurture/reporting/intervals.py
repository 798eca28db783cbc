"""Groups side by side: each member a dot, the mean with its standard error."""

from __future__ import annotations

import dataclasses
import io
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from nurture.reporting.files import Path, replace_file
from nurture.reporting.plots import COLORS, literal
from nurture.reporting.results import mean_and_sem

_COLUMNS = 4


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


def intervals(path: Path, panels: Sequence[Intervals]) -> pathlib.Path:
  """Draws panels side by side, four to a line, as one PNG; all have the rows of the first, from the top.

  Returns:
    The path of the file.

  Raises:
    UserError: if the file cannot be written.
  """
  from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
  from matplotlib.figure import Figure  # noqa: PLC0415

  labels, columns = list(panels[0].values), min(len(panels), _COLUMNS)
  lines = -(-len(panels) // columns)
  figure = Figure(figsize=(2.2 + 3.1 * columns, lines * (1.1 + 0.3 * len(labels))), layout="constrained")
  FigureCanvasAgg(figure)
  for i, panel in enumerate(panels):
    axes = figure.add_subplot(lines, columns, i + 1)
    for row, label in enumerate(labels):
      color = COLORS[row % len(COLORS)]
      values = np.asarray(panel.values.get(label, ()), np.float64).reshape(-1)
      values = values[np.isfinite(values)]
      if len(values):
        mean, sem = mean_and_sem(values[:, None])
        error = panel.errors.get(label)
        axes.plot(values, np.full(len(values), row), "o", color=color, markersize=3.5, alpha=0.25, markeredgewidth=0)
        bar = sem if error is None else [error]
        axes.errorbar(mean, [row], xerr=bar, fmt="o", color=color, markersize=5, capsize=3, linewidth=1.6)
    _decorate(axes, panel, labels, named=i % columns == 0)
  picture = io.BytesIO()
  figure.savefig(picture, format="png", dpi=200, metadata={"Software": None})
  replace_file(path, picture.getvalue())
  return pathlib.Path(path)


def _decorate(axes, panel: Intervals, labels: Sequence[str], named: bool) -> None:
  axes.set_title(literal(panel.title), fontsize=11, loc="left", fontweight="bold", pad=7)
  axes.set_xlabel(literal(panel.xlabel), fontsize=10)
  axes.set_yticks(range(len(labels)), map(literal, labels) if named else [""] * len(labels))
  axes.set_ylim(len(labels) - 0.5, -0.5)
  if panel.log_x:
    axes.set_xscale("log")
  if panel.zero:
    axes.axvline(0, color="#999999", linewidth=1)
  axes.tick_params(labelsize=9.5, length=3, color="#999999")
  axes.grid(True, axis="x", color="#E4E4E4", linewidth=0.7)
  axes.set_axisbelow(True)
  axes.spines[["top", "right"]].set_visible(False)
  axes.spines[["left", "bottom"]].set_color("#999999")
