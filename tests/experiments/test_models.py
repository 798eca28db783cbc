"""The list of models: exact numbers, shapes, what is left out and why, and the mistakes of a command line."""

import os
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from experiments import models as binary
from nurture import models
from nurture.core import Outputs, Preset, UserError
from nurture.models.rnn import RNN

ROOT = pathlib.Path(__file__).resolve().parents[2]
PYTHONPATH = {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'lib'}"}


@pytest.fixture(autouse=True)
def rows(monkeypatch):
  """A table of a few rows, whatever else there is."""
  known = {name: models.MODELS[name] for name in ("cnn", "lenet5", "mlp", "vgg16")}
  table = {**known, "lstm": Preset(RNN, cell="lstm", width=16), "pair": Pair}
  monkeypatch.setattr(models, "MODELS", table)
  monkeypatch.setattr(binary.models, "MODELS", table)


class Merged(nn.Module):
  """One layer."""

  num_classes: int

  @nn.compact
  def __call__(self, x, train=False):
    return Outputs(nn.Dense(self.num_classes, name="one")(x.reshape(x.shape[0], -1)), {})


class Pair(nn.Module):
  """Two layers in a row, which could be one; some statistics; too many blocks to sort by letters."""

  num_classes: int
  blocks: tuple = (2,)
  quiet: bool = False
  note: str = ""

  @nn.compact
  def __call__(self, x, train=False):
    self.variable("batch_stats", "seen", lambda: jnp.zeros(7))
    x = x.reshape(x.shape[0], -1)
    for i, width in enumerate(self.blocks):
      x = nn.Dense(width, name=f"block{i}")(x)
    return Outputs(nn.Dense(self.num_classes, name="two")(x), {"000_dense": x})

  def deployed(self):
    return Merged(self.num_classes, parent=None)


def cells(text):
  """{first cell: other cells} of the lines of a plain table."""
  lines = [re.split(r"\s{2,}", line.strip()) for line in text.splitlines()]
  return {line[0]: line[1:] for line in lines if line}


def test_the_table_has_exact_numbers():
  table = cells(binary.table(""))
  lenet_macs = 25 * 6 * 784 + 25 * 6 * 16 * 100 + 400 * 120 + 120 * 84 + 84 * 10
  assert table["lenet5"] == ["61,706", "–", f"{lenet_macs / 1e6:,.2f}", "28x28x1", "10"]
  assert table["vgg16"][0] == "14,728,266" and table["vgg16"][3:] == ["32x32x3", "10"]
  assert table["lstm"] == [
    f"{4 * 16 * (65 + 16 + 2) + 17 * 65:,}", "–", table["lstm"][2], "256", "256x65",
  ]
  inputs = 32 * 32 * 3
  assert table["pair"][:2] == [f"{inputs * 2 + 2 + 2 * 10 + 10:,}", f"{inputs * 10 + 10:,}"]


def test_a_model_without_its_fields_is_listed_with_what_it_needs():
  text = binary.table("")
  assert cells(text)["cnn"] == ["–"] * 5
  assert text.endswith('\n- cnn has no layers of its own; give --set="layers=...".')
  given = binary.table("cnn", None, None, {"layers": (("conv", 2, 3),)})
  assert cells(given)["cnn"][0] == f"{27 * 2 + 2 + 2 * 1024 * 10 + 10:,}" and "- cnn" not in given


def test_the_multiplications_of_vgg16_are_its_convolutions():
  d = binary.describe("vgg16")
  convolutions, side, before = 0, 32, 3
  for stage in ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3):
    for width in stage:
      convolutions, before = convolutions + 9 * before * width * side**2, width
    side //= 2
  assert convolutions == 313_196_544
  assert 0 <= d.macs - convolutions - 512 * 10 <= 3 * 300_000  # and a few for each of 276,000 normalized activations


def test_loops_count_every_step_and_branches_the_longer():
  w, x = jnp.zeros((4, 4)), jnp.zeros((2, 4))
  count = lambda f: binary.multiplications(jax.make_jaxpr(f)(x).jaxpr)
  assert count(lambda x: x @ w) == 32
  assert count(jax.jit(lambda x: jax.checkpoint(lambda x: x @ w)(x))) == 32
  assert count(lambda x: jax.lax.scan(lambda h, _: (h @ w, None), x, None, length=10)[0]) == 320
  assert count(lambda x: jax.lax.cond(x.sum() > 0, lambda x: x @ w @ w, lambda x: x @ w, x)) == 64
  assert count(lambda x: x * 2.0 + 1.0) == 8
  depthwise = lambda x: jax.lax.conv_general_dilated(
    x.reshape(1, 4, 2, 1).repeat(6, axis=3), jnp.zeros((3, 3, 1, 6)), (1, 1), "SAME",
    dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=6,
  )
  assert count(depthwise) == 9 * 8 * 6
  rnn = binary.describe("lstm", (7,), 5).macs
  per_step = 4 * 16 * 16 + 3 * 16 + 16 * 5  # tokens look their row up
  assert rnn == 7 * per_step


def test_the_layers_of_a_model():
  text = binary.layers_of("vgg16", binary.describe("vgg16", num_classes=100))
  table = cells(text)
  assert table["000_conv"] == ["32x32x64"] and table["logits"] == ["100"]
  assert table["conv_00"] == ["1,792", "kernel 3x3x3x64, bias 64"]
  totals = [int(line.split()[1].replace(",", "")) for line in text.splitlines() if line.startswith("total")]
  assert totals == [14_728_266 + 90 * 513, 2 * 4_224]
  order = [line[:3] for line in text.splitlines() if re.match(r"\d{3}_", line)]
  assert order == [f"{i:03d}" for i in range(len(order))] and len(order) > 40


def test_other_variables_the_deployed_form_and_natural_order():
  text = binary.layers_of("pair", binary.describe("pair", (3,), 2, {"blocks": (1,) * 12}))
  assert re.findall(r"^block\d+", text, re.MULTILINE) == [f"block{i}" for i in range(12)]
  assert text.index("batch_stats") > text.index("params ")
  assert text.endswith("The deployed form has 8 parameters.")
  assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize("texts, expected", [
  (["depth=3,width=64"], {"depth": 3, "width": 64}),
  (["blocks=(2,2,2)", "norm=none"], {"blocks": (2, 2, 2), "norm": "none"}),
  (["layers=((conv,6,5),('dense',3))"], {"layers": (("conv", 6, 5), ("dense", 3))}),
  (["kernel_init={'name': 'normal', 'std': 1e-2}, a=-1, b=true, c=False"],
   {"kernel_init": {"name": "normal", "std": 0.01}, "a": -1, "b": True, "c": False}),
  ([], {}),
])
def test_fields_on_the_command_line(texts, expected):
  assert binary.parse_fields(texts) == expected


@pytest.mark.parametrize("text", ["depth", "depth=", "blocks=2,2,2", "a=1)+(b=2", "a=f(1)", "**{'a': 1}", ""])
def test_bad_fields_are_named(text):
  with pytest.raises(UserError, match="is no list of fields; write it such as --set=depth=3"):
    binary.parse_fields([text])


def test_shapes_on_the_command_line():
  assert binary.parse_shape("32,32,3") == binary.parse_shape("(32, 32, 3)") == (32, 32, 3)
  assert binary.parse_shape("256") == (256,) and binary.parse_shape(None) is None
  for text in ("32x32", "0,3", "-1", "", "1.5"):
    with pytest.raises(UserError, match="give whole numbers of at least 1"):
      binary.parse_shape(text)


@pytest.mark.parametrize("arguments, words", [
  (("vgg61",), "--name=vgg61 is no model; did you mean 'vgg16'"),
  (("cnn",), 'cnn has no layers of its own; give --set="layers=..."'),
  (("mlp", None, None, {"widht": 3}), "model.widht does not exist for 'mlp'; did you mean 'width'"),
  (("mlp", None, None, {"width": "wide"}), "a whole number"),
  (("lenet5", (784,)), "needs images"),
])
def test_mistakes_are_named(arguments, words):
  with pytest.raises(UserError, match=words):
    binary.describe(*arguments)


def test_a_filter_that_fits_nothing_and_a_table_without_a_row_are_mistakes():
  with pytest.raises(UserError, match="--filter=lenet6 fits no model; did you mean 'lenet5'"):
    binary.table("lenet6")
  with pytest.raises(UserError, match="model.widht does not exist"):
    binary.table("vgg", None, None, {"widht": 3})


def run(*arguments):
  return subprocess.run(
    [sys.executable, "-m", "experiments.models", *arguments],
    cwd=ROOT, capture_output=True, text=True, timeout=120, env=os.environ | PYTHONPATH,
  )


def test_the_binary():
  done = run("--filter=lenet", "--num_classes=3")
  assert done.returncode == 0 and done.stderr == ""
  assert cells(done.stdout)["lenet5"][0] == f"{61_706 - 7 * 85:,}"
  done = run("--name=mlp", "--set=depth=1,width=3", "--set", "norm=layer", "--input_shape=5")
  assert done.returncode == 0 and done.stderr == ""
  assert "mlp (MLP): 5 -> 10, 64 parameters" in done.stdout and "001_norm" in done.stdout
  done = run("--name=vgg61")
  assert done.returncode == 2 and done.stdout == ""
  assert done.stderr.startswith("error: --name=vgg61 is no model") and done.stderr.count("\n") == 1
  done = run("--help")
  assert done.returncode == 0 and "--name" in done.stdout and "MACs" in done.stdout
