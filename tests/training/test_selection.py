"""The best state of a run, and members that stop before its last step."""

import json
import types

import numpy as np
import pytest

from nurture import training
from nurture.core import UserError
from nurture.reporting import read_json, read_rows
from nurture.training import restore
from nurture.training.checkpoint import Restored
from nurture.training.programs import AttachedProbe
from nurture.training.selection import Selection, check_recorded, rules_of
from tests.tiny import tiny_config
from tests.training.test_loop import make

MAX = {"metric": "p/x", "mode": "max"}
STOPPING = {**MAX, "patience": 2}


def curves(*members):
  """Returns a probe that measures these numbers, one list a member, one number each second step; then the last."""

  def measure(states, hp, arrays, pieces, phase):
    step = int(np.max(states.step)) // 2
    return {"x": np.asarray([curve[min(step, len(curve) - 1)] for curve in members], np.float32)}

  return AttachedProbe(measure, (), 2)


def looped(*members, **changes):
  """Returns a loop over members with these curves, with its world."""
  probes = {"p": curves(*members)}
  config = {"ensemble__seeds": len(members), "per_dispatch": 2, "log_every": 5, **changes}
  made, programs, world = make(probes, **config)
  made._trace_probes = lambda states: None
  return made, programs, world


def steps_of(world, member, name="p/x"):
  return [row["step"] for row in world.rows if row["member"] == member and name in row]


RISES, PEAKS, FALLS = [0, 1, 2, 3, 4, 5], [0, 3, 2, 1, 5, 6], [3, 2, 1, 0, 0, 0]


def test_each_member_stops_at_its_own_step_and_the_others_go_on():
  made, _, world = looped(RISES, PEAKS, FALLS, stopping=STOPPING, checkpoint__every=0)
  final = made.run(None)
  np.testing.assert_array_equal(final.step, [10, 6, 4])
  assert [steps_of(world, i) for i in range(3)] == [[0, 2, 4, 6, 8, 10], [0, 2, 4, 6], [0, 2, 4]]
  assert world.steps() == [10] and made.last == {"step": 10}


def test_the_last_row_of_a_member_has_what_the_end_of_a_run_has():
  """Its loss, over the steps since the last row, and probes that are due at the end or at other steps."""
  once = AttachedProbe(lambda *_: {"y": np.zeros(2, np.float32)}, (), 0)
  made, _, world = looped(RISES, FALLS, stopping=STOPPING)
  made.programs.probes["end"] = once
  made.run(None)
  last = {member: [row for row in world.rows if row["member"] == member][-1] for member in (0, 1)}
  assert {member: row["step"] for member, row in last.items()} == {0: 10, 1: 4}
  assert set(last[0]) == set(last[1]) == {"step", "cohort", "member", "loss", "p/x", "end/y"}
  assert last[1]["loss"] == 100 + (0 + 1 + 2 + 3) / 4
  assert steps_of(world, 0, "loss") == [5, 10] and steps_of(world, 1, "loss") == [4]


def test_a_cohort_of_which_all_have_stopped_is_over():
  made, programs, world = looped(FALLS, FALLS[1:], stopping=STOPPING)
  made.run(None)
  assert world.steps()[-1] == 4 and sum(length for _, length, _ in programs.taken) == 4
  assert world.shown[-1][0] == 10  # of ten steps nothing is left to do
  again, programs, after = looped(FALLS, FALLS, stopping=STOPPING)
  again.run(Restored(4, world.saved[4], {}))
  assert not programs.taken and not after.journal
  assert again.selection.is_over(world.saved[4]) and not again.selection.is_over(world.saved.get(2, {
    "stopping": {"at": np.asarray([-1, 4])}
  }))


@pytest.mark.parametrize("cut", [2, 4, 6, 8])
def test_a_run_that_goes_on_from_any_checkpoint_stops_where_it_would_have(cut):
  changes = {"stopping": STOPPING, "checkpoint__best": MAX, "checkpoint__every": 2}
  whole, _, undisturbed = looped(RISES, PEAKS, FALLS, **changes)
  final = whole.run(None)
  rest, _, after = looped(RISES, PEAKS, FALLS, **changes)
  np.testing.assert_array_equal(rest.run(Restored(cut, undisturbed.saved[cut], {})).step, final.step)
  written = lambda world: {json.dumps({k: float(v) for k, v in row.items()}) for row in world.rows}
  assert written(after) == {row for row in written(undisturbed) if json.loads(row)["step"] > cut}
  np.testing.assert_array_equal(rest.selection.best_steps, whole.selection.best_steps)
  np.testing.assert_array_equal(whole.selection.best_steps, [10, 2, 0])


@pytest.mark.parametrize(("rule", "curve", "stopped"), [
  ({"patience": 1}, [1, 2, 2, 3], 4), ({"patience": 2}, [1, 2, 2, 3], -1), ({"patience": 3}, [5, 1, 1, 1], 6),
  ({"patience": 1, "least": 1.0}, [1, 2, 3], 2), ({"patience": 1, "least": 0.5}, [1, 2, 3, 3.25], 6),
  ({"patience": 1, "mode": "min"}, [3, 2, 2.5], 4), ({"patience": 2}, [np.nan, np.nan, 1], 2),
  ({"patience": 2}, [np.nan, 1, np.inf, np.nan], 6), ({"patience": 1, "mode": "min"}, [0.0, -1.0, -1.5], -1),
])
def test_a_member_stops_after_that_many_records_without_an_improvement(rule, curve, stopped):
  config = tiny_config(stopping={"metric": "loss", "mode": "max", **rule})
  selection = Selection(config, 1)
  for i, value in enumerate(curve):
    selection.update(2 * i, None, {"loss": np.asarray([value], np.float32), "other": None})
    selection.update(2 * i + 1, None, {})  # nothing recorded, nothing counted
  if stopped >= 0:  # who has stopped does not stop again
    for step in (20, 22, 24, 26):
      assert not selection.update(step, None, {"loss": np.asarray([curve[-1]], np.float32)}).any()
  assert selection.stopped_at.tolist() == [stopped]


PROBES = {
  "validation": {"name": "accuracy", "split": "validation", "every": 3},
  "test": {"name": "accuracy", "split": "test", "every": 3}, "end": {"name": "accuracy", "split": "train", "every": 0},
}


@pytest.mark.parametrize(("rule", "message"), [
  ({"metric": "validation/loss", "mode": "min"}, None), ({"metric": "loss", "mode": "min"}, None),
  ({"metric": "loss/ce", "mode": "min"}, None),
  ({"metric": "validaton/loss", "mode": "min"}, "'validaton/loss', which this config does not record; did you mean"),
  ({"metric": "test/loss", "mode": "min"}, "is measured on the test split, .* says nothing about new data; set config"),
  ({"metric": "end/loss", "mode": "min"}, "config.probes.end measures at the end only; set its 'every'"),
  ({"metric": "loss", "mode": "least"}, "mode is 'least'"), ({"mode": "min"}, "metric is missing"),
  ({"metric": "loss", "mode": "min", "patient": 3}, "patient does not exist"),
])
@pytest.mark.parametrize("place", ["checkpoint", "stopping"])
def test_a_rule_that_cannot_choose_is_refused(rule, message, place):
  rule = {**rule, "patience": 3} if place == "stopping" else rule
  config = tiny_config(probes=PROBES, **{"stopping" if place == "stopping" else "checkpoint__best": rule})
  if message is None:
    assert [found is not None for found in rules_of(config)] == [place == "checkpoint", place == "stopping"]
    return
  with pytest.raises(UserError, match=message):
    rules_of(config)


def test_no_patience_is_refused_and_no_rule_is_none():
  assert rules_of(tiny_config()) == (None, None)
  with pytest.raises(UserError, match="config.stopping.patience is 0"):
    rules_of(tiny_config(stopping={"metric": "loss", "mode": "min", "patience": 0}))


@pytest.mark.parametrize(("metric", "message"), [
  ("validation/accurac", "did you mean 'validation/accuracy'"), ("list/per_class", "is several numbers"),
])
def test_a_metric_that_no_probe_gives_is_refused_before_training(metric, message):
  shape = lambda *dims: types.SimpleNamespace(ndim=len(dims))
  probes = {label: {"name": "accuracy", "split": "validation", "every": 3} for label in ("validation", "list")}
  found = {"loss": shape(1), "validation/accuracy": shape(1), "list/per_class": shape(1, 10)}
  for place, path in (("stopping", "config.stopping.metric"), ("checkpoint__best", "config.checkpoint.best.metric")):
    patience = {"patience": 3} if place == "stopping" else {}
    rule = lambda metric, patience=patience: {"metric": metric, "mode": "max", **patience}
    check_recorded(tiny_config(probes=probes, **{place: rule("validation/accuracy")}), found)
    with pytest.raises(UserError, match=f"{path} is '{metric}', which .*{message.replace('?', '[?]')}"):
      check_recorded(tiny_config(probes=probes, **{place: rule(metric)}), found)


def chosen(**changes):
  """Returns a config of four networks of which some stop early."""
  return tiny_config(
    steps=36, data__validation=24, ensemble__seeds=4, log_every=6, checkpoint__keep=20, optimizer__learning_rate=0.3,
    probes={
      "validation": {"name": "accuracy", "split": "validation", "every": 3},
      "test": {"name": "accuracy", "split": "test", "every": 3}, "weights": {"name": "weight_statistics", "every": 0},
    },
    checkpoint__best={"metric": "validation/accuracy", "mode": "max"},
    stopping={"metric": "validation/loss", "mode": "min", "patience": 2, "least": 0.02}, **changes,
  )


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("selection") / "run"
  return workdir, training.run(chosen(), workdir)


def test_results_say_where_members_stopped_and_what_the_best_ones_reached(stopped):
  workdir, results = stopped
  rows = {(row["member"], row["step"]): row for row in read_rows(workdir / "metrics.jsonl")}
  where = [entry["stopped_at"] for entry in results["members"]]
  assert len(set(where)) > 1 and any(step is not None for step in where)  # else this tests nothing
  for entry in results["members"]:
    number, metrics = entry["member"], entry["metrics"]
    last = max(step for member, step in rows if member == number)
    assert last == (entry["stopped_at"] or 36) and metrics["test/accuracy"] == rows[number, last]["test/accuracy"]
    assert any(name.startswith("weights/") for name in metrics)
    values = {step: row["validation/accuracy"] for (member, step), row in rows.items() if member == number}
    best = min(step for step, value in values.items() if value == max(values.values()))
    assert (metrics["best/step"], metrics["best/validation/accuracy"]) == (best, values[best])
    assert metrics["best/test/accuracy"] == rows[number, best]["test/accuracy"]
  assert results["groups"][0]["metrics"]["best/test/accuracy"]["n"] == 4


def test_the_best_state_and_the_last_one_come_back(stopped):
  workdir, results = stopped
  for entry in results["members"]:
    last, best = restore(workdir, entry["member"]), restore(workdir, entry["member"], "best")
    assert (last.step, best.step) == (entry["stopped_at"] or 36, entry["metrics"]["best/step"])
    for network, prefix in ((last, ""), (best, "best/")):
      assert network.measure("test")["accuracy"] == np.float32(entry["metrics"][f"{prefix}test/accuracy"])


def test_a_run_killed_anywhere_gives_the_same_bytes(stopped, tmp_path, monkeypatch):
  workdir, _ = stopped
  for kill_at in (9, 15):

    class Killed(BaseException):
      pass

    def kill(self, step, states, logged, sums, record=training.loop.Loop._record, kill_at=kill_at):
      record(self, step, states, logged, sums)
      if step == kill_at:
        raise Killed

    with monkeypatch.context() as patch:
      patch.setattr(training.loop.Loop, "_record", kill)
      with pytest.raises(Killed):
        training.run(chosen(), tmp_path / "run")
    assert not (tmp_path / "run/results.json").exists()
  training.run(chosen(), tmp_path / "run")
  for name in ("results.json", "metrics.jsonl"):
    assert (tmp_path / "run" / name).read_bytes() == (workdir / name).read_bytes()
  again = training.run(chosen(), tmp_path / "run")  # nothing is left to do, though not all steps were taken
  assert again == read_json(workdir / "results.json")


def test_a_cohort_that_stopped_early_is_not_trained_again(tmp_path, monkeypatch):
  """It has not taken all steps; what comes after it must not be taken for behind."""
  config, seen = chosen(ensemble__chunk=2), []

  class Killed(BaseException):
    pass

  def record(self, step, states, logged, sums, record=training.loop.Loop._record):
    record(self, step, states, logged, sums)
    seen.append((self.cohort.index, step))
    if seen.count((1, 9)) == 1 and seen[-1] == (1, 9):
      raise Killed

  monkeypatch.setattr(training.loop.Loop, "_record", record)
  with pytest.raises(Killed):
    training.run(config, tmp_path / "run")
  assert max(step for cohort, step in seen if cohort == 0) < 36  # else this tests nothing
  seen.clear()
  seen.append((1, 9))  # it is killed once
  training.run(config, tmp_path / "run")
  assert seen[1] == (1, 9) and (0, 3) not in seen
