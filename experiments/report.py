"""Compares finished and unfinished runs: a table of their final metrics, and curves over training.

  python -m experiments.report DIR... [--metric=accuracy/accuracy ...] [--out=DIR]

Each DIR is the --workdir of a run. Prints a Markdown table, one row per group of each run (a group is one
point of the config's grid, with all its seeds), with mean ± standard error over members, and writes the same
table and the plot to report.md and plots/report.png in --out.
"""

import dataclasses
import math
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags

from nurture import reporting, terminal
from nurture.core import UserError
from nurture.core.build import suggest
from nurture.reporting import schema

_METRIC = flags.DEFINE_multi_string(
  "metric", [], "Metric to show, as it is called in metrics.jsonl; may be given several times. Default: the first six.",
  **terminal.SHARED,
)
_OUT = flags.DEFINE_string(
  "out", None, "Directory for report.md and plots/. Default: the run's own, or runs/report.", **terminal.SHARED,
)

_STEPS = {"steps": schema.COUNT}  # what is read of a config
_INDICES = ("step", "cohort", "member")
_SHOWN = 6  # metrics; more do not fit on a page unless --metric asks for them


@dataclasses.dataclass(frozen=True)
class Group:
  """Members that differ in nothing but their seed."""

  label: str
  values: Mapping[str, Any]  # axis of the grid -> level
  members: tuple[int, ...]
  metrics: Mapping[str, Mapping[str, Any]]  # name -> {"mean", "sem", "n"}, at the end or as far as the run came


@dataclasses.dataclass(frozen=True)
class Run:
  """What a run directory says."""

  label: str
  groups: tuple[Group, ...]
  rows: tuple[Mapping[str, Any], ...]
  note: str | None  # why its numbers are not final


def main(argv: Sequence[str]) -> None:
  directories = [pathlib.Path(argument) for argument in argv[1:]]
  if not directories:
    raise UserError("no run is given; write python -m experiments.report DIR, where DIR was the --workdir of a run.")
  runs = [read_run(directory, label) for directory, label in zip(directories, _labels(directories))]
  metrics, left_out = choose_metrics(runs, _METRIC.value)
  out = pathlib.Path(_OUT.value or (directories[0] if len(directories) == 1 else "runs/report"))
  table = table_of(runs, metrics)
  plot = out / "plots" / "report.png"
  panels = [panel for metric in metrics if (panel := panel_of(runs, metric)).series]
  notes = [f"- {run.note}" for run in runs if run.note]
  if left_out:
    notes.append(f"- {len(left_out)} more metrics; choose with --metric from {', '.join(left_out)}.")
  text = [table, *(["", *notes] if notes else [])]
  print("\n".join(text))
  if panels:
    reporting.curves(plot, panels, styles=styles_of(runs), of="seeds")
    text += ["", f"![{', '.join(panel.title for panel in panels)}](plots/report.png)"]
    print(f"\n{plot}")
  reporting.replace_file(out / "report.md", "\n".join(["# Report", "", *text, ""]))


def read_run(directory: pathlib.Path, label: str) -> Run:
  """Reads a run directory; a run without results.json is summarized from its metrics, with a note.

  Raises:
    UserError: if the directory is missing, is not a run's, or holds no metrics yet.
  """
  if not reporting.is_directory(directory):
    raise UserError(f"{directory} does not exist{_nearest(directory)}.")
  if not reporting.exists(directory / "manifest.json"):
    raise UserError(f"{directory} is not a run directory, it has no manifest.json; give the --workdir of a run.")
  metrics = directory / "metrics.jsonl"
  finished, measured = reporting.exists(directory / "results.json"), reporting.exists(metrics)
  if not finished and not measured:
    raise UserError(f"{directory} has no metrics yet; wait for the run's first line, or run its command again.")
  rows = reporting.read_rows(metrics) if measured else []
  if finished:
    results = reporting.read_results(directory)
    groups = tuple(Group(g["label"], g["values"], tuple(g["members"]), g["metrics"]) for g in results["groups"])
    return Run(label, groups, tuple(rows), None)
  members, total = reporting.read_manifest(directory)["members"], reporting.read_config(directory, _STEPS)["steps"]
  started = {row["member"] for row in rows}
  note = (
    f"{label} is unfinished: {len(started)} of {len(members)} members have metrics, the last of them at step "
    f"{max((row['step'] for row in rows), default=0)} of {total}; the numbers are those so far."
  )
  return Run(label, tuple(groups_so_far(members, rows)), tuple(rows), note)


def groups_so_far(members: Iterable[Mapping[str, Any]], rows: Iterable[Mapping[str, Any]]) -> list[Group]:
  """Groups members by their points of the grid, and summarizes the last number that each has written."""
  last: dict[int, dict[str, Any]] = {}
  for row in rows:
    numbers = {k: v for k, v in row.items() if k not in _INDICES and _is_number_or_null(v)}
    last.setdefault(row["member"], {}).update(numbers)
  by_label: dict[str, list[Mapping[str, Any]]] = {}
  for member in members:
    by_label.setdefault(reporting.label_of(member["values"]), []).append(member)
  groups = []
  for label, there in by_label.items():
    indices = [member["member"] for member in there]
    known = [last[i] for i in indices if i in last]
    names = dict.fromkeys(name for numbers in known for name in numbers)
    summaries = {name: reporting.summarize(n[name] for n in known if name in n) for name in names}
    groups.append(Group(label, there[0]["values"], tuple(indices), summaries))
  return groups


def choose_metrics(runs: Sequence[Run], asked: Sequence[str]) -> tuple[list[str], list[str]]:
  """Returns the metrics to show, those asked for or the first few, and those left out because none was asked for.

  Raises:
    UserError: if no run has one of them.
  """
  known = list(dict.fromkeys(name for run in runs for group in run.groups for name in group.metrics))
  for name in asked:
    if name not in known:
      raise UserError(f"--metric={name} is in none of the runs; {suggest(name, known)}.")
  return (list(asked), []) if asked else (known[:_SHOWN], known[_SHOWN:])


def table_of(runs: Sequence[Run], metrics: Sequence[str]) -> str:
  """Returns the Markdown table: run, group, n, one column a metric; a metric with another n says so."""
  rows = []
  for run in runs:
    for group in run.groups:
      alive = max((s["n"] for name, s in group.metrics.items() if name in metrics), default=0)
      n = f"{alive}" if alive == len(group.members) else f"{alive} of {len(group.members)}"
      rows.append([run.label, group.label, n, *(_cell(group.metrics.get(name), alive) for name in metrics)])
  return reporting.markdown_table(["run", "group", "n", *metrics], rows)


def panel_of(runs: Sequence[Run], metric: str) -> reporting.Panel:
  """Returns the curves of one metric, one line a group of each run."""
  series, labels = {}, iter(_series_labels(runs))
  for run in runs:
    points: dict[int, dict[int, float]] = {}
    for row in run.rows:
      value = row.get(metric)
      if metric in row and _is_number_or_null(value):
        points.setdefault(row["member"], {})[row["step"]] = math.nan if value is None else value
    for group in run.groups:
      label = next(labels)
      steps = sorted({step for member in group.members for step in points.get(member, {})})
      values = [[points[m].get(step, math.nan) for step in steps] for m in group.members if m in points]
      if steps and np.isfinite(values).any():
        series[label] = (steps, values)
  everything = np.concatenate([np.ravel(v) for _, v in series.values()]) if series else np.zeros(1)
  finite = everything[np.isfinite(everything)]
  # A loss that falls by orders of magnitude is a flat line on a linear axis.
  spread = finite.min() > 0 and finite.max() > 30 * finite.min()
  words = reporting.words_of(metric)
  return reporting.Panel(
    title=words.title, ylabel=words.axis, series=series,
    fraction=bool(words.fraction and finite.min() >= 0 and finite.max() <= 1), log_y=bool(spread and "loss" in metric),
  )


def styles_of(runs: Sequence[Run]) -> dict[str, reporting.Style]:
  """Returns the style of every line: a colour a method, dashes and a shade a level of a number and a run.

  Methods are what the axes with names as levels make; where there are none, every run is one.
  """
  labels, groups = iter(_series_labels(runs)), [(run, group) for run in runs for group in run.groups]
  points = {next(labels): {**group.values, "run": run.label} for run, group in groups}
  named = {axis for _, group in groups for axis, level in group.values.items() if isinstance(level, str)}
  return reporting.palette_of(points, methods=named or {"run"})


def _cell(summary: Mapping[str, Any] | None, n: int) -> str:
  if summary is None:
    return "–"
  text = reporting.format_mean_sem(summary["mean"], summary["sem"], summary["n"])
  return text if summary["n"] in (0, n) else f"{text} (n={summary['n']})"


def _series_labels(runs: Sequence[Run]) -> list[str]:
  """Returns what the lines of all groups of all runs are called, in order, no two the same."""
  labels: list[str] = []
  for run in runs:
    names = [run.label] if len(runs) > 1 or len(run.groups) == 1 else []
    for group in run.groups:
      label = ": ".join([*names, *([group.label] if len(run.groups) > 1 else [])])
      labels.append(f"{label} (2)" if label in labels else label)
  return labels


def _labels(directories: Sequence[pathlib.Path]) -> list[str]:
  """Names of the directories, or their paths where two names are the same.

  Raises:
    UserError: for a directory that is given twice.
  """
  places = [os.path.realpath(d) for d in directories]
  if twice := next((d for i, d in enumerate(directories) if places[i] in places[:i]), None):
    raise UserError(f"{twice} is given twice; give each run once.")
  names = [os.path.basename(os.path.abspath(d)) for d in directories]
  return names if len(set(names)) == len(names) else [os.fspath(d) for d in directories]


def _is_number_or_null(value: Any) -> bool:
  return value is None or schema.is_number(value)


def _nearest(directory: pathlib.Path) -> str:
  parent = directory.parent
  runs = [os.fspath(p.parent) for p in parent.glob("*/manifest.json")] if reporting.is_directory(parent) else []
  return f"; {suggest(os.fspath(directory), runs)}" if runs else "; give the --workdir of a run"


if __name__ == "__main__":
  terminal.run(main, takes_arguments=True)
