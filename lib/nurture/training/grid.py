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
      "ELR": {
        "set": (("losses.elr.weight", 1.0),),
        "grid": {"lam": {"path": "losses.elr.lam", "levels": (1.0, 3.0)}},
      },
    }}

gives three points: cross-entropy once, ELR at two levels. "set" has pairs of a path and a value, or is a dict of them;
a ConfigDict allows no dots in its keys, so a dict in a config file can only have whole sections such as "losses".
"""

from __future__ import annotations

import dataclasses
import itertools
import json
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
    UserError: if an axis is malformed, its path does not exist, it sets what cannot vary, or two of its levels, two
      arms or two points of the grid could not be told apart.
  """
  members: list[Member] = []
  called: set[str] = set()
  for point in _read_grid(config, config["ensemble"]["grid"], "config.ensemble.grid"):
    values, label = point.values, label_of(point.values)
    if label in called:  # "a, b" and "c" is written as "a" and "b, c" is
      raise UserError(f"config.ensemble.grid has two points that are called {label!r}; give the levels names that tell "
                      "them apart.")
    called.add(label)
    try:
      put(config, point.changes)
    except UserError as error:  # one axis sets what another one has taken away
      raise UserError(f"config.ensemble.grid at {label!r}: {error}") from None
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


def _read_grid(config: Config, grid: Mapping[str, Any], where: str) -> list[_Point]:
  """Returns all combinations of the points of the axes of a grid that stands at a path of the config."""
  axes = {label: _read_axis(config, label, axis, where) for label, axis in grid.items()}
  setters: dict[str, str] = {}
  owners: dict[str, str] = {}
  for label, points in axes.items():
    before = dict(setters)
    for name in dict.fromkeys(name for point in points for name in point.values):
      if name in owners:
        raise UserError(f"{where}.{label} and {owners[name]} both have an axis {name!r}; give one another name.")
      owners[name] = label
    for path in dict.fromkeys(path for point in points for path in point.changes):
      if path in setters:
        raise UserError(f"{where}.{label} and {setters[path]} both set {path}; leave it to one of them.")
      if inner := next((other for other in before if other.startswith(f"{path}.")), None):
        raise UserError(f"{where}.{label} sets all of {path}, and so undoes what {setters[inner]} sets at {inner}; "
                        f"write {label} before {setters[inner]}.")
      setters[path] = label
  return [_joined(chosen) for chosen in itertools.product(*axes.values())]


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
  arms: dict[str, list[_Point]] = {}
  for name, arm in axis["arms"].items():
    place = f"{where}.arms.{name}"
    if not isinstance(arm, Mapping):
      raise UserError(f"{place} is {arm!r}; give a dict with 'set' and 'grid', or {{}} for the config as it is.")
    for field in arm:
      if field not in ("set", "grid"):
        hint = "axes of an arm stand in its 'grid'" if field in ("path", "levels") else suggest(field, ("set", "grid"))
        raise UserError(f"{place}.{field} does not exist; {hint}.")
    changes, inner = _changes(config, arm.get("set", {}), f"{place}.set"), arm.get("grid")
    if inner is not None and (not isinstance(inner, Mapping) or not inner):
      raise UserError(f"{place}.grid is {inner!r}; give a dict of axes, or leave 'grid' out for an arm of one point.")
    own = _read_grid(put(config, changes), inner or {}, f"{place}.grid")
    if any(label in point.values for point in own):
      raise UserError(f"{place}.grid has an axis {label!r}, which is the name of the axis of the arms; rename it.")
    arms[name] = [_joined([_Point({label: name}, changes), point]) for point in own]
  sections = sorted({path.split(".")[0] for points in arms.values() for point in points for path in point.changes})
  settings: dict[str, str] = {}
  for name, points in arms.items():
    configs = (put(config, point.changes) for point in points)
    reached = json.dumps(sorted(json.dumps([c[section] for section in sections], default=str) for c in configs))
    if reached in settings:
      raise UserError(f"{where}.arms has {settings[reached]!r} and {name!r} with the same settings; leave one out, or "
                      "set what they differ in.")
    settings[reached] = name
  return [point for points in arms.values() for point in points]


def _changes(config: Config, given: Any, where: str) -> dict[str, Any]:
  """Returns what an arm sets, {path: value}, from a dict or from pairs."""
  pairs = tuple(given.items()) if isinstance(given, Mapping) else given
  if not isinstance(pairs, tuple) or not all(isinstance(pair, tuple) and len(pair) == 2 for pair in pairs):
    raise UserError(f"{where} is {given!r}; give pairs of a config path and a value, as in (('model.width', 16),), or "
                    "a dict.")
  changes: dict[str, Any] = {}
  for path, value in pairs:
    _check_assignment(put(config, changes), where, path, value, field="")
    if other := next((other for other in changes if f"{other}.".startswith(f"{path}.")), None):
      raise UserError(f"{where} sets {path} behind {other}, and so undoes it; leave one out.")
    changes[path] = value
  return changes


def _check_distinct(where: str, names: list[Any]) -> None:
  """Members are grouped by the names of their levels: under one name they would count as replicates."""
  for i, name in enumerate(names):
    if not isinstance(name, str) and not (isinstance(name, (int, float)) and math.isfinite(name)):
      raise UserError(f"{where}.names[{i}] is {name!r}; give text or a finite number.")
    for j, other in enumerate(names[:i]):
      if name == other or str(name) == str(other):  # 1, 1.0 and True are equal, 0.1 and "0.1" are written the same
        raise UserError(f"{where} calls levels[{j}] {other!r} and levels[{i}] {name!r}, which would be one group; "
                        "leave one out and raise config.ensemble.seeds for more members, or set different 'names'.")


def _check_assignment(config: Config, where: str, path: Any, value: Any, field: str = ".path") -> None:
  """Refuses a path that cannot be swept, or a value of another type than what stands there."""
  if not isinstance(path, str) or not path:
    raise UserError(f"{where}{field} is {path!r}; give a dotted config path such as 'optimizer.learning_rate'.")
  try:
    old = get(config, path)
  except UserError as error:
    raise UserError(f"{where}{field} is {path!r}, but {error}") from None
  section = path.split(".")[0]
  if section not in MEMBER_SECTIONS:
    hint = "set config.ensemble.seeds" if path == "seed" else f"only {', '.join(MEMBER_SECTIONS)} can"
    raise UserError(f"{where}{field} is {path!r}, which cannot differ between members; {hint}.")
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
