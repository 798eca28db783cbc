"""The run directory: leftovers of a start, damage, and what must never be lost."""

import fcntl
import json
import os
import shutil
import signal
import sys
import threading

import pytest

from nurture import reporting, training
from nurture.core import UserError
from nurture.reporting import read_json
from nurture.testing import damage
from nurture.training import run_directory, sweep
from nurture.training.config import fingerprint, put, to_json
from nurture.training.profiling import Profiler
from nurture.training.run import _checksums
from nurture.training.run_directory import checkpoints_of, claimed, lock, member_variables
from tests.tiny import read


def names(directory):
  return sorted(path.name for path in directory.rglob("*"))


def contents(directory):
  return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file() and path.name != "lock"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
  """A finished run of two cohorts of two members."""
  workdir = tmp_path_factory.mktemp("runs") / "whole"
  training.run(damage.config_of(), workdir)
  return workdir


@pytest.fixture
def copy(whole, tmp_path):
  return shutil.copytree(whole, tmp_path / "run")


@pytest.fixture
def interrupted(copy):
  damage.interrupt(copy)
  return copy


def finish(workdir, whole):
  training.run(damage.config_of(), workdir)
  for name in damage.COMPARED:
    assert (workdir / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.parametrize("left", [["lock"], [".config.json.tmp"], ["lock", ".config.json.tmp"], []])
def test_any_prefix_of_a_start_can_be_started_again(tmp_path, left):
  workdir = tmp_path / "run"
  workdir.mkdir()
  for name in left:
    (workdir / name).write_text('{"half')
  with claimed(workdir, damage.config_of()):
    pass


@pytest.mark.parametrize("files_before_the_disk_is_full", range(3))
def test_a_disk_that_is_full_at_the_start_leaves_a_directory_that_can_be_started(
  tmp_path, monkeypatch, whole, files_before_the_disk_is_full
):
  written, replace = [], os.replace

  def full(source, target):
    written.append(target)
    if len(written) > files_before_the_disk_is_full:
      raise OSError(28, "No space left on device")
    replace(source, target)

  with monkeypatch.context() as patch:
    patch.setattr(os, "replace", full)
    with pytest.raises(UserError, match="(cannot|could not) be written .*No space left on device"):
      training.run(damage.config_of(), tmp_path / "a/b")
  assert not [name for name in names(tmp_path) if name.endswith(".tmp")]
  assert (tmp_path / "a").exists() == (files_before_the_disk_is_full == 2)  # the third is of a checkpoint
  finish(tmp_path / "a/b", whole)


GRID = lambda **axis: {"ensemble__grid": {"axis": axis}}
LATE = {"name": "tap_norms", "kind": "002_dense", "split": "test", "limit": 8, "every": 0}
REFUSED = {
  "a type": {"losses__ce__weight": "heavy"},
  "a range": {"model__width": -1},
  "a row": {"optimizer__name": "sdg"},
  "code that does not import": {"losses__ce__name": "nowhere:Loss"},
  "a batch": {"batch_size": 10**6},
  "data that are missing": {"data__source": {"name": "mnist"}},
  "data that were not given": {"data__source": {"name": "given"}},
  "data of another kind": {"data__normalize_labels": "standardize"},
  "a task that a loss does not serve": {"losses__ce__name": "contrastive"},
  "a teacher that is missing": {"references": {"teacher": {"model": {"name": "lenet5"}, "run": "nowhere"}}},
  "a probe": {"probes": {"late": {"name": "agreement", "reference": "nobody", "every": 0}}},
  "a probe that does not fit the data": {"probes": {"late": {"name": "recall", "every": 0}}},
  "a path of a sweep": GRID(path="model.widht", levels=(1, 2)),
  "a level of a sweep": GRID(path="model.depth", levels=(1, -1)),
  "a level that moves in a program": GRID(path="optimizer.learning_rate", levels=(0.1, -0.1)),
  "a probe of a later network": {"probes": {"late": LATE}, **GRID(path="model.depth", levels=(2, 1))},
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_rejected_command_leaves_nothing_behind(tmp_path, kind):
  with pytest.raises(UserError):
    training.run(damage.config_of(**REFUSED[kind]), tmp_path / "new/run", data_dir=tmp_path / "nowhere")
  assert names(tmp_path) == []


@pytest.mark.parametrize("kind", ["a type", "data that are missing", "a probe"])
def test_a_directory_that_was_there_and_empty_stays_so(tmp_path, kind):
  (tmp_path / "run").mkdir()
  with pytest.raises(UserError):
    training.run(damage.config_of(**REFUSED[kind]), tmp_path / "run", data_dir=tmp_path / "nowhere")
  assert names(tmp_path) == ["run"]


def test_a_rejected_command_with_events_for_tensorboard_leaves_nothing_behind(tmp_path):
  pytest.importorskip("tensorboard")
  with pytest.raises(UserError):
    training.run(damage.config_of(**REFUSED["a probe"]), tmp_path / "new/run", tensorboard=True)
  assert names(tmp_path) == []


def test_a_sink_that_is_not_installed_leaves_nothing_behind(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "tensorboard.summary.writer.record_writer", None)
  monkeypatch.setitem(sys.modules, "wandb", None)
  for sink in ("tensorboard", "wandb"):
    with pytest.raises(UserError, match=f"pip install .*{sink}"):
      training.run(damage.config_of(), tmp_path / "new/run", **{sink: True})
  assert names(tmp_path) == []


def test_a_lock_that_cannot_be_had_leaves_no_directory(tmp_path, monkeypatch):
  def refuse(path):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(run_directory, "lock", refuse)
  with pytest.raises(UserError, match="No space left"), claimed(tmp_path / "new/run", damage.config_of()):
    pytest.fail("it was claimed")
  assert names(tmp_path) == []


def test_members_that_do_not_fit_are_refused_before_the_directory_is_theirs(tmp_path, monkeypatch):
  """The sentence says to lower the chunk, and the same directory must take that config."""
  def check(experiment, num_members, num_devices=1):
    if num_members > 1:
      raise UserError("they do not fit")

  monkeypatch.setattr(training.Experiment, "check_memory", check)
  with pytest.raises(UserError, match="they do not fit"):
    training.run(damage.config_of(), tmp_path / "run")
  assert names(tmp_path) == []


def test_only_one_process_gets_a_directory(tmp_path, monkeypatch):
  """A start that is refused removes its lock file; who had opened that file must not believe to hold the directory."""
  (tmp_path / "lock").touch()
  flock, removed = fcntl.flock, []

  def remove_first(descriptor, operation):
    if not removed:
      removed.append((tmp_path / "lock").unlink())
    flock(descriptor, operation)

  monkeypatch.setattr(fcntl, "flock", remove_first)
  descriptor = lock(tmp_path / "lock")
  assert os.path.samestat(os.fstat(descriptor), os.stat(tmp_path / "lock"))
  with pytest.raises(BlockingIOError):
    lock(tmp_path / "lock")
  os.close(descriptor)


@pytest.mark.parametrize("name", ["lock", ".config.json.tmp", ".manifest.json.tmp", ".results.json.tmp"])
def test_links_are_not_followed(interrupted, whole, tmp_path, name):
  """The file that a link names is somebody's, and was emptied."""
  (tmp_path / "thesis.tex").write_text("important")
  (interrupted / name).unlink(missing_ok=True)
  (interrupted / name).symlink_to(tmp_path / "thesis.tex")
  if name == "lock":
    with pytest.raises(UserError, match="run/lock is a symbolic link; remove it"):
      finish(interrupted, whole)
  else:
    finish(interrupted, whole)
  assert (tmp_path / "thesis.tex").read_text() == "important"


def test_a_directory_that_was_taken_and_left_before_the_lock_is_not_continued(tmp_path, monkeypatch):
  def lock_late(path):
    reporting.write_json(path.with_name("config.json"), to_json(damage.config_of(seed=1)))
    return lock(path)

  monkeypatch.setattr(run_directory, "lock", lock_late)
  with pytest.raises(UserError, match="belongs to another config"), claimed(tmp_path / "run", damage.config_of()):
    pytest.fail("it was claimed")
  assert read_json(tmp_path / "run/config.json")["seed"] == 1


def test_a_pipe_instead_of_the_lock_does_not_wait(tmp_path):
  os.mkfifo(tmp_path / "lock")
  thread = threading.Thread(target=lambda: os.close(lock(tmp_path / "lock")), daemon=True)
  thread.start()
  thread.join(10)
  assert not thread.is_alive()


def test_what_stands_in_the_way_is_one_sentence(tmp_path, whole):
  (tmp_path / "file").write_text("")
  for workdir, words in (
    (tmp_path / "file", "exists and is not a run directory"), (tmp_path / "file/run", "cannot be written .Not a dir"),
    (tmp_path / ("x" * 300), "cannot be read .File name too long"),
  ):
    with pytest.raises(UserError, match=words):
      training.run(damage.config_of(), workdir)


@pytest.mark.parametrize("lines", ["last", "first", "all", "one number", "order"])
def test_metrics_that_a_checkpoint_counts_on_are_not_lost_without_a_word(interrupted, whole, lines):
  path = interrupted / "metrics.jsonl"
  record = max((interrupted / "checkpoints/cohort_001").glob("step_*")) / "record.json"
  position = json.loads(record.read_text())["record"]["metrics"]
  counted = path.read_bytes()[: position["bytes"]].splitlines(keepends=True)
  kept = {
    "last": counted[:-1], "first": counted[1:], "all": [], "order": [counted[1], counted[0], *counted[2:]],
    "one number": [counted[0].replace(b"0.", b"0.1", 1), *counted[1:]],
  }[lines]
  path.write_bytes(b"".join(kept))
  before = contents(interrupted)
  with pytest.raises(UserError, match=r"no longer begins with the \d+ bytes .* of step (9|12) .*restore it"):
    training.run(damage.config_of(), interrupted)
  after = contents(interrupted)
  assert {p: d for p, d in after.items() if p.name != "manifest.json"} == {
    p: d for p, d in before.items() if p.name != "manifest.json"
  }


def test_rows_behind_the_checkpoint_are_written_again_and_not_twice(interrupted, whole):
  with open(interrupted / "metrics.jsonl", "ab") as f:
    f.write(b'{"step": 9, "cohort": 1, "member": 2, "loss": 0.5}\n{"step": 9, "coh')
  finish(interrupted, whole)


def test_a_finished_run_drops_what_was_added_to_its_metrics(copy, whole):
  with open(copy / "metrics.jsonl", "ab") as f:
    f.write((whole / "metrics.jsonl").read_bytes())
  finish(copy, whole)


def test_a_refused_run_does_not_touch_its_metrics(interrupted):
  """An editor took the end of the last line, and the row was dropped before the run was refused."""
  path = interrupted / "metrics.jsonl"
  record = max((interrupted / "checkpoints/cohort_001").glob("step_*")) / "record.json"
  counted = path.read_bytes()[: json.loads(record.read_text())["record"]["metrics"]["bytes"]]
  path.write_bytes(counted[:-1])
  with pytest.raises(UserError, match="no longer begins with"):
    training.run(damage.config_of(), interrupted)
  assert path.read_bytes() == counted[:-1]
  path.unlink()
  with pytest.raises(UserError, match="no longer begins with"):
    training.run(damage.config_of(), interrupted)
  assert not path.exists()


def spoil(workdir):
  """Makes the first cohort go on from step 9, so that the second one is trained again."""
  (workdir / "checkpoints/cohort_000/step_0000000012/record.json").write_text("{}")


def test_cohorts_that_are_trained_again_leave_copies_of_the_user(interrupted, whole):
  kept = interrupted / "checkpoints/cohort_001/step_0000000009.bak"
  shutil.copytree(kept.with_suffix(""), kept)
  spoil(interrupted)
  finish(interrupted, whole)
  assert kept.is_dir()


def test_cohorts_behind_a_link_are_trained_again_with_all_rows(interrupted, whole, tmp_path):
  folder = interrupted / "checkpoints/cohort_001"
  folder.rename(tmp_path / "scratch")
  folder.symlink_to(tmp_path / "scratch")
  spoil(interrupted)
  finish(interrupted, whole)


@pytest.mark.parametrize("behind", ["checkpoints/cohort_001", "results.json"])
def test_a_cohort_whose_checkpoints_somebody_removed_costs_nothing_else(copy, behind):
  (copy / "results.json").unlink() if behind != "results.json" else shutil.rmtree(copy / "checkpoints/cohort_001")
  shutil.rmtree(copy / "checkpoints/cohort_000")
  before = {path: data for path, data in contents(copy).items() if path.name != "manifest.json"}
  with pytest.raises(UserError, match=rf"cohort_000 has no checkpoint, but .*{behind} is there, .* or remove"):
    training.run(damage.config_of(), copy)
  assert {path: data for path, data in contents(copy).items() if path.name != "manifest.json"} == before


def test_a_run_that_goes_on_training_is_not_finished(copy, monkeypatch):
  spoil(copy)

  def kill(*args):
    raise KeyboardInterrupt

  monkeypatch.setattr(Profiler, "before", kill)
  with pytest.raises(KeyboardInterrupt):
    training.run(damage.config_of(), copy)
  assert not (copy / "results.json").exists()


def test_a_signal_behind_a_checkpoint_does_not_put_it_at_stake(interrupted, whole, monkeypatch):
  """It was written once more, and between the old one and the new one there was none."""
  folder = max((interrupted / "checkpoints/cohort_001").glob("step_*"))
  before = folder.stat().st_ino
  enter = training.signals.StopSignal.__enter__

  def enter_and_receive(self):
    enter(self).received = signal.SIGTERM
    return self

  with monkeypatch.context() as patch:
    patch.setattr(training.signals.StopSignal, "__enter__", enter_and_receive)
    with pytest.raises(training.Preempted, match="after step 9"):
      training.run(damage.config_of(), interrupted)
  assert folder.stat().st_ino == before
  assert read_json(interrupted / "manifest.json")["history"][-1]["step"] == 9
  finish(interrupted, whole)


def test_a_checkpoint_of_another_cohort_is_refused(interrupted):
  """Both cohorts have the same shapes: without a record, the members would get each other's parameters."""
  newest = max((interrupted / "checkpoints/cohort_001").glob("step_*"))
  shutil.rmtree(newest)
  shutil.copytree(interrupted / "checkpoints/cohort_000" / max(os.listdir(interrupted / "checkpoints/cohort_000")),
                  interrupted / "checkpoints/cohort_001/step_0000000012")
  with pytest.raises(UserError, match=r"belongs to cohort 0 .* and this is cohort 1"):
    training.run(damage.config_of(), interrupted)


def test_a_checkpoint_of_another_seed_is_refused(copy, tmp_path):
  training.run(damage.config_of(seed=1, data__seed=0), tmp_path / "other")
  for run in (copy, tmp_path / "other"):
    (run / "results.json").unlink()
  shutil.rmtree(copy / "checkpoints")
  shutil.copytree(tmp_path / "other/checkpoints", copy / "checkpoints")
  with pytest.raises(UserError, match=r"belongs to cohort 0 \(seeds 1 to 1\).* and this is cohort 0 \(seeds 0 to 0\)"):
    training.run(damage.config_of(), copy)


def test_the_fingerprint_is_equal_exactly_where_no_difference_is_found():
  config = to_json(damage.config_of())
  swapped = {**config, "model": dict(reversed(config["model"].items()))}
  ordered = {**config, "gradients": dict(reversed(config["gradients"].items()))}
  number = {**config, "steps": float(config["steps"])}
  for same in (swapped, number, json.loads(json.dumps(config))):
    assert fingerprint(same) == fingerprint(config)
  assert len({fingerprint(config), fingerprint(ordered), fingerprint({**config, "seed": 1})}) == 3


def test_a_teacher_whose_checkpoint_is_not_what_its_results_name_is_refused(copy):
  results = read_json(copy / "results.json")
  results["members"][1]["params_sha256"] = "0" * 64
  reporting.write_json(copy / "results.json", results)
  member_variables(copy, 0)
  with pytest.raises(UserError, match="holds other parameters of member 1 than its results.json names"):
    member_variables(copy, 1)
  assert checkpoints_of(copy, 1).steps() == [9, 12]


def test_no_teacher_of_a_grid_can_be_exchanged_unseen(whole):
  """Under one label, the checksum of the last one stood for all."""
  taught_by = lambda member: read(put(damage.student_of(whole), {"references.teacher.member": member}))
  cohorts = [sweep.Cohort(i, taught_by(member), (), ()) for i, member in enumerate((1, 0, 1))]
  one, two, three = (_checksums(cohorts[:count], {"file": "a"}) for count in (1, 2, 3))
  assert two == three and one["file"] == two["file"] == "a"
  digests = two["config.references.teacher"].split()
  assert len(digests) == 2 and digests[0] == one["config.references.teacher"]


@pytest.mark.long
def test_damage_to_any_file_gives_the_same_results_or_one_sentence(interrupted, whole, tmp_path):
  """One way for each file here; all ways, and those of a teacher: python -m experiments.benchmarks.damage."""
  pristine, run = shutil.copytree(interrupted, tmp_path / "pristine"), tmp_path / "run"
  expected = {name: (whole / name).read_bytes() for name in damage.COMPARED}
  found = damage.matrix(
    pristine, run, lambda: training.run(damage.config_of(), run), run, expected, damages=("{}",),
  )
  assert len(found) > 10
  assert {outcome for kinds in found.values() for outcome, _ in kinds.values()} == {"=", "1"}, found


def test_an_outcome_is_what_it_is_called(tmp_path):
  """The matrix can find a fault."""
  (tmp_path / "results.json").write_text("old")

  def fail(error):
    raise error

  expected = {"results.json": b"old"}
  assert damage.outcome(lambda: None, tmp_path, expected)[0] == "="
  assert damage.outcome(lambda: None, tmp_path, {"results.json": b"new"})[0] == "X"
  assert damage.outcome(lambda: None, tmp_path, {"none.json": b""})[0] == "X"
  assert damage.outcome(lambda: fail(UserError("a sentence")), tmp_path, expected)[0] == "1"
  assert damage.outcome(lambda: fail(UserError("two\nlines")), tmp_path, expected)[0] == "T"
  assert damage.outcome(lambda: fail(KeyError("x")), tmp_path, expected)[0] == "T"
