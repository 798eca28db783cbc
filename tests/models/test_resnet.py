"""Residual networks: published parameter counts, shapes, taps, dtypes, and the mistakes that configs make."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nurture.core import UserError, build
from nurture.core.taps import kind, select
from nurture.models.resnet import RESNETS, ResNet


def abstract(module, *shape):
  """Returns the outputs and variables of a network, as shapes."""
  return jax.eval_shape(lambda key: module.init_with_output(key, jnp.zeros((2, *shape))), jax.random.key(0))


@functools.cache
def row(name):
  """Returns a row for 10 classes and images of 32 x 32 pixels, and what `abstract` says; traced once for all tests."""
  module = build(RESNETS, name, num_classes=10)
  return module, *abstract(module, 32, 32, 3)


def count(tree):
  return sum(leaf.size for leaf in jax.tree.leaves(tree))


# With 10, 100 and 1000 classes. The papers' round figures: 0.27, 0.46, 0.85 and 1.7 M for 20 to 110 layers; 2.7, 11.0,
# 17.2, 1.5, 36.5 and 8.9 M for the wide ones; torchvision's exact counts for 18, 34 and 50 with 1000 classes.
@pytest.mark.parametrize("name, ten, hundred, thousand", [
  ("resnet18", 11_181_642, 11_227_812, 11_689_512),
  ("resnet34", 21_289_802, 21_335_972, 21_797_672),
  ("resnet50", 23_528_522, 23_712_932, 25_557_032),
  ("resnet18_cifar", 11_173_962, 11_220_132, 11_681_832),
  ("resnet34_cifar", 21_282_122, 21_328_292, 21_789_992),
  ("resnet50_cifar", 23_520_842, 23_705_252, 25_549_352),
  ("convnet18", 11_007_818, 11_053_988, 11_515_688),
  ("convnet34", 21_115_978, 21_162_148, 21_623_848),
  ("convnet50", 20_751_946, 20_936_356, 22_780_456),
  ("convnet18_cifar", 11_000_138, 11_046_308, 11_508_008),
  ("convnet34_cifar", 21_108_298, 21_154_468, 21_616_168),
  ("convnet50_cifar", 20_744_266, 20_928_676, 22_772_776),
  ("resnet20", 269_722, 275_572, 334_072),
  ("resnet32", 464_154, 470_004, 528_504),
  ("resnet56", 853_018, 858_868, 917_368),
  ("resnet110", 1_727_962, 1_733_812, 1_792_312),
  ("preact_resnet18", 11_172_170, 11_218_340, 11_680_040),
  ("preact_resnet34", 21_280_330, 21_326_500, 21_788_200),
  ("preact_resnet18_kuangliu", 11_171_146, 11_217_316, 11_679_016),
  ("preact_resnet34_kuangliu", 21_279_306, 21_325_476, 21_787_176),
  ("preact_resnet18_elr_plus", 11_171_274, 11_217_444, 11_679_144),
  ("preact_resnet34_elr_plus", 21_282_122, 21_328_292, 21_789_992),
  ("wrn_16_4", 2_748_890, 2_772_020, 3_003_320),
  ("wrn_16_8", 10_961_370, 11_007_540, 11_469_240),
  ("wrn_22_8", 17_158_106, 17_204_276, 17_665_976),
  ("wrn_28_2", 1_467_610, 1_479_220, 1_595_320),
  ("wrn_28_10", 36_479_194, 36_536_884, 37_113_784),
  ("wrn_40_4", 8_949_210, 8_972_340, 9_203_640),
])
def test_parameter_counts(name, ten, hundred, thousand):
  _, outputs, variables = row(name)
  features, classes = variables["params"]["head"]["kernel"].shape
  assert outputs.logits.shape == (2, classes) == (2, 10)
  for num_classes, expected in ((10, ten), (100, hundred), (1000, thousand)):
    assert count(variables["params"]) + (num_classes - 10) * (features + 1) == expected


def test_the_head_has_the_classes():
  outputs, variables = abstract(build(RESNETS, "resnet20", num_classes=100), 32, 32, 3)
  assert outputs.logits.shape == (2, 100) and count(variables["params"]) == 275_572


def test_the_other_34_layers_of_elr_plus():
  module = build(RESNETS, {"name": "preact_resnet18_elr_plus", "blocks": (3, 4, 6, 3)}, num_classes=10)
  assert count(abstract(module, 32, 32, 3)[1]["params"]) == 21_279_434


def test_every_row_is_counted():
  counted = next(mark for mark in test_parameter_counts.pytestmark if mark.name == "parametrize").args[1]
  assert ["resnet", *(case[0] for case in counted)] == list(RESNETS)


BASIC, BOTTLENECK = (64, 128, 256, 512), (256, 512, 1024, 2048)


# The side after the stem's convolution, after its pool, and after every stage.
@pytest.mark.parametrize("name, image, sides, features", [
  ("resnet18", 224, (112, 56, 56, 28, 14, 7), (64, 64, *BASIC)),
  ("resnet50", 224, (112, 56, 56, 28, 14, 7), (64, 64, *BOTTLENECK)),
  ("convnet50", 224, (112, 56, 56, 28, 14, 7), (64, 64, *BOTTLENECK)),
  ("resnet50", 32, (16, 8, 8, 4, 2, 1), (64, 64, *BOTTLENECK)),
  ("resnet34", 28, (14, 7, 7, 4, 2, 1), (64, 64, *BASIC)),
  ("resnet18_cifar", 32, (32, 32, 16, 8, 4), (64, *BASIC)),
  ("resnet50_cifar", 32, (32, 32, 16, 8, 4), (64, *BOTTLENECK)),
  ("resnet18_cifar", 28, (28, 28, 14, 7, 4), (64, *BASIC)),
  ("preact_resnet18", 32, (32, 32, 16, 8, 4), (64, *BASIC)),
  ("preact_resnet18", 224, (224, 224, 112, 56, 28), (64, *BASIC)),
  ("resnet20", 32, (32, 32, 16, 8), (16, 16, 32, 64)),
  ("resnet20", 224, (224, 224, 112, 56), (16, 16, 32, 64)),
  ("wrn_28_10", 32, (32, 32, 16, 8), (16, 160, 320, 640)),
  ("wrn_28_10", 28, (28, 28, 14, 7), (16, 160, 320, 640)),
])
def test_shapes(name, image, sides, features):
  if image == 32:
    taps = row(name)[1].taps
  else:
    taps = abstract(build(RESNETS, name, num_classes=10), image, image, 1 if image == 28 else 3)[0].taps
  last = {}
  for name in sorted(taps):
    place, _, layer = name[4:].partition(".")
    if place.startswith("stage") or layer in ("conv", "max_pool"):
      last[name[4:] if place == "stem" else place] = taps[name].shape
  assert list(last.values()) == [(2, side, side, width) for side, width in zip(sides, features, strict=True)]
  assert taps[sorted(taps)[-1]].shape == (2, features[-1])


def layers_of(taps, place):
  return [name[4:].removeprefix(place) for name in sorted(taps) if name[4:].startswith(place)]


def test_taps_are_the_layers_in_call_order():
  first = ["conv", "norm", "relu", "conv", "norm"]
  names = ["stem.conv", "stem.norm", "stem.relu"]
  names += [f"stage1.block{i}.{layer}" for i in range(2) for layer in (*first, "add", "relu")]
  names += [f"stage2.block0.{layer}" for layer in (*first, "projection.conv", "projection.norm", "add", "relu")]
  names += ["global_avg_pool"]
  taps = abstract(ResNet(3, blocks=(2, 1), width=4), 8, 8, 1)[0].taps
  assert sorted(taps) == [f"{i:03d}_{name}" for i, name in enumerate(names)]


@pytest.mark.parametrize("name, block, expected", [
  ("resnet50", "stage1.block1.", "conv norm relu conv norm relu conv norm add relu"),
  ("convnet50", "stage1.block1.", "conv norm relu conv norm relu conv norm relu"),
  ("convnet18", "stage2.block0.", "conv norm relu conv norm relu"),
  ("resnet20", "stage2.block0.", "conv norm relu conv norm add relu"),
  ("preact_resnet18", "stage1.block0.", "norm relu conv norm relu conv add"),
  ("preact_resnet18", "stage2.block0.", "norm relu conv norm relu conv projection.conv add"),
  ("preact_resnet18", "stem.", "conv"),
  ("preact_resnet18_elr_plus", "stem.", "conv norm relu"),
  ("preact_resnet34_elr_plus", "stage1.block0.", "conv norm relu conv norm add relu"),
  ("wrn_16_4", "stage1.block0.", "norm relu conv norm relu conv projection.conv add"),  # 16 -> 64 features
])
def test_layers_of_a_block(name, block, expected):
  assert layers_of(row(name)[1].taps, block) == expected.split()


@pytest.mark.parametrize("name, convolutions", [("resnet18", 20), ("resnet50", 53), ("convnet50", 49)])
def test_convolutions_can_be_selected(name, convolutions):
  assert len(select(row(name)[1].taps, "conv")) == convolutions  # the projections among them


@pytest.mark.parametrize("name", [name for name in RESNETS if name != "resnet"])
def test_plain_networks_have_no_sums_and_no_projections(name):
  module, outputs, variables = row(name)
  sums = [tap for tap in outputs.taps if kind(tap) == "add"]
  projections = [place for place, block in variables["params"].items() if "projection" in block]
  assert len(sums) == (0 if name.startswith("convnet") else sum(module.blocks))
  assert bool(projections) == (not name.startswith("convnet") and module.projection == "conv")


@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
@pytest.mark.parametrize("name", ["resnet50", "preact_resnet18", "resnet20", "convnet50_cifar"])
def test_dtypes(name, dtype):
  module = build(RESNETS, name, num_classes=3).clone(dtype=dtype)
  with jax.enable_x64(dtype == "float64"):
    outputs, variables = abstract(module, 32, 32, 3)
  assert {str(tap.dtype) for tap in outputs.taps.values()} == {dtype}
  assert outputs.logits.dtype == ("float64" if dtype == "float64" else "float32")
  assert {str(leaf.dtype) for leaf in jax.tree.leaves(variables)} == {"float32"}


def test_convolutions_have_a_bias_only_without_a_norm():
  for norm in ("batch", "layer", "none"):
    params = abstract(ResNet(3, blocks=(1, 1), width=2, norm=norm), 8, 8, 1)[1]["params"]
    convolutions = [params["stem"], params["stage2_block0"]["conv_1"], params["stage2_block0"]["projection"]]
    assert all(("bias" in convolution) == (norm == "none") for convolution in convolutions)
    assert ("norm_0" in params["stage1_block0"]) == ("stem_norm" in params) == (norm != "none")


def test_weights_start_from_the_named_initializers(key):
  module = ResNet(400, blocks=(1,), width=16, norm="none")
  params = jax.jit(lambda key: module.init(key, jnp.zeros((1, 4, 4, 3)))["params"])(key)
  for layer, fan_in in ((params["stem"], 27), (params["stage1_block0"]["conv_1"], 144), (params["head"], 16)):
    for leaf in (layer["kernel"], layer["bias"]):
      assert 0.8 / fan_in**0.5 < np.abs(leaf).max() <= 1 / fan_in**0.5


@pytest.mark.parametrize("fields, shape, words", [
  ({"blocks": (1, 1, 1, 1), "stem": "imagenet"}, (16, 32, 3), "halves an image 5 times .* 17 x 17 .* not 16 x 32"),
  ({"blocks": (1, 1, 1, 1), "stem": "imagenet"}, (16, 32, 3), "config.model.stem = 'cifar'"),
  ({"blocks": (1, 1, 1, 1)}, (8, 4, 3), "5 x 5 pixels, not 8 x 4; .* fewer stages in config.model.blocks"),
  ({"blocks": (1,)}, (784,), "needs images"),
  ({"blocks": ()}, (8, 8, 1), r"config.model.blocks is \(\)"),
  ({"blocks": (1, 0)}, (8, 8, 1), "config.model.blocks .* at least 1"),
  ({"blocks": (1,), "width": 0}, (8, 8, 1), "config.model.width is 0"),
  ({"blocks": (1,), "widen": 0}, (8, 8, 1), "config.model.widen is 0"),
  ({"blocks": (1,), "shortcut": False, "residual_scale": 0.1}, (8, 8, 1), "leave residual_scale out"),
  ({"blocks": (1,), "activated_shortcut": True}, (8, 8, 1), "config.model.preactivation is false; set both"),
  ({"blocks": (1,), "activated_shortcut": True, "preactivation": True, "shortcut": False}, (8, 8, 1),
   "config.model.shortcut is false; set both"),
  ({"blocks": (1,), "norm": "layer", "kernel_init": "hee"}, (8, 8, 1), "did you mean 'he'"),
  ({"blocks": (1,), "activation": "rule"}, (8, 8, 1), "did you mean 'relu'"),
])
def test_mistakes_are_named(fields, shape, words):
  with pytest.raises(UserError, match=words):
    abstract(ResNet(3, **fields), *shape)


def test_the_smallest_images_that_the_strides_allow():
  for fields, least in (({"stem": "imagenet"}, 17), ({}, 5), ({"blocks": (1,)}, 1), ({"blocks": (1, 1, 1)}, 3)):
    module = ResNet(3, **{"blocks": (1, 1, 1, 1), "width": 4, **fields})
    assert abstract(module, least, least, 1)[0].logits.shape == (2, 3)
    with pytest.raises(UserError):
      abstract(module, least - 1, least, 1)


@pytest.mark.parametrize("rate", [0.1, jnp.float32(0.0)])
def test_a_plain_network_has_nothing_to_drop(rate):
  module = ResNet(3, blocks=(1,), shortcut=False)
  with pytest.raises(UserError, match="leave drop_path out or set config.model.shortcut to true"):
    jax.eval_shape(lambda key: module.init(key, jnp.zeros((1, 8, 8, 1)), drop_path=rate), jax.random.key(0))
