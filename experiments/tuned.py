"""Compares arms of a study, each at the levels of its hyper-parameters that are best for it on the validation split.

  python -m experiments.tuned DIR... --over=lr [--over=lam ...] [--pool=guide] [--by=validation/loss] \
    [--metric=test/accuracy ...]

Each DIR is a finished run whose grid has an axis of --over. Members are grouped by the other axes; axes named by --pool
(say the seed of a guide) count as replicates, crossed with the seeds: the standard error is for new seeds and new
guides. For every group the point with the best mean of --by is chosen, over all combinations of the levels of --over,
among points at which no member diverged if there are such; the other metrics of the table are measured at
that point and were not looked at in choosing it. A level at the end of its range is marked "edge": the best may lie
beyond. A group that lacks an axis (an arm without it) has a dash there. Writes the table and a picture to --out, and
for every axis of numbers plots/over_<axis>.png: the metrics of every group at all its levels, with what is best there
on the other axes of --over.
"""

import pathlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from absl import flags

from nurture import reporting, terminal
from nurture.core import UserError

_OVER = flags.DEFINE_multi_string(
  "over", ["lr"], "Axis of the grid whose level is chosen; may be given several times.", **terminal.SHARED,
)
_POOL = flags.DEFINE_multi_string(
  "pool", [], "Axis whose levels are replicates; may be given several times.", **terminal.SHARED,
)
_BY = flags.DEFINE_string("by", "validation/loss", "Metric that chooses: the smallest loss, the largest of all others.")
_METRIC = flags.DEFINE_multi_string(
  "metric", ["test/accuracy", "test/loss"], "Metric to show; may be repeated.", **terminal.SHARED,
)
_SOLVED = flags.DEFINE_float("solved", None, "Also counts the members whose first --metric reaches this value.")
_OUT = flags.DEFINE_string(
  "out", None, "Directory for tuned.md and plots/tuned.png. Default: the first run's own.", **terminal.SHARED,
)


def main(argv: Sequence[str]) -> None:
  directories = [pathlib.Path(argument) for argument in argv[1:]]
  if not directories:
    raise UserError("no run is given; write python -m experiments.tuned DIR... --over=lr.")
  over = list(dict.fromkeys(_OVER.value))
  if both := next((axis for axis in over if axis in _POOL.value), None):
    raise UserError(f"--over={both} and --pool={both} name the same axis; its levels are chosen or replicates.")
  arms = reporting.read_arms(directories, over, _POOL.value)
  chosen = {label: reporting.choose_levels(members, over, _BY.value) for label, members in arms.items()}
  check_metrics([member for members in arms.values() for member in members], _METRIC.value)
  rows, first = [], _METRIC.value[0]
  for label, choice in chosen.items():
    alive = [m for m in choice.members if m["died_at"] is None]
    dead = f" ({len(choice.members) - len(alive)} dead)" if len(alive) < len(choice.members) else ""
    metrics = [measured(alive, name) for name in (_BY.value, *_METRIC.value)]
    if _SOLVED.value is not None:
      reached = sum(reporting.metric_of(m, first) >= _SOLVED.value for m in measuring(alive, first))
      metrics.append(f"{reached} of {len(choice.members)}")
    rows.append([label, f"{len(choice.members)}{dead}", *(shown(choice, axis) for axis in over), *metrics])
  solved = [f"at least {_SOLVED.value:g}"] if _SOLVED.value is not None else []
  table = reporting.markdown_table(["arm", "n", *over, _BY.value, *_METRIC.value, *solved], rows)
  print(table)
  out = pathlib.Path(_OUT.value or directories[0])
  panels, styles = [], styles_of(arms)
  for name in _METRIC.value:
    there = {label: measuring(choice.members, name) for label, choice in chosen.items()}
    values = {label: [reporting.metric_of(m, name) for m in members] for label, members in there.items()}
    errors = {
      label: reporting.summarize_crossed(members, name, _POOL.value)["sem"]
      for label, members in there.items() if members
    }
    words = reporting.words_of(name)
    panels.append(reporting.Intervals(words.title, words.axis, values, errors, log_x=name.endswith("loss")))
  plot = reporting.intervals(out / "plots" / "tuned.png", panels, styles=styles, of=_replicates())
  reporting.replace_file(out / "tuned.md", f"{table}\n\n![{', '.join(_METRIC.value)}](plots/tuned.png)\n")
  print(f"\n{plot}")
  for axis in over:
    levels = {m["values"][axis] for members in arms.values() for m in members if axis in m["values"]}
    if len(levels) > 1 and all(isinstance(level, (int, float)) for level in levels):
      here = {label: along(axis, members) for label, members in arms.items()}
      names = dict.fromkeys((_BY.value, *_METRIC.value))
      print(over_levels(out / "plots" / f"over_{axis}.png", here, axis, names, styles))


def check_metrics(members: Sequence[reporting.Member], names: Iterable[str]) -> None:
  """Refuses a metric that no arm has measured; that of a term or a probe which only some arms have is one of them."""
  for name in names:
    if not measuring(members, name):
      reporting.metric_of(members[0], name)  # raises


def measuring(members: Sequence[reporting.Member], name: str) -> list[reporting.Member]:
  """Returns all members of an arm, or none if the arm does not measure this metric."""
  return list(members) if any(name in member["metrics"] for member in members) else []


def measured(members: Sequence[reporting.Member], name: str) -> str:
  """Returns a metric of an arm as the table has it: its mean and standard error, or a dash where it has none."""
  summary = reporting.summarize_crossed(measuring(members, name), name, _POOL.value)
  return reporting.format_mean_sem(summary["mean"], summary["sem"], summary["n"])


def shown(choice: reporting.Choice, axis: str) -> str:
  """Returns the chosen level of an axis as the table has it: "0.1, edge", or a dash where there is none."""
  level = choice.levels.get(axis)
  return "–" if level is None else f"{level}, edge" if axis in choice.edges else f"{level}"


def along(axis: str, members: Sequence[reporting.Member]) -> list[reporting.Member]:
  """Returns the members at the best levels of the other axes, for each level of this one."""
  others = [other for other in _OVER.value if other != axis]
  levels: dict[object, list[reporting.Member]] = {}
  for member in members:
    levels.setdefault(member["values"].get(axis), []).append(member)
  return [m for there in levels.values() for m in reporting.choose_levels(there, others, _BY.value).members]


def styles_of(arms: Mapping[str, Sequence[reporting.Member]]) -> dict[str, reporting.Style]:
  """Returns the style of every arm in all pictures: those that differ in a number only share a colour."""
  chosen = (*_OVER.value, *_POOL.value)
  return reporting.palette_of({
    label: {axis: level for axis, level in members[0]["values"].items() if axis not in chosen}
    for label, members in arms.items()
  })


def over_levels(
  path: pathlib.Path, arms: Mapping[str, Sequence[reporting.Member]], axis: str, metrics: Iterable[str],
  styles: Mapping[str, reporting.Style],
) -> pathlib.Path:
  """Draws each metric of every arm over the levels of an axis, which are numbers; dead members are left out.

  An arm without the axis is the same at all levels.
  """
  at = lambda member: member["values"].get(axis)
  run = sorted({at(m) for members in arms.values() for m in members if at(m) is not None})
  panels = []
  for name in metrics:
    series = {}
    for label, members in arms.items():
      if not measuring(members, name):
        continue
      levels = sorted({at(m) for m in members if at(m) is not None}) or run
      alive = [[m for m in members if at(m) in (x, None) and m["died_at"] is None] for x in levels]
      values = np.full((max(map(len, alive)), len(levels)), np.nan)
      for column, there in enumerate(alive):
        values[:len(there), column] = [reporting.metric_of(m, name) for m in there]
      series[label] = levels, values
    words = reporting.words_of(name)
    panels.append(reporting.Panel(
      words.title, words.axis, series, xlabel=reporting.axis_of(axis), levels=run, log_x=run[0] > 0,
    ))
  return reporting.curves(path, panels, styles=styles, of=_replicates())


def _replicates() -> str:
  return "members" if _POOL.value else "seeds"


if __name__ == "__main__":
  terminal.run(main, takes_arguments=True)
