"""The listing of runs: what is one, how far it has come, and that no damage breaks the list."""

import fcntl
import os
import shutil
import types

import pytest

from experiments import runs
from nurture import reporting
from nurture.core import UserError
from nurture.testing.damage import DAMAGES
from nurture.training.config import to_json
from tests.literal_run import member, write_run
from tests.tiny import tiny_config

CONFIG = to_json(tiny_config(steps=100, ensemble__grid={"eta": {"path": "gradients.noise.eta", "levels": (0.0, 1.0)}}))
ABOUT = ("elr/tiny: mlp on digits with symmetric noise 0.25; cross_entropy; label_smoothing, clip_by_global_norm, "
         "annealed_noise, ema; sgd; sweep of eta")


def write(directory, *, dead=None, last=100, cohort=0):
  """Writes a finished run of two members; `dead` diverges, `last` is the step of the last row."""
  members = [member(0, {"eta": eta}, died_at=3 if i == dead else None, loss=1.0) for i, eta in enumerate((0.0, 1.0))]
  write_run(directory, [m | {"cohort": i} for i, m in enumerate(members)],
            [{"step": step, "cohort": cohort, "member": 0, "loss": 1.0} for step in (0, last)], CONFIG)
  change(directory, argv=["--workdir=x", "--config=configs/elr/tiny.py"])
  return directory


def change(directory, **fields):
  manifest = reporting.read_json(directory / "manifest.json")
  reporting.write_json(directory / "manifest.json", manifest | fields)


def interrupted(directory, *events, **more):
  """Writes a run without results; its history has a start and these events."""
  write(directory, **more)
  (directory / "results.json").unlink()
  (directory / "lock").touch()
  stop = lambda event: {"event": "resume"} if event == "resume" else {"event": "stop", "reason": event}
  change(directory, history=[{"time": "now"} | entry for entry in ({"event": "start"}, *map(stop, events))])
  return directory


def seen(directory):
  found = runs.look_at(directory)
  return found.state, found.words


def test_the_states_of_a_run(tmp_path):
  assert seen(write(tmp_path / "whole")) == ("finished", "")
  assert seen(write(tmp_path / "half", dead=1)) == ("finished", "1 of 2 members diverged")
  assert seen(interrupted(tmp_path / "signal", "stopped by a signal", last=30)) == (
    "stopped", "stopped by a signal at cohort 1 of 2, step 30 of 100")
  assert seen(interrupted(tmp_path / "later", "error", last=40, cohort=1)) == (
    "stopped", "error at cohort 2 of 2, step 40 of 100")
  assert seen(interrupted(tmp_path / "lost", "finished"))[1].startswith("ended, but its results.json is missing, at")
  killed = interrupted(tmp_path / "killed", "stopped by a signal", "resume", last=50)
  (killed / "metrics.jsonl").unlink()
  assert seen(killed)[1].endswith("at step 0 of 100")


@pytest.mark.skipif(not os.path.exists("/proc/locks"), reason="a lock cannot be seen without taking it")
def test_a_run_whose_lock_is_held_is_running_and_stays_untouched(tmp_path):
  directory = interrupted(tmp_path / "run", last=50)
  assert seen(directory) == ("killed", "killed, or running on another machine, at cohort 1 of 2, step 50 of 100")
  with open(directory / "lock", "r+") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    assert seen(directory) == ("running", "at cohort 1 of 2, step 50 of 100")
  assert seen(directory)[0] == "killed"


def test_the_last_row_is_read_from_the_end_of_the_file(tmp_path):
  path = tmp_path / "metrics.jsonl"
  line = lambda step, more="": f'{{"step": {step}, "cohort": 0, "member": 0{more}}}\n'
  for text, step in (("", None), (line(3), 3), (line(3) + line(6), 6), (line(3) + '{"step": 6, "coh', 3),
                     (line(3) + line(6, f', "many": "{"x" * 300_000}"'), 6), ('{"step": 6', None)):
    path.write_text(text)
    row = runs._last_row(path)
    assert (row and row["step"]) == step
  path.write_text(line(3) + "3\n")
  with pytest.raises(UserError, match="the last line of .* is no row of metrics .*; restore the file from a copy."):
    runs._last_row(path)


def test_what_is_no_run_is_passed_over_and_each_run_is_named_once(tmp_path):
  for name in ("b", "a/deep/run", "b/nested"):
    write(tmp_path / name)
  (tmp_path / "b/checkpoints").mkdir()
  write(tmp_path / "b/checkpoints/not_looked_at")
  write(tmp_path / ".hidden")
  (tmp_path / "foreign").mkdir()
  for name in ("config.json", "tokenizer.json"):
    (tmp_path / "foreign" / name).write_text("{}")
  (tmp_path / "a/circle").symlink_to(tmp_path)
  found = [str(path.relative_to(tmp_path)) for path in runs.runs_below([tmp_path, tmp_path / "b"])]
  assert found == ["a/deep/run", "b", "b/nested"]


@pytest.fixture(scope="module")
def three(tmp_path_factory):
  """A finished run, a stopped one, and another finished one."""
  directory = tmp_path_factory.mktemp("three")
  write(directory / "finished")
  interrupted(directory / "stopped", "error", last=30)
  write(directory / "whole")
  return directory


@pytest.mark.parametrize("file", ["config.json", "manifest.json", "metrics.jsonl", "results.json"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_run_does_not_break_the_list(three, tmp_path, file, damage):
  shutil.copytree(three, tmp_path, dirs_exist_ok=True)
  for name in ("finished", "stopped"):
    if (path := tmp_path / name / file).exists():
      DAMAGES[damage](path)
  found = [runs.look_at(directory) for directory in runs.runs_below([tmp_path])]
  assert len(found) == 3 and found[-1].state == "finished" and found[-1].about == ABOUT
  for run in found:
    assert run.state in runs.STATES and "\n" not in run.words
    assert run.state != "unreadable" or run.words.endswith(".") and str(tmp_path) in run.words
  if damage in ("empty", "null", "[]", "a folder") and file in ("config.json", "manifest.json"):
    assert [run.state for run in found[:2]] == ["unreadable", "unreadable"]


def test_the_list_fits_a_terminal_and_counts(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  write(tmp_path / "runs/first")
  interrupted(tmp_path / "runs/second", "error", last=30)
  (tmp_path / "runs/second/config.json").write_text("{")
  with reporting.study(tmp_path / "runs/study", {"n": 3, "eta": 0.5}) as study:
    study.write({})
  found = [runs.look_at(directory) for directory in runs.runs_below([tmp_path / "runs"])]
  found = [runs.dataclasses.replace(run, directory=run.directory.relative_to(tmp_path), changed=0, size=2048)
           for run in found]
  lines = runs.listing(found, now=7300.0).splitlines()
  assert lines[0] == "runs/first   finished    2 members  2 hours ago  2 KiB"
  assert lines[1].startswith("    elr/tiny: mlp on digits") and max(map(len, lines)) <= 100 + len(str(tmp_path))
  assert any(line.startswith("runs/second  unreadable") for line in lines) and "    n=3 eta=0.5" in lines
  assert lines[-1] == "3 runs: 2 finished, 1 unreadable."


def test_the_program(tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(runs, "_STATE", types.SimpleNamespace(value=None))
  with pytest.raises(UserError, match="runs does not exist; .*; give a directory of runs."):
    runs.main(["runs"])
  (tmp_path / "runs").mkdir()
  runs.main(["runs"])
  assert capsys.readouterr().out == "no runs.\n"
  write(tmp_path / "runs/first")
  interrupted(tmp_path / "runs/second", "error")
  monkeypatch.setattr(runs, "_STATE", types.SimpleNamespace(value="stopped"))
  runs.main(["runs", "runs"])
  assert capsys.readouterr().out.splitlines()[-1] == "1 run: 1 stopped."
  monkeypatch.setattr(runs, "_STATE", types.SimpleNamespace(value="stoped"))
  with pytest.raises(UserError, match="--state=stoped is no state of a run; did you mean 'stopped'?"):
    runs.main(["runs", "runs"])


@pytest.mark.parametrize(("config", "argv", "words"), [
  ({"data": {"source": "mnist"}, "model": {"name": "vit"}, "optimizer": {"name": "adamw"}}, [], "vit on mnist; adamw"),
  ({"data": {"source": {"name": "tfds", "dataset": "svhn"}}, "model": "vit"}, ["--config", "a.py:b"],
   "a:b: vit on tfds svhn"),
  ({"data": 3, "model": {"name": 5}, "losses": [1]}, [], "data=3"),
  ({"data": {"label_noise": "x", "augment": {"f": {"name": "flip"}}}, "model": {"name": "cnn"}, "losses": {"a": 3}}, [],
   "cnn on its data with x noise; flip"),
])
def test_a_config_in_words(config, argv, words):
  assert runs.description(config, argv) == words


@pytest.mark.parametrize(("seconds", "size", "words"), [
  (0, 0, ("just now", "0 B")), (61, 1024, ("1 minute ago", "1 KiB")), (7200, 5 * 2**20, ("2 hours ago", "5 MiB")),
  (90000, 1010 * 2**20, ("1 day ago", "1010 MiB")), (10**6, 3 * 2**31, ("11 days ago", "6 GiB")),
])
def test_ages_and_sizes_in_words(seconds, size, words):
  assert (runs._ago(seconds), runs._bytes(size)) == words
