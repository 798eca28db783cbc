"""Students of plain and of smoothed teachers at each temperature, for runs of configs/distillation/*_students.py.

  python -m experiments.distillation_table DIR [--metric=test/accuracy] [--select=validation/accuracy]

The run's grid has an axis "teacher", whose levels are called "<kind>, teacher <number>", an axis "T", and perhaps "lr".
For every kind of teacher and every T, the learning rate is the one with the best mean of --select; then --metric is
given in %, mean ± standard error over teachers and seeds. The difference to the first kind is over pairs of students
with the same teacher number and seed. Draws the same to DIR/plots/distillation.png.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags

from experiments import terminal
from lib import reporting
from lib.core import UserError

_METRIC = flags.DEFINE_string("metric", "test/accuracy", "What to show, a share.", **terminal.SHARED)
_SELECT = flags.DEFINE_string("select", "validation/accuracy", "What chooses the learning rate, a share.")

Student = tuple[str, int]  # number of its teacher, seed
Arm = tuple[str, float]  # kind of teacher, T


def students_of(members: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> dict[Arm, dict[Any, dict]]:
  """Returns {arm: {lr: {student: [value of each metric]}}}; members that died have nan.

  Raises:
    UserError: if the run has another grid or does not measure a metric.
  """
  arms: dict[Arm, dict[Any, dict[Student, list[float]]]] = {}
  for member in members:
    values = member["values"]
    if not {"teacher", "T"} <= set(values) or ", teacher " not in str(values["teacher"]):
      raise UserError("the run's grid has no axes 'teacher' (levels '<kind>, teacher <number>') and 'T'; give a run of "
                      "a config such as configs/distillation/mnist_students.py.")
    for metric in metrics:
      if metric not in member["metrics"]:
        raise UserError(f"{metric} is in no metric of the run; known: {', '.join(sorted(member['metrics']))}.")
    kind, number = values["teacher"].split(", teacher ")
    alive = member["died_at"] is None
    numbers = [member["metrics"][metric] if alive else np.nan for metric in metrics]
    by_rate = arms.setdefault((kind, float(values["T"])), {})
    by_rate.setdefault(values.get("lr"), {})[number, member["seed"]] = numbers
  return arms


def best_rate(by_rate: Mapping[Any, Mapping[Student, Sequence[float]]]) -> Any:
  """Returns the learning rate with the largest mean of the first metric; one at which a student died comes last."""
  score = lambda rate: np.mean([numbers[0] for numbers in by_rate[rate].values()])
  return max(by_rate, key=lambda rate: score(rate) if np.isfinite(score(rate)) else -np.inf)


def main(argv: Sequence[str]) -> None:
  if len(argv) != 2:
    raise UserError("give one run directory: python -m experiments.distillation_table DIR.")
  directory = pathlib.Path(argv[1])
  results = reporting.read_json(directory / "results.json")
  arms = students_of(results["members"], (_SELECT.value, _METRIC.value))
  chosen = {arm: best_rate(by_rate) for arm, by_rate in arms.items()}
  shown = {
    arm: {student: 100 * numbers[1] for student, numbers in arms[arm][rate].items()} for arm, rate in chosen.items()
  }
  kinds = list(dict.fromkeys(kind for kind, _ in arms))
  temperatures = sorted({temperature for _, temperature in arms})
  rows = []
  for temperature in temperatures:
    first = shown[kinds[0], temperature]
    row = [f"{temperature:g}"]
    for kind in kinds:
      students = shown[kind, temperature]
      rate = chosen[kind, temperature]
      row += [_cell(students.values()), *([] if rate is None else [f"{rate:g}"])]
      if kind != kinds[0]:
        row.append(_cell([value - first[student] for student, value in students.items() if student in first]))
    rows.append(row)
  rate = [] if None in chosen.values() else ["lr"]
  headers = ["T"]
  for kind in kinds:
    headers += [f"{kind}", *rate, *([f"{kind} − {kinds[0]}"] if kind != kinds[0] else [])]
  print(reporting.markdown_table(headers, rows))
  count = len(next(iter(shown.values())))
  chosen_by = f"; lr chosen by {_SELECT.value}" if rate else ""
  print(f"\n{_METRIC.value} in %, {count} students in each cell{chosen_by}.")
  series = {}
  for kind in kinds:
    students = shown[kind, temperatures[0]]
    series[kind] = (temperatures, [[shown[kind, t].get(s, np.nan) for t in temperatures] for s in students])
  plot = directory / "plots" / "distillation.png"
  reporting.curves(plot, [reporting.Panel(
    "Students of two kinds of teacher" if len(kinds) == 2 else "Students", f"{_METRIC.value} (%)", series,
    xlabel="temperature", log_x=True,
  )])
  print(f"\n{plot}")


def _cell(values: Any) -> str:
  summary = reporting.summarize(values)
  dead = f" ({summary['dead']} dead)" if summary["dead"] else ""
  return reporting.format_mean_sem(summary["mean"], summary["sem"], summary["n"]) + dead


if __name__ == "__main__":
  terminal.run(main, takes_arguments=True)
