"""The loop around the steps: logs, probes and checkpoints in their order, with steps that are counted by hand.

The device programs are replaced by arithmetic in numpy: the loss of step t is t, and 100 more for each member.
"""

import copy
import dataclasses
import signal
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nurture.core import rng
from nurture.training import loop
from nurture.training.checkpoint import Restored
from nurture.training.grid import members_of
from nurture.training.loop import Loop
from nurture.training.probing import probe_key
from nurture.training.programs import AttachedProbe, intervals_of
from nurture.training.selection import Selection
from nurture.training.signals import Diverged, Preempted
from nurture.training.step import State
from nurture.training.sweep import Cohort
from tests.tiny import tiny_config

CE = {"name": "cross_entropy", "weight": 1.0}


class Programs:
  """Stands for nurture.training.programs.Programs; notes every dispatch as (step, length, phase)."""

  by_member, fields, arrays = None, {}, {}

  def __init__(self, cohort, probes, dies=None):
    self.cohort, self.probes, self.dies, self.taken = cohort, probes, dies or {}, []
    self.count = len(cohort.members)

  def init(self, hp):
    zeros = np.zeros(self.count, np.int32)
    return State(zeros, {"params": {"w": np.ones((self.count, 2), np.float32)}}, {}, {}, {}, zeros - 1)

  @property
  def shapes(self):
    labels = self.cohort.experiment.config["losses"]
    names = ["loss", *(f"loss/{label}" for label in labels if len(labels) > 1)]
    return {"sums": {name: jax.ShapeDtypeStruct((self.count,), jnp.float32) for name in names}}

  def zeros(self, like):
    return {name: np.zeros(leaf.shape, leaf.dtype) for name, leaf in like.items()}

  def steps(self, states, sums, hp, fields, arrays, *, length, phase, stopped=None):
    start = int(np.max(states.step))
    self.taken.append((start, length, phase))
    sums, died_at = dict(sums), np.array(states.died_at)
    for step in range(start, start + length):
      loss = np.float32(step) + 100 * np.arange(self.count, dtype=np.float32)
      for member, fatal in self.dies.items():
        if step >= fatal:
          loss[member] = np.nan
          died_at[member] = fatal if died_at[member] < 0 else died_at[member]
      for name in sums:
        sums[name] = sums[name] + loss
    taken = states.step + length
    if stopped is not None:
      taken, died_at = np.where(stopped, states.step, taken), np.where(stopped, states.died_at, died_at)
    return dataclasses.replace(states, step=taken, died_at=died_at), sums


class World:
  """The writer, the checkpoints and the progress bar, in one journal."""

  def __init__(self):
    self.journal, self.rows, self.saved, self.shown = [], [], {}, []

  def write(self, rows):
    rows = list(rows)
    self.rows += rows
    self.journal.append(("row", rows[0]["step"]))

  def flush(self):
    self.journal.append(("flush",))

  @property
  def position(self):
    return {"rows": len(self.rows)}

  def save(self, step, tree, metrics):
    assert metrics == self.position and self.journal[-1] == ("flush",)  # the rows that it counts on are on the disk
    self.saved[step] = copy.deepcopy(tree)
    self.journal.append(("save", step))

  def steps(self):
    return sorted(self.saved)

  def update(self, steps, loss, metrics):
    self.shown.append((steps, loss))
    self.metrics = dict(metrics)


class StopAfter:
  """A stop signal that arrives when it has been looked at some number of times."""

  def __init__(self, looks=10**9):
    self.looks = looks

  @property
  def received(self):
    self.looks -= 1
    return signal.SIGTERM if self.looks < 0 else None


def make(probes=None, phases=(0,), dies=None, stop=None, is_ensemble=True, index=0, per_dispatch=4, **changes):
  """Returns (loop, its programs, the world); changes are those of `tiny_config`."""
  changes = {"steps": 10, "log_every": 4, "checkpoint__every": 5, "ensemble__seeds": 2} | changes
  described = {
    label: {"name": "accuracy", "split": "train", "every": probe.every} for label, probe in (probes or {}).items()
  }
  config = tiny_config(probes=described, **changes)
  cohort = Cohort(index, types.SimpleNamespace(config=config, phases=phases), members_of(config), ())
  programs, world = Programs(cohort, probes or {}, dies), World()
  made = Loop(
    cohort=cohort, programs=programs, hp={}, per_dispatch=per_dispatch,
    writer=world, checkpoints=world, progress=world, stop=stop or StopAfter(),
    profiler=types.SimpleNamespace(before=lambda: None, after=lambda result: None), last={"step": 0},
    is_ensemble=is_ensemble, selection=Selection(config, len(cohort.members)),
  )
  return made, programs, world


def losses(world, member=0, name="loss"):
  return {row["step"]: float(row[name]) for row in world.rows if row["member"] == member and name in row}


@pytest.mark.parametrize(("total", "log_every", "per_dispatch", "save_every"), [
  (10, 4, 4, 5), (10, 4, 3, 0), (12, 4, 100, 4), (7, 10, 3, 2), (9, 1, 4, 3), (11, 5, 1, 11),
])
def test_rows_are_means_over_the_steps_since_the_last_row(total, log_every, per_dispatch, save_every):
  made, _, world = make(steps=total, log_every=log_every, per_dispatch=per_dispatch, checkpoint__every=save_every)
  final = made.run(None)
  assert final.step[0] == total and made.last == {"step": total}
  ends = sorted({*range(log_every, total + 1, log_every), total})
  begins = [0, *ends[:-1]]
  expected = {end: np.mean(np.arange(begin, end)) for begin, end in zip(begins, ends)}
  assert losses(world) == pytest.approx(expected)
  assert losses(world, member=1) == pytest.approx({end: mean + 100 for end, mean in expected.items()})
  assert [set(row) for row in world.rows] == [{"step", "cohort", "member", "loss"}] * (2 * len(ends))


def test_a_run_that_goes_on_from_any_checkpoint_writes_the_rows_that_are_left():
  whole, _, world = make(checkpoint__every=1, per_dispatch=3)
  whole.run(None)
  assert world.steps() == list(range(1, 11))
  for step, tree in world.saved.items():
    rest, programs, after = make(checkpoint__every=1, per_dispatch=3)
    rest.run(Restored(step, tree, {}))
    assert [(row["step"], row["member"], row["loss"]) for row in after.rows] == [
      (row["step"], row["member"], row["loss"]) for row in world.rows if row["step"] > step
    ], step
    assert not programs.taken or programs.taken[0][0] == step


def test_a_term_is_logged_where_it_was_at_work_in_every_step_of_the_mean():
  windows = {"ce": CE | {"stop_step": 9}, "late": CE | {"start_step": 6}, "always": CE}
  made, programs, world = make(losses=windows, phases=(0, 6, 9), steps=13)
  made.run(None)
  # Rows end at 4, 8, 12, 13, of steps 0-3, 4-7, 8-11, 12.
  assert sorted(losses(world, name="loss/always")) == [4, 8, 12, 13]
  assert sorted(losses(world, name="loss/late")) == [12, 13]
  assert sorted(losses(world, name="loss/ce")) == [4, 8]
  assert losses(world)[8] == 5.5 and losses(world)[12] == 9.5  # across a border of phases
  assert [phase for _, _, phase in programs.taken] == [
    max(p for p in (0, 6, 9) if p <= start) for start, _, _ in programs.taken
  ]
  for start, length, _ in programs.taken:  # no dispatch reaches over a border
    assert not any(start < border < start + length for border in (6, 9))


def probe(every, calls, name="x"):
  def measure(states, hp, arrays, pieces, phase=0):
    calls.append((int(states.step[0]), phase))
    return {name: np.asarray(states.step, np.float32) * 2 + np.arange(len(states.step), dtype=np.float32),
            "list": np.ones((len(states.step), 3), np.float32)}
  return AttachedProbe(measure, [], every)


def test_probes_measure_at_their_steps_with_the_parts_of_the_phase_and_after_the_last_step():
  often, once, other = [], [], []
  made, _, world = make(probes={"often": probe(3, often), "once": probe(0, once), "other": probe(6, other)},
                        phases=(0, 6), steps=11)
  made.run(None)
  assert often == [(0, 0), (3, 0), (6, 6), (9, 6), (11, 6)]
  assert once == [(11, 6)]
  assert other == [(0, 0), (6, 6), (11, 6)]
  first = [row for row in world.rows if row["member"] == 1]
  assert [row["step"] for row in first] == [0, 3, 4, 6, 8, 9, 11]
  assert {row["step"]: float(row["often/x"]) for row in first if "often/x" in row} == {
    0: 1, 3: 7, 6: 13, 9: 19, 11: 23,
  }
  assert "loss" not in first[0] and {"loss", "often/x", "once/x", "other/x"} <= set(first[-1])
  assert first[-1]["once/list"].shape == (3,)


def test_rows_are_on_the_disk_before_the_checkpoint_that_counts_on_them():
  made, programs, world = make(probes={"p": probe(5, [])}, per_dispatch=5, log_every=5)
  made.run(None)
  assert world.journal == [
    ("row", 0), ("flush",), ("row", 5), ("flush",), ("save", 5), ("row", 10), ("flush",), ("save", 10),
  ]
  assert programs.taken == [(0, 5, 0), (5, 5, 0)]
  assert sorted(world.saved[5]) == ["state", "sums"]
  np.testing.assert_array_equal(world.saved[5]["state"].step, [5, 5])
  np.testing.assert_array_equal(world.saved[5]["sums"]["loss"], [0, 0])  # logged, so the next sum begins


@pytest.mark.parametrize(("every", "saved"), [(0, [10]), (3, [3, 6, 9, 10]), (5, [5, 10]), (20, [10])])
def test_checkpoints_are_saved_at_their_steps_and_at_the_end(every, saved):
  made, _, world = make(checkpoint__every=every)
  made.run(None)
  assert world.steps() == saved
  unsaved = world.saved[saved[0]]["sums"]["loss"][0]
  assert unsaved == sum(range(4 * (saved[0] // 4), saved[0]))  # whoever goes on from the last one needs them too


def test_a_finished_run_takes_no_step_and_writes_nothing():
  made, _, world = make()
  made.run(None)
  again, programs, after = make()
  final = again.run(Restored(10, world.saved[10], {}))
  assert not programs.taken and not after.journal
  np.testing.assert_array_equal(final.step, [10, 10])


@pytest.mark.parametrize("looks", [0, 1, 2])
def test_a_stop_signal_saves_at_the_boundary_and_takes_no_further_step(looks):
  made, programs, world = make(stop=StopAfter(looks), checkpoint__every=0)
  boundary = [0, 4, 8][looks]
  with pytest.raises(Preempted, match=f"SIGTERM after step {boundary};") as caught:
    made.run(None)
  assert caught.value.exit_code == 75 and world.steps() == [boundary] and len(programs.taken) == looks
  assert made.last == {"step": boundary}
  rest, _, after = make()
  rest.run(Restored(boundary, world.saved[boundary], {}))
  undisturbed, _, whole = make()
  undisturbed.run(None)
  assert {**losses(world), **losses(after)} == losses(whole)


def test_a_dead_member_writes_nothing_but_nan_and_the_others_go_on():
  made, _, world = make(dies={1: 5}, probes={"p": probe(4, [])}, index=3)
  made.run(None)
  assert losses(world) == {4: 1.5, 8: 5.5, 10: 8.5}
  dead = [row for row in world.rows if row["member"] == 1]
  assert {row["step"]: bool(np.isnan(row["loss"])) for row in dead if "loss" in row} == {4: False, 8: True, 10: True}
  assert {row["step"]: bool(np.isnan(row["p/x"])) for row in dead} == {0: False, 4: False, 8: True, 10: True}
  assert all(np.isnan(row["p/list"]).all() == (row["step"] > 4) for row in dead)
  assert {row["cohort"] for row in world.rows} == {3}
  # The bar shows the mean of the members that are alive, and how far all cohorts are.
  assert world.shown == [(34, 51.5), (35, 51.5), (37, 51.5), (38, 5.5), (40, 8.5)]


def test_where_no_member_is_alive_the_bar_shows_no_loss():
  made, _, world = make(dies={0: 0, 1: 1})
  made.run(None)
  assert all(np.isnan(loss) for _, loss in world.shown)


def fatal(named, variable=1.0, **changes):
  """Returns a loop of one network that dies at step 5, of which the listed arrays are computed again."""
  made, programs, world = make(dies={0: 5}, is_ensemble=False, ensemble__seeds=1, **changes)
  asked = {}

  def inspect(state, hp, rows, fields, arrays, phase):
    asked.update(step=state.step, rows=rows, seed=hp["seed"], phase=phase)
    return named

  programs.cohort.experiment.inspect = inspect
  programs.rows = lambda hp, start, *, length: np.asarray([[[int(start), length, int(hp["seed"][0])]]])
  made.hp = {"seed": np.asarray([9]), "values": {}}
  if not np.isfinite(variable):
    init = programs.init
    programs.init = lambda hp: dataclasses.replace(
      init(hp), variables={"params": {"v": np.ones((1, 2)), "w": np.asarray([[1.0, variable]])}}
    )
  return made, world, asked


@pytest.mark.parametrize(("named", "words"), [
  ([("image", np.ones(2)), ("logits", np.asarray([1.0, np.nan])), ("gradient of w", np.full(2, np.inf))],
   "the logits is not finite at step 5"),
  ([("logits", np.ones(2)), ("gradient of w", np.full(2, -np.inf))], "the gradient of w is not finite at step 5"),
  ([("logits", np.ones(2))], "the norm of the gradient is not finite at step 5"),
])
@pytest.mark.parametrize(("save_every", "kept"), [
  (4, "the checkpoint of step 4 is kept"), (0, "there is no checkpoint yet"), (2, "the checkpoint of step 4 is kept"),
])
def test_one_network_that_is_not_finite_stops_the_run_and_is_not_saved(named, words, save_every, kept):
  made, world, asked = fatal(named, phases=(0, 3, 8), checkpoint__every=save_every)
  with pytest.raises(Diverged, match=f"{words}; {kept}"):
    made.run(None)
  assert all(step < 5 for step in world.saved) and world.journal[-1] == ("flush",)
  assert list(asked["rows"]) == [5, 1, 9]  # the rows of the fatal step of this member
  assert (asked["step"], asked["seed"], asked["phase"]) == (5, 9, 3)


def test_a_variable_that_is_not_finite_is_named_first():
  made, _, asked = fatal([("logits", np.full(2, np.nan))], variable=np.inf)
  with pytest.raises(Diverged, match="the variable params/w is not finite at step 5"):
    made.run(None)
  assert not asked


def test_a_stop_signal_does_not_save_what_is_not_finite():
  made, world, _ = fatal([], stop=StopAfter(2), log_every=100, checkpoint__every=0)
  with pytest.raises(Diverged):
    made.run(None)
  assert not world.saved


def test_rows_reach_the_disk_every_two_seconds_for_whoever_watches(monkeypatch):
  clock = iter(np.arange(0, 1000, 1.5))
  monkeypatch.setattr(loop.time, "monotonic", lambda: float(next(clock)))
  made, _, world = make(log_every=1, per_dispatch=1, checkpoint__every=0, steps=6)
  made.run(None)
  # The clock is read when the loop is made, at every row, and once more after a flush: 1.5 s, flushed, 1.5 s, ...
  kinds = [entry[0] for entry in world.journal]
  assert kinds == ["flush", "row", "row", "flush", "row", "row", "flush", "row", "row", "flush", "flush", "save"]


def test_events_and_keys_by_name():
  config = tiny_config(probes={"a": {"name": "accuracy", "every": 6}, "b": {"name": "accuracy", "every": 0}})
  assert intervals_of(config) == {"log_every": 3, "checkpoint": 3, "a": 6, "b": 0}
  data = lambda key: tuple(np.asarray(jax.random.key_data(key)))
  assert data(probe_key(7, "a")) == data(rng.stream(jax.random.key(7), "probes.a"))
  assert len({data(probe_key(seed, label)) for seed in (0, 2**31 + 5) for label in "ab"}) == 4


def test_who_watches_sees_the_last_of_the_metrics_that_the_report_shows_over_living_members():
  made, _, world = make(probes={"p": probe(3, [])}, report={"metrics": ("p/x", "p/list", "p/none")}, steps=10)
  made.run(None)
  assert world.metrics == {"p/x": 20.5, "loss": 8.5 + 50}  # of two members; numbers only
  made, _, world = make(dies={1: 2}, probes={"p": probe(3, [])}, report={"metrics": ("p/x",)}, steps=10)
  made.run(None)
  assert world.metrics == {"p/x": 20, "loss": 8.5}
