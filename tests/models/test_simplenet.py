"""SimpleNet: published counts, the two codes' placements, and shapes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from nurture import models
from nurture.core import UserError
from nurture.core.taps import kind

TINY = {"layers": ((4, 3), "pool", (6, 3), (8, 1))}
THIRTEEN = {"layers": ((2, 3),) * 4 + ("pool",) + ((2, 3),) * 3 + ("pool",) + ((2, 3),) * 2 + ("pool",)
            + ((2, 3),) * 3 + ("pool", (2, 3))}


@functools.cache
def traced(name, num_classes, shape, fields):
  module = models.build(name, num_classes=num_classes, **dict(fields))
  return module, jax.eval_shape(lambda key: module.init(key, jnp.zeros((1, *shape))), jax.random.key(0))


def abstract(name, num_classes, shape, **fields):
  """Returns a network and its variables as shapes, each traced once."""
  return traced(name, num_classes, shape, tuple(sorted(fields.items())))


def count(tree):
  return sum(leaf.size for leaf in jax.tree.leaves(tree))


CIFAR, GRAY, MNIST, IMAGENET = (32, 32, 3), (32, 32, 1), (28, 28, 1), (224, 224, 3)


@pytest.mark.parametrize("name, shape, fields, counts", [
  ("simplenet_cifar_5m", CIFAR, {}, {10: 5_498_378, 100: 5_521_508}),
  ("simplenet_cifar_5m_extra_pool", CIFAR, {}, {10: 5_498_378, 100: 5_521_508}),
  ("simplenet_cifar_5m_caffe", CIFAR, {}, {10: 5_493_258, 100: 5_516_388}),
  ("simplenet_cifar_310k", CIFAR, {}, {10: 312_362, 100: 318_212}),
  ("simplenet_cifar_310k_caffe", CIFAR, {}, {10: 311_594, 100: 317_444}),
  ("simplenet_cifar_460k", CIFAR, {}, {10: 455_862, 100: 464_952}),
  ("simplenet_cifar_460k", CIFAR, {"norms": "torch"}, {10: 456_446}),
  ("simplenet_cifar_460k_torch", CIFAR, {}, {10: 385_790, 100: 394_880}),
  ("simplenet_cifar_5m", GRAY, {}, {10: 5_497_226}),
  ("simplenet_cifar_5m_caffe", MNIST, {}, {10: 5_492_106}),
  ("simplenet_cifar_310k", GRAY, {}, {10: 311_210}),
  ("simplenet_cifar_310k_caffe", MNIST, {}, {10: 310_442}),
  ("simplenet_mnist", MNIST, {}, {10: 5_490_570}),
  *[(f"simplenet_small_05_m{mode}", IMAGENET, {}, {1000: 1_506_792}) for mode in (1, 2, 3, 4)],
  *[(f"simplenet_5m_m{mode}", IMAGENET, {}, {1000: 5_752_808}) for mode in (1, 2, 3, 4)],
])
def test_parameter_counts(name, shape, fields, counts):
  for num_classes, expected in counts.items():
    assert count(abstract(name, num_classes, shape, **fields)[1]["params"]) == expected


@pytest.mark.parametrize("name", sorted(name for name in models.MODELS if name.startswith("simplenet_")))
def test_counts_follow_the_layers(name):
  num_classes = 100 if "cifar" in name else 10 if "mnist" in name else 1000  # some of what the test above has traced
  shape = CIFAR if "cifar" in name else MNIST if "mnist" in name else IMAGENET
  module, variables = abstract(name, num_classes, shape)
  total, width, convolutions = 0, shape[-1], 0
  for layer in module.layers:
    if layer != "pool":
      filters, convolutions = round(layer[0] * module.scale), convolutions + 1
      total += layer[1] ** 2 * width * filters + filters
      total += 2 * filters * (module.norms == "torch" or convolutions <= 10)
      width = filters
  assert convolutions == 13
  assert count(variables["params"]) == total + width * num_classes + num_classes


def pools_and_convs(name, shape):
  module, variables = abstract(name, 10, shape)
  taps = jax.eval_shape(module.apply, variables, jnp.zeros((1, *shape))).taps
  return [tap.shape[1:] for name, tap in taps.items() if kind(name) in ("conv", "max_pool")], taps


def test_shapes():
  shapes, taps = pools_and_convs("simplenet_cifar_5m", CIFAR)
  at = lambda side, *widths: [(side, side, width) for width in widths]
  assert shapes == [*at(32, 64, 128, 128, 128), *at(16, 128, 128, 128, 256), *at(8, 256, 256, 256),
                    *at(4, 256, 512, 2048, 256), *at(2, 256, 256)]
  assert list(taps.values())[-1].shape == (1, 256)


@pytest.mark.parametrize("mode, sides", [
  (1, [112, 56, 28, 28, 28, 28]), (2, [112, 56, 56, 28, 28, 28]), (3, [112, 56, 56, 56, 28, 28]),
  (4, [112, 112, 56, 56, 28, 28]),
])
def test_stride_modes_all_reach_28(mode, sides):
  shapes, _ = pools_and_convs(f"simplenet_5m_m{mode}", IMAGENET)
  assert [shape[0] for shape in shapes] == [*sides, 14, *[14] * 4, 7, *[7] * 3]


def test_caffe_rounds_odd_pools_up():
  shapes, _ = pools_and_convs("simplenet_mnist", MNIST)  # the 2x2 kernels take 4 to 3 to 2
  assert [shape[0] for shape in shapes] == [28] * 4 + [14] * 4 + [7] * 3 + [4, 4, 3, 2, 1, 1]


def kinds(**fields):
  module, variables = abstract("simplenet", 3, (16, 16, 3), **fields)
  return [kind(name) for name in jax.eval_shape(module.apply, variables, jnp.zeros((1, 16, 16, 3))).taps]


def test_placement_of_normalization():
  block = ["conv", "norm", "relu"]
  assert kinds(**THIRTEEN) == [
    *block * 4, "max_pool", *block * 3, "max_pool", *block * 2, "max_pool", *block * 3, "max_pool", *block,
    "global_max_pool",
  ]
  assert kinds(**THIRTEEN, norms="caffe") == [
    *block * 4, "max_pool", *block * 2, "conv", "max_pool", "norm", "relu", *block * 2, "max_pool", *block,
    *["conv", "relu"] * 2, "max_pool", "conv", "relu", "global_max_pool",
  ]


def dropouts(**fields):
  """The rate, kind and number of axes of every dropout of a call in training, and after which layer it stands."""
  module = models.build("simplenet", num_classes=3, **fields)
  x, calls, norms = jnp.zeros((1, 16, 16, 3)), [], []
  variables = jax.eval_shape(lambda key: module.init(key, x), jax.random.key(0))

  def watch(next_function, args, kwargs, context):
    if isinstance(context.module, nn.Conv):
      norms.append(context.module.name)
    if isinstance(context.module, nn.Dropout) and context.module.rate:
      calls.append((len(norms), context.module.rate, tuple(context.module.broadcast_dims), args[0].shape[1]))
    return next_function(*args, **kwargs)

  with nn.intercept_methods(watch):
    jax.eval_shape(lambda variables: module.apply(
      variables, x, train=True, rngs={"dropout": jax.random.key(0)}, mutable=["batch_stats"]), variables)
  return calls


def test_placement_of_dropout():
  # (after convolution, rate, shared axes, side): Caffe's twelve, the ninth before its pool, the others after theirs.
  caffe = dropouts(**THIRTEEN, norms="caffe", dropout_placement="caffe", dropout=0.2)
  sides = {1: 16, 2: 16, 3: 16, 4: 8, 5: 8, 6: 8, 7: 4, 8: 4, 9: 4, 10: 2, 11: 2, 12: 1}
  assert caffe == [(i, 0.2, (), side) for i, side in sides.items()]
  torch = dropouts(**THIRTEEN, dropout=0.1)
  assert torch == [(4, 0.1, (1, 2), 8), (7, 0.1, (1, 2), 4), (9, 0.1, (1, 2), 2), (12, 0.1, (1, 2), 1)]
  by_layer = dropouts(**THIRTEEN, drop_rates=((0, 0.3), (4, 0.4), (17, 0.5)))
  assert [(i, rate) for i, rate, _, _ in by_layer] == [(1, 0.3), (4, 0.4), (13, 0.5)]
  assert dropouts(**THIRTEEN) == []


def test_the_last_log_has_five_dropouts_of_channels():
  module = models.build("simplenet_cifar_5m_extra_pool", num_classes=10)
  assert sum(layer == "pool" for layer in module.layers) == 5
  assert (module.dropout, module.dropout_placement) == (0.1, "torch")


@pytest.mark.parametrize("style, expected", [
  # fan-in and fan-out of 3x3 kernels 3 -> 200 -> 200; U(-a, a) has variance a^2 / 3
  ("torch", [4 / (27 + 1800), 4 / (1800 + 1800), 4 / 3600, 4 / 3600, 4 / 3600, 4 / 3600]),
  ("caffe", [1 / 27, 1 / 1800, 1e-4, 1e-4, 1e-4, 1 / 1800]),
])
def test_initial_weights(key, style, expected):
  module = models.build("simplenet", num_classes=3, layers=((200, 3),) * 6, init_style=style)
  params = module.init(key, jnp.zeros((1, 4, 4, 3)))["params"]
  measured = [float(params[f"conv_{i:02d}"]["kernel"].var()) for i in range(1, 7)]
  np.testing.assert_allclose(measured, expected, rtol=0.05)
  bias = params["conv_02"]["bias"]
  assert (np.abs(bias).max() <= 1 / np.sqrt(1800)) and (style == "caffe") == (not np.any(bias))


def test_forward_is_the_layers_in_order(key):
  module = models.build("simplenet", num_classes=3, **TINY)
  x = jax.random.normal(key, (2, 6, 6, 3))
  variables = module.init(key, x)
  p = variables["params"]
  h = np.asarray(x)
  for name, kernel, pad, pool in (("01", 3, 1, True), ("02", 3, 1, False), ("03", 1, 0, False)):
    w, b = np.asarray(p[f"conv_{name}"]["kernel"]), np.asarray(p[f"conv_{name}"]["bias"])
    padded = np.pad(h, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    out = np.zeros((*h.shape[:3], w.shape[-1]))
    for i in range(kernel):
      for j in range(kernel):
        out += padded[:, i : i + h.shape[1], j : j + h.shape[2]] @ w[i, j]
    h = np.maximum((out + b) / np.sqrt(1 + 1e-5), 0)  # fresh statistics: mean 0, variance 1
    if pool:
      h = h.reshape(2, 3, 2, 3, 2, -1).max(axis=(2, 4))
  h = h.max(axis=(1, 2))
  expected = h @ np.asarray(p["head"]["kernel"]) + np.asarray(p["head"]["bias"])
  np.testing.assert_allclose(module.apply(variables, x).logits, expected, atol=1e-5)


@pytest.mark.parametrize("fields, shape, words", [
  ({"stride_mode": 5}, CIFAR, "stride_mode is 5"),
  ({"layers": ((4, 3), "pol")}, CIFAR, r"layers\[1\] is 'pol'"),
  ({"layers": ((4, 0),)}, CIFAR, "at least 1"),
  ({"scale": 0.01}, CIFAR, "without filters"),
  ({"layers": ("pool",)}, CIFAR, "no convolution"),
  ({"drop_rates": ((9, 0.1),)}, CIFAR, "drop_rates"),
  ({"drop_rates": ((1.5, 0.1),)}, CIFAR, "drop_rates"),
  ({"drop_rates": ((1, "a"),)}, CIFAR, "drop_rates"),
  ({}, (1, 1, 3), "is a pool, but the image is 1 x 1"),
  ({"layers": ((4, 2),)}, (1, 1, 3), "the image is 1 x 1"),
  ({}, (64,), "needs images"),
  ({"norms": "keras"}, CIFAR, "'torch', 'caffe'"),
])
def test_impossible_networks_are_refused(fields, shape, words):
  with pytest.raises(UserError, match=words):
    abstract("simplenet", 3, shape, **{**TINY, **fields})
