"""The benchmark of merging, on a network of a few thousand parameters."""

import pytest

from experiments.benchmarks import deploy
from lib import models
from lib.core import Preset, UserError
from lib.models.vanillanet import VanillaNet

TINY = Preset(VanillaNet, dims=(8, 8), strides=(2,), stem_patch=4, act_num=1)


def test_compares_two_forms_that_are_one_function(monkeypatch):
  monkeypatch.setitem(models.MODELS, "tiny", TINY)
  row = deploy.compare("tiny", side=16, batch=2, num_classes=3, rounds=3)
  assert row["batch"] == 2
  assert min(row["training_ms"], row["deployed_ms"], row["speedup"]) > 0
  assert row["difference"] < 1e-5
  assert min(row["bound_by_multiply_adds"], row["bound_by_bytes"]) > 1  # the training form is the larger


def test_a_model_without_a_deployed_form_is_refused():
  with pytest.raises(UserError, match="--model=lenet5 has no deployed form"):
    deploy.compare("lenet5", side=28, batch=1, num_classes=3, rounds=1)
