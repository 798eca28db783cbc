"""Every config is sound: it builds, takes a step of every one of its programs, and its header's commands are real."""

import importlib
import pathlib
import re

import pytest

from lib import training
from lib.reporting import read_json
from lib.training.config import plain, put

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIGS = sorted((ROOT / "configs").rglob("*.py"))


def load(path):
  return importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(ROOT / "configs")))
def test_builds_and_takes_two_steps_on_the_embedded_digits(path, tmp_path):
  config = plain(load(path).get_config())
  config["probes"] = {label: fields | {"every": 1} for label, fields in config["probes"].items()}
  config = put(config, {
    "data.source": {"name": "digits"}, "data.subset": 100, "data.validation": min(config["data"]["validation"], 100),
    "data.test_subset": 20, "steps": 2, "log_every": 1, "batch_size": 4, "evaluation.batch_size": 50,
    "ensemble.seeds": 1,
  })
  results = training.run(config, tmp_path / "run")
  assert len(results["members"]) == len(read_json(tmp_path / "run" / "manifest.json")["members"])
  for metric in config["report"]["metrics"]:
    assert metric in results["groups"][0]["metrics"], metric


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(ROOT / "configs")))
def test_header_gives_the_command_and_what_to_expect(path):
  name = path.relative_to(ROOT)
  header = load(path).__doc__
  assert f"python -m experiments.train --config={name}" in header
  assert re.search(r"--workdir=runs/\w+", header)
  assert re.search(r"\d+ (s|min|minutes|seconds)\b", header), "say how long it takes, and on what"
  assert load(path).get_config().is_locked
