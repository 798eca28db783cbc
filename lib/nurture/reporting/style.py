"""The one style of all pictures: colours of methods, shades and dashes of their levels, ticks, and texts that fit."""

from __future__ import annotations

import dataclasses
import io
import math
import pathlib
import textwrap
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from nurture.reporting.files import Path, replace_file

# Okabe and Ito's colours, which stay apart for all common kinds of colour blindness; without yellow, which
# vanishes on white. Dashes tell a second round of the same colours from the first.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#333333")
DASHES = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (4, 1.2, 1, 1.2)))
GRAY = "#999999"  # of lines that are no data: axes, and marks of a value
_LINE = 0.18  # inches of a line of text
_PALEST = 0.5  # white in the palest level of a method
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
# For matplotlib.rcParams, in notebooks, whose figures then look as those of the binaries.
RC: dict[Any, Any] = {
  "axes.axisbelow": True, "axes.edgecolor": GRAY, "axes.grid": True, "axes.labelsize": 10,
  "axes.prop_cycle": f"cycler('color', {list(COLORS)})", "axes.spines.right": False, "axes.spines.top": False,
  "axes.titlelocation": "left", "axes.titlepad": 7, "axes.titlesize": 11,
  "axes.titleweight": "bold", "axes.xmargin": 0.01, "figure.constrained_layout.use": True,
  "figure.constrained_layout.h_pad": 0.09, "figure.constrained_layout.w_pad": 0.09, "grid.color": "#E4E4E4",
  "grid.linewidth": 0.7, "legend.fontsize": 9.5, "legend.frameon": False, "legend.handlelength": 2.2,
  "legend.title_fontsize": 9, "lines.linewidth": 1.7, "xtick.color": GRAY, "xtick.labelcolor": "black",
  "xtick.labelsize": 9.5, "xtick.major.size": 3, "xtick.minor.size": 2, "ytick.color": GRAY,
  "ytick.labelcolor": "black", "ytick.labelsize": 9.5, "ytick.major.size": 3, "ytick.minor.size": 2,
}


@dataclasses.dataclass(frozen=True)
class Style:
  """The look of a series: a colour, and the dashes of its line as matplotlib takes them."""

  color: str
  dashes: Any = "-"


def palette(labels: Sequence[str]) -> dict[str, Style]:
  """Returns the style of every label, in this order; give it to all pictures of a study, so that each keeps its own."""
  unique = list(dict.fromkeys(labels))
  return {
    label: Style(COLORS[i % len(COLORS)], DASHES[i // len(COLORS) % len(DASHES)]) for i, label in enumerate(unique)
  }


def palette_of(
  points: Mapping[str, Mapping[str, Any]], methods: Collection[str] | None = None
) -> dict[str, Style]:
  """Returns the style of every label at a point of a grid: a colour a method, dashes and a shade a level of it.

  If no axis makes methods, or no other one levels, every point has a colour of its own.

  Args:
    points: label -> {axis: level}.
    methods: axes that make the methods; without, those whose levels are names.
  """
  if methods is None:
    methods = {axis for values in points.values() for axis, level in values.items() if isinstance(level, str)}
  levels: dict[str, list[str]] = {}
  for label, values in points.items():
    levels.setdefault(str([(axis, values[axis]) for axis in values if axis in methods]), []).append(label)
  if not methods or len(levels) == 1 or all(len(labels) == 1 for labels in levels.values()):
    return palette(list(points))
  styles = {}
  for color, labels in zip(palette(list(levels)).values(), levels.values()):
    for i, label in enumerate(labels):
      styles[label] = Style(shade(color.color, _PALEST * i / max(len(labels) - 1, 1)), DASHES[i % len(DASHES)])
  return styles


def shade(color: str, white: float) -> str:
  """Returns a colour "#rrggbb" with a share of white in it, or of black where the share is negative."""
  parts = (int(color[i : i + 2], 16) for i in (1, 3, 5))
  return "#" + "".join(f"{round(part + abs(white) * ((255 if white > 0 else 0) - part)):02X}" for part in parts)


def literal(text: str) -> str:
  """Returns text as matplotlib shows it unchanged: what stands between dollars it would read as a formula, or fail."""
  return text.replace("$", r"\$")


def number(value: Any) -> str:
  """Returns a level as an axis shows it: 0.05, 4096, 10⁶, 3·10⁻⁵; of anything but a number its own text."""
  if not isinstance(value, (int, float)) or isinstance(value, bool):
    return str(value)
  if value == 0 or 1e-3 <= abs(value) < 1e5 or not math.isfinite(value):
    return f"{value:g}"
  mantissa, exponent = f"{value:e}".split("e")
  power = "10" + str(int(exponent)).translate(SUPERSCRIPTS)
  return power if float(mantissa) == 1 else f"{float(mantissa):g}·{power}"


def figure_of(width: float, height: float) -> Any:
  """Returns a figure of this size in inches, in the style, without pyplot and its state."""
  from matplotlib import rc_context  # noqa: PLC0415
  from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
  from matplotlib.figure import Figure  # noqa: PLC0415

  with rc_context(RC):
    figure = Figure(figsize=(width, height), layout="constrained")
  FigureCanvasAgg(figure)
  return figure


def add_axes(figure: Any, rows: int, columns: int, index: int, **options: Any) -> Any:
  """Returns axes in the style, the index-th (from 1) of a grid."""
  from matplotlib import rc_context  # noqa: PLC0415

  with rc_context(RC):
    return figure.add_subplot(rows, columns, index, **options)


def name_axes(axes: Any, title: str, xlabel: str, ylabel: str = "") -> None:
  """Puts literal texts at axes of any figure, in the style's sizes."""
  axes.set_title(literal(title), fontsize=11, loc="left", fontweight="bold", pad=7)
  axes.set_xlabel(literal(xlabel), fontsize=10)
  axes.set_ylabel(literal(ylabel), fontsize=10)


def tick_levels(axes: Any, levels: Sequence[float], names: Sequence[str] | None = None) -> None:
  """Puts the ticks of the x axis at the levels that were run, and no others."""
  from matplotlib.ticker import NullLocator  # noqa: PLC0415

  axes.set_xticks(list(levels), [literal(name) for name in names or map(number, levels)])
  axes.xaxis.set_minor_locator(NullLocator())
  axes.margins(x=0.04)  # what was run at the first and the last one is no part of the frame


def plain_logarithm(axis: Any) -> None:
  """Labels a logarithmic axis that reaches over few powers of ten with numbers such as 0.5 and 2, not 2 × 10⁰."""
  from matplotlib.ticker import LogFormatter  # noqa: PLC0415

  class Plain(LogFormatter):
    """Chooses the ticks that get a label as its base does."""

    def __call__(self, value, position=None):
      return number(float(f"{value:.3g}")) if super().__call__(value, position) else ""

  axis.set_major_formatter(Plain())
  axis.set_minor_formatter(Plain(minor_thresholds=(1.5, 0.5)))


def add_legend(figure: Any, handles: Mapping[str, Any] | None = None, note: str = "", **options: Any) -> None:
  """Puts a legend below the axes, in as many columns as fit, with a note above its entries.

  Args:
    figure: of matplotlib, with constrained layout.
    handles: label -> what was drawn; without, all that have a label, each once.
    note: what lines and bands are.
    **options: for the legend of matplotlib.
  """
  if handles is None:
    handles = {}
    for axes in figure.axes:
      for handle, label in zip(*axes.get_legend_handles_labels()):
        handles.setdefault(label, handle)
  room = 0.96 * figure.bbox.width
  names = [_wrapped(figure, literal(name), 9.5, room - 0.5 * figure.dpi) for name in handles]
  for columns in range(max(1, min(len(handles), 6)), 0, -1):
    legend = figure.legend(
      handles.values(), names, loc="outside lower center", title=_wrapped(figure, literal(note), 9, room) or None,
      ncols=columns, columnspacing=1.6, frameon=False, fontsize=9.5, title_fontsize=9, handlelength=2.2, **options,
    )
    if columns == 1 or legend.get_window_extent(figure.canvas.get_renderer()).width <= room:
      break
    legend.remove()


def save(figure: Any, path: Path) -> pathlib.Path:
  """Writes a figure as PNG, with all texts inside and no two tick labels over each other.

  The figure grows by what its legend and texts of several lines take, so that the axes keep their room.

  Raises:
    UserError: if the file cannot be written.
  """
  renderer = figure.canvas.get_renderer()
  extra: dict[Any, Any] = {}
  names = max(name.get_window_extent(renderer).width for axes in figure.axes for name in axes.get_yticklabels())
  for axes in figure.axes:
    rows, columns, first, _ = axes.get_subplotspec().get_geometry()
    label, room = axes.yaxis.label, figure.bbox.height / rows - 0.8 * figure.dpi
    label.set_text(_wrapped(figure, label.get_text(), label.get_fontsize(), room))
    room = (figure.bbox.width - names) / columns - (0.75 + _LINE * label.get_text().count("\n")) * figure.dpi
    title, label = axes.get_title(loc="left"), axes.xaxis.label
    axes.set_title(_wrapped(figure, title, 11, room, "bold"), loc="left", fontsize=11, fontweight="bold", pad=7)
    label.set_text(_wrapped(figure, label.get_text(), label.get_fontsize(), room))
    lines = axes.get_title(loc="left").count("\n") + axes.get_xlabel().count("\n")
    extra[first // columns] = max(lines, extra.get(first // columns, 0))
  below = sum(legend.get_window_extent(renderer).height for legend in figure.legends) / figure.dpi
  width, height = figure.get_size_inches()
  figure.set_size_inches(width, height + below + _LINE * sum(extra.values()))
  figure.draw_without_rendering()
  for axes in figure.axes:
    _thin_ticks(axes)
  picture = io.BytesIO()
  figure.savefig(picture, format="png", dpi=200, metadata={"Software": None})
  replace_file(path, picture.getvalue())
  return pathlib.Path(path)


def _wrapped(figure: Any, text: str, size: float, room: float, weight: str = "normal") -> str:
  """Returns a text broken into lines of at most so many pixels of a figure; a word that is longer is broken, too."""
  from matplotlib.font_manager import FontProperties  # noqa: PLC0415

  font, renderer = FontProperties(size=size, weight=weight), figure.canvas.get_renderer()
  width = lambda line: renderer.get_text_width_height_descent(line, font, False)[0]
  lines: list[str] = []
  for line in text.split("\n"):
    lines.append("")
    for word in line.split(" "):
      if lines[-1] and width(f"{lines[-1]} {word}") > room:
        lines.append("")
      lines[-1] = f"{lines[-1]} {word}" if lines[-1] else word
      if " " not in lines[-1] and (whole := width(lines[-1])) > room:
        *full, last = textwrap.wrap(lines[-1], max(4, int(len(lines[-1]) * room / whole)))
        lines[-1:] = [*full, last]
  return "\n".join(lines)


def _thin_ticks(axes: Any) -> None:
  """Takes away the x tick labels that would overlap one to their left, where they were put there by hand."""
  from matplotlib.ticker import FixedLocator  # noqa: PLC0415

  if not isinstance(axes.xaxis.get_major_locator(), FixedLocator):
    return
  names, end = [], -math.inf
  for label in axes.get_xticklabels():
    box = label.get_window_extent()
    free = box.x0 > end + 4
    names.append(label.get_text() if free else "")
    end = box.x1 if free and label.get_text() else end
  axes.set_xticks(axes.get_xticks(), names)
