"""Model arguments that change over training are traced, so one program serves all values; merging within a run."""

import numpy as np
import pytest
from jax import monitoring

from nurture import models, training
from nurture.core import UserError
from nurture.reporting import read_rows
from nurture.training import member_variables
from tests.tiny import tiny_config

VANILLANET = {"name": "vanillanet", "dims": (3, 4), "strides": (2,), "stem_patch": 2, "act_num": 1}
RESNET = {"name": "resnet", "blocks": (1, 1), "width": 2}
VIT = {"name": "vit", "patch": 4, "width": 4, "depth": 2, "heads": 2, "attention": "sigmoid"}
CLIP = {"clip": {"name": "clip_by_global_norm", "max_norm": 1.0}}
ONE_STEP = {"steps_per_dispatch": 1, "steps": 6, "log_every": 1, "targets": {}, "parameters": {},
            "gradients": CLIP}


@pytest.fixture
def lowered():
  """One entry for every time that the program of the steps is made."""
  events = []

  def listen(name, seconds, **details):
    if "jaxpr_to_mlir" in name and "_steps" in str(details.get("fun_name")):
      events.append(seconds)

  monitoring.register_event_duration_secs_listener(listen)
  yield events
  monitoring.unregister_event_duration_listener(listen)


@pytest.mark.parametrize("model, scheduled", [
  (VANILLANET, {"lam": {"name": "epoch_ramp", "epochs": 4, "steps_per_epoch": 1}}),
  pytest.param(VANILLANET, {"lam": {"name": "step_ramp", "steps": 5, "shape": "cosine"}}, marks=pytest.mark.long),
  (RESNET, {"drop_path": {"name": "linear_schedule", "init_value": 0.0, "end_value": 0.5, "transition_steps": 5}}),
  pytest.param(VIT, {"drop_path": {"name": "step_ramp", "steps": 12}}, marks=pytest.mark.long),
], ids=["lam by epoch", "lam by step", "resnet drop path", "vit drop path"])
def test_every_value_is_served_by_one_program(tmp_path, lowered, model, scheduled):
  probes = {"test": {"name": "accuracy", "split": "test", "every": 2}}
  config = tiny_config(model=model, scheduled=scheduled, probes=probes, **ONE_STEP)
  training.run(config, tmp_path / "run")
  assert len(lowered) == 1


def test_another_program_would_be_seen(tmp_path, lowered):
  # Cut at the checkpoints after steps 3 and 6: twice two steps and one.
  training.run(tiny_config(probes={}, **{**ONE_STEP, "steps_per_dispatch": 4, "log_every": 6}), tmp_path / "run")
  assert len(lowered) == 2


def test_a_run_trains_merges_and_measures_the_merged_network(tmp_path):
  probes = {
    "test": {"name": "accuracy", "split": "test", "every": 2},
    "deployed": {"name": "deployed_accuracy", "split": "test", "every": 2},
  }
  scheduled = {"lam": {"name": "epoch_ramp", "epochs": 4, "steps_per_epoch": 1}}
  config = tiny_config(model=VANILLANET, scheduled=scheduled, probes=probes, ensemble__seeds=2, **ONE_STEP)
  training.run(config, tmp_path / "run")
  for member in (0, 1):
    rows = [r for r in read_rows(tmp_path / "run" / "metrics.jsonl") if r["member"] == member]
    difference = {row["step"]: row["deployed/difference"] for row in rows if "deployed/difference" in row}
    assert list(difference) == [0, 2, 4, 6]
    assert min(difference[0], difference[2]) > 1e-4 and max(difference[4], difference[6]) < 1e-5
    last = rows[-1]
    assert last["deployed/accuracy"] == last["test/accuracy"]
    assert last["deployed/loss"] == pytest.approx(last["test/loss"], rel=1e-5)
    variables = member_variables(tmp_path / "run", member)
    assert variables["slope"]["lam"] == 1.0
    merged = models.build(VANILLANET, num_classes=10).to_deploy(variables)  # not refused: λ has reached 1
    assert all(np.isfinite(leaf).all() for layer in merged["params"].values() for leaf in layer.values())


@pytest.mark.long
def test_a_network_that_stopped_early_is_not_merged_by_mistake(tmp_path):
  scheduled = {"lam": {"name": "step_ramp", "steps": 100}}
  training.run(tiny_config(model=VANILLANET, scheduled=scheduled, probes={}, **ONE_STEP), tmp_path / "run")
  with pytest.raises(UserError, match="λ is 0.05"):
    models.build(VANILLANET, num_classes=10).to_deploy(member_variables(tmp_path / "run", 0))


def test_a_model_without_a_deployed_form_is_refused_before_training(tmp_path):
  probes = {"deployed": {"name": "deployed_accuracy", "split": "test", "every": 0}}
  with pytest.raises(UserError, match="needs a model with a deployed form"):
    training.run(tiny_config(probes=probes), tmp_path / "run")
  assert not (tmp_path / "run" / "results.json").exists()
