"""Compares arms of a study, each at the level of a hyper-parameter that is best for it on the validation split.

  python -m experiments.tuned DIR... --over=lr [--pool=guide] [--by=validation/loss] [--metric=test/accuracy ...]

Each DIR is a finished run whose grid has the axis --over. Members are grouped by the other axes; axes named by --pool
(say the seed of a guide) count as replicates. For every group the level with the best mean of --by is chosen, among
levels at which no member left the finite numbers if there are such; the other metrics of the table are measured at
that level and were not looked at in choosing it. A level at the end of its range is marked "edge": the best may lie
beyond. Writes the table and a picture to --out.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from experiments import terminal
from lib import reporting
from lib.core import UserError
from lib.core.build import suggest

_OVER = flags.DEFINE_string("over", "lr", "Axis of the grid whose level is chosen.")
_POOL = flags.DEFINE_multi_string("pool", [], "Axis whose levels are replicates; may be given several times.")
_BY = flags.DEFINE_string("by", "validation/loss", "Metric that chooses: the smallest loss, the largest of all others.")
_METRIC = flags.DEFINE_multi_string("metric", ["test/accuracy", "test/loss"], "Metric to show; may be repeated.")
_SOLVED = flags.DEFINE_float("solved", None, "Also counts the members whose first --metric reaches this value.")
_OUT = flags.DEFINE_string("out", None, "Directory for tuned.md and plots/tuned.png. Default: the first run's own.")

Member = Mapping[str, Any]


def main(argv: Sequence[str]) -> None:
  directories = [pathlib.Path(argument) for argument in argv[1:]]
  if not directories:
    raise UserError("no run is given; write python -m experiments.tuned DIR... --over=lr.")
  arms: dict[str, list[Member]] = {}
  for directory in directories:
    for label, members in read_arms(directory, _OVER.value, _POOL.value).items():
      arms.setdefault(label, []).extend(members)
  chosen = {label: choose(members, _OVER.value, _BY.value) for label, members in arms.items()}
  rows = []
  for label, (level, edge, members) in chosen.items():
    alive = [m for m in members if m["died_at"] is None]
    shown = f"{level}, edge" if edge else f"{level}"
    dead = f" ({len(members) - len(alive)} dead)" if len(alive) < len(members) else ""
    metrics = [_summary(alive, name) for name in (_BY.value, *_METRIC.value)]
    if _SOLVED.value is not None:
      metrics.append(f"{sum(_value(m, _METRIC.value[0]) >= _SOLVED.value for m in alive)} of {len(members)}")
    rows.append([label, f"{len(members)}{dead}", shown, *metrics])
  solved = [f"at least {_SOLVED.value:g}"] if _SOLVED.value is not None else []
  table = reporting.markdown_table(["arm", "n", _OVER.value, _BY.value, *_METRIC.value, *solved], rows)
  print(table)
  out = pathlib.Path(_OUT.value or directories[0])
  panels = []
  for name in _METRIC.value:
    values = {label: [_value(member, name) for member in members] for label, (_, _, members) in chosen.items()}
    panels.append(reporting.Intervals(name, name.split("/")[-1], values, log_x=name.endswith("loss")))
  plot = reporting.intervals(out / "plots" / "tuned.png", panels)
  reporting.replace_file(out / "tuned.md", f"{table}\n\n![{', '.join(_METRIC.value)}](plots/tuned.png)\n")
  print(f"\n{plot}")


def read_arms(directory: pathlib.Path, over: str, pool: Sequence[str]) -> dict[str, list[Member]]:
  """Returns {label of an arm: members of a finished run}, in order of appearance.

  Raises:
    UserError: for a run that is unfinished, or has no such axis.
  """
  if not (directory / "results.json").exists():
    raise UserError(f"{directory} is not a finished run (it has no results.json); train it to its end first.")
  arms: dict[str, list[Member]] = {}
  for member in reporting.read_json(directory / "results.json")["members"]:
    axes = member["values"]
    if over not in axes:
      raise UserError(f"{directory} has no axis {over!r} in its grid; {suggest(over, axes)}.")
    rest = {axis: level for axis, level in axes.items() if axis != over and axis not in pool}
    label = ", ".join(v if isinstance(v, str) else f"{axis}={v}" for axis, v in rest.items()) or "all"
    arms.setdefault(label, []).append(member)
  return arms


def choose(members: Sequence[Member], over: str, by: str) -> tuple[Any, bool, list[Member]]:
  """Returns (best level, whether it is the first or last of several, its members).

  Raises:
    UserError: if the metric was not measured.
  """
  levels: dict[Any, list[Member]] = {}
  for member in members:
    levels.setdefault(member["values"][over], []).append(member)
  sign = 1 if by.endswith("loss") else -1

  def cost(level):
    summary = reporting.summarize([_value(m, by) for m in levels[level] if m["died_at"] is None])
    dead = sum(m["died_at"] is not None for m in levels[level])
    return dead, (sign * summary["mean"] if summary["mean"] is not None else float("inf"))

  best = min(levels, key=cost)
  ordered = sorted(levels) if all(isinstance(level, (int, float)) for level in levels) else list(levels)
  return best, len(levels) > 1 and best in (ordered[0], ordered[-1]), levels[best]


def _value(member: Member, name: str) -> Any:
  if name not in member["metrics"]:
    raise UserError(f"{name!r} was not measured; {suggest(name, member['metrics'])}.")
  return member["metrics"][name]


def _summary(members: Sequence[Member], name: str) -> str:
  summary = reporting.summarize([_value(m, name) for m in members])
  return reporting.format_mean_sem(summary["mean"], summary["sem"], summary["n"])


if __name__ == "__main__":
  terminal.run(main, takes_arguments=True)
