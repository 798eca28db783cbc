"""Frozen networks that transforms compare with: guides and teachers, trained or as initialized.

    config.references = {"teacher": {"model": {...}, "run": "runs/teacher", "member": 0, "seed": 0}}

`run` names a finished run directory whose member's variables are used; empty, the model is initialized
from `seed`. It is evaluated with the defaults of the arguments that a schedule moves in training. The
variables travel to the step as an argument: nothing of them is compiled in.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from lib import models
from lib.core import DataSpec, UserError, build, rng
from lib.core.build import suggest
from lib.reporting import read_json
from lib.training.checkpoint import Checkpoints
from lib.training.step import input_dtype

Tree = Any

_FIELDS = {"model": Mapping, "run": str, "member": int, "seed": int}


def load(config: Mapping[str, Any], spec: DataSpec) -> dict[str, Tree]:
  """Returns {label: variables} for the references section of a config.

  Raises:
    UserError: for a malformed entry, or a run that is missing or unfinished or holds another model.
  """
  return {label: _load_one(f"config.references.{label}", fields, spec) for label, fields in config.items()}


def _load_one(path: str, fields: Mapping[str, Any], spec: DataSpec) -> Tree:
  for name in fields:
    if name not in _FIELDS:
      raise UserError(f"{path}.{name} does not exist; {suggest(name, _FIELDS)}.")
  for name, kind in _FIELDS.items():
    if not isinstance(fields.get(name), kind):
      raise UserError(f"{path}.{name} is missing or not a {kind.__name__}; a reference needs {', '.join(_FIELDS)}.")
  model = build(models.MODELS, fields["model"], path=f"{path}.model", num_classes=spec.num_classes)
  # A stream of its own: an untrained guide must not start as the member with the same seed does.
  key = rng.stream(jax.random.key(fields["seed"]), "references.init")
  make = lambda key: model.init(key, jnp.zeros((1, *spec.input_shape), input_dtype(spec)))
  if not fields["run"]:
    return jax.jit(make)(key)
  variables = member_variables(pathlib.Path(fields["run"]), fields["member"])
  expected = jax.eval_shape(make, key)
  same = jax.tree.structure(variables) == jax.tree.structure(expected) and all(
    a.shape == b.shape for a, b in zip(jax.tree.leaves(variables), jax.tree.leaves(expected))
  )
  if not same:
    raise UserError(f"{path}.run is {fields['run']}, whose network is not the one of {path}.model; copy the model "
                    "section of that run's config.json.")
  return jax.tree.map(jnp.asarray, variables)


def member_variables(workdir: pathlib.Path, member: int) -> Tree:
  """Returns the variables of one member of a finished run, as nested dicts of numpy arrays.

  Raises:
    UserError: if the directory is not a finished run or has no such member.
  """
  if not (workdir / "results.json").exists():
    raise UserError(f"{workdir} is not a finished run (it has no results.json); train it to its end first.")
  entries = read_json(workdir / "results.json")["members"]
  if not 0 <= member < len(entries):
    raise UserError(f"{workdir} has {len(entries)} members, numbered from 0; member {member} does not exist.")
  cohort = entries[member]["cohort"]
  position = [entry["member"] for entry in entries if entry["cohort"] == cohort].index(member)
  checkpoints = Checkpoints(cohort_directory(workdir, cohort), keep=1)
  if not checkpoints.steps():
    raise UserError(f"{workdir} has no checkpoint of member {member}; train it again.")
  variables: dict[str, Any] = {}
  for name, array in checkpoints.read_arrays(checkpoints.steps()[-1]).items():
    parts = name.split("/")
    if parts[:2] == ["state", "variables"]:
      inner = variables
      for part in parts[2:-1]:
        inner = inner.setdefault(part, {})
      inner[parts[-1]] = array[position]
  return variables


def cohort_directory(workdir: pathlib.Path, cohort: int) -> pathlib.Path:
  """Returns where the checkpoints of a cohort lie."""
  return workdir / "checkpoints" / f"cohort_{cohort:03d}"
