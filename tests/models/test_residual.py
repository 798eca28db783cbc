"""Residual blocks and small networks of them against plain numpy, and the scale of the branch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nurture.core import build
from nurture.core.taps import kind, select
from nurture.models.residual import Layers, ResidualBlock
from nurture.models.resnet import RESNETS, ResNet

LAYERS = Layers("relu", "batch", "torch_default", "torch_default", "float64")


def random_variables(module, x, *args):
  """Returns variables in float64 with no trivial value among them: means, scales and shifts too."""
  with jax.enable_x64(True):
    shapes = jax.eval_shape(lambda key: module.init(key, jnp.asarray(x), *args), jax.random.key(0))
  rng = np.random.default_rng(0)

  def draw(path, leaf):
    if path[-1].key in ("var", "scale"):
      return rng.uniform(0.5, 1.5, leaf.shape)
    return rng.normal(size=leaf.shape) / np.prod(leaf.shape[:-1]) ** 0.5

  return jax.tree_util.tree_map_with_path(draw, shapes)


def images(*shape):
  return np.random.default_rng(1).normal(size=shape)


def relu(x):
  return np.maximum(x, 0)


def conv(x, kernel, stride=1):
  side = kernel.shape[0]
  pad = (side - 1) // 2
  x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
  rows, columns = ((n - side) // stride + 1 for n in x.shape[1:3])
  y = np.zeros((x.shape[0], rows, columns, kernel.shape[-1]))
  for i in range(rows):
    for j in range(columns):
      window = x[:, i * stride : i * stride + side, j * stride : j * stride + side]
      y[:, i, j] = np.tensordot(window, kernel, 3)
  return y


def max_pool(x):
  x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
  rows, columns = ((n - 3) // 2 + 1 for n in x.shape[1:3])
  y = [[x[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max(axis=(1, 2)) for j in range(columns)] for i in range(rows)]
  return np.moveaxis(np.array(y), 2, 0)


class Numpy:
  """The layers of a block, or of a network, in evaluation mode."""

  def __init__(self, variables):
    self.params, self.stats = variables["params"], variables["batch_stats"]

  def conv(self, name, x, stride=1):
    return conv(x, self.params[name]["kernel"], stride)

  def norm(self, name, x):
    p, s = self.params[name], self.stats[name]
    return (x - s["mean"]) / np.sqrt(s["var"] + 1e-5) * p["scale"] + p["bias"]

  def block(self, name):
    return Numpy({"params": self.params[name], "batch_stats": self.stats[name]})


def basic(net, x, stride=1):
  y = relu(net.norm("norm_0", net.conv("conv_0", x, stride)))
  y = net.norm("norm_1", net.conv("conv_1", y))
  return relu(y + (net.norm("projection_norm", net.conv("projection", x, stride)) if stride > 1 else x))


def bottleneck(net, x, stride=1):
  y = relu(net.norm("norm_0", net.conv("conv_0", x)))
  y = relu(net.norm("norm_1", net.conv("conv_1", y, stride)))
  y = net.norm("norm_2", net.conv("conv_2", y))
  return relu(y + net.norm("projection_norm", net.conv("projection", x, stride)))


def option_a(net, x, stride=1):
  y = relu(net.norm("norm_0", net.conv("conv_0", x, stride)))
  y = net.norm("norm_1", net.conv("conv_1", y))
  short = x[:, ::stride, ::stride]
  return relu(y + np.concatenate([short, np.zeros((*short.shape[:3], y.shape[-1] - x.shape[-1]))], axis=-1))


def plain_bottleneck(net, x, stride=1):
  y = relu(net.norm("norm_0", net.conv("conv_0", x)))
  y = relu(net.norm("norm_1", net.conv("conv_1", y, stride)))
  return relu(net.norm("norm_2", net.conv("conv_2", y)))


def preactivated(net, x, stride=1):
  active = relu(net.norm("norm_0", x))
  y = relu(net.norm("norm_1", net.conv("conv_0", active, stride)))
  return net.conv("conv_1", y) + (net.conv("projection", active, stride) if "projection" in net.params else x)


def elr_plus(net, x, stride=1):
  identity = 0 if "projection" in net.params else relu(net.norm("norm_0", x)) - x
  return preactivated(net, x, stride) + identity


@pytest.mark.parametrize("fields, oracle", [
  ({"stride": 2}, basic),
  ({"stride": 2, "bottleneck": True}, bottleneck),
  ({"bottleneck": True}, bottleneck),  # 3 -> 16 features
  ({"stride": 2, "shortcut": "pad"}, option_a),
  ({"stride": 2, "shortcut": "none", "bottleneck": True}, plain_bottleneck),
  ({"stride": 2, "preactivation": True}, preactivated),
  ({"stride": 2, "preactivation": True, "activated_shortcut": True}, elr_plus),
])
@pytest.mark.parametrize("size", [(5, 6), (1, 4)])
def test_blocks(fields, oracle, size):
  block, x = ResidualBlock(LAYERS, features=4, **fields), images(2, *size, 3)
  variables = random_variables(block, x, False)
  with jax.enable_x64(True):
    y, _ = jax.jit(lambda v, x: block.apply(v, x, False))(variables, x)
  np.testing.assert_allclose(y, oracle(Numpy(variables), x, fields.get("stride", 1)), rtol=1e-9, atol=1e-9)


# Row: (block, what stands before and after the blocks). At 4 features and 1 + 1 blocks, of which the first has the
# identity as its shortcut and the second a projection.
@pytest.mark.parametrize("row, block, ends", [
  ("resnet18", basic, ("stem_norm", "max_pool")),
  ("preact_resnet18", preactivated, ("norm",)),
  ("preact_resnet18_kuangliu", preactivated, ()),
  ("preact_resnet18_elr_plus", elr_plus, ("stem_norm",)),
  ("preact_resnet34_elr_plus", basic, ("stem_norm",)),
])
def test_rows_are_the_networks_that_their_names_say(row, block, ends):
  module = build(RESNETS, {"name": row, "blocks": (1, 1), "width": 4}, num_classes=3).clone(dtype="float64")
  x = images(2, 7, 10, 2)
  variables = random_variables(module, x)
  with jax.enable_x64(True):
    logits = jax.jit(module.apply)(variables, x).logits
  net = Numpy(variables)
  y = net.conv("stem", x, 2 if "max_pool" in ends else 1)
  y = relu(net.norm("stem_norm", y)) if "stem_norm" in ends else y
  y = max_pool(y) if "max_pool" in ends else y
  y = block(net.block("stage2_block0"), block(net.block("stage1_block0"), y), 2)
  y = relu(net.norm("norm", y)) if "norm" in ends else y
  head = net.params["head"]
  np.testing.assert_allclose(logits, y.mean(axis=(1, 2)) @ head["kernel"] + head["bias"], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("fields, size", [
  ({"stem": "imagenet"}, 24),
  ({"bottleneck": True, "dropout": 0.1}, 8),
  ({"preactivation": True, "final_activation": True, "activation": "tanh"}, 8),
  ({"preactivation": True, "shortcut": False, "norm": "layer"}, 8),
])
def test_every_activation_stands_beside_its_input(fields, size):
  module, x = ResNet(3, blocks=(1, 1), width=2, **fields), images(2, size, size, 1)
  taps = jax.jit(module.apply)(random_variables(module, x), x).taps
  before, after = select(taps, "pre"), select(taps, "post")
  assert len(before) == len(after) == sum(kind(name) == module.activation for name in taps)
  for pre, post in zip(before.values(), after.values()):
    np.testing.assert_allclose(post, {"relu": relu, "tanh": np.tanh}[module.activation](pre), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("fields", [
  {}, {"stride": 2}, {"preactivation": True}, {"preactivation": True, "stride": 2},
  {"preactivation": True, "activated_shortcut": True},
])
def test_the_scale_of_the_branch(fields):
  x = images(2, 4, 4, 3)
  block = ResidualBlock(LAYERS, features=3, **fields)
  variables = random_variables(block, x, False)

  def scaled(scale):
    y, taps = block.clone(scale=scale).apply(variables, x, False)
    return y, taps[max(name for name in taps if kind(name) == "add")]

  with jax.enable_x64(True):
    outputs, sums = jax.jit(jax.vmap(scaled))(np.array([0.0, 1.0, 0.3, -2.0]))  # the scale may be traced
    plain, _ = jax.jit(lambda: block.apply(variables, x, False))()
  outputs, sums = np.asarray(outputs), np.asarray(sums)
  np.testing.assert_allclose(outputs[1], plain, rtol=1e-9)
  for i, scale in ((2, 0.3), (3, -2.0)):
    np.testing.assert_allclose(sums[i] - sums[0], scale * (sums[1] - sums[0]), rtol=1e-6, atol=1e-9)
  assert np.abs(sums[1] - sums[0]).min(axis=(1, 2)).max() > 0.01
  act = (lambda x: x) if block.preactivation else relu
  np.testing.assert_allclose(outputs[0], act(sums[0]), rtol=1e-12)
  if block.stride == 1:
    start = relu(Numpy(variables).norm("norm_0", x)) if block.activated_shortcut else act(x)
    np.testing.assert_allclose(outputs[0], start, rtol=1e-12 if block.activated_shortcut else 0, atol=1e-12)


@pytest.mark.parametrize("scale", [0.0, 0.3])
def test_a_network_scales_every_branch(scale):
  module = ResNet(3, blocks=(2,), width=3, preactivation=True, norm="none", dtype="float64", residual_scale=scale)
  x = images(2, 4, 4, 1)
  with jax.enable_x64(True):
    taps = jax.jit(module.apply)(random_variables(module, x), x).taps
  names = sorted(taps)
  stream = taps["001_stem.relu"]
  for i, name in enumerate(names):
    if kind(name) == "add":
      np.testing.assert_allclose(taps[name], np.asarray(stream) + scale * np.asarray(taps[names[i - 1]]), rtol=1e-12)
      stream = taps[name]
