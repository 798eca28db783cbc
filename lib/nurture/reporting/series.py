"""A metric over training, out of the rows of metrics.jsonl."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nurture.core import UserError
from nurture.reporting.plots import draw_mean
from nurture.reporting.schema import is_number, shown
from nurture.reporting.style import Style, name_axes, palette
from nurture.reporting.words import words_of

Series = tuple[np.ndarray, np.ndarray]  # steps [T], values [members, T]


def series(rows: Sequence[Mapping[str, Any]], name: str, members: Sequence[int]) -> Series:
  """Returns a metric of some members over the steps at which it was written.

  Args:
    rows: of `read_rows`.
    name: of the metric.
    members: numbers of the members, such as results.json's groups have them.

  Returns:
    (steps [T], values [members, T]) float64; nan where a member has no value.

  Raises:
    UserError: for a metric that is no number.
  """
  points = {}
  for row in rows:
    if name in row and row["member"] in members:
      if row[name] is not None and not is_number(row[name]):
        raise UserError(f"{name!r} of member {row['member']} at step {row['step']} is {shown(row[name])} and no "
                        "number; give another metric.")
      points[row["member"], row["step"]] = row[name]
  steps = np.array(sorted({step for _, step in points}), np.int64)
  values = np.array([[points.get((member, step), np.nan) for step in steps] for member in members], np.float64)
  return steps, values.reshape(len(members), len(steps))


def draw_means(
  axes: Any, rows: Sequence[Mapping[str, Any]], name: str, groups: Sequence[Mapping[str, Any]],
  styles: Mapping[str, Style] | None = None,
) -> None:
  """Draws a metric's mean over the members of each group, with its standard error, on axes of matplotlib.

  Args:
    axes: to draw on.
    rows: as for `series`.
    name: as for `series`.
    groups: with "label" and "members", as results.json has them.
    styles: of the labels, for pictures that share them.
  """
  styles = {**palette([group["label"] for group in groups]), **(styles or {})}
  for group in groups:
    steps, values = series(rows, name, group["members"])
    draw_mean(axes, steps, values, styles[group["label"]], group["label"])
  words = words_of(name)
  name_axes(axes, words.title, "step", words.axis)
