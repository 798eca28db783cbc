"""Arms of a study, each at the level of a hyper-parameter that is best for it."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lib.core import UserError
from lib.core.build import suggest
from lib.reporting.results import summarize
from lib.reporting.run_directory import read_results

Member = Mapping[str, Any]


def read_arms(directory: pathlib.Path, over: str, pool: Sequence[str]) -> dict[str, list[Member]]:
  """Returns {label of an arm: members of a finished run}, in order of appearance.

  Raises:
    UserError: for a run that is unfinished, or has no such axis.
  """
  arms: dict[str, list[Member]] = {}
  for member in read_results(directory)["members"]:
    axes = member["values"]
    if over not in axes:
      raise UserError(f"{directory} has no axis {over!r} in its grid; {suggest(over, axes)}.")
    rest = {axis: level for axis, level in axes.items() if axis != over and axis not in pool}
    label = ", ".join(v if isinstance(v, str) else f"{axis}={v}" for axis, v in rest.items()) or "all"
    arms.setdefault(label, []).append(member)
  return arms


def choose_level(members: Sequence[Member], over: str, by: str) -> tuple[Any, bool, list[Member]]:
  """Returns (best level, whether it is the first or last of several, its members).

  Raises:
    UserError: if the metric was not measured.
  """
  levels: dict[Any, list[Member]] = {}
  for member in members:
    levels.setdefault(member["values"][over], []).append(member)
  sign = 1 if by.endswith("loss") else -1

  def cost(level):
    summary = summarize([metric_of(m, by) for m in levels[level] if m["died_at"] is None])
    dead = sum(m["died_at"] is not None for m in levels[level])
    return dead, (sign * summary["mean"] if summary["mean"] is not None else float("inf"))

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
    As `lib.reporting.summarize`.
  """
  summary = summarize([metric_of(member, metric) for member in members])
  table: dict[tuple, dict[int, Any]] = {}
  for member in members:
    level = tuple(member["values"][axis] for axis in pool if axis in member["values"])
    table.setdefault(level, {})[member["seed"]] = metric_of(member, metric)
  seeds = sorted({member["seed"] for member in members})
  values = np.array([[row.get(seed, np.nan) for seed in seeds] for row in table.values()], np.float64)
  b, a = values.shape
  if min(a, b) < 2 or not np.isfinite(values).all():
    return summary
  of_seeds, of_levels = values.mean(axis=0), values.mean(axis=1)
  rest = values - of_seeds[None] - of_levels[:, None] + values.mean()
  ms_rest = np.sum(rest**2) / ((a - 1) * (b - 1))
  variance = max(b * of_seeds.var(ddof=1) + a * of_levels.var(ddof=1) - ms_rest, ms_rest) / (a * b)
  return summary | {"sem": float(np.sqrt(variance))}


def metric_of(member: Member, name: str) -> Any:
  """Returns a final metric of a member.

  Raises:
    UserError: if it was not measured.
  """
  if name not in member["metrics"]:
    raise UserError(f"{name!r} was not measured; {suggest(name, member['metrics'])}.")
  return member["metrics"][name]
