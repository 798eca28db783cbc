"""Runs that begin with what another run has learned, or go on where it left off."""

import shutil

import jax
import numpy as np
import pytest

from nurture import training
from nurture.core import UserError
from nurture.reporting import read_json, read_rows
from nurture.training import restore
from nurture.training.checkpoint import Checkpoints
from tests.tiny import tiny_config

SWEEP = {"lr": {"path": "optimizer.learning_rate", "levels": (0.05, 0.1)},
         "width": {"path": "model.width", "levels": (8, 6)}}
TAKEN = {"from": {"path": "init.take", "levels": ("variables", "all")}}
ADAM = {"name": "adam", "learning_rate": 0.1}
AVERAGED = {"name": "ema", "decay": 0.5}
PLAIN = {"targets": {}, "gradients": {}, "parameters": {"average": AVERAGED}, "checkpoint__keep": 9}


def config_of(**changes):
  return tiny_config(**{**PLAIN, **changes})


@pytest.fixture(scope="module")
def source(tmp_path_factory):
  """A finished run of four networks of two widths, evaluated with an average."""
  workdir = tmp_path_factory.mktemp("initial") / "source"
  training.run(config_of(ensemble__grid=SWEEP, evaluation__parameters="average"), workdir)
  return workdir


def begun(config, workdir):
  """Trains, and returns the accuracy of the first member before its first step."""
  training.run(config, workdir)
  return next(row for row in read_rows(workdir / "metrics.jsonl") if row["step"] == 0)["test/accuracy"]


def test_fine_tuning_begins_with_the_variables_that_the_other_run_was_evaluated_with(source, tmp_path):
  recorded = read_json(source / "results.json")["members"]
  config = config_of(init={"run": str(source), "member": 3}, model__width=6, steps=3, seed=5, data__seed=0)
  assert begun(config, tmp_path / "run") == recorded[3]["metrics"]["test/accuracy"]
  config = config_of(init={"run": str(source), "step": 6}, steps=3)
  [row] = [row for row in read_rows(source / "metrics.jsonl") if row["member"] == 0 and row["step"] == 6]
  assert begun(config, tmp_path / "middle") == row["test/accuracy"]


def test_optimizers_and_averages_begin_with_those_variables_too(source, tmp_path):
  training.run(config_of(init={"run": str(source)}, steps=3, optimizer__learning_rate=0.0), tmp_path / "run")
  network, begun_with = restore(tmp_path / "run"), restore(source).variables["params"]
  jax.tree.map(np.testing.assert_array_equal, network.variables["params"], begun_with)
  average = network.state.parameter_states["average"]["average"]
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), average, begun_with)
  jax.tree.map(np.testing.assert_array_equal, network.network.initial()["params"], begun_with)


def test_what_is_reinitialized_comes_from_the_seed_and_may_have_another_shape(source, tmp_path):
  names = list(restore(source).variables["params"])
  head = names[-1]
  rest = [name for name in names if name != head]
  changes = {"steps": 1, "optimizer__learning_rate": 0.0, "seed": 3, "data__seed": 0}
  training.run(config_of(init={"run": str(source), "reinitialize": (head,)}, **changes), tmp_path / "tuned")
  training.run(config_of(**changes), tmp_path / "fresh")
  of = lambda run: restore(run).variables["params"]
  jax.tree.map(np.testing.assert_array_equal, of(tmp_path / "tuned")[head], of(tmp_path / "fresh")[head])
  for name in rest:
    jax.tree.map(np.testing.assert_array_equal, of(tmp_path / "tuned")[name], of(source)[name])


@pytest.mark.long
def test_members_of_one_run_can_begin_differently(source, tmp_path):
  """From the seed, and from two networks: three arms of one study."""
  levels = ({}, {"run": str(source), "member": 0}, {"run": str(source), "member": 2})
  axis = {"path": "init", "levels": levels, "names": ("scratch", "first", "second")}
  training.run(config_of(init={}, ensemble__grid={"begin": axis}, steps=3), tmp_path / "run")
  recorded = read_json(source / "results.json")["members"]
  first = {row["member"]: row["test/accuracy"] for row in read_rows(tmp_path / "run/metrics.jsonl") if row["step"] == 0}
  assert [first[1], first[2]] == [recorded[i]["metrics"]["test/accuracy"] for i in (0, 2)]
  assert len(read_json(tmp_path / "run/manifest.json")["checksums"]["config.init"].split()) == 2


def test_a_network_that_changed_in_between_is_refused(source, tmp_path):
  copy = tmp_path / "copy"
  training.run(config_of(), copy)
  config = config_of(init={"run": str(copy)}, steps=6)
  training.run(config, tmp_path / "run")
  (tmp_path / "run/results.json").unlink()
  shutil.rmtree(copy)
  training.run(config_of(seed=1, data__seed=0), copy)
  with pytest.raises(UserError, match="config.init has changed since the run in .* began; restore the run that it"):
    training.run(config, tmp_path / "run")


@pytest.mark.parametrize(("init", "changes", "message"), [
  ({"run": "nowhere"}, {}, "nowhere.*does not exist"),
  ({"run": "{}", "member": 4}, {}, "has 4 members, numbered from 0"),
  ({"run": "{}", "step": 5}, {}, r"no checkpoint of step 5 \(kept: 3, 6, 9, 12\)"),
  ({"run": "{}", "step": "best"}, {}, "keeps no best state; train with config.checkpoint.best"),
  ({"run": "{}"}, {"model__width": 7}, r"not the one of config.model: params/.* is .* there and .*7.* here; name the"),
  ({"run": "{}", "reinitialize": ("haed",)}, {}, "names 'haed', which the parameters do not have; did you mean 'head'"),
  ({"run": "{}"}, {"data__validation": 8}, "config.data.validation=0, so it has seen validation examples"),
  ({"run": "{}", "take": "some"}, {}, "config.init.take is 'some'"), ({"member": 0}, {}, "config.init.run is missing"),
  ({"run": "{}", "take": "all", "member": 1}, {}, "leave out config.init.member"),
  ({"run": "{}", "take": "all", "step": "best"}, {"ensemble__grid": SWEEP, "steps": 20}, "are of different steps"),
  ({"run": "{}", "take": "all"}, {"steps": 20}, "which has other members"),
  ({"run": "{}", "take": "all"}, {"ensemble__grid": SWEEP}, "has taken 12 steps, and config.steps is 12; give more"),
  ({"run": "{}", "take": "variables"}, {"steps": 20, "ensemble__grid": TAKEN},
   "config.ensemble.grid sets config.init, which takes all of a run, and so every member at once"),
  ({"run": "{}", "take": "all"}, {"steps": 20, "ensemble__grid": TAKEN}, "config.ensemble.grid sets config.init"),
  ({"run": "{}", "take": "all"}, {"ensemble__grid": SWEEP, "steps": 20, "optimizer": ADAM},
   "state/opt_state.* is needed; read the run by the config"),
])
def test_a_beginning_that_is_none_is_one_sentence_and_leaves_nothing(source, tmp_path, init, changes, message):
  init = {name: value.format(source) if isinstance(value, str) else value for name, value in init.items()}
  config = config_of(init=init, **changes)
  with pytest.raises(UserError, match=message):
    training.run(config, tmp_path / "run")
  assert not (tmp_path / "run").exists()


LONGER = {"steps": 24, "ensemble__grid": SWEEP, "evaluation__parameters": "average"}


def numbers(workdir):
  """Returns the rows of a run by member and step, without the cohort."""
  rows = read_rows(workdir / "metrics.jsonl")
  return {(row["member"], row["step"]): {k: v for k, v in row.items() if k != "cohort"} for row in rows}


def test_who_only_asks_for_more_steps_is_told_how_to_go_on(source):
  with pytest.raises(UserError, match="steps: 12 -> 24; give another --workdir, and config.init = .*'all'} to go on"):
    training.run(config_of(**LONGER), source)
  with pytest.raises(UserError, match="give another --workdir.$"):
    training.run(config_of(**LONGER, seed=1), source)


@pytest.mark.parametrize("step", ["last", pytest.param(9, marks=pytest.mark.long)])
def test_going_on_for_more_steps_is_one_long_run_to_the_last_bit(source, tmp_path, step):
  straight = training.run(config_of(**LONGER), tmp_path / "straight")
  config = config_of(init={"run": str(source), "take": "all", "step": step}, **LONGER)
  longer = training.run(config, tmp_path / "longer")
  assert longer["params_sha256"] == straight["params_sha256"]
  assert longer["members"] == straight["members"]
  long, whole = numbers(tmp_path / "longer"), numbers(tmp_path / "straight")
  assert long.keys() == whole.keys()
  for place, row in long.items():  # the end of the short run has measured what the long one measures at its end only
    assert {name: row[name] for name in whole[place]} == whole[place]


def test_going_on_can_be_killed_in_every_cohort(source, tmp_path, monkeypatch):
  config = config_of(init={"run": str(source), "take": "all"}, **LONGER)
  whole = training.run(config, tmp_path / "whole")
  save, saved = Checkpoints.save, []

  class Killed(BaseException):
    pass

  def save_and_die(self, step, tree, metrics):
    save(self, step, tree, metrics)
    saved.append(step)
    if len(saved) in (1, 4, 7):
      raise Killed

  with monkeypatch.context() as patch:
    patch.setattr(Checkpoints, "save", save_and_die)
    for _ in range(3):
      with pytest.raises(Killed):
        training.run(config, tmp_path / "run")
  training.run(config, tmp_path / "run")
  for name in ("results.json", "metrics.jsonl"):
    assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
  assert read_json(tmp_path / "run/results.json") == whole
