"""The report over run directories: numbers, notes, labels, files and mistakes."""

import csv
import dataclasses
import math
import os
import pathlib
import re
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from experiments import report
from nurture import reporting
from nurture.core import UserError
from tests.literal_run import member, write_run

ROOT = pathlib.Path(__file__).resolve().parents[2]
PYTHONPATH = {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'lib'}"}
ETAS = (0.0, 0.01)
CONFIG = {
  "steps": 100, "model": {"name": "mlp", "width": 8}, "losses": {"ce": {"weight": 1.0}},
  "probes": {"accuracy": {"name": "accuracy", "split": "test"}}, "report": {"metrics": ["accuracy/accuracy", "loss"]},
  "ensemble": {"grid": {}},
}


def accuracy(eta, seed, step):
  return 0.5 + 0.004 * step - eta + 0.01 * seed


def make_run(directory, *, finished=True, last=100, cohorts=2, etas=ETAS, dead=(), **changes):
  """Writes a run of two etas (one cohort each) and three seeds, logged every 50 steps."""
  directory.mkdir(parents=True)
  members = [
    {"member": 3 * i + seed, "cohort": i, "seed": seed, "values": {"eta": eta} if len(etas) > 1 else {}}
    for i, eta in enumerate(etas) for seed in range(3)
  ]
  reporting.write_json(directory / "config.json", CONFIG | changes)
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


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
  """A function that calls the program, in a folder of its own, and returns what it prints."""

  def called(*arguments, metric=(), out=None):
    with flagsaver.flagsaver():
      flags.FLAGS.mark_as_parsed()
      flags.FLAGS.metric, flags.FLAGS.out = list(metric), out
      report.main(["report", *arguments])
    return capsys.readouterr().out

  monkeypatch.chdir(tmp_path)
  return called


def cells(text):
  """Returns {(run, group): [n, metric, ...]} of the Markdown table in a text."""
  rows = [[c.strip() for c in line.strip("| ").split(" | ")] for line in text.splitlines() if line.startswith("|")]
  return {(row[0], row[1]): row[2:] for row in rows[2:]}


def test_two_runs_side_by_side(tmp_path):
  make_run(tmp_path / "a")
  make_run(tmp_path / "b", etas=(0.1,), cohorts=1)
  done = subprocess.run(
    [sys.executable, "-m", "experiments.report", "a", "b", "--out=out"],
    cwd=tmp_path, capture_output=True, text=True, timeout=120, env=os.environ | PYTHONPATH,
  )
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


def test_metrics_can_be_chosen_and_one_run_reports_into_itself(tmp_path, run):
  make_run(tmp_path / "a")
  assert cells(run("a", metric=["loss"]))["a", "eta=0.0"] == ["3", "0.01 ± 0"]
  assert (tmp_path / "a" / "report.md").exists() and (tmp_path / "a" / "plots" / "report.png").exists()


def test_an_unfinished_run_gives_what_it_has_and_says_so(tmp_path, run):
  make_run(tmp_path / "a", finished=False, last=50)
  with open(tmp_path / "a" / "metrics.jsonl", "a") as f:
    f.write('{"step": 100, "coh')  # the process is writing
  text = run("a", metric=["accuracy/accuracy"])
  assert cells(text) == {
    ("a", "eta=0.0"): ["3", "0.9100 ± 0.0058"],  # its cohort is through
    ("a", "eta=0.01"): ["3", "0.7000 ± 0.0058"],
  }
  assert "- a is unfinished: 6 of 6 members have metrics" in text
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


def test_runs_of_the_same_name_are_told_apart_by_their_paths(tmp_path, run):
  make_run(tmp_path / "x" / "run")
  make_run(tmp_path / "y" / "run")
  assert {name for name, _ in cells(run("x/run", "y/run", metric=["loss"], out="out"))} == {"x/run", "y/run"}


def measured(directory, names, metrics, probes=("test",)):
  """Writes a run that has measured some names and whose config asks for metrics."""
  directory = make_run(directory, probes={label: {"name": "x"} for label in probes}, report={"metrics": metrics})
  results = reporting.read_json(directory / "results.json")
  for group in results["groups"]:
    group["metrics"] = {name: reporting.summarize([float(i)] * 3) for i, name in enumerate(names)}
  reporting.write_json(directory / "results.json", results)
  return report.read_run(directory, directory.name)


@pytest.mark.parametrize("names, metrics, shown", [
  (["loss", "gradient_norm", "test/rmse", "test/r2"], ["test/rmse", "test/r2"], ["test/rmse", "test/r2"]),
  (["loss", "test/at_1", "test/reverse_at_1"], ["test/at_1"], ["test/at_1"]),
  # A base config asks for an accuracy that a regression has not.
  (["loss", "gradient_norm", "test/rmse", "test/r2"], ["test/accuracy", "loss"], ["loss", "test/rmse", "test/r2"]),
  (["loss", *(f"test/{i}" for i in range(9))], [], [f"test/{i}" for i in range(6)]),
  (["loss", "a", "b"], [], ["loss", "a", "b"]),
])
def test_the_metrics_are_those_of_the_config_or_else_those_of_its_probes(tmp_path, names, metrics, shown):
  run = measured(tmp_path / "a", names, metrics)
  assert report.choose_metrics([run], []) == (shown, [name for name in names if name not in shown])
  assert report.choose_metrics([run], names[-1:]) == (names[-1:], [])


def test_runs_of_several_tasks_show_the_metrics_of_each_and_name_the_others(tmp_path, run):
  measured(tmp_path / "ink", ["loss", "test/rmse"], ["test/rmse"])
  measured(tmp_path / "names", ["loss", *(f"test/{i}" for i in range(30)), "test/at_1"], ["test/at_1"])
  text = run("ink", "names", out="x.csv")
  assert cells(text)["ink", "eta=0.0"] == ["3", "1 ± 0", "–"]
  assert cells(text)["names", "eta=0.0"] == ["3", "–", "31 ± 0"]
  assert re.search(r"^- 31 more metrics; choose with --metric from loss, test/0,.* test/18 and 11 more\.$", text, re.M)


@pytest.mark.parametrize("changes, columns, hidden", [
  ([{}, {}], {}, []),
  ([{"model": {"name": "mlp", "width": 8}}, {"model": {"name": "mlp", "width": 16}}], {"model.width": ["8", "16"]}, []),
  (
    [{}, {"losses": CONFIG["losses"] | {"elr": {"name": "elr", "lam": [1, None]}}}],
    {"losses.elr.name": ["–", "elr"], "losses.elr.lam": ["–", "[1, null]"]}, [],
  ),
  ([{"seed": 0, "data": {"seed": 0}}, {"seed": 1, "data": {"seed": 1}}], {"seed": ["0", "1"]}, ["data.seed"]),
  ([{"a": "x" * 50, "b": True}, {"a": "y", "b": False}], {"a": ["x" * 39 + "…", "y"], "b": ["true", "false"]}, []),
  (
    [{"many": {f"{i}": i for i in range(8)}}, {"many": {f"{i}": -i - 1 for i in range(8)}}],
    {f"many.{i}": [f"{i}", f"{-i - 1}"] for i in range(6)}, ["many.6", "many.7"],
  ),
  ([{"report": {"metrics": []}}, {"ensemble": {"grid": {}}}], {}, []),
  (
    [{"ensemble": {"grid": {"w": {"path": "model.width", "levels": [8, 9]}}}}, {"model": {"name": "cnn", "width": 8}}],
    {"model.name": ["mlp", "cnn"], "model.width": ["swept", "8"]}, [],
  ),
  (
    [{"ensemble": {"grid": {"arm": {"arms": {"a": {"set": {"losses.ce": {}}}, "b": {"grid": {"width": {
      "path": ["model.width"], "levels": [[8]]}}}}}}}}, {}],
    {"model.width": ["swept", "8"], "losses.ce": ["swept", "–"], "losses.ce.weight": ["–", "1.0"]}, [],
  ),
  (
    [{"ensemble": {"grid": {"arm": {"arms": {"a": {"set": [["model.width", 8]]}}}}}}, {}],
    {"model.width": ["swept", "8"]}, [],
  ),
])
def test_columns_say_in_what_runs_differ(changes, columns, hidden):
  runs = [report.Run(f"{i}", (), (), None, {**CONFIG, **change}) for i, change in enumerate(changes)]
  assert report.fields_of(runs) == (columns, hidden)


def test_the_table_has_the_fields_beside_each_run(tmp_path, run):
  for width in (8, 16):
    make_run(tmp_path / f"{width}", etas=(0.1,), cohorts=1, model={"width": width}, seed=width, data={"seed": width})
  text = run("8", "16", metric=["loss"])
  header, _, first, second = [line.replace("|", "").split() for line in text.splitlines() if line.startswith("|")]
  assert header == ["run", "model.width", "seed", "group", "n", "loss"]
  assert first[:5] == ["8", "8", "8", "all", "3"] and second[:5] == ["16", "16", "16", "all", "3"]
  assert "- The runs also differ in data.seed; a .csv has all." in text


def test_a_folder_of_runs_is_read_whatever_else_lies_there(tmp_path, run):
  runs = tmp_path / "runs"
  make_run(runs / "a")
  make_run(runs / "b", finished=False)
  (runs / "notes.txt").write_text("x")
  (runs / "picture.png").write_bytes(b"\x89PNG")
  (runs / ".hidden").write_text("")
  (runs / "report").mkdir()  # of an earlier report
  (runs / "empty").mkdir()
  reporting.start(runs / "begun", {"checksums": {}})
  reporting.write_json(make_run(runs / "study") / "results.json", {"groups": {}})  # of another program
  (make_run(runs / "damaged") / "results.json").write_text("{")
  for arguments in (["runs"], sorted(f"runs/{name}" for name in os.listdir(runs)), ["runs", "runs/../runs/a"]):
    text = run(*arguments)
    assert {name for name, _ in cells(text)} == {"a", "b"}
    notes = [line for line in text.splitlines() if line.startswith("- ")]
    hidden = "runs/.hidden, " if "runs/.hidden" in arguments else ""
    assert notes[0] == f"- {hidden}runs/empty, runs/notes.txt, runs/picture.png: no runs, left out."
    for note, words in zip(notes[1:], (
      "Left out: runs/begun has no metrics yet", "Left out: runs/damaged/results.json is not JSON",
      "Left out: runs/study/results.json: ", "b is unfinished: ",
    )):
      assert note.startswith(f"- {words}")
  assert (runs / "report" / "report.md").exists()


def test_a_csv_has_plain_numbers_all_fields_and_the_axes(tmp_path, run):
  make_run(tmp_path / "a", dead=(1,), model={"name": "mlp, deep"}, seed=0, data={"seed": 0})
  make_run(tmp_path / "b", finished=False, cohorts=1, seed=1, data={"seed": 1})
  run("a", "b", out="tables/x.csv")
  with open("tables/x.csv", newline="") as f:
    rows = list(csv.DictReader(f))
  assert os.listdir("tables") == ["x.csv"]
  assert [(row["run"], row["finished"]) for row in rows] == [("a", "yes"), ("a", "yes"), ("b", "no"), ("b", "no")]
  assert rows[0] == {
    "run": "a", "finished": "yes", "model.name": "mlp, deep", "model.width": "", "seed": "0", "data.seed": "0",
    "group": "eta=0.0", "grid.eta": "0.0", "members": "3",
    "accuracy/accuracy": f"{rows[0]['accuracy/accuracy']}", "accuracy/accuracy sem": "0.010000000000000009",
    "accuracy/accuracy n": "2", "loss": "0.01", "loss sem": "0.0", "loss n": "3",
  }
  assert float(rows[0]["accuracy/accuracy"]) == pytest.approx(0.91, abs=1e-15)
  assert [rows[3][name] for name in ("accuracy/accuracy", "loss sem", "loss n")] == ["", "", "0"]  # not begun


def test_a_latex_table_has_the_notes_as_comments(tmp_path, run):
  make_run(tmp_path / "a_b", etas=(0.1,), cohorts=1, finished=False, last=50)
  run("a_b", out="x.tex", metric=["accuracy/accuracy"])
  assert pathlib.Path("x.tex").read_text() == (
    "% a_b is unfinished: 3 of 3 members have metrics, the last of them at step 50 of 100; the numbers are those so "
    "far.\n% needs \\usepackage{booktabs}\n\\begin{tabular}{llrr}\n\\toprule\n"
    "run & group & n & accuracy/accuracy \\\\\n\\midrule\na\\_b & all & 3 & 0.6100 $\\pm$ 0.0058 \\\\\n\\bottomrule\n"
    "\\end{tabular}\n"
  )


def test_more_curves_than_can_be_told_apart_are_no_picture(tmp_path, run):
  for i in range(21):
    make_run(tmp_path / "runs" / f"{i:02}")
  text = run("runs")
  assert len(cells(text)) == 42 and "No picture: 42 curves cannot be told apart; give fewer runs." in text
  assert not (tmp_path / "runs" / "report" / "plots").exists()


def test_the_rows_of_runs_are_never_in_memory_together(tmp_path):
  names = [f"layer_{i}" for i in range(100)]
  rows = [{"step": step, "member": 0, "loss": 1.0, **dict.fromkeys(names, 0.5)} for step in range(200)]
  run = report.read_run(write_run(tmp_path / "a", [member(0, {}, loss=1.0)], rows), "a")
  size = (tmp_path / "a" / "metrics.jsonl").stat().st_size
  tracemalloc.start()
  panel, = report.panels_of([dataclasses.replace(run, label=f"{i}") for i in range(4)], ["loss"])
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert len(panel.series) == 4 and peak < size / 2, (peak, size)


@pytest.mark.parametrize("arguments, message", [
  ([], "no run is given; write python -m experiments.report DIR"),
  (["runs/mnist_mpl"], "runs/mnist_mpl does not exist; did you mean 'runs/mnist_mlp'?"),
  (["nowhere"], "nowhere does not exist; give the --workdir of a run."),
  (["other"], "other: no run directory (it has no manifest.json) and no folder of them; give the --workdir of a run."),
  (["other", "other/notes"], "other, other/notes: no run directory"),
  (["runs/empty"], "runs/empty has no metrics yet"),
  (["runs/mnist_mlp", "runs/../runs/mnist_mlp"], "runs/../runs/mnist_mlp is given twice; give each run once."),
  (["x" * 300], "cannot be read (File name too long)"),
  (["runs/mnist_mlp", "--metric=accuracy/acuracy"], "did you mean 'accuracy/accuracy'?"),
])
def test_a_mistake_is_one_sentence(tmp_path, run, arguments, message):
  make_run(tmp_path / "runs" / "mnist_mlp")
  (tmp_path / "other").mkdir()
  (tmp_path / "other" / "notes").write_text("")
  reporting.start(tmp_path / "runs" / "empty", {})
  metric = [word.removeprefix("--metric=") for word in arguments if word.startswith("--")]
  with pytest.raises(UserError, match=re.escape(message)) as raised:
    run(*(word for word in arguments if not word.startswith("--")), metric=metric)
  assert "\n" not in str(raised.value)


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
  ), ({"step": 0, "member": 0, "loss": 1.0},), None, CONFIG)
  assert list(report.panel_of([of("a", "b: c"), of("a: b", "c")], "loss").series) == ["a: b: c", "a: b: c (2)"]


def test_a_method_has_one_colour_in_all_runs_and_panels():
  groups = tuple(report.Group(m, {"method": m}, (i,), {}) for i, m in enumerate(("plain", "ELR")))
  rows = tuple({"step": 0, "member": i, "loss": 1.0} for i in (0, 1))
  runs = [report.Run(label, groups, rows, None, CONFIG) for label in ("a", "b")]
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
