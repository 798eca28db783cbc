"""Every config is sound: it builds, takes a step of every one of its programs, and its header's commands are real."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nurture import data, training
from nurture.reporting import read_json
from nurture.testing.shrink import CONFIGS, PARTS, ROOT, config_of, label, load, one_point, shrunk
from nurture.training.config import put
from nurture.training.experiment import Experiment
from nurture.training.grid import members_of
from nurture.training.programs import Programs

# Are trained for two steps; the others are traced only, which finds what is wrong with a config and costs a tenth.
TRAINED = ("quickstart", "mnist_mlp", "cifar10_cnn", "everything")
# Take more than ten seconds to trace: very deep, or many programs.
# For make test-long: these are traced for more than five seconds.
LONG = ("full_size", "cifar100_students", "cifar100_teachers", "digits.py:guided", "cifar10.py:guided", "vit_cifar10")
# Of these one program is traced, the last of the grid.
DEEP = ("full_size", "cifar100_students", "cifar100_teachers")


def references(value):
  """Yields the references of a config that are members of a run."""
  if isinstance(value, dict):
    if "model" in value and value.get("run"):
      yield value
    value = tuple(value.values())
  if isinstance(value, tuple):
    for inner in value:
      yield from references(inner)


def metrics_of(experiment):
  """Returns the names that a run will log, from traces alone."""
  programs, hp = Programs(experiment, 1), {"seed": jnp.zeros(1, jnp.uint32), "values": {}}
  names = set(programs.shapes["sums"])
  for name, probe in programs.probes.items():
    measured = jax.eval_shape(probe.measure, programs.shapes["state"], hp, dict(experiment.arrays), probe.pieces)
    names |= {f"{name}/{quantity}" for quantity in measured}
  return names


@pytest.mark.parametrize("path, part", [
  pytest.param(path, part, marks=pytest.mark.long if {path.stem, f"{path.name}:{part}"} & set(LONG) else ())
  for path, part in PARTS
], ids=[label(*case) for case in PARTS])
@pytest.mark.filterwarnings("ignore:layer map 'last_wins'")  # which says what the official setting leaves out
def test_every_program_of_the_grid_can_be_traced_and_logs_what_is_reported(path, part, tmp_path):
  config = shrunk(path, part, tmp_path / "data")
  read = data.Reader(tmp_path / "data")
  numbers = (int, float)
  structures = {  # members that differ in numbers only are one program, or the same one with another number
    json.dumps([(p, v) for p, v in member.assignments.items() if not isinstance(v, numbers)]): member
    for member in members_of(config)
  }
  for member in list(structures.values())[-1:] if path.stem in DEEP else structures.values():
    experiment = Experiment.of(put(config, member.assignments), read)
  assert set(config["report"]["metrics"]) <= metrics_of(experiment)


@pytest.mark.parametrize("path, part", [case for case in PARTS if case[0].stem in TRAINED],
                         ids=lambda value: getattr(value, "stem", value))
def test_takes_two_steps_on_tiny_data_and_comes_back_to_the_last_digit(path, part, tmp_path):
  config = shrunk(path, part, tmp_path / "data")
  one = put(config, {"ensemble.grid": one_point(config["ensemble"]["grid"])})
  results = training.run(one, tmp_path / "run", data_dir=tmp_path / "data")
  assert len(results["members"]) == len(read_json(tmp_path / "run" / "manifest.json")["members"]) == 1
  for metric in config["report"]["metrics"]:
    assert metric in results["groups"][0]["metrics"], metric
  network, recorded = training.restore(tmp_path / "run", data_dir=tmp_path / "data"), results["members"][0]["metrics"]
  for name in [name for name in recorded if name.endswith("/accuracy")]:
    label, _, quantity = name.partition("/")
    assert float(str(np.float32(network.measure(label)[quantity]))) == recorded[name], name


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
