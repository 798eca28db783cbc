"""Names of taps, their order, what can be selected, and that what stands before an activation goes into it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nurture import models
from nurture.core import UserError
from nurture.core.taps import ACTIVATION_KINDS, kind, select
from nurture.models.layers import ACTIVATIONS
from nurture.models.taps import Taps


def collected(*kinds):
  taps = Taps()
  for i, name in enumerate(kinds):
    taps(name, jnp.full((2, 3), float(i)))
  return taps.arrays


def test_a_tap_is_noted_and_returned():
  taps, x = Taps(), jnp.arange(3.0)
  assert taps("dense", x) is x
  assert list(taps.arrays) == ["000_dense"]


@pytest.mark.parametrize("name, expected", [
  ("007_relu", "relu"), ("007_stage1.block0.relu", "relu"), ("012_global_avg_pool", "global_avg_pool"),
  ("003_encoder.Dense_1", "Dense_1"),
])
def test_the_kind_is_what_the_layer_does(name, expected):
  assert kind(name) == expected


def test_selection():
  taps = collected("conv", "norm", "relu", "max_pool", "stage1.conv", "stage1.tanh", "add", "annealed_relu")
  names = lambda which: list(select(taps, which))
  assert names("all") == list(taps)
  assert names("post") == ["002_relu", "005_stage1.tanh", "007_annealed_relu"]
  assert names("pre") == ["001_norm", "004_stage1.conv", "006_add"]
  assert names("conv") == ["000_conv", "004_stage1.conv"]
  assert all(array is taps[name] for name, array in select(taps, "post").items())
  shuffled = {name: taps[name] for name in sorted(taps, key=lambda name: name[::-1])}
  assert list(select(shuffled, "all")) == list(taps) and list(select(shuffled, "pre")) == names("pre")


def test_several_kinds_and_whole_names():
  taps = collected("conv", "norm", "relu", "dense", "global_avg_pool")
  assert list(select(taps, ("dense", "conv"))) == ["000_conv", "003_dense"]
  assert list(select(taps, ("001_norm", "norm"))) == ["001_norm"]
  with pytest.raises(UserError, match="its taps are: 000_conv, 001_norm"):
    select(taps, ("conv", "009_norm"))


def test_the_kinds_of_activations_are_those_of_the_models():
  assert {*ACTIVATIONS, "annealed_relu"} == ACTIVATION_KINDS


def test_an_activation_of_the_input_itself_has_no_tap_before_it():
  taps = collected("relu", "dense", "relu")
  assert list(select(taps, "pre")) == ["001_dense"] and list(select(taps, "post")) == ["000_relu", "002_relu"]


@pytest.mark.parametrize("which, words", [
  ("con", "no taps of kind 'con'; did you mean 'conv'"),
  ("bogus", r"\(known|known: all, conv, post, pre, relu"),
])
def test_an_unknown_kind_is_named(which, words):
  with pytest.raises(UserError, match=words):
    select(collected("conv", "relu"), which)


def test_a_model_without_activations_has_no_post_activations():
  with pytest.raises(UserError, match="no taps of kind 'post'"):
    select(collected("conv", "dense"), "post")


def test_the_taps_of_a_block_go_behind_those_before_it():
  taps = Taps()
  taps("stem", jnp.zeros((2, 1)))
  block = collected("conv", "relu")
  taps.extend("stage1.block0", {name: block[name] for name in reversed(block)})  # a dict may come in any order
  taps("head", jnp.zeros((2, 1)))
  assert list(taps.arrays) == ["000_stem", "001_stage1.block0.conv", "002_stage1.block0.relu", "003_head"]
  assert taps.arrays["002_stage1.block0.relu"] is block["001_relu"]


def test_a_scan_gives_the_taps_of_its_blocks_one_by_one():
  def block(x, w):
    taps = Taps()
    y = taps("relu", jax.nn.relu(taps("dense", x @ w)))
    return y, taps.arrays

  weights = jax.random.normal(jax.random.key(0), (3, 4, 4))
  x = jax.random.normal(jax.random.key(1), (2, 4))

  def scanned(x):
    taps = Taps()
    taps.extend_scanned("block", jax.lax.scan(block, x, weights)[1])
    return taps.arrays

  def unrolled(x):
    taps = Taps()
    for i, w in enumerate(weights):
      x, arrays = block(x, w)
      taps.extend(f"block{i}", arrays)
    return taps.arrays

  one, other = jax.jit(scanned)(x), unrolled(x)
  layers = [f"block{i}.{kind}" for i in range(3) for kind in ("dense", "relu")]
  assert list(one) == list(other) == [f"{i:03d}_{layer}" for i, layer in enumerate(layers)]
  for name in one:
    np.testing.assert_allclose(one[name], other[name], atol=1e-6)


def test_the_order_survives_jit_beyond_ten():
  kinds = [f"layer{i}" for i in range(12)]
  compiled = jax.jit(lambda: collected(*kinds))()
  assert [kind(name) for name in compiled] == kinds
  unnumbered = jax.jit(lambda: {name: jnp.zeros(1) for name in kinds})()  # jit sorts: without numbers this fails
  assert list(unnumbered) != kinds


def test_logits_are_at_least_float32():
  with jax.enable_x64(True):
    for given, expected in (("bfloat16", "float32"), ("float32", "float32"), ("float64", "float64")):
      assert Taps().outputs(jnp.zeros((2, 3), given)).logits.dtype == expected


def broken_pairs(taps):
  """Names of the activations whose value is not the activation of the tap before."""
  pre, post = list(select(taps, "pre").values()), select(taps, "post")
  assert len(pre) == len(post)
  return [
    name for before, (name, after) in zip(pre, post.items())
    if not (before.shape == after.shape and np.allclose(ACTIVATIONS[kind(name)](before), after, atol=1e-5))
  ]


CONVOLUTIONS = (("conv", 2, 3), ("max_pool", 2), ("conv", 3, 1), ("dense", 4))


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
@pytest.mark.parametrize("config", [
  {"name": "mlp", "depth": 3, "width": 4, "activation": "tanh"},
  {"name": "mlp", "depth": 2, "width": 4, "activation": "gelu", "dropout": 0.5},
  {"name": "cnn", "layers": CONVOLUTIONS, "activation": "elu", "dropout": 0.5},
], ids=lambda config: config["activation"])
def test_the_tap_before_an_activation_goes_into_it(config, norm, train, key):
  module, x = models.build(config, num_classes=3, norm=norm), jax.random.normal(key, (4, 6, 6, 1))
  variables = module.init(key, x)
  outputs, _ = module.apply(variables, x, train=train, rngs={"dropout": key}, mutable=["batch_stats"])
  assert len(select(outputs.taps, "post")) == (3 if config["name"] == "cnn" else config["depth"])
  assert broken_pairs(outputs.taps) == []


def test_a_tap_in_between_would_be_seen(key):
  taps, x = Taps(), jax.random.normal(key, (4, 3))
  y = taps("tanh", jnp.tanh(taps("dense", x)))
  taps("norm", 2 * y)
  taps("dense", x)
  taps("relu", jax.nn.relu(2 * y))
  assert broken_pairs(taps.arrays) == ["004_relu"]
