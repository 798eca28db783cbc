"""The first things that the pages tell people to do: the commands of the README, and the example of a new method."""

import importlib
import pathlib
import subprocess
import sys

import pytest

from nurture import training
from nurture.transforms.losses import LOSSES
from tests.pages import ROOT, blocks, commands
from tests.tiny import tiny_config


def test_the_example_of_a_new_method_trains_and_sweeps(tmp_path, monkeypatch):
  source = next(block for block in blocks(ROOT / "docs/transforms.md", "python") if "class ConfidencePenalty" in block)
  assert len(source.splitlines()) <= 40
  path = tmp_path / "confidence_penalty.py"
  path.write_text(source)
  spec = importlib.util.spec_from_file_location("confidence_penalty", path)
  module = importlib.util.module_from_spec(spec)
  monkeypatch.setitem(sys.modules, "confidence_penalty", module)
  spec.loader.exec_module(module)
  monkeypatch.setitem(LOSSES, "confidence_penalty", module.ConfidencePenalty)

  losses = tiny_config()["losses"] | {"penalty": {"name": "confidence_penalty", "weight": 1.0, "beta": 0.0}}
  grid = {"beta": {"path": "losses.penalty.beta", "levels": (0.0, 2.0)}}
  results = training.run(tiny_config(losses=losses, ensemble__grid=grid, targets={}), tmp_path / "run")
  plain = training.run(tiny_config(targets={}), tmp_path / "plain")
  assert [m["cohort"] for m in results["members"]] == [0, 0]  # one program
  assert results["members"][0]["metrics"]["loss/penalty"] == 0
  assert results["members"][1]["metrics"]["loss/penalty"] < 0  # minus beta times an entropy
  assert results["members"][0]["metrics"]["loss"] == pytest.approx(plain["members"][0]["metrics"]["loss"], rel=1e-5)


@pytest.mark.parametrize("page, part, reader", [
  ("docs/running.md", "configs/quickstart.py", "experiments.report"),
  ("README.md", "configs/elr/digits.py", "experiments.tuned"),
])
def test_the_first_commands_run(page, part, reader, tmp_path):
  there = [[word.replace("runs/", f"{tmp_path}/") for word in words[1:]] for words in commands(ROOT / page)]
  train = next(words for words in there if f"--config={part}" in words)
  run([*train, "--config.steps=20", "--config.ensemble.seeds=2", "--config.checkpoint.every=10"])
  workdir = next(pathlib.Path(word.split("=")[1]) for word in train if word.startswith("--workdir="))
  assert (workdir / "plots" / "curves.png").exists()
  read = next(words for words in there if reader in words)
  read = [word for word in read if not word.startswith("/") or pathlib.Path(word).exists()]
  assert "±" in run([*read, f"--out={tmp_path / 'out'}"])


def run(words):
  """Returns what a command of Python prints, which must succeed."""
  done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=240)
  assert done.returncode == 0, done.stderr
  return done.stdout
