"""A sweep: the members that a config asks for, what may vary among them in one program, and who is trained together.

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
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nurture.core import UserError
from nurture.core.build import suggest
from nurture.reporting import label_of
from nurture.training.config import MEMBER_SECTIONS, Config, get, put
from nurture.training.experiment import Experiment, HyperParameters, hyper_parameters
from nurture.training.programs import members_at_once

# What tracing raises where a value must be known before the program runs.
_NOT_TRACEABLE = (
  UserError, TypeError, ValueError, jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError,
)


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


@dataclasses.dataclass(frozen=True)
class Cohort:
  """Members that are trained together, as one program over arrays with a leading member axis.

  Attributes:
    index: position among the cohorts of the run, which are trained one after another.
    experiment: of the config with the structural values of these members put in.
    members: at least one.
    varying: the config paths whose values differ inside the program.
  """

  index: int
  experiment: Experiment
  members: tuple[Member, ...]
  varying: tuple[str, ...]

  def hyper_parameters(self) -> HyperParameters:
    """Returns the members' hyper-parameters, stacked: "seed" [M] uint32, "values" {path: [M] float32}."""
    seeds = jnp.asarray([member.seed for member in self.members], jnp.uint32)
    columns = {path: [member.assignments[path] for member in self.members] for path in self.varying}
    return {"seed": seeds, "values": {path: jnp.asarray(column, jnp.float32) for path, column in columns.items()}}


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


def cohorts_of(
  config: Config, members: Iterable[Member], read: Callable[[Config], Experiment]
) -> tuple[Cohort, ...]:
  """Groups members that one program can train, in order of appearance, and cuts the groups into chunks.

  Args:
    config: the run's config.
    members: of the run.
    read: config with the values of a member put in -> its experiment; called once for each program.

  Raises:
    UserError: for mistakes in the config, its data and its references.
  """
  members = tuple(members)
  everywhere = dict.fromkeys(path for member in members for path in member.assignments)
  numeric = [p for p in everywhere if _is_numeric(m.assignments[p] for m in members if p in m.assignments)]
  cohorts: list[Cohort] = []
  for group in _group(members, exclude=numeric):
    first = read(put(config, group[0].assignments))
    moved = [path for path in numeric if path in group[0].assignments]  # all of a group set the same paths
    points = list({m.label: {p: m.assignments[p] for p in moved} for m in group}.values())
    varying = can_vary(first, points) if moved else ()
    for part in _group(group, exclude=varying):
      experiment = first if part[0] is group[0] else read(put(config, part[0].assignments))
      size = members_at_once(experiment, len(part))
      for start in range(0, len(part), size):
        cohorts.append(Cohort(len(cohorts), experiment, tuple(part[start : start + size]), varying))
  return tuple(cohorts)


def can_vary(experiment: Experiment, points: Sequence[Mapping[str, float]]) -> tuple[str, ...]:
  """Returns the paths whose values may differ between members of one program.

  These are the values that initialization or the step reads and need not know beforehand. The others are
  structural: each of their values needs a program of its own (a depth, a dropout rate that the layer compares
  with zero), or data or references of its own (a batch size, a noise rate), which are made outside the program.

  Args:
    experiment: of the config with the values of the first point.
    points: {path: value} of each kind of member. Each is built with its plain values first, because checks of a
      value's range cannot see it inside a trace.

  Raises:
    UserError: for a value out of its range.
  """
  for point in points:
    experiment.parts(point)

  def read(chosen):
    try:
      return _values_read(experiment, chosen)
    except _NOT_TRACEABLE:
      return None

  paths = tuple(points[0])
  together = read(paths)
  if together is None:  # one of them stops the trace: ask for each by itself
    together = {path for path in paths if read((path,))}
  return tuple(path for path in paths if path in together)


def _values_read(experiment: Experiment, paths: Iterable[str]) -> set[str]:
  """Returns those of the paths whose values are an operand somewhere in initialization or the step."""
  values = jax.eval_shape(lambda: hyper_parameters(0, dict.fromkeys(paths, 0.0)))["values"]
  hp = lambda values: hyper_parameters(0) | {"values": values}
  state = jax.eval_shape(lambda values: experiment.init(hp(values)), values)
  rest = experiment.abstract_rows(), experiment.abstract_fields(), experiment.arrays
  step_in = lambda phase: lambda values, state, rows, fields, arrays: experiment.step(
    state, hp(values), rows, fields, arrays, phase
  )
  traced = [jax.make_jaxpr(lambda values: experiment.init(hp(values)))(values)]
  traced += [jax.make_jaxpr(step_in(phase))(values, state, *rest) for phase in experiment.phases]
  used = set()
  for jaxpr in (closed.jaxpr for closed in traced):
    operands = {id(v) for v in jaxpr.outvars} | {id(v) for equation in jaxpr.eqns for v in equation.invars}
    names = sorted(values)  # the order in which a dict is flattened
    used |= {name for name, variable in zip(names, jaxpr.invars) if id(variable) in operands}
  return used


def _group(members: Iterable[Member], exclude: Iterable[str]) -> list[list[Member]]:
  """Returns members grouped by the paths that they set and by what they put there, but for the values at some paths.

  Groups are in order of appearance.
  """
  exclude = set(exclude)
  groups: dict[str, list[Member]] = {}
  for member in members:
    key = json.dumps([(p, None if p in exclude else [v]) for p, v in member.assignments.items()], default=str)
    groups.setdefault(key, []).append(member)
  return list(groups.values())


def _is_numeric(values: Iterable[Any]) -> bool:
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
  if _is_numeric((old,)) and _is_numeric((value,)):
    return
  if isinstance(old, str) and not path.endswith(".name") and (
    _is_numeric((value,)) or isinstance(value, (Mapping, tuple))
  ):
    return  # a field may take a word or a number or a dict; building the object tells
  if old is not None and type(old) is not type(value) and not (_is_numeric((old,)) and isinstance(value, Mapping)):
    raise UserError(f"{where} puts {value!r} at {path}, where the config has {old!r}; give values of that type.")


def _name(label: str, level: Any) -> Any:
  """A level without a name is called by its value; JSON has none for infinity and nan, and other types are text."""
  if isinstance(level, float) and not math.isfinite(level):
    return f"{label}={level}"
  return level if isinstance(level, (int, float, str, bool)) else str(level)
