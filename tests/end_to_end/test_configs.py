"""Every config is sound: it builds, takes a step of every one of its programs, and its header's commands are real."""

import importlib
import pathlib
import re

import numpy as np
import pytest

from lib import training
from lib.reporting import read_json
from lib.training.config import plain, put
from lib.training.ensemble import cohorts_of, members_of
from lib.training.prepare import Preparer

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


def write_tiny_cifar100(root):
  """Writes files of the format of CIFAR-100 with 100 and 20 random images; returns the source that reads them."""
  draws = np.random.default_rng(0)
  (root / "cifar-100-binary").mkdir()
  for name, count in (("train", 100), ("test", 20)):
    records = draws.integers(0, 256, (count, 2 + 3 * 32 * 32), dtype=np.uint8)
    records[:, :2] = np.stack([np.arange(count) % 20, np.arange(count) % 100], axis=1)
    (root / "cifar-100-binary" / f"{name}.bin").write_bytes(records.tobytes())
  (root / "cifar-100-binary" / "fine_label_names.txt").write_text("\n".join(f"class{i}" for i in range(100)))
  return {"name": "cifar100", "train_examples": 100, "test_examples": 20}


# Too large to train here, or even to compile: these are only traced.
TRACED = {
  "cifar100_students", "cifar100_teachers", "cifar10_resnet34", "convnet50", "deep_fcn", "elr_plus_cifar10",
}
SLOW = {"architectures", "cifar100_students", "convnet50", "digits.py:guided", "sequences"}
WRITERS = {"cifar10": write_tiny_cifar10, "cifar100": write_tiny_cifar100}
# A config may have parts, as in --config=configs/guidance/digits.py:guides.
PARTS = [(path, part) for path in CONFIGS for part in getattr(load(path), "PARTS", ("",))]


def label(path, part):
  return str(path.relative_to(ROOT / "configs")) + (f":{part}" if part else "")


def shrunk(path, part, root):
  """Returns a config at two steps of four examples; networks that it learns from are trained so, too, below root."""
  config = plain(load(path).get_config(*([part] if part else [])))
  root.mkdir()
  config["probes"] = {name: fields | {"every": 1} for name, fields in config["probes"].items()}
  for name, axis in config["ensemble"]["grid"].items():
    if axis["path"] == "batch_size" or str(axis["path"]).startswith(("references.", "('references.")):
      config = put(config, {f"ensemble.grid.{name}": first(axis)})  # the same program with other weights, or too large
  config = with_references(config, root, {})
  source = config["data"]["source"]
  if source["name"] in WRITERS:
    source = WRITERS[source["name"]](root)
  elif "num_examples" in source:  # generated
    source = source | {"num_examples": 100, "test_examples": 20}
  else:
    source = {"name": "digits"}
  return put(config, {
    "data.source": source, "data.subset": min(config["data"]["subset"] or 80, 80),
    "data.validation": min(config["data"]["validation"], 20), "data.test_subset": 20, "steps": 2, "log_every": 1,
    "batch_size": 4, "evaluation.batch_size": 50, "ensemble.seeds": 1,
    **{f"ensemble.grid.{name}.levels": (4,) for name, axis in config["ensemble"]["grid"].items()
       if axis["path"] == "batch_size"},
  })


def first(axis, at=0):
  """Returns an axis of a grid with its first level only, or another one."""
  return axis | {field: (axis[field][at],) for field in ("levels", "names") if axis.get(field)}


def with_references(value, root, trained):
  """Replaces the runs that references name, wherever they stand, by shrunk ones below root."""
  if isinstance(value, dict):
    value = {name: with_references(inner, root, trained) for name, inner in value.items()}
    if "model" in value and value.get("run"):
      run = value["run"]
      if run not in trained:
        trained[run] = train_reference(run, root / str(len(trained)))
      value |= {"run": trained[run], "member": 0}
  elif isinstance(value, tuple):
    value = tuple(with_references(inner, root, trained) for inner in value)
  return value


def train_reference(run, root):
  """Trains the config whose header writes this run; returns where it is."""
  command = re.compile(r"--config=([^\s:]+)(?::(\w+))? [^\n]*(?:\\\n[^\n]*)?--workdir=" + re.escape(run) + r"\b")
  [(path, part)] = [
    (path, found[2] or "") for path in CONFIGS
    if (found := command.search(load(path).__doc__)) and path == ROOT / found[1]
  ]
  if path.stem in TRACED:
    return ""
  config = shrunk(path, part, root)
  training.run(config, root / "run", data_dir=root)
  return str(root / "run")


@pytest.mark.parametrize("path, part", [
  # Networks made for 32 x 32 pixels cannot take the 8 x 8 of the digits, and compile (the deepest: trace) for longer;
  # the others have many programs.
  pytest.param(path, part, marks=pytest.mark.slow if {*path.parts, path.stem, f"{path.name}:{part}"} & SLOW else ())
  for path, part in PARTS
], ids=[label(*case) for case in PARTS])
def test_builds_and_takes_two_steps_on_tiny_data(path, part, tmp_path):
  """All programs of the grid are traced, which finds what is wrong with a config; the first of them takes the steps."""
  config = shrunk(path, part, tmp_path / "data")
  prepare = Preparer(tmp_path / "data")
  if path.stem in TRACED:  # one program of those at the end of the grid: the trace of each takes long
    last = {name: first(axis, -1) for name, axis in config["ensemble"]["grid"].items()}
    [member] = members_of(put(config, {"ensemble.grid": last}))
    prepared = prepare(put(config, member.assignments))
    assert prepared.probes(prepared.programs(1)).keys() == config["probes"].keys()
    return
  cohorts = cohorts_of(config, members_of(config), lambda inner, points: prepare(inner).can_vary(points), lambda _: 99)
  for cohort in cohorts:
    prepare(cohort.config)
  one = put(config, {"ensemble.grid": {name: first(axis) for name, axis in config["ensemble"]["grid"].items()}})
  results = training.run(one, tmp_path / "run", data_dir=tmp_path / "data")
  assert len(results["members"]) == len(read_json(tmp_path / "run" / "manifest.json")["members"]) == 1
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
