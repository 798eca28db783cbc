"""Students of plain and of smoothed teachers at each temperature, for runs of configs/distillation/*_students.py.

  python -m experiments.studies.distillation_table DIR [--metric=test/accuracy] [--select=validation/accuracy]

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

from nurture import reporting, terminal
from nurture.core import UserError
from nurture.reporting import schema

_METRIC = flags.DEFINE_string("metric", "test/accuracy", "What to show, a share.", **terminal.SHARED)
_SELECT = flags.DEFINE_string("select", "validation/accuracy", "What chooses the learning rate, a share.")

Student = tuple[str, int]  # number of its teacher, seed
Arm = tuple[str, float]  # kind of teacher, T


def students_of(members: Sequence[reporting.Member], metrics: Sequence[str]) -> dict[Arm, dict[Any, dict]]:
  """Returns {arm: {lr: {student: [value of each metric]}}}; None for members that died.

  Raises:
    UserError: if the run has another grid or does not measure a metric.
  """
  arms: dict[Arm, dict[Any, dict[Student, list[float | None]]]] = {}
  for member in members:
    values = member["values"]
    kind, _, number = str(values.get("teacher")).partition(", teacher ")
    rate = values.get("lr")
    numbers = schema.is_number(values.get("T")) and (rate is None or schema.is_number(rate))
    if not number or not numbers or not set(values) <= {"teacher", "T", "lr"}:
      raise UserError("the run's grid needs the axes 'teacher' (levels '<kind>, teacher <number>') and 'T' (numbers), "
                      "perhaps 'lr', and no others; give a run of a config such as "
                      "configs/distillation/mnist_students.py.")
    by_rate = arms.setdefault((kind, float(values["T"])), {})
    by_rate.setdefault(rate, {})[number, member["seed"]] = [reporting.metric_of(member, metric) for metric in metrics]
  return arms


def best_rate(by_rate: Mapping[Any, Mapping[Student, Sequence[float]]]) -> Any:
  """Returns the learning rate with the largest mean of the first metric; one at which a student died comes last."""
  score = lambda rate: np.mean(np.array([numbers[0] for numbers in by_rate[rate].values()], float))
  return max(by_rate, key=lambda rate: score(rate) if np.isfinite(score(rate)) else -np.inf)


def main(argv: Sequence[str]) -> None:
  if len(argv) != 2:
    raise UserError("give one run directory: python -m experiments.studies.distillation_table DIR.")
  directory = pathlib.Path(argv[1])
  arms = students_of(reporting.read_results(directory)["members"], (_SELECT.value, _METRIC.value))
  chosen = {arm: best_rate(by_rate) for arm, by_rate in arms.items()}
  shown = {
    arm: {student: None if share is None else 100 * share for student, (_, share) in arms[arm][rate].items()}
    for arm, rate in chosen.items()
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
        row.append(_cell(differences(students, first)))
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
    values = [[shown[kind, t].get(s) for t in temperatures] for s in students]
    series[kind] = (temperatures, np.array(values, np.float64))  # None is nan
  plot = directory / "plots" / "distillation.png"
  words = reporting.words_of(_METRIC.value)
  reporting.curves(plot, [reporting.Panel(
    "Students of two kinds of teacher" if len(kinds) == 2 else "Students", f"{words.title} (%)", series,
    xlabel="temperature T", levels=temperatures, log_x=temperatures[0] > 0,
  )], of="students")
  print(f"\n{plot}")


def differences(students: Mapping[Student, float | None], first: Mapping[Student, float | None]) -> list[float | None]:
  """Returns how much each student differs from the one with the same teacher number and seed; None if one died."""
  pairs = [(value, first[student]) for student, value in students.items() if student in first]
  alive = np.array([pair for pair in pairs if None not in pair], np.float64).reshape(-1, 2)
  left = iter(reporting.without_rounding(alive[:, 0] - alive[:, 1], alive))
  return [None if None in pair else next(left) for pair in pairs]


def _cell(values: Any) -> str:
  summary = reporting.summarize(values)
  dead = f" ({summary['dead']} dead)" if summary["dead"] else ""
  return reporting.format_mean_sem(summary["mean"], summary["sem"], summary["n"]) + dead


if __name__ == "__main__":
  terminal.run(main, takes_arguments=True)
