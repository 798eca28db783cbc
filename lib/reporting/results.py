"""Many members' numbers as one: mean, standard error, count."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np


def summarize(values: Iterable[float | None]) -> dict[str, float | int | None]:
  """Returns the mean over members and its standard error: sem = std(values, ddof=1) / sqrt(n).

  Args:
    values: one number a member; None for one that died. nan and infinity are of members that live on without this
      number; neither kind enters the mean.

  Returns:
    {"mean", "sem", "n", "dead"}: n finite numbers, and how many died; mean is None where n = 0, and sem where n < 2.
    Members that agree to the last bit have their number as the mean, and a sem of exactly 0.
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
