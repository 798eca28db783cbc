"""The picture of three classes: the last layer is found in any network, and the binary draws what it prints."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.studies.projection import View, last_layer
from nurture import models, training
from nurture.core import Outputs, UserError
from tests.tiny import tiny_config


@pytest.mark.parametrize("model", [
  {"name": "mlp", "depth": 2, "width": 6, "dtype": "bfloat16"},
  {"name": "cnn", "layers": (("conv", 3, 3), ("max_pool", 4))},
  {"name": "resnet", "blocks": (1,), "width": 4},
  {"name": "vit", "patch": 8, "width": 8, "depth": 1, "heads": 2},
], ids=lambda model: model["name"])
def test_the_last_layer_is_found(model):
  module = models.build(model | {"num_classes": 5})
  x = jax.random.normal(jax.random.key(0), (4, 16, 16, 3))
  variables = jax.jit(module.init)(jax.random.key(1), x)
  outputs = jax.jit(module.apply)(variables, x)
  activations, templates = last_layer(variables["params"], outputs)
  np.testing.assert_array_equal(activations, outputs.taps[max(outputs.taps)].astype(jnp.float32).reshape(4, -1))
  bias = variables["params"]["head"]["bias"]
  np.testing.assert_allclose(activations @ templates.T + bias[None], outputs.logits, rtol=0.02, atol=0.02)


def test_a_pooled_map_and_a_convolution_of_one_pixel_are_a_last_layer_too():
  maps, kernel = jax.random.normal(jax.random.key(0), (4, 3, 3, 6)), jax.random.normal(jax.random.key(1), (6, 5))
  outputs = Outputs(maps.mean(axis=(1, 2)) @ kernel, {"000_relu": maps, "001_other": jnp.ones((4, 6))})
  activations, templates = last_layer({"inner": {"conv": {"kernel": kernel[None, None]}}}, outputs)
  np.testing.assert_allclose(activations, maps.mean(axis=(1, 2)), rtol=1e-6)
  np.testing.assert_array_equal(templates, kernel.T)
  with pytest.raises(UserError, match="no tap and dense layer"):
    last_layer({"conv": {"kernel": kernel + 1}}, outputs)


def test_the_spread_is_within_over_between():
  means = np.array([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])  # sides 3, 4 and 5
  around = np.array([[0.5, 0.0], [-0.5, 0.0], [0.0, 0.5], [0.0, -0.5]])
  points = (means[:, None] + around[None]).reshape(-1, 2)
  labels = np.repeat(np.arange(3), 4)
  assert View("", points, labels, means, ("a", "b", "c")).spread == pytest.approx(0.5 / 4)
  assert View("", 7 * points, labels, means, ("a", "b", "c")).spread == pytest.approx(0.5 / 4)
  assert View("", points * 0, labels, means, ("a", "b", "c")).spread == np.inf


@pytest.fixture(scope="module")
def run_directory(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("projection") / "run"
  grid = {"smoothing": {"path": "targets.smoothing.alpha", "levels": (0.0, 0.5)}}
  training.run(tiny_config(probes={}, steps=3, ensemble__grid=grid), workdir)
  return workdir


def binary(*arguments):
  return subprocess.run(
    [sys.executable, "-m", "experiments.studies.projection", *map(str, arguments)],
    capture_output=True, text=True, timeout=120,
  )


def test_the_binary_draws_members_side_by_side(run_directory):
  out = run_directory / "plots" / "projection.png"
  done = binary(run_directory, "--member=0", "--member=1", "--classes=3,1,4", "--limit=2", f"--out={out}")
  assert done.returncode == 0, done.stderr
  lines = done.stdout.splitlines()
  assert "run, member 0: smoothing=0.0" in lines[2] and "run, member 1: smoothing=0.5" in lines[3]
  assert lines[2].split("|")[2].strip() == "6"  # two of each class
  assert out.stat().st_size > 10_000


@pytest.mark.parametrize("arguments, sentence", [
  ((), "no run is given"),
  (("--classes=1,2,12",), "no example; choose from 0 to 9"),
], ids=["no run", "unknown class"])
def test_mistakes_are_one_sentence(run_directory, arguments, sentence):
  done = binary(*([run_directory] if arguments else []), *arguments)
  assert done.returncode == 2 and sentence in done.stderr and "Traceback" not in done.stderr
