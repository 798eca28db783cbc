"""A metric over training, out of the rows of metrics.jsonl."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nurture.core import UserError
from nurture.reporting.plots import literal
from nurture.reporting.results import mean_and_sem
from nurture.reporting.schema import is_number, shown

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


def draw_means(axes: Any, rows: Sequence[Mapping[str, Any]], name: str, groups: Sequence[Mapping[str, Any]]) -> None:
  """Draws a metric's mean over the members of each group, with its standard error, on axes of matplotlib.

  Args:
    axes: to draw on.
    rows: as for `series`.
    name: as for `series`.
    groups: with "label" and "members", as results.json has them.
  """
  for i, group in enumerate(groups):
    steps, values = series(rows, name, group["members"])
    mean, sem = mean_and_sem(values)
    axes.plot(steps, mean, color=f"C{i}", label=literal(group["label"]))
    axes.fill_between(steps, mean - sem, mean + sem, color=f"C{i}", alpha=0.2, linewidth=0)
  axes.set(xlabel="step", title=literal(name))
