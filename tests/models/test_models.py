"""Parameter counts, taps, modes, dtypes and the mistakes that configs make."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from nurture import models
from nurture.core import UserError
from nurture.models.layers import DropPath, PatchConv, depth_rate

NUM_CLASSES = 10


def variables_of(module, shape):
  return jax.eval_shape(lambda key: module.init(key, jnp.zeros((1, *shape))), jax.random.key(0))


def count(tree):
  return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("config, shape, expected", [
  # 784 x 50 + 50, nineteen times 50 x 50 + 50, 50 x 10 + 10
  ({"name": "mlp", "depth": 20, "width": 50}, (28, 28, 1), 39_250 + 19 * 2_550 + 510),
  ({"name": "mlp", "depth": 20, "width": 50}, (784,), 88_210),
  ({"name": "mlp", "depth": 0}, (784,), 7_850),
  ({"name": "lenet5"}, (28, 28, 1), 61_706),
  ({"name": "lenet5"}, (32, 32, 3), 62_006),
  ({"name": "vgg11"}, (32, 32, 3), 9_231_114),
  ({"name": "vgg16"}, (32, 32, 3), 14_728_266),
])
def test_parameter_counts(config, shape, expected):
  module = models.build(config, num_classes=NUM_CLASSES)
  assert count(variables_of(module, shape)["params"]) == expected


def test_vgg_small_is_cheap_enough_for_a_cpu():
  module = models.build("vgg_small", num_classes=NUM_CLASSES)
  taps = jax.eval_shape(
    lambda v, x: module.apply(v, x).taps, variables_of(module, (32, 32, 3)), jnp.zeros((1, 32, 32, 3))
  )
  convolutions = [tap for name, tap in taps.items() if name.endswith("_conv")]
  inputs = [3] + [tap.shape[-1] for tap in convolutions[:-1]]
  multiply_adds = sum(9 * before * tap.size for before, tap in zip(inputs, convolutions))
  assert 10e6 < multiply_adds < 20e6


def test_taps_are_the_network_in_call_order(key):
  module = models.build("mlp", num_classes=3, depth=6, width=4, activation="tanh")
  x = jax.random.normal(key, (5, 2))
  variables = jax.jit(module.init)(key, x)
  outputs = jax.jit(module.apply)(variables, x)
  assert list(outputs.taps) == [f"{i:03d}_{'tanh' if i % 2 else 'dense'}" for i in range(12)]
  h = x
  for i, (pre, post) in enumerate(zip(list(outputs.taps)[::2], list(outputs.taps)[1::2])):
    layer = variables["params"][f"dense_{i:02d}"]
    pre_activation = h @ layer["kernel"] + layer["bias"][None]
    np.testing.assert_allclose(outputs.taps[pre], pre_activation, atol=1e-6)
    h = jnp.tanh(pre_activation)
    np.testing.assert_allclose(outputs.taps[post], h, atol=1e-6)
  head = variables["params"]["head"]
  np.testing.assert_allclose(outputs.logits, h @ head["kernel"] + head["bias"][None], atol=1e-6)


def test_convolution_layers_do_what_their_items_say(key):
  layers = (("pad_to", 6), ("conv", 2, 3, 2, 1), ("max_pool", 3), ("dense", 4))
  ones = {"name": "constant", "value": 1.0}
  module = models.build("cnn", num_classes=3, layers=layers, activation="linear", bias_init=ones)
  x = jax.random.normal(key, (2, 4, 5, 1))
  variables = jax.jit(module.init)(key, x)
  taps = module.apply(variables, x).taps
  padded = np.pad(x, ((0, 0), (1 + 1, 1 + 1), (0 + 1, 1 + 1), (0, 0)))  # to 6 x 6, then one more on every side
  kernel = np.asarray(variables["params"]["conv_01"]["kernel"])
  expected = np.zeros((2, 3, 3, 2))
  for i in range(3):
    for j in range(3):
      window = padded[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
      expected[:, i, j] = np.einsum("bhwc,hwcf->bf", window, kernel) + 1
  np.testing.assert_allclose(taps["000_conv"], expected, atol=1e-5)
  np.testing.assert_allclose(taps["002_max_pool"][:, 0, 0], expected.max(axis=(1, 2)), atol=1e-5)


def test_lenet_sees_28_pixels_as_32(key):
  module = models.build("lenet5", num_classes=NUM_CLASSES)
  small = jax.random.normal(key, (2, 28, 28, 1))
  variables = jax.jit(module.init)(key, small)
  large = jnp.pad(small, ((0, 0), (2, 2), (2, 2), (0, 0)))
  apply = jax.jit(module.apply)
  np.testing.assert_array_equal(apply(variables, small).logits, apply(variables, large).logits)


def test_batch_norm_normalizes_in_training_and_remembers_a_tenth(key):
  module = models.build("mlp", num_classes=3, depth=1, width=4, norm="batch", activation="linear")
  x = 5 + 3 * jax.random.normal(key, (64, 7))
  variables = jax.jit(module.init)(key, x)
  outputs, changed = module.apply(variables, x, train=True, mutable=["batch_stats"])
  normalized = outputs.taps["002_linear"]
  np.testing.assert_allclose(normalized.mean(axis=0), 0, atol=1e-5)
  np.testing.assert_allclose(normalized.var(axis=0), 1, atol=1e-4)
  before = np.asarray(outputs.taps["000_dense"])
  np.testing.assert_allclose(changed["batch_stats"]["norm_00"]["mean"], 0.1 * before.mean(axis=0), rtol=1e-4)
  np.testing.assert_allclose(changed["batch_stats"]["norm_00"]["var"], 0.9 + 0.1 * before.var(axis=0), rtol=1e-4)
  evaluated = module.apply(variables, x).taps["002_linear"]  # mean 0 and variance 1 are remembered at first
  np.testing.assert_allclose(evaluated, before / np.sqrt(1 + 1e-5), rtol=1e-5)


def test_layer_norm_normalizes_each_example(key):
  module = models.build("mlp", num_classes=3, depth=1, width=50, norm="layer", activation="linear")
  x = jax.random.normal(key, (4, 7))
  normalized = jax.jit(module.init_with_output)(key, x)[0].taps["002_linear"]
  np.testing.assert_allclose(normalized.mean(axis=-1), 0, atol=1e-5)
  np.testing.assert_allclose(normalized.std(axis=-1), 1, atol=1e-3)


def test_dropout_drops_and_scales_in_training_only(key):
  rate, width = 0.25, 20_000
  ones = {"name": "constant", "value": 1.0}
  module = models.build("mlp", num_classes=1, depth=1, width=width, dropout=rate, kernel_init=ones, activation="linear")
  x = jnp.ones((1, 1))
  variables = jax.jit(module.init)(key, x)
  evaluated = module.apply(variables, x).logits
  np.testing.assert_allclose(evaluated, width, rtol=1e-6)
  # The logit counts the units that are left, each scaled by 1 / (1 - rate).
  logits = [
    float(module.apply(variables, x, train=True, rngs={"dropout": jax.random.key(seed)}).logits[0, 0])
    for seed in range(3)
  ]
  left = np.array(logits) * (1 - rate) / width
  assert len(set(logits)) == 3
  assert np.abs(left - (1 - rate)).max() < 5 * np.sqrt(rate * (1 - rate) / width)


def test_build_merges_overrides_over_the_config():
  module = models.build({"name": "mlp", "depth": 3, "width": 7}, num_classes=5, width=9)
  assert (module.depth, module.width, module.num_classes) == (3, 9, 5)


@pytest.mark.parametrize("config, overrides, words", [
  ("mpl", {}, "did you mean 'mlp'"),
  ("mlp", {"widht": 3}, "did you mean 'width'"),
  ("mlp", {"depth": "3"}, "a whole number"),
  ("mlp", {"norm": "group"}, "'batch'"),
  ("cnn", {}, "model.layers is missing"),
])
def test_mistakes_in_fields_are_named(config, overrides, words):
  with pytest.raises(UserError, match=words):
    models.build(config, num_classes=3, **overrides)


@pytest.mark.parametrize("layers, shape, words", [
  ((("conv", 3),), (8, 8, 1), r"layers\[0\] is .* write \('conv', features"),
  ((("convolution", 3, 3),), (8, 8, 1), "did you mean 'conv'"),
  ((("dense", 3), ("max_pool", 2)), (8, 8, 1), r"layers\[1\] .* put it earlier"),
  ((("max_pool", 9),), (8, 8, 1), "the image is 8 x 8"),
  ((("pad_to", 6),), (8, 8, 1), "the image is 8 x 8"),
  ((("conv", 3, 5, 1, 0),), (4, 4, 1), "the image is 4 x 4"),
  ((("conv", 3, 0),), (4, 4, 1), "at least 1"),
  ((("conv", 3, 3),), (64,), "needs images"),
])
def test_mistakes_in_layers_are_named(layers, shape, words):
  with pytest.raises(UserError, match=words):
    variables_of(models.build("cnn", num_classes=3, layers=layers), shape)


@pytest.mark.parametrize("fields, words", [
  ({"activation": "rule"}, "did you mean 'relu'"),
  ({"kernel_init": "hee"}, "did you mean 'he'"),
  ({"kernel_init": {"name": "normal", "std": "wide"}}, "kernel_init.std"),
  ({"bias_init": "zero"}, "did you mean 'zeros'"),
])
def test_mistakes_in_names_are_named(fields, words):
  with pytest.raises(UserError, match=words):
    variables_of(models.build("mlp", num_classes=3, **fields), (4,))


@pytest.mark.parametrize("shape, patch", [((2, 8, 12, 3), 4), ((1, 9, 7, 2), 2), ((3, 5, 5, 1), 1)])
def test_patch_convolution_is_the_convolution_with_its_own_size_as_stride(key, shape, patch):
  x = jax.random.normal(key, shape)
  ours, flax = PatchConv(6, patch), nn.Conv(6, (patch, patch), (patch, patch), "VALID")
  variables = flax.init(key, x)
  variables = jax.tree.map(lambda leaf: leaf + 0.1, variables)
  np.testing.assert_allclose(ours.apply(variables, x), flax.apply(variables, x), atol=1e-5)
  assert jax.tree.map(jnp.shape, ours.init(key, x)) == jax.tree.map(jnp.shape, variables)


def test_stochastic_depth_drops_whole_examples_and_keeps_the_mean(key):
  x = 1 + jnp.arange(4000 * 3.0).reshape(4000, 3) % 3
  drop = lambda rate, train=True: DropPath().apply({}, x, rate, train, rngs={"dropout": key})
  np.testing.assert_array_equal(drop(0.4, train=False), x)
  np.testing.assert_array_equal(drop(0.0), x)
  np.testing.assert_array_equal(drop(jnp.float32(1.0)), jnp.zeros_like(x))
  dropped = np.asarray(drop(jnp.float32(0.25)))
  kept = dropped[:, 0] != 0
  np.testing.assert_allclose(dropped, np.where(kept[:, None], np.asarray(x) / 0.75, 0), rtol=1e-6)
  assert abs(kept.mean() - 0.75) < 5 * np.sqrt(0.25 * 0.75 / 4000)


def test_drop_path_grows_with_depth_to_its_rate():
  np.testing.assert_allclose([depth_rate(0.6, i, 3) for i in range(3)], [0.2, 0.4, 0.6])


@pytest.mark.parametrize("name, shape, expected", [
  ("deep_fcn", (224, 224, 3), {1000: 359_788_520}), ("wide_fcn", (224, 224, 3), {1000: 1_375_609_832}),
  ("deep_fcn", (32, 32, 3), {10: 56_783_882}), ("wide_fcn", (32, 32, 3), {10: 159_539_210}),
  ("vgg11", (32, 32, 3), {10: 9_231_114}), ("vgg16", (32, 32, 3), {10: 14_728_266, 100: 14_774_436}),
])
def test_published_counts(name, shape, expected):
  for num_classes, size in expected.items():
    assert count(variables_of(models.build(name, num_classes=num_classes), shape)["params"]) == size


@pytest.mark.parametrize("name, size", [("vgg11", 9_225_610), ("vgg16", 14_719_818)])
def test_counts_without_normalization(name, size):
  assert count(variables_of(models.build(name, num_classes=10, norm="none"), (32, 32, 3))["params"]) == size


@pytest.mark.parametrize("name, fields", [
  ("mlp", {"depth": -1}), ("mlp", {"width": 0}), ("mlp", {"first_width": -2}), ("mlp", {"num_classes": 0}),
  ("mlp", {"dropout": 1.5}), ("lenet5", {"dropout": -0.5}), ("vanillanet_cifar", {"dropout": 2.0}),
  ("simplenet_cifar_310k", {"dropout": -1.0}), ("resnet20", {"dropout": 1.1}), ("vit", {"dropout": 1.5}),
  ("vit", {"depth": -1}), ("vit", {"width": 0}), ("vit", {"mlp_dim": -1}), ("vit", {"reference_length": -3}),
  ("vanillanet_cifar", {"num_classes": 0}),
])
def test_impossible_sizes_and_rates_name_their_field(name, fields):
  with pytest.raises(UserError, match=f"config.model.{next(iter(fields))} is .*; give a"):
    variables_of(models.build(name, **{"num_classes": 3, **fields}), (32, 32, 3))


def test_a_drop_path_outside_its_range_is_refused():
  module, x = models.build("resnet20", num_classes=3), jnp.zeros((1, 32, 32, 3))
  with pytest.raises(UserError, match="drop_path is 1.5; give a number from 0 to 1"):
    jax.eval_shape(lambda: module.init(jax.random.key(0), x, drop_path=1.5))


@pytest.mark.parametrize("bias", ["he", "xavier", {"name": "orthogonal", "scale": 2.0}])
def test_an_initializer_of_matrices_is_refused_for_a_bias(bias):
  with pytest.raises(UserError, match="config.model.bias_init is .*, which needs a matrix; give one of constant"):
    variables_of(models.build("mlp", num_classes=3, bias_init=bias), (4,))


def test_a_number_may_come_as_a_string_where_words_and_numbers_fit():
  # A flag cannot change the type of a field that holds a word.
  assert models.build("vit", num_classes=3, attention_bias="-4.5").attention_bias == -4.5
  with pytest.raises(UserError, match="needs a number"):
    models.build("vit", num_classes=3, dropout="0.5")
