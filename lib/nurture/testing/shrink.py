"""Configs at a size at which each of them takes a second: two steps of four examples of tiny data."""

import importlib
import pathlib

import numpy as np

from nurture.training.config import plain, put

ROOT = pathlib.Path(__file__).resolve().parents[3]  # the repository: configs are no part of the package
CONFIGS = sorted((ROOT / "configs").rglob("*.py"))


def load(path):
  """Returns the module of a config."""
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


def write_tiny_text(root):
  """Writes a text of 4,000 random letters."""
  (root / "tinyshakespeare").mkdir()
  letters = np.random.default_rng(0).choice(list("abcdefgh \n"), 4000)
  (root / "tinyshakespeare" / "input.txt").write_text("".join(letters))
  return {"name": "text", "context": 16}


WRITERS = {"cifar10": write_tiny_cifar10, "cifar100": write_tiny_cifar100, "text": write_tiny_text}
# A config may have parts, as in --config=configs/guidance/digits.py:guides.
PARTS = [(path, part) for path in CONFIGS for part in getattr(load(path), "PARTS", ("",))]


def label(path, part):
  """Returns what a config is called."""
  return str(path.relative_to(ROOT / "configs")) + (f":{part}" if part else "")


def config_of(path, part=""):
  """Returns a config as plain dicts."""
  return plain(load(path).get_config(*([part] if part else [])))


def shrunk(path, part, root):
  """Returns a config at two steps of four examples of tiny data, with untrained references."""
  config = untrained(config_of(path, part))
  root.mkdir()
  config["probes"] = {name: fields | {"every": 1} for name, fields in config["probes"].items()}
  source = config["data"]["source"]
  if source["name"] in WRITERS:
    source = WRITERS[source["name"]](root)
  elif "num_examples" in source:  # generated
    source = source | {"num_examples": 100, "test_examples": 20}
  elif source["name"] != "digits":
    source = {"name": "digits"}
  return put(config, {
    "data.source": source, "data.subset": min(config["data"]["subset"] or 80, 80),
    "data.validation": min(config["data"]["validation"], 20), "data.test_subset": 20, "steps": 2, "log_every": 1,
    "batch_size": 4, "evaluation.batch_size": 50, "ensemble.seeds": 1,
    "ensemble.grid": with_axes(config["ensemble"]["grid"], small),
  })


def with_axes(grid, change):
  """Returns a grid with what `change` makes of each of its axes, those of its arms included."""
  of_arm = lambda arm: arm | ({"grid": with_axes(arm["grid"], change)} if "grid" in arm else {})
  return {
    label: {"arms": {name: of_arm(arm) for name, arm in axis["arms"].items()}} if "arms" in axis else change(axis)
    for label, axis in grid.items()
  }


def small(axis):
  """Returns an axis without levels that are too large, or the same program with other weights."""
  if axis["path"] == "batch_size":
    return first(axis) | {"levels": (4,)}
  return first(axis) if str(axis["path"]).startswith(("references.", "('references.")) else axis


def first(axis):
  """Returns an axis of a grid with its first level only."""
  return axis | {field: axis[field][:1] for field in ("levels", "names") if axis.get(field)}


def one_point(grid):
  """Returns a grid with the first level of every axis, and the first arm of every one of arms."""
  narrow = lambda axis: {"arms": dict([next(iter(axis["arms"].items()))])} if "arms" in axis else axis
  return with_axes({label: narrow(axis) for label, axis in grid.items()}, first)


def untrained(value):
  """Returns a config whose references are not members of a run, wherever they stand."""
  if isinstance(value, dict):
    value = {name: untrained(inner) for name, inner in value.items()}
    return value | {"run": "", "member": 0} if "model" in value and value.get("run") else value
  return tuple(map(untrained, value)) if isinstance(value, tuple) else value
