"""Checkpoints come back bit for bit, fall back loudly, or refuse; nothing else."""

import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lib.core import UserError
from lib.training.checkpoint import Checkpoints

# 2026-11: when a read fails, orbax closes its event loop before the last callbacks of tensorstore arrive there.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def tree(value):
  return {
    "state": {"kernel": jnp.full((40, 30), value, jnp.float32), "bias": jnp.full((2,), value, jnp.bfloat16)},
    "sums": {"loss": jnp.full((2,), value)},
    "empty": jnp.zeros((2, 0), jnp.int32),
    "step": jnp.full((2,), value).astype(jnp.int32),
  }


@pytest.fixture
def checkpoints(tmp_path):
  saved = Checkpoints(tmp_path / "cohort_000", keep=2)
  for step in (10, 20, 30):
    saved.save(step, tree(step + 0.1))
  return Checkpoints(tmp_path / "cohort_000", keep=2)


def assert_same(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)):
    assert np.asarray(x).dtype == np.asarray(y).dtype
    np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def test_newest_comes_back_and_only_the_newest_are_kept(checkpoints):
  assert checkpoints.steps() == [20, 30]
  step, restored = checkpoints.restore(jax.eval_shape(lambda: tree(0.0)))
  assert step == 30
  assert_same(restored, tree(30.1))


def test_none_without_checkpoints(tmp_path):
  assert Checkpoints(tmp_path / "none", keep=1).restore(tree(0.0)) is None


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
  fell_back = 0
  for name in names:
    shutil.rmtree(checkpoints.directory)
    shutil.copytree(pristine, checkpoints.directory)
    damage(checkpoints.directory / name, how)
    step, restored = Checkpoints(checkpoints.directory, keep=2).restore(jax.eval_shape(lambda: tree(0.0)))
    assert_same(restored, tree(step + 0.1))
    warned = "WARNING: the checkpoint of step 30 is damaged" in capfd.readouterr().err
    assert step == (20 if warned else 30)
    fell_back += warned
    if warned:
      assert (checkpoints.directory / "damaged_step_0000000030").is_dir()
  assert fell_back >= 2  # at least the arrays and the description of them matter


def test_refuses_when_every_checkpoint_is_damaged(checkpoints):
  for step in checkpoints.steps():
    for path in files_of(checkpoints.directory / f"step_{step:010d}" / "arrays"):
      path.write_bytes(b"")
  for _ in range(2):  # the second time they have been moved aside, which must not look like a fresh start
    with pytest.raises(UserError, match="every checkpoint in .* is damaged"):
      Checkpoints(checkpoints.directory, keep=2).restore(jax.eval_shape(lambda: tree(0.0)))


def test_a_swapped_checkpoint_is_damaged(checkpoints):
  shutil.rmtree(checkpoints.directory / "step_0000000030")
  shutil.copytree(checkpoints.directory / "step_0000000020", checkpoints.directory / "step_0000000030")
  step, restored = checkpoints.restore(jax.eval_shape(lambda: tree(0.0)))
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


def test_a_save_that_was_cut_off_leaves_nothing_behind(checkpoints):
  leftover = checkpoints.directory / "step_0000000040.orbax-checkpoint-tmp-17"
  shutil.copytree(checkpoints.directory / "step_0000000030", leftover)
  assert checkpoints.restore(jax.eval_shape(lambda: tree(0.0)))[0] == 30
  assert not leftover.exists()


def test_a_step_can_be_saved_again(checkpoints):
  checkpoints.save(30, tree(99.0))
  assert_same(checkpoints.restore(tree(0.0))[1], tree(99.0))


def test_an_unwritable_directory_is_one_sentence(tmp_path):
  blocked = tmp_path / "file"
  blocked.write_text("")
  with pytest.raises(UserError, match=r"the checkpoint of step 5 could not be written to .*; make room") as caught:
    Checkpoints(pathlib.Path(blocked) / "cohort_000", keep=1).save(5, tree(0.0))
  assert "\n" not in str(caught.value)
