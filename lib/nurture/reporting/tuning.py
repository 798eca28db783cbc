"""Arms of a study, each at the level of a hyper-parameter that is best for it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from nurture.core import UserError
from nurture.core.build import suggest
from nurture.reporting.files import Path
from nurture.reporting.results import Member, label_of, metric_of, summarize
from nurture.reporting.run_directory import read_results


def read_arms(directories: Sequence[Path], over: str, pool: Sequence[str]) -> dict[str, list[Member]]:
  """Returns {label of an arm: members of finished runs}, in order of appearance; arms of one label are joined.

  Args:
    directories: of the runs.
    over: axis whose level will be chosen. Arms that do not have it, of runs in which others do, have nothing to choose.
    pool: axes whose levels are replicates. The other axes make the arms.

  Raises:
    UserError: for a run that is unfinished or has no such axis, a pooled axis that no run has, two arms that are
      written the same, and members that are there twice.
  """
  arms: dict[str, list[Member]] = {}
  points: dict[str, list[Any]] = {}
  seen: dict[str, Path] = {}
  known: dict[str, None] = {}
  for directory in directories:
    members = read_results(directory)["members"]
    here = dict.fromkeys(axis for member in members for axis in member["values"])
    known |= here
    if over not in here:
      raise UserError(f"{directory} has no axis {over!r} in its grid; {suggest(over, here)}.")
    for member in members:
      axes = member["values"]
      rest = {axis: level for axis, level in axes.items() if axis != over and axis not in pool}
      label, point = label_of(rest), list(rest.values())
      if points.setdefault(label, point) != point:
        raise UserError(f"{directory} has two arms that are called {label!r}; train with other names of the levels.")
      same = json.dumps([label, axes.get(over), [axes.get(axis) for axis in pool], member["seed"]])
      if same in seen:
        raise UserError(f"{seen[same]} and {directory} both have seed {member['seed']} of {label!r} at {over}="
                        f"{axes.get(over)}; give each run once, and runs of other seeds.")
      seen[same] = directory
      arms.setdefault(label, []).append(member)
  for axis in pool:
    if axis not in known:
      raise UserError(f"no run has an axis {axis!r} to pool in its grid; {suggest(axis, known)}.")
  return arms


def choose_level(members: Sequence[Member], over: str, by: str) -> tuple[Any, bool, list[Member]]:
  """Returns (best level, whether it is the first or last of several, its members); None for an arm without the axis.

  The best level has the fewest members that diverged; among those, the smallest mean of a metric whose name ends in
  "loss", or the largest of any other; among equal ones, it is the first.

  Raises:
    UserError: if the metric was not measured.
  """
  levels: dict[Any, list[Member]] = {}
  for member in members:
    levels.setdefault(member["values"].get(over), []).append(member)
  sign = 1 if by.endswith("loss") else -1

  def cost(level):
    summary = summarize(metric_of(m, by) for m in levels[level])
    return summary["dead"], (sign * summary["mean"] if summary["mean"] is not None else float("inf"))

  best = min(levels, key=cost)
  ordered = sorted(levels) if all(isinstance(level, (int, float)) for level in levels) else list(levels)
  return best, len(levels) > 1 and best in (ordered[0], ordered[-1]), levels[best]


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
