"""The report over run directories: numbers, notes, labels, files and mistakes."""

import math
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

from experiments import report
from nurture import reporting
from nurture.core import UserError
from tests.literal_run import member, write_run

ROOT = pathlib.Path(__file__).resolve().parents[2]
PYTHONPATH = {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'lib'}"}
ETAS = (0.0, 0.01)


def accuracy(eta, seed, step):
  return 0.5 + 0.004 * step - eta + 0.01 * seed


def make_run(directory, *, finished=True, last=100, cohorts=2, etas=ETAS, dead=()):
  """Writes a run of two etas (one cohort each) and three seeds, logged every 50 steps."""
  directory.mkdir(parents=True)
  members = [
    {"member": 3 * i + seed, "cohort": i, "seed": seed, "values": {"eta": eta} if len(etas) > 1 else {}}
    for i, eta in enumerate(etas) for seed in range(3)
  ]
  reporting.write_json(directory / "config.json", {"steps": 100})
  reporting.start(directory, {"checksums": {}, "members": members})
  final = {}
  with reporting.MetricsWriter(directory / "metrics.jsonl") as writer:
    for m in members[: 3 * cohorts]:
      for step in (0, 50, 100):
        if m["cohort"] == cohorts - 1 and step > last:
          continue
        value = math.nan if m["member"] in dead and step > 0 else accuracy(etas[m["cohort"]], m["seed"], step)
        final[m["member"]] = value
        writer.write([{
          "step": step, "cohort": m["cohort"], "member": m["member"], "accuracy/accuracy": value,
          "loss": 10.0 ** (-step / 50), "per_class": [1.0, 2.0],
        }])
  if finished:
    groups = []
    for i, eta in enumerate(etas):
      ids = [m["member"] for m in members if m["cohort"] == i]
      groups.append({
        "label": f"eta={eta}" if len(etas) > 1 else "all", "values": members[3 * i]["values"],
        "members": ids, "dead": [],
        "metrics": {
          "accuracy/accuracy": reporting.summarize(final[m] for m in ids), "loss": reporting.summarize([0.01] * 3),
        },
      })
    reporting.write_json(directory / "results.json", {
      "name": "x", "steps": 100, "params_sha256": "0", "groups": groups, "members": [m | {
        "died_at": None, "params_sha256": "0", "metrics": {"accuracy/accuracy": final[m["member"]], "loss": 0.01},
      } for m in members],
    })
  return directory


def run(*arguments, cwd):
  return subprocess.run(
    [sys.executable, "-m", "experiments.report", *map(str, arguments)],
    cwd=cwd, capture_output=True, text=True, timeout=120, env=os.environ | PYTHONPATH,
  )


def cells(text):
  """Returns {(run, group): [n, metric, ...]} of the Markdown table in a text."""
  rows = [[c.strip() for c in line.strip("| ").split(" | ")] for line in text.splitlines() if line.startswith("|")]
  return {(row[0], row[1]): row[2:] for row in rows[2:]}


def test_two_runs_side_by_side(tmp_path):
  make_run(tmp_path / "a")
  make_run(tmp_path / "b", etas=(0.1,), cohorts=1)
  done = run("a", "b", "--out=out", cwd=tmp_path)
  assert done.returncode == 0, done.stderr
  # Seeds 0, 1, 2 lie 0.01 apart: standard deviation 0.01, standard error 0.01 / sqrt(3) = 0.0058.
  assert cells(done.stdout) == {
    ("a", "eta=0.0"): ["3", "0.9100 ± 0.0058", "0.01 ± 0"],
    ("a", "eta=0.01"): ["3", "0.9000 ± 0.0058", "0.01 ± 0"],
    ("b", "all"): ["3", "0.8100 ± 0.0058", "0.01 ± 0"],
  }
  page = (tmp_path / "out" / "report.md").read_text()
  assert cells(page) == cells(done.stdout)
  picture, = re.findall(r"!\[Accuracy, Training loss\]\((.*)\)", page)
  assert (tmp_path / "out" / picture).read_bytes().startswith(b"\x89PNG")


def test_metrics_can_be_chosen_and_one_run_reports_into_itself(tmp_path):
  make_run(tmp_path / "a")
  done = run("a", "--metric=loss", cwd=tmp_path)
  assert cells(done.stdout)["a", "eta=0.0"] == ["3", "0.01 ± 0"]
  assert (tmp_path / "a" / "report.md").exists() and (tmp_path / "a" / "plots" / "report.png").exists()


def test_an_unfinished_run_gives_what_it_has_and_says_so(tmp_path):
  make_run(tmp_path / "a", finished=False, last=50)
  with open(tmp_path / "a" / "metrics.jsonl", "a") as f:
    f.write('{"step": 100, "coh')  # the process is writing
  done = run("a", "--metric=accuracy/accuracy", cwd=tmp_path)
  assert cells(done.stdout) == {
    ("a", "eta=0.0"): ["3", "0.9100 ± 0.0058"],  # its cohort is through
    ("a", "eta=0.01"): ["3", "0.7000 ± 0.0058"],
  }
  assert "- a is unfinished: 6 of 6 members have metrics" in done.stdout
  assert "unfinished" in (tmp_path / "a" / "report.md").read_text()


def test_cohorts_that_have_not_started_count_nobody(tmp_path):
  read = report.read_run(make_run(tmp_path / "a", finished=False, cohorts=1), "a")
  assert "3 of 6 members have metrics, the last of them at step 100 of 100" in read.note
  table = cells(report.table_of([read], ["accuracy/accuracy"]))
  assert table == {("a", "eta=0.0"): ["3", "0.9100 ± 0.0058"], ("a", "eta=0.01"): ["0 of 3", "–"]}


@pytest.mark.parametrize("finished", [True, False])
def test_dead_members_are_left_out_and_counted(tmp_path, finished):
  read = report.read_run(make_run(tmp_path / "a", finished=finished, dead=(1,)), "a")
  table = cells(report.table_of([read], ["accuracy/accuracy"]))
  # Seeds 0 and 2 are left: mean 0.91, standard deviation 0.0141, standard error 0.01.
  assert table["a", "eta=0.0"] == ["2 of 3", "0.910 ± 0.010"]
  table = cells(report.table_of([read], ["accuracy/accuracy", "loss"]))
  assert table["a", "eta=0.0"] == ["3", "0.910 ± 0.010 (n=2)", "0.01 ± 0"]  # its loss is still a number
  _, values = report.panel_of([read], "accuracy/accuracy").series["eta=0.0"]
  np.testing.assert_array_equal(np.isfinite(values), [[True] * 3, [True, False, False], [True] * 3])


def test_curves_are_one_series_a_group_with_one_line_a_member(tmp_path):
  runs = [report.read_run(make_run(tmp_path / name), name) for name in ("a", "b")]
  panel = report.panel_of(runs, "accuracy/accuracy")
  assert list(panel.series) == ["a: eta=0.0", "a: eta=0.01", "b: eta=0.0", "b: eta=0.01"]
  steps, values = panel.series["b: eta=0.01"]
  assert steps == [0, 50, 100]
  np.testing.assert_allclose(values, [[accuracy(0.01, seed, s) for s in steps] for seed in range(3)], rtol=1e-12)
  assert panel.fraction and not panel.log_y
  assert report.panel_of(runs, "loss").log_y  # from 1 to 0.01
  assert report.panel_of(runs, "per_class").series == {}


def test_labels_leave_out_what_does_not_distinguish(tmp_path):
  one = report.read_run(make_run(tmp_path / "one"), "one")
  plain = report.read_run(make_run(tmp_path / "plain", etas=(0.1,), cohorts=1), "plain")
  labels = lambda *runs: list(report.panel_of(runs, "loss").series)
  assert labels(one) == ["eta=0.0", "eta=0.01"]
  assert labels(plain) == ["plain"]
  assert labels(plain, one) == ["plain", "one: eta=0.0", "one: eta=0.01"]


def test_runs_of_the_same_name_are_told_apart_by_their_paths(tmp_path):
  make_run(tmp_path / "x" / "run")
  make_run(tmp_path / "y" / "run")
  done = run("x/run", "y/run", "--metric=loss", "--out=out", cwd=tmp_path)
  assert {name for name, _ in cells(done.stdout)} == {"x/run", "y/run"}


def test_many_metrics_are_cut_with_a_note_and_can_be_asked_for(tmp_path):
  directory = make_run(tmp_path / "a")
  results = reporting.read_json(directory / "results.json")
  for group in results["groups"]:
    group["metrics"] |= {f"probe/{i}": reporting.summarize([i]) for i in range(9)}
  reporting.write_json(directory / "results.json", results)
  runs = [report.read_run(directory, "a")]
  shown, left_out = report.choose_metrics(runs, [])
  assert shown[:2] == ["accuracy/accuracy", "loss"] and len(shown) == 6 and left_out[-1] == "probe/8"
  assert report.choose_metrics(runs, ["probe/8"]) == (["probe/8"], [])


@pytest.mark.parametrize("arguments, message", [
  ([], "no run is given; write python -m experiments.report DIR"),
  (["runs/mnist_mpl"], "runs/mnist_mpl does not exist; did you mean 'runs/mnist_mlp'?"),
  (["nowhere"], "nowhere does not exist; give the --workdir of a run."),
  (["runs"], "runs is not a run directory"),
  (["runs/empty"], "runs/empty has no metrics yet"),
  (["runs/mnist_mlp", "runs/../runs/mnist_mlp"], "runs/../runs/mnist_mlp is given twice; give each run once."),
  (["x" * 300], "cannot be read (File name too long)"),
  (["runs/mnist_mlp", "--metric=accuracy/acuracy"], "did you mean 'accuracy/accuracy'?"),
])
def test_a_mistake_is_one_sentence(tmp_path, arguments, message):
  make_run(tmp_path / "runs" / "mnist_mlp")
  (tmp_path / "runs" / "empty").mkdir()
  reporting.start(tmp_path / "runs" / "empty", {})
  done = run(*arguments, cwd=tmp_path)
  assert done.returncode == 2
  assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1 and message in done.stderr


def test_groups_have_the_same_names_before_and_after_the_end(tmp_path):
  values = [{"method": "plain", "lr": 0.1}, {"method": "plain", "lr": 0.2}]
  rows = [{"step": 0, "member": 0, "loss": 1.0}]
  directory = write_run(tmp_path / "a", [member(0, v, loss=1.0) for v in values], rows)
  (directory / "results.json").unlink()
  unfinished = report.read_run(directory, "a")
  assert [group.label for group in unfinished.groups] == ["plain, lr=0.1", "plain, lr=0.2"]
  assert [group.members for group in unfinished.groups] == [(0,), (1,)]


def test_curves_of_one_name_are_both_drawn():
  of = lambda label, group: report.Run(label, tuple(
    report.Group(name, {}, (i,), {}) for i, name in enumerate((group, "other"))
  ), ({"step": 0, "member": 0, "loss": 1.0},), None)
  assert list(report.panel_of([of("a", "b: c"), of("a: b", "c")], "loss").series) == ["a: b: c", "a: b: c (2)"]


def test_a_method_has_one_colour_in_all_runs_and_panels():
  groups = tuple(report.Group(m, {"method": m}, (i,), {}) for i, m in enumerate(("plain", "ELR")))
  rows = tuple({"step": 0, "member": i, "loss": 1.0} for i in (0, 1))
  runs = [report.Run(label, groups, rows, None) for label in ("a", "b")]
  styles = report.styles_of(runs)
  assert list(report.panel_of(runs, "loss").series) == ["a: plain", "a: ELR", "b: plain", "b: ELR"]
  assert styles["a: plain"].color == report.styles_of(runs[:1])["plain"].color != styles["a: ELR"].color
  assert styles["a: plain"].dashes == styles["a: ELR"].dashes != styles["b: plain"].dashes == styles["b: ELR"].dashes


def test_a_run_of_another_binary_is_one_sentence(tmp_path):
  directory = make_run(tmp_path / "a")
  reporting.write_json(directory / "results.json", {"groups": {"ELR": {}}, "seeds": {}})  # of elr_linear
  with pytest.raises(UserError, match=r"results\.json: steps is missing; give the --workdir of a finished exper"):
    report.read_run(directory, "a")


def test_damaged_results_are_named(tmp_path):
  directory = make_run(tmp_path / "a")
  (directory / "results.json").write_text("{")
  with pytest.raises(UserError, match=r"results\.json is not JSON"):
    report.read_run(directory, "a")
