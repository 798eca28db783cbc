"""Phases: parts of a config that are active for some steps only, as programs of their own."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nurture import training
from nurture.core import UserError
from nurture.reporting import read_rows
from nurture.training import checkpoints_of, loop, member_variables, phases
from nurture.training.config import put
from nurture.training.experiment import hyper_parameters
from nurture.training.programs import Programs
from nurture.transforms.losses import LOSSES
from tests.tiny import read, tiny_config

CE = {"name": "cross_entropy", "weight": 1.0}
COUNT = {"name": "visits", "weight": 0.5}


@dataclasses.dataclass(frozen=True)
class Visits:
  """The size of the logits, with a count of the steps at which it was active."""

  def init(self, spec):
    return jnp.int32(0)

  def apply(self, state, ctx):
    return jnp.mean(jnp.square(ctx.outputs.logits), axis=-1), state + 1


@pytest.fixture(autouse=True)
def visits(monkeypatch):
  monkeypatch.setitem(LOSSES, "visits", Visits)


def config(losses, **changes):
  return tiny_config(losses=losses, probes={}, **changes)


@pytest.mark.parametrize("windows, expected", [
  ({}, (0,)),
  ({"stop_step": 5}, (0, 5)),
  ({"start_step": 2, "stop_step": 5}, (0, 2, 5)),
  ({"start_step": 12}, (0,)),  # the run has 12 steps: never active
  ({"stop_step": 12}, (0,)),
])
def test_starts(windows, expected):
  assert phases.starts(config({"ce": CE, "more": COUNT | windows})) == expected


def test_what_is_at_work():
  whole = config(
    {"ce": CE | {"start_step": 3}, "more": COUNT | {"stop_step": 3}},
    targets__smoothing={"name": "label_smoothing", "alpha": 0.1, "convention": "uniform", "stop_step": 3},
  )
  before, after, always = (phases.at(whole, step) for step in (2, 3, None))
  assert list(before["losses"]) == ["more"] and list(before["targets"]) == ["smoothing"]
  assert list(after["losses"]) == ["ce"] and not after["targets"]
  assert list(always["losses"]) == ["ce", "more"] and "start_step" not in always["losses"]["ce"]


@pytest.mark.parametrize("window, words", [
  ({"stop_step": 0}, "from step 0 until step 0, which is no step at all"),
  ({"start_step": 4, "stop_step": 4}, "from step 4 until step 4"),
  ({"start_step": -1}, "start_step is -1; give a whole number"),
  ({"stop_step": 2.5}, "stop_step is 2.5; give a whole number"),
  ({"stop_step": float("inf")}, "stop_step is inf; give a whole number"),
  ({"start_step": float("nan")}, "start_step is nan; give a whole number"),
  ({"stop_step": "soon"}, "stop_step is 'soon'; give a whole number"),
  ({"stop_step": True}, "stop_step is True"),
])
def test_a_bad_window_is_named(window, words, tmp_path):
  with pytest.raises(UserError, match=f"config.losses.more.*{words}"):
    training.run(config({"ce": CE, "more": COUNT | window}), tmp_path / "run")


MIX = {"name": "mixup", "alpha": 1.0, "symmetric": True}


@pytest.mark.parametrize("changes, words", [
  ({"losses": {"ce": CE | {"start_step": 2}}}, "no active term at step 0"),
  ({"losses": {"ce": CE | {"stop_step": 4}, "more": COUNT | {"start_step": 7}}}, "no active term at step 4"),
  ({"data.augment": {"a": MIX | {"stop_step": 7}, "b": MIX | {"start_step": 5}}},
   r"config.data.augment mixes twice at step 5 \(a, b\)"),
])
def test_a_phase_that_cannot_be_is_found_before_training(changes, words, tmp_path):
  with pytest.raises(UserError, match=words):
    training.run(put(config({"ce": CE}), changes), tmp_path / "run")
  assert not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.mark.long
def test_one_mixup_after_the_other(tmp_path):
  images = {"a": MIX | {"stop_step": 5}, "b": MIX | {"start_step": 5}}
  training.run(put(config({"ce": CE}), {"data.augment": images}), tmp_path / "run")


def test_after_its_release_a_term_is_not_traced_and_a_step_is_the_plain_one(monkeypatch):
  traced, apply = [], Visits.apply
  monkeypatch.setattr(Visits, "apply", lambda self, state, ctx: (traced.append(1), apply(self, state, ctx))[1])
  hp, rows = hyper_parameters(3), jnp.arange(8)
  windowed = read(config({"ce": CE, "more": COUNT | {"stop_step": 5}}))
  plain = read(config({"ce": CE}))
  state, fields = windowed.init(hp), Programs(plain, 1).fields
  del traced[:]
  released, metrics = windowed.step(state, hp, rows, fields, {}, phase=5)
  assert not traced
  expected, _ = plain.step(dataclasses.replace(state, loss_states={"ce": ()}), hp, rows, fields, {})
  jax.tree.map(np.testing.assert_array_equal, released.variables, expected.variables)
  assert released.loss_states["more"] == 0 and metrics["loss/more"] == 0
  guided, metrics = windowed.step(state, hp, rows, fields, {}, phase=0)
  assert traced and guided.loss_states["more"] == 1 and metrics["loss/more"] > 0
  assert not jax.tree.all(jax.tree.map(np.array_equal, guided.variables["params"], expected.variables["params"]))


def test_a_released_state_waits(tmp_path):
  training.run(config({"ce": CE, "more": COUNT | {"stop_step": 5}}), tmp_path / "run")
  assert checkpoints_of(tmp_path / "run", 0).read()["state/loss_states/more"] == 5
  rows = {row["step"]: row for row in read_rows(tmp_path / "run/metrics.jsonl") if "loss" in row}
  assert rows[3]["loss/more"] > 0 and list(rows) == [3, 6, 9, 12]
  assert not any("loss/more" in rows[step] for step in (6, 9, 12))  # not in part of an interval either


def test_a_window_over_all_steps_changes_no_bit(tmp_path):
  training.run(config({"ce": CE, "more": COUNT}), tmp_path / "plain")
  training.run(config({"ce": CE, "more": COUNT | {"start_step": 0, "stop_step": 12}}), tmp_path / "windowed")
  assert_equal_parameters(tmp_path / "plain", tmp_path / "windowed")


def test_a_term_that_never_works_changes_no_bit(tmp_path):
  training.run(config({"ce": CE}), tmp_path / "plain")
  training.run(config({"ce": CE, "more": COUNT | {"start_step": 12}}), tmp_path / "waiting")
  assert_equal_parameters(tmp_path / "plain", tmp_path / "waiting")


@pytest.mark.long
def test_a_run_that_is_cut_anywhere_ends_the_same(tmp_path, monkeypatch):
  windowed = config({"ce": CE | {"start_step": 4}, "more": COUNT | {"stop_step": 7}}, checkpoint__every=1)
  training.run(windowed, tmp_path / "whole")
  for cut in (3, 4, 8):
    save = loop.Loop._save

    def stopping(self, step, states, sums, save=save, cut=cut):
      save(self, step, states, sums)
      if step == cut:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
      patch.setattr(loop.Loop, "_save", stopping)
      training.run(windowed, tmp_path / f"cut{cut}")
    training.run(windowed, tmp_path / f"cut{cut}")
    for file in ("metrics.jsonl", "results.json"):
      assert (tmp_path / f"cut{cut}" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes(), (cut, file)


def test_windows_can_differ_between_members(tmp_path):
  grid = {"stop": {"path": "losses.more.stop_step", "levels": (2, 6)}}
  results = training.run(
    config({"ce": CE, "more": COUNT | {"stop_step": 2}}, ensemble__grid=grid), tmp_path / "run"
  )
  digests = {member["params_sha256"] for member in results["members"]}
  assert len(digests) == 2 and {member["cohort"] for member in results["members"]} == {0, 1}


@pytest.mark.long
def test_windows_of_augmentations_targets_and_gradients(tmp_path):
  """With a window over all steps each part acts; one that ends before the run begins to count leaves the plain run."""
  plain = config({"ce": CE}, gradients={}, targets={}, optimizer={"name": "sgd", "learning_rate": 0.1})
  training.run(plain, tmp_path / "plain")
  for section, part in {
    "gradients": {"name": "scale", "step_size": 0.0},
    "data.augment": {"name": "noise_input"},
    "targets": {"name": "label_smoothing", "alpha": 0.9, "convention": "uniform"},
  }.items():
    for window, equal in (({"stop_step": 11}, False), ({"start_step": 12}, True)):
      name = f"{section}{equal}"
      training.run(put(plain, {section: {"part": part | window}}), tmp_path / name)
      a, b = (member_variables(tmp_path / run, 0)["params"] for run in (name, "plain"))
      assert jax.tree.all(jax.tree.map(np.array_equal, a, b)) == equal, name


@pytest.mark.long
def test_phases_moving_references_and_members_that_die(tmp_path):
  """Members side by side, in chunks and one after another are the same, whoever dies, wherever the run is cut."""
  watch = {"name": "distillation", "teachers": ("average",), "weight": 0.5, "teacher_temperature": 1.0,
           "student_temperature": 1.0, "scale": "none", "form": "kl"}
  whole = config(
    {"ce": CE, "kd": watch | {"start_step": 6}, "more": COUNT | {"stop_step": 6}},
    references={"average": {"model": {}, "parameters": "average"}}, checkpoint__every=6,
    ensemble__grid={"lr": {"path": "optimizer.learning_rate", "levels": (0.1, 1e30)}}, ensemble__seeds=2,
  )
  results = {}
  for name, changes in {"all": {}, "chunks": {"ensemble.chunk": 2}, "map": {"ensemble.map": "map"}}.items():
    results[name] = training.run(put(whole, changes), tmp_path / name)["members"]
  for members in results.values():
    assert [member["died_at"] is None for member in members] == [True, True, False, False]
    for member, other in zip(members[:2], results["all"]):
      np.testing.assert_allclose(member["metrics"]["loss"], other["metrics"]["loss"], rtol=1e-5)


def assert_equal_parameters(a, b):
  jax.tree.map(np.testing.assert_array_equal, member_variables(a, 0)["params"], member_variables(b, 0)["params"])
