"""What the README tells people to do works: its example of a new method, and its commands."""

import importlib
import pathlib
import re
import subprocess
import sys

import pytest

from nurture import training
from nurture.transforms.losses import LOSSES
from tests.tiny import tiny_config

ROOT = pathlib.Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
COMMANDS = [line.strip() for kind, block in BLOCKS if kind == "sh" for line in block.splitlines() if line.strip()]


@pytest.mark.slow  # compiles two programs
def test_the_example_of_a_new_method_trains_and_sweeps(tmp_path, monkeypatch):
  source = next(block for kind, block in BLOCKS if kind == "python" and "class ConfidencePenalty" in block)
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


def test_commands_name_what_exists():
  assert {"make quickstart", "make test"} <= set(COMMANDS)
  targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
  for command in COMMANDS:
    if command.startswith("make "):
      assert command.split()[1] in targets
    for module in re.findall(r"-m (experiments[\w.]*)", command):
      assert importlib.util.find_spec(module), command
    for config in re.findall(r"--config=(\S+\.py)", command):
      assert (ROOT / config).is_file(), command
  for link in re.findall(r"\]\(([^)#:]+)\)", README):
    assert (ROOT / link).exists(), link


@pytest.mark.slow  # two programs are started, and one of them trains
def test_the_first_commands_run(tmp_path):
  command = next(c for c in COMMANDS if "--config=configs/quickstart.py" in c).replace("runs/", f"{tmp_path}/")
  short = [*command.split()[1:], "--config.steps=20", "--config.ensemble.seeds=2", "--config.checkpoint.every=10"]
  done = subprocess.run([sys.executable, *short], capture_output=True, text=True, timeout=240)
  assert done.returncode == 0, done.stderr
  workdir = tmp_path / "quickstart"
  assert str(workdir / "plots" / "curves.png") in done.stdout
  report = next(c for c in COMMANDS if "experiments.report" in c)
  arguments = [a.replace("runs/", f"{tmp_path}/") for a in report.split()[1:]]
  arguments = [a for a in arguments if a.startswith("-") or "/" not in a or pathlib.Path(a).exists()]
  done = subprocess.run(
    [sys.executable, *arguments, f"--out={tmp_path / 'report'}"], capture_output=True, text=True, timeout=240
  )
  assert done.returncode == 0, done.stderr
  assert "±" in done.stdout
