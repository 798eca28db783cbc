"""Compares finished and unfinished runs: a table of their final metrics, and curves over training.

  python -m experiments.report DIR... [--metric=test/accuracy ...] [--out=DIR | --out=x.csv | --out=x.tex]

Each DIR is the --workdir of a run, or a folder of such directories; what else lies there is left out, with a line that
says so. Prints a Markdown table, one row per group of each run (a group is one point of the config's grid, with all its
seeds): the config paths in which the runs differ, and the metrics that their configs name, with mean ± standard error
over members. Writes the same table and the plot to report.md and plots/report.png in --out, or the table alone to a
file for programs (.csv, plain numbers) or for LaTeX (.tex).
"""

import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags

from nurture import reporting, terminal
from nurture.core import UserError
from nurture.core.build import suggest
from nurture.reporting.comparison import Group, Run, differing_fields, find_runs, is_number_or_null, read_run
from nurture.reporting.tables import MISSING, csv_table, latex_table

_METRIC = flags.DEFINE_multi_string(
  "metric", [], "Metric to show, as it is called in metrics.jsonl; may be given several times. Default: those that the "
  "configs name.", **terminal.SHARED,
)
_OUT = flags.DEFINE_string(
  "out", None, "Directory for report.md and plots/, or a file that ends in .csv or .tex, for the table alone. Default: "
  "the run's own directory, or runs/report.", **terminal.SHARED,
)

_COMPARISON = "runs/report"
_FIELDS = 6  # columns in which runs differ; more do not fit on a page
_LINES = 40  # in a picture; more cannot be told apart
_NAMES = 20  # in one note
_LETTERS = 40  # of a value of a config


def main(argv: Sequence[str]) -> None:
  if not argv[1:]:
    raise UserError("no run is given; write python -m experiments.report DIR, where DIR was the --workdir of a run.")
  directories, others = find_runs([pathlib.Path(argument) for argument in argv[1:]], _OUT.value or _COMPARISON)
  runs, notes = read_runs(directories, others)
  notes += [run.note for run in runs if run.note]
  metrics, left_out = choose_metrics(runs, _METRIC.value)
  if left_out:
    notes.append(f"{len(left_out)} more metrics; choose with --metric from {_listed(left_out)}.")
  shown, hidden = fields_of(runs)
  if hidden:
    notes.append(f"The runs also differ in {_listed(hidden)}; a .csv has all.")
  out = pathlib.Path(_OUT.value or (directories[0] if len(directories) == 1 else _COMPARISON))
  table = table_of(runs, metrics)
  print("\n".join([table, *([""] if notes else []), *(f"- {note}" for note in notes)]))
  if out.suffix == ".csv":
    reporting.replace_file(out, csv_table(*_numbers(runs, metrics)))
  elif out.suffix == ".tex":
    reporting.replace_file(out, "".join(f"% {note}\n" for note in notes) + latex_table(*_texts(runs, metrics, shown)))
  else:
    out = _write_page(out, runs, metrics, [table, *([""] if notes else []), *(f"- {note}" for note in notes)])
  if out:
    print(f"\n{out}")


def read_runs(directories: Sequence[pathlib.Path], others: Sequence[str] = ()) -> tuple[list[Run], list[str]]:
  """Returns runs, and sentences about what cannot be shown.

  Args:
    directories: of runs.
    others: paths that are no runs.

  Raises:
    UserError: if no run can be shown.
  """
  notes = [f"{_listed(others)}: no run{'s' if len(others) > 1 else ''}, left out."] if others else []
  runs, errors = [], []
  for directory, label in zip(directories, _labels(directories)):
    try:
      runs.append(read_run(directory, label))
    except UserError as error:
      errors.append(str(error))
  if not runs:
    raise UserError(errors[0] if errors else f"{_listed(others)}: no run directory (it has no manifest.json) and no "
                    "folder of them; give the --workdir of a run.")
  return runs, [*notes, *(f"Left out: {error}" for error in errors)]


def choose_metrics(runs: Sequence[Run], asked: Sequence[str]) -> tuple[list[str], list[str]]:
  """Returns the metrics to show, those asked for or the configs' own, and those left out because none was asked for.

  Raises:
    UserError: if no run has one of them.
  """
  known = list(dict.fromkeys(name for run in runs for name in run.metrics))
  for name in asked:
    if name not in known:
      raise UserError(f"--metric={name} is in none of the runs; {suggest(name, known)}.")
  if asked:
    return list(asked), []
  own = list(dict.fromkeys(name for run in runs for name in run.own_metrics))
  return own, [name for name in known if name not in own]


def fields_of(runs: Sequence[Run]) -> tuple[dict[str, list[str]], list[str]]:
  """Returns the config paths in which runs differ, as columns of text, and those for which a page has no room.

  A field that follows another one, as data.seed does seed, is in its column.
  """
  columns: dict[str, list[str]] = {}
  hidden = []
  for path, values in differing_fields([run.config for run in runs]).items():
    column, field = [_text(value) for value in values], path.rpartition(".")[2]
    followed = any(other.rpartition(".")[2] == field and column == columns[other] for other in columns)
    if len(columns) < _FIELDS and not followed:
      columns[path] = column
    else:
      hidden.append(path)
  return columns, hidden


def table_of(runs: Sequence[Run], metrics: Sequence[str]) -> str:
  """Returns the Markdown table: run, in what it differs, group, n, one column a metric; it says where n is another."""
  return reporting.markdown_table(*_texts(runs, metrics, fields_of(runs)[0]))


def panel_of(runs: Sequence[Run], metric: str) -> reporting.Panel:
  """Returns the curves of one metric, one line a group of each run."""
  return panels_of(runs, [metric])[0]


def panels_of(runs: Sequence[Run], metrics: Sequence[str]) -> list[reporting.Panel]:
  """Returns the curves of some metrics, one line a group of each run; every run's rows are read once."""
  series: dict[str, dict[str, Any]] = {metric: {} for metric in metrics}
  labels = iter(_series_labels(runs))
  for run in runs:
    points: dict[str, dict[int, dict[int, float]]] = {metric: {} for metric in metrics}
    for row in run.rows:
      for metric in metrics:
        if metric in row and is_number_or_null(value := row[metric]):
          points[metric].setdefault(row["member"], {})[row["step"]] = math.nan if value is None else value
    for group, label in zip(run.groups, labels):
      for metric in metrics:
        there = points[metric]
        steps = sorted({step for member in group.members for step in there.get(member, {})})
        values = np.array([[there[m].get(step, math.nan) for step in steps] for m in group.members if m in there])
        if steps and np.isfinite(values).any():
          series[metric][label] = (steps, values)
  return [_panel(metric, series[metric]) for metric in metrics]


def styles_of(runs: Sequence[Run]) -> dict[str, reporting.Style]:
  """Returns the style of every line: a colour a method, dashes and a shade a level of a number and a run.

  Methods are what the axes with names as levels make; where there are none, every run is one.
  """
  labels, groups = iter(_series_labels(runs)), [(run, group) for run in runs for group in run.groups]
  points = {next(labels): {**group.values, "run": run.label} for run, group in groups}
  named = {axis for _, group in groups for axis, level in group.values.items() if isinstance(level, str)}
  return reporting.palette_of(points, methods=named or {"run"})


def _panel(metric: str, series: Mapping[str, Any]) -> reporting.Panel:
  everything = np.concatenate([np.ravel(values) for _, values in series.values()]) if series else np.zeros(1)
  finite = everything[np.isfinite(everything)]
  # A loss that falls by orders of magnitude is a flat line on a linear axis.
  spread = finite.min() > 0 and finite.max() > 30 * finite.min()
  words = reporting.words_of(metric)
  return reporting.Panel(
    title=words.title, ylabel=words.axis, series=series,
    fraction=bool(words.fraction and finite.min() >= 0 and finite.max() <= 1), log_y=bool(spread and "loss" in metric),
  )


def _write_page(
  out: pathlib.Path, runs: Sequence[Run], metrics: Sequence[str], text: Sequence[str]
) -> pathlib.Path | None:
  """Writes report.md and its picture; returns the path of the picture, if there are curves that can be told apart."""
  plot, lines = None, sum(len(run.groups) for run in runs)
  too_many = len(runs) > 1 and lines > _LINES
  panels = [] if too_many else [panel for panel in panels_of(runs, metrics) if panel.series]
  if panels:
    plot = reporting.curves(out / "plots" / "report.png", panels, styles=styles_of(runs), of="seeds")
    text = [*text, "", f"![{', '.join(panel.title for panel in panels)}](plots/report.png)"]
  elif too_many:
    text = [*text, "", f"No picture: {lines} curves cannot be told apart; give fewer runs."]
    print(f"\n{text[-1]}")
  reporting.replace_file(out / "report.md", "\n".join(["# Report", "", *text, ""]))
  return plot


def _texts(
  runs: Sequence[Run], metrics: Sequence[str], fields: Mapping[str, Sequence[str]]
) -> tuple[list[str], list[list[str]]]:
  """Returns headers and rows of the table that is read."""
  rows = []
  for i, run in enumerate(runs):
    for group in run.groups:
      alive = _alive(group, metrics)
      n = f"{alive}" if alive == len(group.members) else f"{alive} of {len(group.members)}"
      differs = [column[i] for column in fields.values()]
      rows.append([run.label, *differs, group.label, n, *(_cell(group.metrics.get(name), alive) for name in metrics)])
  return ["run", *fields, "group", "n", *metrics], rows


def _numbers(runs: Sequence[Run], metrics: Sequence[str]) -> tuple[list[str], list[list[Any]]]:
  """Returns headers and rows of the table for programs: all fields, the axes, and three numbers a metric."""
  fields = differing_fields([run.config for run in runs])
  axes = list(dict.fromkeys(axis for run in runs for group in run.groups for axis in group.values))
  headers = ["run", "finished", *fields, "group", *(f"grid.{axis}" for axis in axes), "members"]
  rows = []
  for i, run in enumerate(runs):
    for group in run.groups:
      row = [run.label, "no" if run.note else "yes", *(_plain(column[i]) for column in fields.values()), group.label]
      row += [*(_plain(group.values.get(axis)) for axis in axes), len(group.members)]
      for name in metrics:
        summary = group.metrics.get(name, {"mean": None, "sem": None, "n": 0})
        row += [summary["mean"], summary["sem"], summary["n"]]
      rows.append(row)
  return [*headers, *(f"{name}{what}" for name in metrics for what in ("", " sem", " n"))], rows


def _alive(group: Group, metrics: Sequence[str]) -> int:
  return max((summary["n"] for name, summary in group.metrics.items() if name in metrics), default=0)


def _cell(summary: Mapping[str, Any] | None, n: int) -> str:
  if summary is None:
    return MISSING
  text = reporting.format_mean_sem(summary["mean"], summary["sem"], summary["n"])
  return text if summary["n"] in (0, n) else f"{text} (n={summary['n']})"


def _plain(value: Any) -> Any:
  return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _text(value: Any) -> str:
  text = MISSING if value is None else _plain(value)
  return text if len(text) <= _LETTERS else f"{text[: _LETTERS - 1]}…"


def _listed(names: Sequence[str]) -> str:
  more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
  return ", ".join(names[:_NAMES]) + more


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
  """Returns the names of directories, or their paths where two names are the same."""
  names = [os.path.basename(os.path.abspath(d)) for d in directories]
  return names if len(set(names)) == len(names) else [os.fspath(d) for d in directories]


if __name__ == "__main__":
  terminal.run(main, takes_arguments=True)
