"""The table of students: the learning rate is chosen on the validation split, and differences are over pairs."""

import subprocess
import sys

import pytest

from experiments.studies.distillation_table import students_of
from nurture.core import UserError
from tests.literal_run import member, write_run


def student(kind, number, temperature, lr, test, validation, seed=0, died_at=None):
  metrics = {"test/accuracy": test, "validation/accuracy": validation}
  values = {"teacher": f"{kind}, teacher {number}", "T": temperature, "lr": lr}
  return member(seed, values, died_at, **metrics)


MEMBERS = [
  # lr 0.1 is better on the test split, 0.2 on the validation split.
  *(student("plain", i, 1.0, 0.1, 0.95, 0.80) for i in range(2)),
  *(student("plain", i, 1.0, 0.2, 0.90 + 0.02 * i, 0.85) for i in range(2)),
  *(student("smoothed", i, 1.0, 0.1, 0.88 + 0.02 * i, 0.9) for i in range(2)),
  # A rate at which a student died is not chosen.
  *(student("smoothed", i, 1.0, 0.2, 0.99, 0.99, died_at=3 if i else None) for i in range(2)),
]


def run(directory, *arguments):
  command = [sys.executable, "-m", "experiments.studies.distillation_table", str(directory), *arguments]
  return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_the_binary_prints_paired_differences_and_draws(tmp_path):
  write_run(tmp_path, MEMBERS)
  done = run(tmp_path)
  assert done.returncode == 0, done.stderr
  cells = [cell.strip() for cell in done.stdout.splitlines()[2].strip("|").split("|")]
  # 90 and 92 against 88 and 90: each pair differs by 2, though the means have an error of 1.
  assert cells == ["1", "91.0 ± 1.0", "0.2", "89.0 ± 1.0", "0.1", "-2 ± 0"]
  assert "2 students in each cell; lr chosen by validation/accuracy" in done.stdout
  assert (tmp_path / "plots" / "distillation.png").stat().st_size > 10_000


def test_another_grid_or_metric_is_one_sentence(tmp_path):
  for change in ({"T": "hot"}, {"teacher": "plain"}, {"lr": "fast"}, {"alpha": 0.1}):  # the last would be overwritten
    with pytest.raises(UserError, match="needs the axes 'teacher'"):
      students_of([MEMBERS[0] | {"values": MEMBERS[0]["values"] | change}], ["test/accuracy"])
  done = run(write_run(tmp_path, MEMBERS), "--metric=test/acuracy")
  assert done.returncode == 2
  assert done.stderr.startswith("error: member 0 has no metric 'test/acuracy'; did you mean 'test/accuracy'")
