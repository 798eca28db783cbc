"""Configs as plain dicts: what one must hold, how a path into it is read and written, and how two differ."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Mapping
from typing import Annotated, Any

from ml_collections import ConfigDict

from nurture.core import UserError, hints
from nurture.core.build import suggest
from nurture.core.hints import Count, Range, Seed, Whole

Config = dict[str, Any]

# Section -> the type it must have. A section that is a dict of parts is keyed by labels of the user's choice.
SECTIONS = {
  "seed": Seed,
  "steps": Count,
  "batch_size": Count,
  "data": dict,
  "model": dict,
  "scheduled": dict,
  "references": dict,
  "targets": dict,
  "losses": dict,
  "gradients": dict,
  "optimizer": dict,
  "parameters": dict,
  "probes": dict,
  "evaluation": dict,
  "ensemble": dict,
  "log_every": Count,
  "steps_per_dispatch": Whole,
  "checkpoint": dict,
  "report": dict,
}
# Sections whose fields are fixed, with the type of each.
FIELDS: dict[str, dict[str, Any]] = {
  "evaluation": {"batch_size": Count, "parameters": str},
  "ensemble": {"seeds": Annotated[int, Range(least=1, most=10**6)], "grid": dict, "chunk": Whole, "map": str},
  "checkpoint": {"every": Whole, "keep": Count},
  "report": {"metrics": tuple},
}
# What a config may leave out.
OPTIONAL: dict[str, dict[str, Any]] = {"": {"init": dict, "stopping": dict}, "checkpoint.": {"best": dict}}
# Collections whose parts apply in the order written.
ORDERED = ("targets", "losses", "gradients", "parameters", "data.augment")
# What one member may have different from another; the rest belongs to the run as a whole.
MEMBER_SECTIONS = (
  "batch_size", "data", "model", "scheduled", "references", "targets", "losses", "gradients", "optimizer", "parameters",
  "init",
)


def plain(config: Any) -> Any:
  """Returns a config as nested plain dicts in the order written, with references resolved and lists as tuples."""
  if isinstance(config, ConfigDict):
    # Transforms apply in the order written, which a ConfigDict keeps but shows sorted by name unless it and
    # every dict in it was made with sort_keys=False. Only this field has the order for all of them.
    return {name: plain(config[name]) for name in config._fields}
  if isinstance(config, Mapping):
    return {str(name): plain(inner) for name, inner in config.items()}
  return tuple(plain(inner) for inner in config) if isinstance(config, (list, tuple)) else config


def check(config: Config) -> None:
  """Checks the sections and the fields that the trainer itself reads.

  Raises:
    UserError: for a missing, unknown or ill-typed section or field, or a number out of range.
  """
  _check_fields("", config, SECTIONS)
  for section, fields in FIELDS.items():
    _check_fields(f"{section}.", config[section], fields)
  if not config["losses"]:
    raise UserError("config.losses is empty; name at least one loss term.")
  if config["ensemble"]["map"] not in ("vmap", "map"):
    raise UserError(f"config.ensemble.map is {config['ensemble']['map']!r}; give 'vmap' or 'map'.")
  averaged = config["evaluation"]["parameters"]
  if averaged and averaged not in config["parameters"]:
    raise UserError(f"config.evaluation.parameters is {averaged!r}; {suggest(averaged, config['parameters'])}.")
  last = config["seed"] + config["ensemble"]["seeds"] - 1
  if last >= 2**32:
    raise UserError(f"config.seed leads to the seed {last}, which has more than 32 bits; give smaller ones.")
  for section in ("targets", "losses", "gradients", "parameters", "probes", "references", "data.augment"):
    parts = get(config, section)
    if not isinstance(parts, Mapping):
      raise UserError(f"config.{section} is {parts!r}; give a dict of parts by label, {{}} for none.")
    for label, part in parts.items():
      if not isinstance(part, Mapping):
        raise UserError(f"config.{section}.{label} is {part!r}; give a dict with a 'name'.")


def _check_fields(prefix: str, given: Config, fields: Mapping[str, Any]) -> None:
  optional = OPTIONAL.get(prefix, {})
  known = {**fields, **optional}
  for name in given:
    if name not in known:
      raise UserError(f"config.{prefix}{name} does not exist; {suggest(name, known)}.")
  for name, kind in known.items():
    if name not in given and name in optional:
      continue
    if name not in given:
      raise UserError(f"config.{prefix}{name} is missing; the trainer has no default for it.")
    hints.check(f"config.{prefix}{name}", given[name], kind)


def get(config: Mapping[str, Any], path: str) -> Any:
  """Returns the value at a dotted path.

  Raises:
    UserError: if the path does not exist; names the nearest name at the level where it breaks.
  """
  value: Any = config
  walked: list[str] = []
  for name in path.split("."):
    if not isinstance(value, Mapping) or name not in value:
      known = value if isinstance(value, Mapping) else ()
      raise UserError(f"config.{path} does not exist: {'.'.join(walked) or 'the config'} has no {name!r}; "
                      f"{suggest(name, known)}.")
    value = value[name]
    walked.append(name)
  return value


def put(config: Config, assignments: Mapping[str, Any]) -> Config:
  """Returns a copy of the config with values replaced at dotted paths that exist."""
  config = copy.copy(config)
  for path, value in assignments.items():
    get(config, path)
    *parents, last = path.split(".")
    inner = config
    for name in parents:  # copies only the dicts along the path: the rest is shared and never written to
      inner[name] = copy.copy(inner[name])
      inner = inner[name]
    inner[last] = value
  return config


def to_json(value: Any) -> Any:
  """Returns a config as JSON can hold it, the form in which two configs are compared: tuples are lists, and
  numbers that JSON does not know are strings ("inf")."""
  if isinstance(value, Mapping):
    return {name: to_json(inner) for name, inner in value.items()}
  if isinstance(value, (list, tuple)):
    return [to_json(inner) for inner in value]
  return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def from_json(value: Any) -> Any:
  """Returns the config that config.json holds: lists are tuples, and "inf" is a number but where it names a level."""
  if isinstance(value, Mapping):
    return {name: plain(inner) if name == "names" else from_json(inner) for name, inner in value.items()}
  if isinstance(value, (list, tuple)):
    return tuple(from_json(inner) for inner in value)
  return float(value) if value in ("inf", "-inf", "nan") else value


def fingerprint(config: Any) -> str:
  """Returns a sha256, as hex, that is equal for two configs (of `to_json`) in which `differences` finds none."""
  config = _without_empty(config)
  orders = [list(get(config, path)) for path in ORDERED]
  return hashlib.sha256(json.dumps([_canonical(config), orders], sort_keys=True).encode()).hexdigest()


def _without_empty(config: Any) -> Any:
  """Returns a config without what it may leave out and has empty, which says the same."""
  for prefix, fields in OPTIONAL.items():
    section = prefix.removesuffix(".")
    holder = config.get(section) if section and isinstance(config, Mapping) else config
    if isinstance(holder, Mapping):
      holder = {name: value for name, value in holder.items() if name not in fields or value != {}}
      config = {**config, section: holder} if section else holder
  return config


def _canonical(value: Any) -> Any:
  if isinstance(value, Mapping):
    return {name: _canonical(inner) for name, inner in value.items()}
  if isinstance(value, list):
    return [_canonical(inner) for inner in value]
  return float(value) if isinstance(value, int) and value == float(value) else value  # 1 == 1.0 == True


def differences(old: Any, new: Any, path: str = "") -> list[str]:
  """Returns "path: old -> new" for every value in which two configs (of `to_json`) differ.

  So it does for the order of transforms, and of the axes, arms and levels of a grid.
  """
  if not path:
    old, new = _without_empty(old), _without_empty(new)
  in_grid = f"{path}.".startswith("ensemble.grid.")  # whose order numbers the members
  if isinstance(old, Mapping) and isinstance(new, Mapping):
    if (in_grid or path in ORDERED) and set(old) == set(new) and list(old) != list(new):
      return [f"{path}: order {', '.join(old)} -> {', '.join(new)}"]
    names = list(dict.fromkeys([*old, *new]))
    nested = [differences(old.get(n, "(absent)"), new.get(n, "(absent)"), f"{path}.{n}" if path else n) for n in names]
    return [line for lines in nested for line in lines]
  same = json.dumps(_canonical(old)) == json.dumps(_canonical(new)) if in_grid else old == new
  return [] if same else [f"{path}: {old} -> {new}"]
