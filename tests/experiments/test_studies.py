"""Every study that has a run directory records its crash there."""

import importlib

import pytest
from absl import flags
from absl.testing import flagsaver

from nurture.reporting import read_json

# What each calls once its directory is made.
WORK = {
  "elr_linear": "simulate", "finite_width": "study", "random_features": "run_part", "sigmoid_forms": "relative_error",
  "wide_and_deep": "compare",
}


@pytest.mark.parametrize("name", WORK)
def test_a_crash_is_recorded(name, tmp_path, monkeypatch):
  module = importlib.import_module(f"experiments.studies.{name}")

  def crash(*arguments, **named):
    raise ZeroDivisionError

  monkeypatch.setattr(module, WORK[name], crash)
  with flagsaver.flagsaver(), pytest.raises(ZeroDivisionError):
    flags.FLAGS([name, f"--workdir={tmp_path}"])
    module.main([name])
  assert (tmp_path / "config.json").exists() and not (tmp_path / "results.json").exists()
  assert read_json(tmp_path / "manifest.json")["history"][-1]["reason"] == "defect: ZeroDivisionError"
