"""Runs side by side: which of some paths are runs, what each of them says, and in what their configs differ."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from nurture.core import UserError
from nurture.core.build import suggest
from nurture.reporting import schema
from nurture.reporting.files import Path, exists, is_directory
from nurture.reporting.results import label_of, summarize
from nurture.reporting.run_directory import read_config, read_manifest, read_results, stream_rows

SWEPT = "swept"  # the value of a field that members have different
SHOWN = 6  # metrics of a run whose config does not say which
# What is read of a config.
_CONFIG = {
  "steps": schema.COUNT, "probes": schema.Each(schema.ANY), "report": {"metrics": [schema.TEXT]},
  "ensemble": {"grid": schema.Each(schema.Each(schema.ANY))},
}
_INDICES = ("step", "cohort", "member")
# What says how a run is shown, and what the names of groups say already.
_NOT_COMPARED = ("report", "ensemble.grid")


@dataclasses.dataclass(frozen=True)
class Group:
  """Members that differ in nothing but their seed."""

  label: str
  values: Mapping[str, Any]  # axis of the grid -> level
  members: tuple[int, ...]
  metrics: Mapping[str, Mapping[str, Any]]  # name -> {"mean", "sem", "n"}, at the end or as far as the run came


@dataclasses.dataclass(frozen=True)
class Run:
  """One run directory, as a comparison of runs reads it."""

  label: str
  groups: tuple[Group, ...]
  rows: Iterable[Mapping[str, Any]]
  note: str | None  # why its numbers are not final
  config: Mapping[str, Any]

  @property
  def metrics(self) -> list[str]:
    """The names of all metrics that are numbers, in the order in which they were measured."""
    return list(dict.fromkeys(name for group in self.groups for name in group.metrics))

  @property
  def own_metrics(self) -> list[str]:
    """The metrics that its config names to be shown; where it has not measured those, also what its probes recorded."""
    known, named = self.metrics, self.config["report"]["metrics"]
    chosen = [name for name in named if name in known]
    if not chosen or len(chosen) < len(named):
      probes = self.config["probes"]
      others = [name for name in known if name.partition("/")[0] in probes and name not in chosen]
      chosen += others[: max(0, SHOWN - len(chosen))]
    return chosen or known[:SHOWN]


@dataclasses.dataclass(frozen=True)
class Rows:
  """The rows of a metrics file, read anew whenever they are asked for: those of many runs do not fit in memory."""

  path: pathlib.Path

  def __iter__(self) -> Iterator[Mapping[str, Any]]:
    return stream_rows(self.path) if exists(self.path) else iter(())


def find_runs(paths: Sequence[pathlib.Path], without: Path = "") -> tuple[list[pathlib.Path], list[str]]:
  """Returns the run directories among some paths and in the folders among them, and what else is there.

  Args:
    paths: run directories, folders of run directories, and whatever a shell's * brings along.
    without: a folder that is not spoken of.

  Raises:
    UserError: for a path that does not exist or is given twice.
  """
  places = [os.path.realpath(path) for path in paths]
  if twice := next((path for i, path in enumerate(paths) if places[i] in places[:i]), None):
    raise UserError(f"{twice} is given twice; give each run once.")
  runs, others = [], []
  for path in paths:
    if not exists(path):
      raise UserError(f"{path} does not exist{_nearest(path)}.")
    if _is_run(path):
      runs.append(path)
      continue
    inside = sorted(path.iterdir()) if is_directory(path) else []
    found = [inner for inner in inside if _is_run(inner)]
    runs += found
    others += [inner for inner in inside if inner not in found and inner.name[0] != "."] if found else [path]
  unique = {os.path.realpath(run): run for run in reversed(runs)}  # given itself, and in a folder
  others = [path for path in others if not without or os.path.realpath(path) != os.path.realpath(without)]
  return [*reversed(unique.values())], [os.fspath(path) for path in others]


def read_run(directory: pathlib.Path, label: str) -> Run:
  """Reads a run directory; a run without results.json is summarized from its metrics, with a note.

  Raises:
    UserError: if the directory is missing, is not a run's, or holds no metrics yet.
  """
  if not is_directory(directory):
    raise UserError(f"{directory} does not exist{_nearest(directory)}.")
  if not _is_run(directory):
    raise UserError(f"{directory} is not a run directory, it has no manifest.json; give the --workdir of a run.")
  rows = Rows(directory / "metrics.jsonl")
  finished = exists(directory / "results.json")
  if not finished and not exists(rows.path):
    raise UserError(f"{directory} has no metrics yet; wait for the run's first line, or run its command again.")
  if finished:
    results = read_results(directory)
    groups = tuple(Group(g["label"], g["values"], tuple(g["members"]), g["metrics"]) for g in results["groups"])
    return Run(label, groups, rows, None, read_config(directory, _CONFIG))
  members, config = read_manifest(directory)["members"], read_config(directory, _CONFIG)
  last: dict[int, dict[str, Any]] = {}
  step = 0
  for row in rows:
    numbers = {k: v for k, v in row.items() if k not in _INDICES and is_number_or_null(v)}
    last.setdefault(row["member"], {}).update(numbers)
    step = max(step, row["step"])
  note = (
    f"{label} is unfinished: {len(last)} of {len(members)} members have metrics, the last of them at step {step} of "
    f"{config['steps']}; the numbers are those so far."
  )
  return Run(label, tuple(_groups_so_far(members, last)), rows, note, config)


def _groups_so_far(
  members: Iterable[Mapping[str, Any]], last: Mapping[int, Mapping[str, float | None]]
) -> Iterator[Group]:
  """Groups members by their points of the grid, and summarizes the last number that each has written."""
  by_label: dict[str, list[Mapping[str, Any]]] = {}
  for member in members:
    by_label.setdefault(label_of(member["values"]), []).append(member)
  for label, there in by_label.items():
    indices = [member["member"] for member in there]
    known = [last[i] for i in indices if i in last]
    names = dict.fromkeys(name for numbers in known for name in numbers)
    summaries = {name: summarize(n[name] for n in known if name in n) for name in names}
    yield Group(label, there[0]["values"], tuple(indices), summaries)


def differing_fields(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
  """Returns {config path: its value in each config} of what is not the same in all, in the order of the configs.

  A config without the field has None, and one whose grid sets it has "swept". What only says how to show a run, and the
  grids themselves, are left out.
  """
  flat = [dict(_leaves(config, set(_swept(config["ensemble"]["grid"])))) for config in configs]
  paths = dict.fromkeys(path for leaves in flat for path in leaves)
  columns = {path: [leaves.get(path) for leaves in flat] for path in paths}
  return {path: column for path, column in columns.items() if any(value != column[0] for value in column)}


def is_number_or_null(value: Any) -> bool:
  """Tells if a value of a row is a number, or null where it was not finite."""
  return value is None or schema.is_number(value)


def _swept(grid: Any) -> Iterator[str]:
  """Yields the config paths that a grid sets, wherever they stand in it: those of axes, of arms, of the arms' axes."""
  for name, value in grid.items() if isinstance(grid, Mapping) else ():
    if name == "path" and isinstance(value, (str, list)):
      yield from [value] if isinstance(value, str) else map(str, value)
    elif name == "set" and isinstance(value, (Mapping, list)):
      yield from value if isinstance(value, Mapping) else (str(path) for path, _ in value)
    else:
      yield from _swept(value)


def _leaves(config: Mapping[str, Any], swept: set[str], parent: str = "") -> Iterator[tuple[str, Any]]:
  for name, value in config.items():
    path = f"{parent}{name}"
    if path in _NOT_COMPARED:
      continue
    if path in swept:
      yield path, SWEPT
    elif isinstance(value, Mapping):
      yield from _leaves(value, swept, f"{path}.")
    else:
      yield path, value


def _is_run(path: pathlib.Path) -> bool:
  return is_directory(path) and exists(path / "manifest.json")


def _nearest(directory: pathlib.Path) -> str:
  parent = directory.parent
  runs = [os.fspath(p.parent) for p in parent.glob("*/manifest.json")] if is_directory(parent) else []
  return f"; {suggest(os.fspath(directory), runs)}" if runs else "; give the --workdir of a run"
