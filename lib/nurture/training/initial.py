"""Where a run begins if not from its seeds: with the variables of another run, or where that run left off.

    config.init = {"run": "runs/pretrained"}                                fine-tunes member 0 of that run
    config.init = {"run": "runs/pretrained", "reinitialize": ("head",)}     the same with a head of its own
    config.init = {"run": "runs/short", "take": "all"}                      goes on with every member, for more steps

The first two take a network and begin anew: at step 0, with a fresh optimizer, and each member in the order of its own
seed. The last one takes everything, the rows of metrics.jsonl too, so the new directory is that of one long run.
"""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from nurture import reporting
from nurture.core import UserError, build, trees
from nurture.core.build import suggest
from nurture.core.hints import Count, Whole
from nurture.training.config import Config, from_json, put, to_json
from nurture.training.grid import Member, members_of
from nurture.training.run_directory import Stored, filled, stored_member, stored_members
from nurture.transforms.parameters import PARAMETERS

Tree = Any

INIT = "init"  # the label of these variables among the arrays of an experiment


@dataclasses.dataclass(frozen=True)
class Init:
  """The section config.init.

  Attributes:
    run: a run directory, finished or not.
    take: "variables" of one member, as its evaluation used them (an average, where its config says so); or "all": the
      state of every member with its optimizer and its step, which needs a config of the same members and states.
    member: whose variables, of that run.
    step: of the checkpoint; "last", or "best" by that run's config.checkpoint.best.
    reinitialize: names of parts of the parameters ("head", "encoder/block_3") that come from the seed all the same.
  """

  run: str
  take: Literal["variables", "all"] = "variables"
  member: Whole = 0
  step: Count | Literal["last", "best"] = "last"
  reinitialize: tuple[str, ...] = ()

  @classmethod
  def of(cls, config: Config) -> Init | None:
    """Reads config.init; None where it is missing or empty.

    Raises:
      UserError: for a section that is malformed.
    """
    fields = config.get("init")
    if not fields:
      return None
    init = build({"init": cls}, {**fields, "name": "init"}, path="config.init")
    if init.take == "all":
      for name, only in (("member", 0), ("reinitialize", ())):
        if getattr(init, name) != only:
          raise UserError(f"config.init.take is 'all', every member as it is; leave out config.init.{name}.")
    return init


def start_variables(config: Config, own: Tree) -> dict[str, np.ndarray]:
  """Returns the variables that members begin with in place of their own, by path ("params/head/kernel").

  Args:
    config: of the new run, with the values of a member put in.
    own: shapes of the variables of its model.

  Returns:
    {} where they begin with their own, or where everything is taken and not the variables alone.

  Raises:
    UserError: if there is no such run, member or step, or its network is another one.
  """
  init = Init.of(config)
  if init is None or init.take == "all":
    return {}
  stored = stored_member(init.run, init.member, None if init.step == "last" else init.step)
  if stored.died_at >= 0:
    raise UserError(f"member {init.member} of {init.run} diverged at step {stored.died_at}; choose another one.")
  _check_unseen(stored.config, config)
  found = _evaluated(stored)
  shapes = {name: leaf.shape for name, leaf in trees.named_leaves(own)}
  inside = lambda name, part: name.partition("/")[2] == part or name.partition("/")[2].startswith(f"{part}/")
  for part in init.reinitialize:
    if not any(inside(name, part) for name in shapes):
      known = sorted({name.split("/")[1] for name in shapes if name.startswith("params/")})
      raise UserError(f"config.init.reinitialize names {part!r}, which the parameters do not have; "
                      f"{suggest(part, known)}.")
  start = {name: value for name, value in found.items() if not any(inside(name, part) for part in init.reinitialize)}
  wanted = {name: shape for name, shape in shapes.items() if not any(inside(name, p) for p in init.reinitialize)}
  for name in sorted({*start, *wanted}):
    there, here = start[name].shape if name in start else "missing", wanted.get(name, "missing")
    if there != here:
      raise UserError(f"config.init.run is {init.run}, whose network is not the one of config.model: {name} is {there} "
                      f"there and {here} here; name the part in config.init.reinitialize, or use that run's model.")
  return start


def _evaluated(stored: Stored) -> dict[str, np.ndarray]:
  """Returns the variables that evaluation used, by path."""
  prefix = "state/variables/"
  found = {name.removeprefix(prefix): value for name, value in stored.arrays.items() if name.startswith(prefix)}
  label = stored.config["evaluation"]["parameters"]
  if label:
    nested = _nested({name.removeprefix("params/"): v for name, v in found.items() if name.startswith("params/")})
    config = from_json(stored.config)
    config = put(config, members_of(config)[stored.number].assignments)
    transform = build(PARAMETERS, config["parameters"][label], path=f"config.parameters.{label}")
    state = filled(jax.eval_shape(transform.init, nested), stored.arrays, f"state/parameter_states/{label}")
    averaged = jax.device_get(transform.evaluation(state, nested))
    found |= {f"params/{name}": np.asarray(leaf) for name, leaf in trees.named_leaves(averaged)}
  return found


def _nested(leaves: Mapping[str, Any]) -> dict[str, Any]:
  nested: dict[str, Any] = {}
  for name, value in leaves.items():
    *parents, last = name.split("/")
    inner = nested
    for parent in parents:
      inner = inner.setdefault(parent, {})
    inner[last] = value
  return nested


def _check_unseen(theirs: Mapping[str, Any], config: Config) -> None:
  """Refuses a network that has seen this run's validation examples."""
  ours, data = to_json(config["data"]), theirs["data"]
  if not ours["validation"] or data["source"] != ours["source"]:
    return
  for field in ("seed", "validation"):
    if data[field] != ours[field]:
      raise UserError(f"config.init.run was trained with config.data.{field}={data[field]}, so it has seen validation "
                      f"examples of this config, which has {ours[field]}; make them equal.")


class Continued(NamedTuple):
  """Members of another run as it left off.

  Attributes:
    step: number of steps that they have taken.
    tree: {"state", "sums"} of the members, [M] leaves.
    rows: theirs in metrics.jsonl up to this step, without the cohort.
  """

  step: int
  tree: dict[str, Tree]
  rows: list[dict[str, Any]]


def check_continues(config: Config, members: Sequence[Member]) -> dict[str, str]:
  """Checks that a run can go on from the one that config.init takes all of, if it says so.

  Returns:
    The checksum of what is taken, by config path.

  Raises:
    UserError: if there is no such run, or it has other members, or no fewer steps; and if members would take it
      differently.
  """
  init = Init.of(config)
  for member in members:
    if any(path.split(".")[0] == "init" for path in member.assignments):
      own = Init.of(put(config, member.assignments))
      if any(one is not None and one.take == "all" for one in (init, own)):
        raise UserError("config.ensemble.grid sets config.init, which takes all of a run, and so every member at once; "
                        "set config.init.take to 'variables', or leave it out of the grid.")
  if init is None or init.take != "all":
    return {}
  entries = reporting.read_manifest(init.run)["members"]
  if [(e["seed"], e["values"]) for e in entries] != [(m.seed, to_json(dict(m.values))) for m in members]:
    raise UserError(f"config.init takes all of {init.run}, which has other members (their seeds, or their places in "
                    "the grid); use that run's seed and config.ensemble, or set config.init.take to 'variables'.")
  digests = []
  for cohort in dict.fromkeys(entry["cohort"] for entry in entries):
    first = next(entry["member"] for entry in entries if entry["cohort"] == cohort)
    stored = stored_member(init.run, first, _step(init))
    if stored.step >= config["steps"]:
      raise UserError(f"config.init takes all of {init.run}, which has taken {stored.step} steps, and config.steps is "
                      f"{config['steps']}; give more steps than that.")
    digests.append(stored.digest)
  return {"config.init": hashlib.sha256("".join(digests).encode()).hexdigest()}


def continued(config: Config, members: Sequence[Member], shapes: Mapping[str, Tree]) -> Continued | None:
  """Reads the members of a cohort as the run that config.init takes all of left off; None if it does not.

  Args:
    config: of the new run.
    members: of the cohort.
    shapes: of {"state", "sums"}, with their [M] leaves.

  Raises:
    UserError: if their states are of another kind, or they stopped at different steps.
  """
  init = Init.of(config)
  if init is None or init.take != "all":
    return None
  found = stored_members(init.run, [member.index for member in members], _step(init))
  steps = sorted({int(stored.arrays["state/step"]) for stored in found} | {stored.step for stored in found})
  if len(steps) > 1:
    raise UserError(f"config.init takes all of {init.run}, whose members stand at the steps "
                    f"{', '.join(map(str, steps))}; name a step in config.init.step at which all were saved.")
  one = {name: jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), shapes[name])
         for name in ("state", "sums")}
  trees_ = [{name: filled(one[name], stored.arrays, name) for name in one} for stored in found]
  numbers = {member.index for member in members}
  rows = [
    {name: value for name, value in row.items() if name != "cohort"}
    for row in reporting.read_rows(pathlib.Path(init.run) / "metrics.jsonl")
    if row["member"] in numbers and row["step"] <= steps[0]
  ]
  return Continued(steps[0], jax.tree.map(lambda *leaves: np.stack(leaves), *trees_), rows)


def _step(init: Init) -> int | None:
  if init.step == "best":
    raise UserError("config.init.take is 'all', and the best states of members are of different steps; set "
                    "config.init.step to 'last' or a number, or take 'variables'.")
  return None if init.step == "last" else init.step
