"""Checkpoints come back bit for bit, fall back loudly, or refuse; nothing else."""

import builtins
import errno
import json
import os
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nurture.core import UserError
from nurture.reporting import NO_ROWS
from nurture.training import checkpoint
from nurture.training.checkpoint import Checkpoints

# 2026-11: when a read fails, orbax closes its event loop before the last callbacks of tensorstore arrive there.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


OWNER = {"config": "0123456789", "cohort": 0, "seeds": [4, 5]}


def tree(value):
  return {
    "state": {"kernel": jnp.full((40, 30), value, jnp.float32), "bias": jnp.full((2,), value, jnp.bfloat16)},
    "sums": {"loss": jnp.full((2,), value)},
    "empty": jnp.zeros((2, 0), jnp.int32),
    "step": jnp.full((2,), value).astype(jnp.int32),
  }


@pytest.fixture
def checkpoints(tmp_path):
  saved = Checkpoints(tmp_path / "cohort_000", 2, OWNER)
  for step in (10, 20, 30):
    saved.save(step, tree(step + 0.1), {"bytes": step, "sha256": "f"})
  return Checkpoints(tmp_path / "cohort_000", 2, OWNER)


def contents(directory):
  return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def assert_same(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)):
    assert np.asarray(x).dtype == np.asarray(y).dtype
    np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def test_newest_comes_back_and_only_the_newest_are_kept(checkpoints):
  assert checkpoints.steps() == [20, 30]
  step, restored, metrics = checkpoints.restore(jax.eval_shape(lambda: tree(0.0)))
  assert step == 30 and metrics == {"bytes": 30, "sha256": "f"}
  assert_same(restored, tree(30.1))


def test_none_without_checkpoints(tmp_path):
  assert Checkpoints(tmp_path / "none", 1, OWNER).restore(tree(0.0)) is None


def files_of(directory):
  return sorted(p for p in directory.rglob("*") if p.is_file() and p.stat().st_size)


def damage(path, how):
  data = bytearray(path.read_bytes())
  if how == "delete":
    path.unlink()
  elif how == "truncate":
    path.write_bytes(data[: len(data) // 2])
  elif how == "empty":
    path.write_bytes(b"")
  else:
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize("how", ["delete", "truncate", "empty", "flip one bit"])
def test_any_damage_to_any_file_falls_back_or_changes_nothing(checkpoints, tmp_path, how, capfd):
  """Every file of the newest checkpoint in turn: its exact contents, or the older ones with a warning."""
  pristine = tmp_path / "pristine"
  shutil.copytree(checkpoints.directory, pristine)
  names = [path.relative_to(pristine) for path in files_of(pristine / "step_0000000030")]
  assert len(names) >= 5
  for name in names:
    shutil.rmtree(checkpoints.directory)
    shutil.copytree(pristine, checkpoints.directory)
    damage(checkpoints.directory / name, how)
    step, restored, _ = Checkpoints(checkpoints.directory, 2, OWNER).restore(jax.eval_shape(lambda: tree(0.0)))
    assert step == 20
    assert_same(restored, tree(20.1))
    said = capfd.readouterr().err
    assert "WARNING: the checkpoint of step 30 is damaged" in said and str(name.relative_to("step_0000000030")) in said
    assert (checkpoints.directory / "damaged_step_0000000030").is_dir()


def test_refuses_when_every_checkpoint_is_damaged(checkpoints):
  for step in checkpoints.steps():
    for path in files_of(checkpoints.directory / f"step_{step:010d}" / "arrays"):
      path.write_bytes(b"")
  before = contents(checkpoints.directory)
  for _ in range(2):
    with pytest.raises(UserError, match=r"every checkpoint in .* is damaged \(step 30: arrays/.* sha256; step 20: "):
      Checkpoints(checkpoints.directory, 2, OWNER).restore(jax.eval_shape(lambda: tree(0.0)))
  assert contents(checkpoints.directory) == before
  for step in checkpoints.steps():  # moved aside, they must not look like a fresh start
    (checkpoints.directory / f"step_{step:010d}").rename(checkpoints.directory / f"damaged_step_{step:010d}")
  with pytest.raises(UserError, match="every checkpoint in .* is damaged"):
    Checkpoints(checkpoints.directory, 2, OWNER).restore(jax.eval_shape(lambda: tree(0.0)))


def orbax_is_missing():
  raise ImportError("No module named 'orbax'")


TROUBLES = {
  "no library": ("_orbax", orbax_is_missing, "No module named 'orbax'"),
  "no memory": ("_open", MemoryError(), "out of memory"),
  "too many files": ("open", OSError(errno.EMFILE, "Too many open files"), "Too many open files"),
  "a bad disk": ("open", OSError(errno.EIO, "Input/output error"), "Input/output error"),
  "no permission": ("open", PermissionError(errno.EACCES, "Permission denied"), "Permission denied"),
  "another library": ("_open", RuntimeError("a driver that nobody knows"), "a driver that nobody knows"),
  "no words": ("_open", RuntimeError(), "RuntimeError"),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_what_is_no_damage_moves_nothing(checkpoints, monkeypatch, trouble):
  """A good run must not be destroyed because a machine cannot read it today."""
  where, error, reason = TROUBLES[trouble]

  def fail(*args, **kwargs):
    raise error

  before = contents(checkpoints.directory)
  with monkeypatch.context() as patch:
    if where == "_orbax":
      patch.setattr(checkpoint, "_orbax", error)
    elif where == "_open":
      patch.setattr(Checkpoints, "_open", fail)
    else:
      real = builtins.open
      patch.setattr("builtins.open", lambda path, *args, **kwargs: (
        fail() if str(checkpoints.directory) in str(path) else real(path, *args, **kwargs)
      ))
    with pytest.raises(UserError, match=rf"of step 30 in .* cannot be read \({reason}\); nothing was changed"):
      checkpoints.restore(jax.eval_shape(lambda: tree(0.0)))
  assert contents(checkpoints.directory) == before
  assert checkpoints.restore(jax.eval_shape(lambda: tree(0.0))).step == 30


def test_a_folder_that_cannot_be_listed_is_no_fresh_start(tmp_path):
  (tmp_path / "cohort_000").write_text("a file")
  with pytest.raises(UserError, match="cohort_000 cannot be read .Not a directory"):
    Checkpoints(tmp_path / "cohort_000", 1, OWNER).restore(tree(0.0))


@pytest.mark.parametrize("change", [{"cohort": 1}, {"seeds": [6, 7]}, {"config": "abcdef"}])
def test_a_checkpoint_of_somebody_else_is_refused(checkpoints, change):
  """It fits, so nothing but its record can tell that it gives another member's parameters."""
  before = contents(checkpoints.directory)
  other = Checkpoints(checkpoints.directory, 2, OWNER | change)
  for read in (lambda: other.restore(jax.eval_shape(lambda: tree(0.0))), other.read):
    with pytest.raises(UserError, match=r"step 30 in .* belongs to cohort 0 \(seeds 4 to 5\) .* 01234567, and this is"):
      read()
  assert contents(checkpoints.directory) == before


def test_reading_moves_nothing(checkpoints):
  np.testing.assert_array_equal(checkpoints.read()["state/bias"], np.asarray(tree(30.1)["state"]["bias"]))
  assert checkpoints.read(20)["step"].tolist() == [20, 20]
  damage(checkpoints.directory / "step_0000000030" / "record.json", "flip one bit")
  before = contents(checkpoints.directory)
  with pytest.raises(UserError, match=r"step 30 in .* is damaged \(record.json .*run the command of that run again"):
    checkpoints.read()
  assert contents(checkpoints.directory) == before
  with pytest.raises(UserError, match="none has no checkpoint"):
    Checkpoints(checkpoints.directory.parent / "none", 1, OWNER).read()


@pytest.mark.parametrize("text", ["[]", "{}", "null", '{"record": 1, "sha256": 2}', "[" * 100_000, '{"record": {}}'])
def test_a_record_that_is_something_else_is_damage(checkpoints, text):
  (checkpoints.directory / "step_0000000030" / "record.json").write_text(text)
  assert checkpoints.restore(jax.eval_shape(lambda: tree(0.0))).step == 20


def test_what_is_not_ours_stays(checkpoints):
  """A copy that somebody made beside the checkpoints, under whatever name."""
  for name in ("step_0000000030.bak", "step_0000000030_old", "copy"):
    shutil.copytree(checkpoints.directory / "step_0000000030", checkpoints.directory / name)
  assert checkpoints.restore(jax.eval_shape(lambda: tree(0.0))).step == 30
  checkpoints.save(40, tree(40.1), NO_ROWS)
  assert sorted(os.listdir(checkpoints.directory)) == [
    "copy", "step_0000000030", "step_0000000030.bak", "step_0000000030_old", "step_0000000040",
  ]


def test_a_swapped_checkpoint_is_damaged(checkpoints):
  shutil.rmtree(checkpoints.directory / "step_0000000030")
  shutil.copytree(checkpoints.directory / "step_0000000020", checkpoints.directory / "step_0000000030")
  step, restored, _ = checkpoints.restore(jax.eval_shape(lambda: tree(0.0)))
  assert step == 20
  assert_same(restored, tree(20.1))


@pytest.mark.parametrize(("change", "message"), [
  (lambda t: {**t, "step": t["step"].astype(jnp.float32)}, r"has int32\[2\] at step, where .* needs float32\[2\]"),
  (lambda t: {**t, "sums": {"loss": jnp.zeros(3)}}, r"has float32\[2\] at sums/loss, where .* needs float32\[3\]"),
  (lambda t: {**t, "more": jnp.zeros(3)}, r"has nothing at more, where this program needs float32\[3\]"),
  (lambda t: {k: v for k, v in t.items() if k != "sums"}, r"at sums/loss, where this program needs nothing"),
])
def test_other_shapes_types_or_names_are_refused(checkpoints, change, message):
  with pytest.raises(UserError, match=message):
    checkpoints.restore(change(tree(0.0)))
  assert checkpoints.steps() == [20, 30]  # a refusal damages nothing


@pytest.mark.parametrize("name", ["writing_step_0000000040", "removing_step_0000000010"])
def test_a_save_that_was_cut_off_leaves_nothing_behind(checkpoints, name):
  leftover = checkpoints.directory / name
  shutil.copytree(checkpoints.directory / "step_0000000030", leftover)
  (leftover / "record.json").unlink()
  assert checkpoints.restore(jax.eval_shape(lambda: tree(0.0))).step == 30
  assert not leftover.exists()
  shutil.copytree(checkpoints.directory / "step_0000000030", leftover)
  checkpoints.save(40, tree(40.1), NO_ROWS)
  checkpoints.save(50, tree(50.1), NO_ROWS)
  assert checkpoints.restore(jax.eval_shape(lambda: tree(0.0))).step == 50


def test_what_cannot_be_removed_stops_nothing(checkpoints, monkeypatch):
  """Of an old checkpoint with a file that something holds open all others go, and that one at the next start."""
  unlink, held = os.unlink, []

  def busy(path, *, dir_fd=None):
    if dir_fd is not None and not held:
      held.append(path)
      raise OSError(errno.EBUSY, "Device or resource busy")
    unlink(path, dir_fd=dir_fd)

  with monkeypatch.context() as patch:
    patch.setattr(os, "unlink", busy)
    checkpoints.save(40, tree(40.1), NO_ROWS)
  left = contents(checkpoints.directory / "removing_step_0000000020")
  assert [path.name for path in left] == held and checkpoints.steps() == [30, 40]
  assert checkpoints.restore(jax.eval_shape(lambda: tree(0.0))).step == 40
  assert sorted(os.listdir(checkpoints.directory)) == ["step_0000000030", "step_0000000040"]
  leftover = checkpoints.directory / "writing_step_0000000050"
  leftover.write_text("a file")
  with monkeypatch.context() as patch:
    patch.setattr(os, "unlink", os.rmdir)  # which no file obeys
    assert checkpoints.restore(jax.eval_shape(lambda: tree(0.0))).step == 40
  assert leftover.exists()


def test_a_checkpoint_is_never_replaced(checkpoints):
  """Between the old one's end and the new one's beginning there would be none."""
  before = contents(checkpoints.directory)
  with pytest.raises(UserError, match=r"step 30 could not be written .*not empty.* that are whole: 20, 30"):
    checkpoints.save(30, tree(99.0), NO_ROWS)
  assert contents(checkpoints.directory) == before


@pytest.mark.parametrize("error", [ImportError("no orbax"), MemoryError(), RuntimeError("can't start new thread")])
def test_whatever_keeps_a_checkpoint_from_being_written_is_one_sentence(checkpoints, monkeypatch, error):
  def fail(self):
    raise error

  before = contents(checkpoints.directory)
  with monkeypatch.context() as patch:
    patch.setattr(Checkpoints, "_open", fail)
    with pytest.raises(UserError, match=r"step 40 could not be written .*; checkpoints that are whole: 20, 30"):
      checkpoints.save(40, tree(0.0), NO_ROWS)
  assert contents(checkpoints.directory) == before


def test_clearing_takes_checkpoints_and_nothing_else(checkpoints):
  for name in ("step_0000000030.bak", "damaged_step_0000000010", "damaged_step_0000000010.bak"):
    shutil.copytree(checkpoints.directory / "step_0000000030", checkpoints.directory / name)
  checkpoints.clear()
  assert sorted(os.listdir(checkpoints.directory)) == ["damaged_step_0000000010.bak", "step_0000000030.bak"]
  assert checkpoints.restore(tree(0.0)) is None


@pytest.mark.parametrize("act", [lambda it: it.restore(tree(0.0)), lambda it: it.clear()], ids=["restore", "clear"])
def test_a_folder_that_cannot_be_renamed_is_one_sentence(checkpoints, monkeypatch, act):
  (checkpoints.directory / "step_0000000030/record.json").write_text("{}")

  def fail(*args):
    raise PermissionError(errno.EACCES, "Permission denied")

  before = contents(checkpoints.directory)
  monkeypatch.setattr(pathlib.Path, "rename", fail)
  with pytest.raises(UserError, match=r"step_00000000\d0 cannot be moved to .*step_00000000\d0 \(Permission denied\)"):
    act(checkpoints)
  assert contents(checkpoints.directory) == before


@pytest.mark.parametrize("link", ["cohort_000", "."])
def test_a_link_to_a_disk_that_is_not_there_is_no_fresh_start(tmp_path, link):
  folder = tmp_path / "checkpoints"
  folder.mkdir()
  (folder / link).rmdir() if link == "." else None
  (folder / link).symlink_to(tmp_path / "unplugged")
  with pytest.raises(UserError, match=r"is a link to something that is not there"):
    Checkpoints(folder / "cohort_000", 1, OWNER).restore(tree(0.0))


@pytest.mark.parametrize("name", ["record.json", "arrays/manifest.ocdbt"])
def test_a_pipe_in_the_place_of_a_file_does_not_wait(checkpoints, name):
  path = checkpoints.directory / "step_0000000030" / name
  path.unlink()
  os.mkfifo(path)
  with pytest.raises(UserError, match=r"step 30 in .* cannot be read \(Not a regular file\)"):
    checkpoints.restore(jax.eval_shape(lambda: tree(0.0)))


def test_an_unwritable_directory_is_one_sentence(tmp_path):
  blocked = tmp_path / "file"
  blocked.write_text("")
  with pytest.raises(UserError, match=r"the checkpoint of step 5 could not be written to .*; make room") as caught:
    Checkpoints(pathlib.Path(blocked) / "cohort_000", 1, OWNER).save(5, tree(0.0), NO_ROWS)
  assert "\n" not in str(caught.value)


def test_the_record_lists_every_file(checkpoints):
  folder = checkpoints.directory / "step_0000000030"
  record = json.loads((folder / "record.json").read_text())["record"]
  listed = {folder / name for name in record["files"]} | {folder / "record.json"}
  assert listed == {path for path in folder.rglob("*") if path.is_file()}
  assert record["owner"] == OWNER and record["metrics"] == {"bytes": 30, "sha256": "f"}
