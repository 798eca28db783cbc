"""Back out of a run: the network, its data and its numbers, at any step that was kept."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nurture import training
from nurture.core import UserError
from nurture.data import Dataset
from nurture.reporting import read_rows
from nurture.training import member_variables, restore
from tests.tiny import tiny_config

LAST = 12


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
  """A finished run of two rates and two seeds, with a guide, an average and a schedule."""
  workdir = tmp_path_factory.mktemp("restore") / "run"
  config = tiny_config(
    checkpoint__keep=3, evaluation__parameters="average", ensemble__seeds=2,
    references={"teacher": {"model": {"name": "mlp", "depth": 1, "width": 4}}},
    losses={"ce": {"name": "cross_entropy", "weight": 1.0}, "elr": {"name": "elr", "weight": 0.5}},
    ensemble__grid={"lr": {"path": "optimizer.learning_rate", "levels": (0.05, 0.1)},
                    "width": {"path": "model.width", "levels": (8, 6)}},
  )
  return workdir, training.run(config, workdir)


def test_the_recorded_numbers_come_back_to_the_last_digit(swept):
  workdir, results = swept
  for entry in results["members"]:
    network = restore(workdir, entry["member"])
    assert (network.step, network.seed) == (LAST, entry["seed"])
    measured = network.measure("test")
    assert np.float32(measured["accuracy"]) == np.float32(entry["metrics"]["test/accuracy"])
    assert float(measured["loss"]) == pytest.approx(entry["metrics"]["test/loss"], rel=1e-6)
    predicted = network.predictions("test").argmax(axis=-1)
    assert np.mean(predicted == network.data.test.label) == pytest.approx(entry["metrics"]["test/accuracy"])


def test_parameters_are_those_that_were_saved_and_evaluation_has_its_own(swept):
  workdir, _ = swept
  network, raw = restore(workdir, 3), member_variables(workdir, 3)["params"]
  jax.tree.map(np.testing.assert_array_equal, network.state.variables["params"], raw)
  average = network.state.parameter_states["average"]["average"]
  jax.tree.map(np.testing.assert_array_equal, network.variables["params"], average)
  assert network.config["model"]["width"] == 6 and network.config["optimizer"]["learning_rate"] == 0.05
  assert network.state.loss_states["elr"]["targets"].shape[1] == 10 and network.task.name == "classification"


def test_any_step_that_was_kept_comes_back(swept):
  workdir, results = swept
  rows = [row for row in read_rows(workdir / "metrics.jsonl") if row["member"] == 0]
  for step in (6, 9, 12):
    network = restore(workdir, 0, step)
    assert network.step == step
    recorded = [np.float32(row["test/accuracy"]) for row in rows if row["step"] == step and "test/accuracy" in row]
    assert recorded == [network.measure("test")["accuracy"]] * (step != 9)  # measured every 6 steps
  with pytest.raises(UserError, match=r"has no checkpoint of step 3 \(kept: 6, 9, 12\); name one of these, or train"):
    restore(workdir, 0, 3)


def test_other_probes_can_be_measured_afterwards(swept):
  workdir, _ = swept
  network = restore(workdir)
  assert 0 <= float(network.measure({"name": "calibration", "split": "test"})["ece"]) <= 1
  assert network.measure({"name": "sharpness", "limit": 20, "top": 1})
  with pytest.raises(UserError, match=r"no probe 'tets' .known: test, memory, weights"):
    network.measure("tets")
  with pytest.raises(UserError, match="config.probes.measured.splitt does not exist"):
    network.measure({"name": "accuracy", "splitt": "test"})
  batch = {"image": jnp.asarray(network.data.test.inputs["image"][:3])}
  assert network.apply(network.inputs(batch)).logits.shape == (3, 10)


def test_what_cannot_be_restored_is_one_sentence(swept, tmp_path):
  workdir, _ = swept
  with pytest.raises(UserError, match="has 8 members, numbered from 0; member 8 does not exist"):
    restore(workdir, 8)
  with pytest.raises(UserError, match="none"):
    restore(tmp_path / "none")
  stored = json.loads((workdir / "config.json").read_text())
  old = tmp_path / "old"
  training.run(tiny_config(), old)
  del stored["data"]["normalize_labels"]
  (old / "config.json").write_text(json.dumps(stored))
  with pytest.raises(UserError) as error:
    restore(old)
  assert "\n" not in str(error.value)


def test_a_run_on_arrays_in_memory(tmp_path):
  x = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
  signs = Dataset.from_arrays((x, x[:, 0] > 0), (x, x[:, 0] > 0))
  config = tiny_config(data__source={"name": "given"}, data__label_noise={}, data__subset=0, data__test_subset=0)
  training.run(config, tmp_path / "run", dataset=signs)
  assert restore(tmp_path / "run", dataset=signs).predictions("train").shape == (40, 2)
  with pytest.raises(UserError, match="cannot be restored: config.data.source is 'given', but no data set was given"):
    restore(tmp_path / "run")


def test_a_run_with_an_infinite_level_comes_back(tmp_path):
  """Clipping at infinity clips nothing; JSON has no such number."""
  axis = {"path": "gradients.clip.max_norm", "levels": (10.0, float("inf"))}
  results = training.run(tiny_config(steps=3, ensemble__grid={"clip": axis}), tmp_path / "run")
  network = restore(tmp_path / "run", 1)
  assert network.config["gradients"]["clip"]["max_norm"] == float("inf")
  assert network.measure("test")["accuracy"] == np.float32(results["members"][1]["metrics"]["test/accuracy"])
