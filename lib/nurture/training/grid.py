"""The members that a config asks for.

    config.ensemble = {
      "seeds": 20,
      "grid": {"noise": {"path": "gradients.noise.eta", "levels": (0.0, 0.01)}},
      "chunk": 0, "map": "vmap",
    }

gives 40 members: every seed at every point of the grid. An axis may move several paths at once
("path": ("model.depth", "model.width"), "levels": ((2, 64), (4, 32))) and may name its levels
("names": ("shallow", "deep")), for tables and plots.

An axis may also be a list of arms. Each sets what it needs, and has axes of its own where it has something to choose:

    "method": {"arms": {
      "cross-entropy": {},
      "ELR": {"set": {"losses.elr.weight": 1.0}, "grid": {"lam": {"path": "losses.elr.lam", "levels": (1.0, 3.0)}}},
    }}

gives three points: cross-entropy once, ELR at two levels.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from nurture.core import UserError
from nurture.core.build import suggest
from nurture.reporting import label_of
from nurture.training.config import MEMBER_SECTIONS, Config, get, put


@dataclasses.dataclass(frozen=True)
class Member:
  """One network of an ensemble.

  Attributes:
    index: position among all members of the run.
    seed: moves init, order, augmentation and noise; the run's seed plus the number of the replicate.
    values: where the member stands on each axis of the grid, {axis: level or its name}.
    assignments: what is put into the config for it, {config path: value}.
  """

  index: int
  seed: int
  values: Mapping[str, Any]
  assignments: Mapping[str, Any]

  @property
  def label(self) -> str:
    """The group that the member belongs to, such as "eta=0.01, lr=0.1", or a level's name; "all" without a grid."""
    return label_of(self.values)


def members_of(config: Config) -> tuple[Member, ...]:
  """Expands the grid and the seeds of a config into members, grid points outermost.

  Raises:
    UserError: if an axis is malformed, its path does not exist, it sets what cannot vary, or two of its levels or two
      points of the grid could not be told apart.
  """
  grid = config["ensemble"]["grid"]
  axes = [_read_axis(config, label, axis, "config.ensemble.grid") for label, axis in grid.items()]
  taken: dict[str, str] = {}
  for label, axis in zip(grid, axes):
    for path in dict.fromkeys(path for point in axis for path in point.changes):
      if path in taken:
        raise UserError(f"config.ensemble.grid.{label} and {taken[path]} both set {path}; leave it to one of them.")
      taken[path] = label
  members: list[Member] = []
  called: set[str] = set()
  for chosen in itertools.product(*axes):
    point = _joined(chosen)
    values = point.values
    if label_of(values) in called:  # "a, b" and "c" is written as "a" and "b, c" is
      raise UserError(f"config.ensemble.grid has two points that are called {label_of(values)!r}; give the levels "
                      "names that tell them apart.")
    called.add(label_of(values))
    for replicate in range(config["ensemble"]["seeds"]):
      members.append(Member(len(members), config["seed"] + replicate, values, point.changes))
  return tuple(members)


def is_numeric(values: Iterable[Any]) -> bool:
  """Returns whether all of some levels are numbers; true and false are none."""
  return all(isinstance(v, (int, float, np.number)) and not isinstance(v, bool) for v in values)


class _Point(NamedTuple):
  """A place on one axis of the grid, or on several: {axis: name of the level}, and {path: value} that leads there."""

  values: dict[str, Any]
  changes: dict[str, Any]


def _joined(points: Iterable[_Point]) -> _Point:
  joined = _Point({}, {})
  for point in points:
    joined.values.update(point.values)
    joined.changes.update(point.changes)
  return joined


def _read_axis(config: Config, label: str, axis: Any, parent: str) -> list[_Point]:
  """Returns the points of one axis of the grid that stands at a path of the config."""
  where = f"{parent}.{label}"
  if not isinstance(axis, Mapping):
    raise UserError(f"{where} is {axis!r}; give a dict with 'path' and 'levels', or with 'arms'.")
  if "arms" in axis:
    return _read_arms(config, label, axis, where)
  for field in axis:
    if field not in ("path", "levels", "names"):
      raise UserError(f"{where}.{field} does not exist; {suggest(field, ('path', 'levels', 'names'))}.")
  for field in ("path", "levels"):
    if field not in axis:
      raise UserError(f"{where}.{field} is missing; an axis needs a config path and the levels to put there.")
  levels, names = axis["levels"], axis.get("names") or ()
  if not isinstance(levels, tuple) or not levels:
    raise UserError(f"{where}.levels is {levels!r}; give a tuple of at least one level.")
  if names and len(names) != len(levels):
    raise UserError(f"{where}.names has {len(names)} names for {len(levels)} levels; give one each.")
  paths = axis["path"] if isinstance(axis["path"], tuple) else (axis["path"],)
  points = []
  for i, level in enumerate(levels):
    entry = level if isinstance(axis["path"], tuple) else (level,)
    if not isinstance(entry, tuple) or len(entry) != len(paths):
      raise UserError(f"{where}.levels[{i}] is {level!r}; give one value for each of the {len(paths)} paths.")
    for path, value in zip(paths, entry):
      _check_assignment(config, where, path, value)
    points.append(_Point({label: names[i] if names else _name(label, level)}, dict(zip(paths, entry))))
  _check_distinct(where, [point.values[label] for point in points])
  return points


def _read_arms(config: Config, label: str, axis: Mapping[str, Any], where: str) -> list[_Point]:
  """Returns the points of an axis of arms: each arm at every point of its own grid."""
  if set(axis) != {"arms"}:
    other = next(field for field in axis if field != "arms")
    raise UserError(f"{where} has arms and {other!r}; give it one of both.")
  if not isinstance(axis["arms"], Mapping) or not axis["arms"]:
    raise UserError(f"{where}.arms is {axis['arms']!r}; give a dict of arms by name.")
  points = []
  for name, arm in axis["arms"].items():
    place = f"{where}.arms.{name}"
    if not isinstance(arm, Mapping):
      raise UserError(f"{place} is {arm!r}; give a dict with 'set' and 'grid', or {{}} for the config as it is.")
    for field in arm:
      if field not in ("set", "grid"):
        raise UserError(f"{place}.{field} does not exist; {suggest(field, ('set', 'grid'))}.")
    changes, inner = arm.get("set", {}), arm.get("grid", {})
    for field, value in (("set", changes), ("grid", inner)):
      if not isinstance(value, Mapping):
        raise UserError(f"{place}.{field} is {value!r}; give a dict.")
    for path, value in changes.items():
      _check_assignment(config, f"{place}.set", path, value)
    if label in inner:
      raise UserError(f"{place}.grid.{label} has the name of the axis of the arms; give it another.")
    own = [_read_axis(put(config, changes), axis_label, axis_, f"{place}.grid") for axis_label, axis_ in inner.items()]
    points += [_joined([_Point({label: name}, dict(changes)), *chosen]) for chosen in itertools.product(*own)]
  return points


def _check_distinct(where: str, names: list[Any]) -> None:
  """Members are grouped by the names of their levels: under one name they would count as replicates."""
  for i, name in enumerate(names):
    if not isinstance(name, str) and not (isinstance(name, (int, float)) and math.isfinite(name)):
      raise UserError(f"{where}.names[{i}] is {name!r}; give text or a finite number.")
    for j, other in enumerate(names[:i]):
      if name == other or str(name) == str(other):  # 1, 1.0 and True are equal, 0.1 and "0.1" are written the same
        raise UserError(f"{where} calls levels[{j}] {other!r} and levels[{i}] {name!r}, which would be one group; "
                        "leave one out and raise config.ensemble.seeds for more members, or set different 'names'.")


def _check_assignment(config: Config, where: str, path: str, value: Any) -> None:
  if not isinstance(path, str):
    raise UserError(f"{where}.path is {path!r}; give a dotted config path such as 'optimizer.learning_rate'.")
  old = get(config, path)
  section = path.split(".")[0]
  if section not in MEMBER_SECTIONS:
    hint = "set config.ensemble.seeds" if path == "seed" else f"only {', '.join(MEMBER_SECTIONS)} can"
    raise UserError(f"{where}.path is {path!r}, which cannot differ between members; {hint}.")
  if is_numeric((old,)) and is_numeric((value,)):
    return
  if isinstance(old, str) and not path.endswith(".name") and (
    is_numeric((value,)) or isinstance(value, (Mapping, tuple))
  ):
    return  # a field may take a word or a number or a dict; building the object tells
  if old is not None and type(old) is not type(value) and not (is_numeric((old,)) and isinstance(value, Mapping)):
    raise UserError(f"{where} puts {value!r} at {path}, where the config has {old!r}; give values of that type.")


def _name(label: str, level: Any) -> Any:
  """A level without a name is called by its value; JSON has none for infinity and nan, and other types are text."""
  if isinstance(level, float) and not math.isfinite(level):
    return f"{label}={level}"
  return level if isinstance(level, (int, float, str, bool)) else str(level)
