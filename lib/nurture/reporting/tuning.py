"""Arms of a study, each at the levels of its hyper-parameters that are best for it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from nurture.core import UserError
from nurture.core.build import suggest
from nurture.reporting.files import Path
from nurture.reporting.results import Member, label_of, metric_of, summarize
from nurture.reporting.run_directory import read_results


class Choice(NamedTuple):
  """The best point of an arm.

  Attributes:
    levels: axis -> its level there; of the axes that the arm has.
    edges: those of the axes at whose first or last level it is, so that the best may lie beyond.
    members: its members.
  """

  levels: dict[str, Any]
  edges: tuple[str, ...]
  members: list[Member]


def read_arms(directories: Sequence[Path], over: Sequence[str], pool: Sequence[str]) -> dict[str, list[Member]]:
  """Returns {label of an arm: members of finished runs}, in order of appearance; arms of one label are joined.

  Args:
    directories: of the runs.
    over: axes whose levels will be chosen. An arm may lack some of them, or all: it has nothing to choose there.
    pool: axes whose levels are replicates. The other axes make the arms.

  Raises:
    UserError: for a run that is unfinished or has none of the axes to choose, an axis that no run has, two arms that
      are written the same, and members that are there twice.
  """
  arms: dict[str, list[Member]] = {}
  points: dict[str, list[Any]] = {}
  seen: dict[str, Path] = {}
  known: dict[str, None] = {}
  for directory in directories:
    members = read_results(directory)["members"]
    here = dict.fromkeys(axis for member in members for axis in member["values"])
    known |= here
    if not set(over) & set(here):
      raise UserError(f"{directory} has no axis {' or '.join(map(repr, over))} in its grid; {suggest(over[0], here)}.")
    for member in members:
      axes = member["values"]
      rest = {axis: level for axis, level in axes.items() if axis not in (*over, *pool)}
      label, point = label_of(rest), list(rest.values())
      if points.setdefault(label, point) != point:
        raise UserError(f"{directory} has two arms that are called {label!r}; train with other names of the levels.")
      same = json.dumps([label, member["seed"], [axes.get(axis) for axis in (*over, *pool)]])
      if same in seen:
        at = ", ".join(f"{axis}={axes[axis]}" for axis in over if axis in axes)
        raise UserError(f"{seen[same]} and {directory} both have seed {member['seed']} of {label!r}"
                        f"{at and f' at {at}'}; give each run once, and runs of other seeds.")
      seen[same] = directory
      arms.setdefault(label, []).append(member)
  for axis in (*over, *pool):
    if axis not in known:
      why = " to pool" if axis in pool else ""
      raise UserError(f"no run has an axis {axis!r}{why} in its grid; {suggest(axis, known)}.")
  return arms


def choose_levels(members: Sequence[Member], over: Sequence[str], by: str) -> Choice:
  """Returns the best point of an arm over the levels of some axes; of axes that it lacks, nothing.

  The best point has the fewest members that diverged; among those, the smallest mean of a metric whose name ends in
  "loss", or the largest of any other; among equal ones, it is the first. An axis at all of whose levels the metric is
  the same, seed by seed, does nothing here and has no edge.

  Raises:
    UserError: if the metric was not measured.
  """
  over = [axis for axis in over if any(axis in member["values"] for member in members)]
  points: dict[tuple, list[Member]] = {}
  for member in members:
    points.setdefault(tuple(member["values"].get(axis) for axis in over), []).append(member)
  sign = 1 if by.endswith("loss") else -1

  def cost(point):
    summary = summarize(metric_of(m, by) for m in points[point])
    return summary["dead"], (sign * summary["mean"] if summary["mean"] is not None else float("inf"))

  best = min(points, key=cost)
  chosen = dict(zip(over, best))
  edges = tuple(axis for axis in over if chosen[axis] in _ends(members, axis) and _does_something(members, axis, by))
  return Choice(chosen, edges, points[best])


def _ends(members: Sequence[Member], axis: str) -> tuple[Any, ...]:
  """Returns the first and the last level of an axis: of numbers the smallest and the largest."""
  levels = list(dict.fromkeys(m["values"][axis] for m in members if axis in m["values"]))
  ordered = sorted(levels) if all(isinstance(level, (int, float)) for level in levels) else levels
  return (ordered[0], ordered[-1]) if len(levels) > 1 else ()


def _does_something(members: Sequence[Member], axis: str, by: str) -> bool:
  """Tells if members that differ in their level of an axis alone differ in a metric."""
  found: dict[str, set[str]] = {}
  for member in members:
    others = {name: level for name, level in member["values"].items() if name != axis}
    found.setdefault(json.dumps([others, member["seed"]]), set()).add(repr(metric_of(member, by)))
  return any(len(values) > 1 for values in found.values())


def summarize_crossed(members: Sequence[Member], metric: str, pool: Sequence[str]) -> dict[str, Any]:
  """Returns mean, standard error and n of a metric over seeds and over the levels of pooled axes, which are crossed.

  The same seeds recur at every level (of a guide's seed, say), so members are not independent. With a x b members,

      sem^2 = max(MS_seed + MS_level - MS_rest, MS_rest) / (a b)

  estimates the variance of the mean for new seeds and new levels: MS are the mean squares of the two-way analysis of
  variance with random effects. Without pooled axes, or where a member is missing, it is the plain standard error.

  Returns:
    As `nurture.reporting.summarize`.
  """
  summary = summarize(metric_of(member, metric) for member in members)
  if not members:
    return summary
  table: dict[tuple, dict[int, Any]] = {}
  for member in members:
    level = tuple(member["values"][axis] for axis in pool if axis in member["values"])
    table.setdefault(level, {})[member["seed"]] = metric_of(member, metric)
  seeds = sorted({member["seed"] for member in members})
  values = np.array([[row.get(seed, np.nan) for seed in seeds] for row in table.values()], np.float64)
  b, a = values.shape
  if min(a, b) < 2 or not np.isfinite(values).all():
    return summary
  values = values - values[0, 0]  # members that agree then have deviations of exactly 0
  of_seeds, of_levels = values.mean(axis=0), values.mean(axis=1)
  rest = values - of_seeds[None] - of_levels[:, None] + values.mean()
  ms_rest = np.sum(rest**2) / ((a - 1) * (b - 1))
  variance = max(b * of_seeds.var(ddof=1) + a * of_levels.var(ddof=1) - ms_rest, ms_rest) / (a * b)
  return summary | {"sem": float(np.sqrt(variance))}
