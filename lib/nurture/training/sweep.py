"""A sweep: which members of a run are trained together, as one program over arrays with a leading member axis."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping, Sequence

import jax
import jax.numpy as jnp

from nurture.core import UserError
from nurture.training.config import Config, put
from nurture.training.experiment import Experiment, HyperParameters, hyper_parameters
from nurture.training.grid import Member, is_numeric
from nurture.training.programs import members_at_once

# What tracing raises where a value must be known before the program runs.
_NOT_TRACEABLE = (
  UserError, TypeError, ValueError, jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError,
)


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
  numeric = [p for p in everywhere if is_numeric(m.assignments[p] for m in members if p in m.assignments)]
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
  init = lambda values: experiment.init(hp(values))
  state = jax.eval_shape(init, values)
  rest = experiment.abstract_rows(), experiment.abstract_fields(), experiment.arrays
  step_in = lambda phase: lambda values, state, rows, fields, arrays: experiment.step(
    state, hp(values), rows, fields, arrays, phase
  )
  traced = [jax.make_jaxpr(init)(values)]
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
