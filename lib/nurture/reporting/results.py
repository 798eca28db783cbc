"""Names of members, and many members' numbers as one: mean, standard error, count."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from nurture.core import UserError
from nurture.core.build import suggest
from nurture.reporting.schema import is_number, shown

Member = Mapping[str, Any]  # as results.json has it


def label_of(values: Mapping[str, Any]) -> str:
  """Returns how members at a point of the grid, {axis: level}, are called: "relu, lr=0.1"; "all" without a grid.

  A level that is text stands alone, since it is a name.
  """
  return ", ".join(v if isinstance(v, str) else f"{axis}={v}" for axis, v in values.items()) or "all"


def name_of(member: Member) -> str:
  """Returns what a member is called beside all others of its run: "relu, lr=0.1/seed 3"; "seed 3" without a grid."""
  seed = f"seed {member['seed']}"
  return f"{label_of(member['values'])}/{seed}" if member["values"] else seed


def metric_of(member: Member, name: str) -> float | None:
  """Returns a final metric of a member: None if it diverged, nan if it did not and has no finite number.

  Raises:
    UserError: if it was not measured, or is no number.
  """
  if name not in member["metrics"]:
    raise UserError(f"member {member['member']} has no metric {name!r}; {suggest(name, member['metrics'])}.")
  value = member["metrics"][name]
  if value is not None and not is_number(value):
    raise UserError(f"{name!r} of member {member['member']} is {shown(value)} and no number; give another metric.")
  if member["died_at"] is not None:
    return None
  return math.nan if value is None else float(value)


def summarize(values: Iterable[float | None]) -> dict[str, float | int | None]:
  """Returns the mean over members and its standard error: sem = std(values, ddof=1) / sqrt(n).

  Args:
    values: one number a member; None for one that diverged. nan and infinity are of members that go on without this
      number; neither kind enters the mean.

  Returns:
    {"mean", "sem", "n", "dead"}: n finite numbers, and how many diverged. mean is None where n = 0, and sem where
    n < 2. Members that agree to the last bit have their number as the mean, and a sem of exactly 0.
  """
  values = list(values)
  numbers = np.asarray([math.nan if v is None else v for v in values], np.float64)
  n = int(np.isfinite(numbers).sum())
  mean, sem = mean_and_sem(numbers[:, None])
  return {
    "mean": float(mean[0]) if n else None,
    "sem": float(sem[0]) if n > 1 else None,
    "n": n,
    "dead": sum(v is None for v in values),
  }


def without_rounding(differences: np.ndarray, of: np.ndarray) -> np.ndarray:
  """Returns differences of decimals without what float64 adds to them: 0.93 - 0.9 and 0.83 - 0.8 are equal again.

  Numbers of float32 stand in files with at most nine digits, so that twelve digits of the largest are enough.

  Args:
    differences: sums and differences of the numbers.
    of: the numbers themselves.
  """
  largest = np.max(np.abs(of), where=np.isfinite(of), initial=0.0)
  return differences if largest == 0 else np.round(differences, min(11 - math.floor(math.log10(largest)), 300))


def mean_and_sem(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns mean and standard error over members, [members, T] -> [T], [T]; nan and infinity are left out.

  The mean is nan where no member has a value; the standard error is 0 where fewer than two have one.
  """
  present = np.isfinite(values)
  n, divisor = present.sum(axis=0), np.maximum(present.sum(axis=0), 1)
  values = np.where(present, values, 0.0)
  # As fractions of a power of two, because squares leave the range of floats long before numbers do; and from the
  # largest number on, because a sum of equal numbers is rounded and a sum of zeros is not. Both steps are exact.
  _, exponent = np.frexp(np.abs(values).max(axis=0, initial=0.0))
  values = np.ldexp(values, -exponent)
  largest = np.where(n > 0, np.max(values, axis=0, where=present, initial=-2.0), 0.0)
  below = np.where(present, values - largest, 0.0)
  offset = below.sum(axis=0) / divisor
  squares = np.where(present, below - offset, 0.0) ** 2
  sem = np.sqrt(squares.sum(axis=0) / np.maximum(n - 1, 1) / divisor)
  return np.where(n > 0, np.ldexp(largest + offset, exponent), np.nan), np.ldexp(sem, exponent)
