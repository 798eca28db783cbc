"""Every config is sound: it builds, takes a step of every one of its programs, and its header's commands are real."""

import importlib
import json
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lib import training
from lib.reporting import read_json
from lib.training.config import plain, put
from lib.training.ensemble import members_of
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


def write_tiny_text(root):
  """Writes a text of 4,000 random letters."""
  (root / "tinyshakespeare").mkdir()
  letters = np.random.default_rng(0).choice(list("abcdefgh \n"), 4000)
  (root / "tinyshakespeare" / "input.txt").write_text("".join(letters))
  return {"name": "text", "context": 16}


WRITERS = {"cifar10": write_tiny_cifar10, "cifar100": write_tiny_cifar100, "text": write_tiny_text}
# A config may have parts, as in --config=configs/guidance/digits.py:guides.
PARTS = [(path, part) for path in CONFIGS for part in getattr(load(path), "PARTS", ("",))]
# Are trained for two steps; the others are traced only, which finds what is wrong with a config and costs a tenth.
TRAINED = ("quickstart", "mnist_mlp", "cifar10_cnn", "everything")
# Take more than ten seconds to trace: very deep, or many programs.
SLOW = ("full_size", "cifar100_students", "digits.py:guided", "vit_cifar10")
# Of these one program is traced, the last of the grid.
DEEP = ("full_size", "cifar100_students", "cifar100_teachers")


def label(path, part):
  return str(path.relative_to(ROOT / "configs")) + (f":{part}" if part else "")


def config_of(path, part=""):
  return plain(load(path).get_config(*([part] if part else [])))


def shrunk(path, part, root):
  """Returns a config at two steps of four examples of tiny data, with untrained references."""
  config = untrained(config_of(path, part))
  root.mkdir()
  config["probes"] = {name: fields | {"every": 1} for name, fields in config["probes"].items()}
  for name, axis in config["ensemble"]["grid"].items():
    if axis["path"] == "batch_size" or str(axis["path"]).startswith(("references.", "('references.")):
      config = put(config, {f"ensemble.grid.{name}": first(axis)})  # the same program with other weights, or too large
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


def untrained(value):
  """Returns a config whose references are not members of a run, wherever they stand."""
  if isinstance(value, dict):
    value = {name: untrained(inner) for name, inner in value.items()}
    return value | {"run": "", "member": 0} if "model" in value and value.get("run") else value
  return tuple(map(untrained, value)) if isinstance(value, tuple) else value


def references(value):
  """Yields the references of a config that are members of a run."""
  if isinstance(value, dict):
    if "model" in value and value.get("run"):
      yield value
    value = tuple(value.values())
  if isinstance(value, tuple):
    for inner in value:
      yield from references(inner)


def metrics_of(prepared):
  """Returns the names that a run will log, from traces alone."""
  programs = prepared.programs(1)
  hp, fields = {"seed": jnp.zeros(1, jnp.uint32), "values": {}}, prepared.fields
  loaded = dict(prepared.abstract_references)
  names = set(programs.abstract_sums(hp, fields, loaded))
  states = jax.eval_shape(programs.init, hp)
  for name, probe in prepared.probes(programs).items():
    measured = jax.eval_shape(probe.measure, states, hp, loaded, probe.pieces)
    names |= {f"{name}/{quantity}" for quantity in measured}
  return names


@pytest.mark.parametrize("path, part", [
  pytest.param(path, part, marks=pytest.mark.slow if {path.stem, f"{path.name}:{part}"} & set(SLOW) else ())
  for path, part in PARTS
], ids=[label(*case) for case in PARTS])
@pytest.mark.filterwarnings("ignore:layer map 'last_wins'")  # which says what the official setting leaves out
def test_every_program_of_the_grid_can_be_traced_and_logs_what_is_reported(path, part, tmp_path):
  config = shrunk(path, part, tmp_path / "data")
  prepare = Preparer(tmp_path / "data")
  numbers = (int, float)
  structures = {  # members that differ in numbers only are one program, or the same one with another number
    json.dumps([(p, v) for p, v in member.assignments.items() if not isinstance(v, numbers)]): member
    for member in members_of(config)
  }
  for member in list(structures.values())[-1:] if path.stem in DEEP else structures.values():
    prepared = prepare(put(config, member.assignments))
  assert set(config["report"]["metrics"]) <= metrics_of(prepared)


@pytest.mark.parametrize("path, part", [case for case in PARTS if case[0].stem in TRAINED],
                         ids=lambda value: getattr(value, "stem", value))
def test_takes_two_steps_on_tiny_data(path, part, tmp_path):
  config = shrunk(path, part, tmp_path / "data")
  one = put(config, {"ensemble.grid": {name: first(axis) for name, axis in config["ensemble"]["grid"].items()}})
  results = training.run(one, tmp_path / "run", data_dir=tmp_path / "data")
  assert len(results["members"]) == len(read_json(tmp_path / "run" / "manifest.json")["members"]) == 1
  for metric in config["report"]["metrics"]:
    assert metric in results["groups"][0]["metrics"], metric


@pytest.mark.parametrize("path, part", PARTS, ids=[label(*case) for case in PARTS])
def test_references_are_what_their_run_trains(path, part):
  """The config whose header writes the run has the model, inputs and split that the reference is read with."""
  config = config_of(path, part)
  for reference in references(config):
    command = re.compile(
      r"--config=([^\s:]+)(?::(\w+))? [^\n]*(?:\\\n[^\n]*)?--workdir=" + re.escape(reference["run"]) + r"\b"
    )
    [(other, its_part)] = {
      (other, found[2] or "") for other in CONFIGS
      if (found := command.search(load(other).__doc__)) and other == ROOT / found[1]
    }
    theirs = config_of(other, its_part)
    assert theirs["model"] == reference["model"]
    for field in ("source", "seed", "validation", "normalize"):
      assert theirs["data"][field] == config["data"][field], field


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(ROOT / "configs")))
def test_header_gives_the_command_and_what_to_expect(path):
  name = path.relative_to(ROOT)
  header = load(path).__doc__
  assert f"python -m experiments.train --config={name}" in header
  assert re.search(r"--workdir=runs/\w+", header)
  assert re.search(r"\d+ (s|min|minutes|seconds)\b", header), "say how long it takes, and on what"
  assert not re.search(r"\b[A-Z]+\?", header), "a number is still missing"
  assert load(path).get_config().is_locked
