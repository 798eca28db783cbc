"""The table of students: the learning rate is chosen on the validation split, and differences are over pairs."""

import json
import subprocess
import sys


def member(kind, number, temperature, lr, test, validation, seed=0, died_at=None):
  metrics = {"test/accuracy": test, "validation/accuracy": validation}
  values = {"teacher": f"{kind}, teacher {number}", "T": temperature, "lr": lr}
  return {"values": values, "seed": seed, "died_at": died_at, "metrics": metrics}


MEMBERS = [
  # lr 0.1 is better on the test split, 0.2 on the validation split.
  *(member("plain", i, 1.0, 0.1, 0.95, 0.80) for i in range(2)),
  *(member("plain", i, 1.0, 0.2, 0.90 + 0.02 * i, 0.85) for i in range(2)),
  *(member("smoothed", i, 1.0, 0.1, 0.88 + 0.02 * i, 0.9) for i in range(2)),
  # A rate at which a student died is not chosen.
  *(member("smoothed", i, 1.0, 0.2, 0.99, 0.99, died_at=3 if i else None) for i in range(2)),
]


def run(directory, *arguments):
  command = [sys.executable, "-m", "experiments.distillation_table", str(directory), *arguments]
  return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_the_binary_prints_paired_differences_and_draws(tmp_path):
  (tmp_path / "results.json").write_text(json.dumps({"members": MEMBERS}))
  done = run(tmp_path)
  assert done.returncode == 0, done.stderr
  cells = [cell.strip() for cell in done.stdout.splitlines()[2].strip("|").split("|")]
  # 90 and 92 against 88 and 90: each pair differs by 2, though the means have an error of 1.
  assert cells == ["1", "91.0 ± 1.0", "0.2", "89.0 ± 1.0", "0.1", "-2 ± 0"]
  assert "2 students in each cell; lr chosen by validation/accuracy" in done.stdout
  assert (tmp_path / "plots" / "distillation.png").stat().st_size > 10_000


def test_another_grid_or_metric_is_one_sentence(tmp_path):
  other = [{**MEMBERS[0], "values": {"lr": 0.1}}]
  (tmp_path / "results.json").write_text(json.dumps({"members": other}))
  done = run(tmp_path)
  assert done.returncode == 2 and done.stderr.startswith("error: the run's grid has no axes 'teacher'")
  (tmp_path / "results.json").write_text(json.dumps({"members": MEMBERS}))
  done = run(tmp_path, "--metric=test/acuracy")
  assert done.returncode == 2 and done.stderr.startswith("error: test/acuracy is in no metric of the run")
