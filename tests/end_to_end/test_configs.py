"""Every config is sound: it builds, takes a step of every one of its programs, and its header's commands are real."""

import importlib
import pathlib
import re

import numpy as np
import pytest

from lib import training
from lib.reporting import read_json
from lib.training.config import plain, put

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIGS = sorted((ROOT / "configs").rglob("*.py"))


def load(path):
  return importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))


def write_tiny_cifar10(root):
  """Writes files of the format of CIFAR-10 with 20 random images each; returns the source that reads them."""
  draws = np.random.default_rng(0)
  (root / "cifar-10-batches-bin").mkdir()
  for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
    records = draws.integers(0, 256, (20, 1 + 3 * 32 * 32), dtype=np.uint8)
    records[:, 0] = np.arange(20) % 10
    (root / "cifar-10-batches-bin" / f"{name}.bin").write_bytes(records.tobytes())
  (root / "cifar-10-batches-bin" / "batches.meta.txt").write_text("\n".join(f"class{i}" for i in range(10)))
  return {"name": "cifar10", "examples_per_file": 20}


@pytest.mark.parametrize("path", [
  # Networks made for 32 x 32 pixels cannot take the 8 x 8 of the digits, and compile for longer.
  pytest.param(path, marks=pytest.mark.slow if "architectures" in path.parts else ()) for path in CONFIGS
], ids=lambda path: str(path.relative_to(ROOT / "configs")))
def test_builds_and_takes_two_steps_on_tiny_data(path, tmp_path):
  config = plain(load(path).get_config())
  photographs = config["data"]["source"]["name"] == "cifar10"
  source = write_tiny_cifar10(tmp_path) if photographs else {"name": "digits"}
  config["probes"] = {label: fields | {"every": 1} for label, fields in config["probes"].items()}
  config = put(config, {
    "data.source": source, "data.subset": 80, "data.validation": min(config["data"]["validation"], 20),
    "data.test_subset": 20, "steps": 2, "log_every": 1, "batch_size": 4, "evaluation.batch_size": 50,
    "ensemble.seeds": 1,
  })
  results = training.run(config, tmp_path / "run", data_dir=tmp_path)
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
