"""Effects of a factorial design, from the members of a run whose axes all have two levels."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from nurture.core import UserError
from nurture.reporting.results import Member, metric_of, without_rounding


def responses(members: Sequence[Member], metric: str) -> tuple[list[str], np.ndarray]:
  """Returns the names of the k axes, and the metric as an array [2, ..., 2, seeds].

  Raises:
    UserError: if an axis has other than two levels, a member diverged, or the metric was not measured.
  """
  axes = list(members[0]["values"])
  if any(set(member["values"]) != set(axes) for member in members):
    raise UserError("the run has arms with axes of their own, which make no factorial design; see experiments.tuned.")
  levels = {axis: list(dict.fromkeys(member["values"][axis] for member in members)) for axis in axes}
  for axis, found in levels.items():
    if len(found) != 2:
      raise UserError(f"the axis {axis!r} has {len(found)} levels, {', '.join(map(str, found))}; give it two.")
  if len(axes) < 2:
    raise UserError("the run's grid has fewer than two axes, so there are no interactions; see experiments.report.")
  seeds = sorted({member["seed"] for member in members})
  values = np.full((2,) * len(axes) + (len(seeds),), np.nan)
  for member in members:
    at = tuple(levels[axis].index(member["values"][axis]) for axis in axes)
    values[(*at, seeds.index(member["seed"]))] = metric_of(member, metric)  # nan if it diverged
  whole = np.isfinite(values).reshape(-1, len(seeds)).all(axis=0)
  if not whole.any():
    raise UserError("no seed has a number at every point of the grid, so there is no effect; lower the learning rate.")
  return axes, values[..., whole]


def effects(values: np.ndarray) -> dict[tuple[int, ...], np.ndarray]:
  """Returns {axes: effect of each seed [seeds]} for every set of axes of a response [2, ..., 2, seeds]."""
  k = values.ndim - 1
  signs = [np.array([-1.0, 1.0]).reshape([2 if i == j else 1 for j in range(k)] + [1]) for i in range(k)]
  result = {}
  for size in range(1, k + 1):
    for chosen in itertools.combinations(range(k), size):
      contrast = values * math.prod(signs[i] for i in chosen)
      result[chosen] = without_rounding(contrast.sum(axis=tuple(range(k))) / 2 ** (k - 1), values)
  return result
