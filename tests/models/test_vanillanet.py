"""VanillaNet: published counts and shapes, the annealed activation, the series activation and the merged form."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nurture import models
from nurture.core import UserError
from nurture.core.schedules import as_schedule
from nurture.models.layers import adaptive_max_pool, grouped_conv, shifted_sum
from nurture.models.vanillanet import annealed_relu

TINY = {"dims": (4, 6, 6), "strides": (2, 1), "stem_patch": 2, "act_num": 1}


@functools.cache
def traced(name, num_classes, shape, fields):
  module = models.build(name, num_classes=num_classes, **dict(fields))
  return module, jax.eval_shape(lambda key: module.init(key, jnp.zeros((1, *shape))), jax.random.key(0))


def abstract(name, num_classes, shape, **fields):
  """Returns a network and its variables as shapes; each is traced once, which takes seconds for the deep ones."""
  return traced(name, num_classes, shape, tuple(sorted(fields.items())))


@functools.cache
def tiny():
  """Returns a small network, images, its variables as they start, and `apply` compiled once for every test."""
  module, key = models.build({"name": "vanillanet", **TINY}, num_classes=3), jax.random.key(0)
  x = jax.random.normal(key, (4, 8, 8, 3))
  compiled = jax.jit(module.apply, static_argnames=("train", "mutable"))

  def apply(variables, x, lam=None, **modes):
    return compiled(variables, x, lam=None if lam is None else jnp.float32(lam), **modes)

  return module, x, jax.jit(module.init)(key, x), apply


def count(tree):
  return sum(leaf.size for leaf in jax.tree.leaves(tree))


# Published "parameters" are those of the deployed form (arXiv:2305.12972 and its repository, in millions: 15.5, 32.5,
# 32.8, 41.4, 50.0, 58.6, 127.8); the exact numbers follow from the layers, and the test below counts them again.
@pytest.mark.parametrize("depth, num_classes, trained, deployed", [
  ("5", 1000, 22_328_800, 15_523_304),
  ("5", 100, 17_648_800, 11_836_004),
  ("5", 10, 17_269_900, 11_467_274),
  ("6", 1000, 56_116_704, 32_509_416),
  ("6", 100, 51_436_704, 28_822_116),
  ("6", 10, 51_057_804, 28_453_386),
  ("7", 1000, 56_670_176, 32_797_672),
  ("9", 1000, 73_680_864, 41_395_176),
  ("9", 100, 69_000_864, 37_707_876),
  ("9", 10, 68_621_964, 37_339_146),
  ("11", 1000, 90_691_552, 49_992_680),
  ("13", 1000, 107_702_240, 58_590_184),
  ("13", 100, 103_022_240, 54_902_884),
  ("13", 10, 102_643_340, 54_534_154),
  ("13_x1_5", 1000, 236_942_048, 127_796_200),
  ("13_x1_5_ada_pool", 1000, 236_942_048, 127_796_200),
])
def test_parameter_counts(depth, num_classes, trained, deployed):
  # Traced for 10 classes; the test below counts the head for others.
  (module, own), (_, merged) = (abstract(f"vanillanet_{depth}{form}", 10, (224, 224, 3)) for form in ("", "_deployed"))
  d, k = module.dims[-1], num_classes
  assert count(own["params"]) + (k - 10) * (d + 4) + k**2 - 100 == trained
  assert count(merged["params"]) + (k - 10) * (d + 1) == deployed


@pytest.mark.parametrize("n, trained, deployed", [
  (0, 55_551_456, 31_944_168), (1, 55_645_664, 32_038_376), (2, 55_834_080, 32_226_792), (3, 56_116_704, 32_509_416),
  (4, 56_493_536, 32_886_248),
])
def test_counts_by_series_length(n, trained, deployed):
  for suffix, expected in (("", trained), ("_deployed", deployed)):
    _, variables = abstract(f"vanillanet_6{suffix}", 1000, (224, 224, 3), act_num=n)
    assert count(variables["params"]) == expected


@pytest.mark.parametrize("depth, num_classes", [*((depth, 10) for depth in range(5, 14)), (5, 100), (5, 1000)])
def test_counts_follow_the_layers(depth, num_classes):
  module, trained = abstract(f"vanillanet_{depth}", num_classes, (224, 224, 3))
  _, deployed = abstract(f"vanillanet_{depth}_deployed", num_classes, (224, 224, 3))
  dims, k, side = module.dims, num_classes, 2 * module.act_num + 1
  assert len(dims) + 1 == depth  # stem, blocks, head
  act = lambda c: c * side**2 + 2 * c
  total = (48 * dims[0] + dims[0]) + 2 * dims[0] + (dims[0] ** 2 + dims[0]) + 2 * dims[0] + act(dims[0])
  merged = 48 * dims[0] + dims[0] + dims[0] * side**2 + dims[0]
  for a, b in zip(dims[:-1], dims[1:]):
    total += (a * a + a) + 2 * a + (a * b + b) + 2 * b + act(b)
    merged += a * b + b + b * side**2 + b
  total += (dims[-1] * k + k) + 2 * k + (k * k + k)
  assert count(trained["params"]) == total
  assert count(deployed["params"]) == merged + dims[-1] * k + k


def test_batch_statistics_are_not_parameters():
  for depth, statistics in ((5, 40_912), (6, 65_488)):
    tree = abstract(f"vanillanet_{depth}", 10, (224, 224, 3))[1]["batch_stats"]
    assert count(tree) + 2 * 990 == statistics  # of the head, for 1000 classes


@pytest.mark.parametrize("name, side, expected", [
  ("vanillanet_5", 224, [(56, 512), (28, 1024), (14, 2048), (7, 4096)]),
  ("vanillanet_6", 224, [(56, 512), (28, 1024), (14, 2048), (7, 4096), (7, 4096)]),
  ("vanillanet_7", 224, [(56, 512), (56, 512), (28, 1024), (14, 2048), (7, 4096), (7, 4096)]),
  ("vanillanet_9", 224, [(56, 512), (56, 512), (28, 1024), *[(14, 2048)] * 3, (7, 4096), (7, 4096)]),
  ("vanillanet_13_x1_5_ada_pool", 224,
   [(75, 768), (75, 768), (38, 1536), *[(19, 3072)] * 7, (10, 6144), (10, 6144)]),
  ("vanillanet_cifar", 32, [(16, 64), (8, 128), (4, 256), (2, 512), (2, 512)]),
])
def test_shapes(name, side, expected):
  for suffix in ("", "_deployed"):
    module, variables = abstract(name + suffix, 10, (side, side, 3))
    outputs = jax.eval_shape(module.apply, variables, jnp.zeros((2, side, side, 3)))
    relus = models.select(outputs.taps, "relu")
    assert [tap.shape for tap in relus.values()] == [(2, s, s, c) for s, c in expected]
    assert outputs.logits.shape == (2, 10)


def test_the_activation_fades_into_the_identity(key):
  x = jax.random.normal(key, (100,))
  np.testing.assert_array_equal(annealed_relu(x, 0.0), jax.nn.relu(x))
  np.testing.assert_array_equal(annealed_relu(x, 1.0), x)
  for lam in (0.1, 0.5, 0.9):
    np.testing.assert_allclose(annealed_relu(x, lam), (1 - lam) * jax.nn.relu(x) + lam * x, atol=1e-6)


@pytest.mark.parametrize("side, channels, size", [(5, 3, 7), (8, 2, 3), (4, 5, 1), (3, 2, 9)])
def test_series_convolution_is_the_grouped_convolution(key, side, channels, size):
  x = jax.random.normal(key, (2, side, side + 1, channels))
  kernel = jax.random.normal(jax.random.fold_in(key, 1), (size, size, 1, channels))
  np.testing.assert_allclose(shifted_sum(x, kernel), grouped_conv(x, kernel), atol=1e-4)


@pytest.mark.parametrize("length, size", [(75, 38), (19, 10), (38, 19), (7, 7), (5, 1), (9, 4)])
def test_adaptive_pool_takes_its_windows(key, length, size):
  x = np.asarray(jax.random.normal(key, (1, length, length + 1, 2)))
  bounds = lambda n, i: (int(np.floor(i * n / size)), int(np.ceil((i + 1) * n / size)))
  expected = np.zeros((1, size, size, 2))
  for i in range(size):
    for j in range(size):
      (a, b), (c, d) = bounds(length, i), bounds(length + 1, j)
      expected[:, i, j] = x[:, a:b, c:d].max(axis=(1, 2))
  np.testing.assert_array_equal(adaptive_max_pool(jnp.asarray(x), size), expected)


def randomized(module, x, lam=1.0, seed=0, scale=1.0):
  """Variables with statistics, scales and biases far from their initial values, which merging would get for free."""
  variables = jax.eval_shape(module.init, jax.random.key(seed), x)
  draws = np.random.default_rng(seed)

  def draw(path, leaf):
    name = path[-1].key
    if name == "lam":
      return jnp.float32(lam)
    if name == "kernel":
      fan_in = leaf.size / leaf.shape[-1]
      return jnp.asarray(draws.normal(size=leaf.shape) * scale / np.sqrt(fan_in), leaf.dtype)
    low, high = {"var": (0.3, 2.0), "scale": (-1.5, 1.5)}.get(name, (-0.5, 0.5))
    return jnp.asarray(draws.uniform(low, high, leaf.shape), leaf.dtype)

  return jax.tree_util.tree_map_with_path(draw, variables)


def gaps(module, *several, x):
  """Returns how far the merged network is from the network, relatively, for several variables."""
  trained, deployed = jax.jit(module.apply), jax.jit(module.deployed().apply)
  merge = jax.jit(functools.partial(module.to_deploy, force=True))
  for variables in several:
    expected = np.asarray(trained(variables, x).logits)
    merged = np.asarray(deployed(merge(variables), x).logits)
    assert merged.dtype == expected.dtype
    yield np.abs(expected - merged).max() / np.abs(expected).max()


DEPLOYABLE = {
  "tiny": ({"name": "vanillanet", **TINY}, 12),
  "cifar": ("vanillanet_cifar", 32),
  "adaptive": (
    {"name": "vanillanet", **TINY, "stem_patch": 4, "stem_stride": 3, "stem_pad": 1, "ada_pool": (4, 0)}, 20,
  ),
  "pointwise": ({"name": "vanillanet", **TINY, "act_num": 0}, 8),
}


@pytest.mark.parametrize("name", DEPLOYABLE)
def test_the_deployed_network_is_the_trained_one(key, name):
  config, side = DEPLOYABLE[name]
  module = models.build(config, num_classes=7)
  x = jax.random.normal(key, (3, side, side, 3))
  ended, early = randomized(module, x), randomized(module, x, lam=0.9)
  equal, unequal = gaps(module, ended, early, x=x)
  assert equal <= 1e-5 and unequal > 1e-3
  with jax.enable_x64(True):
    double = lambda tree: jax.tree.map(lambda leaf: leaf.astype(jnp.float64), tree)
    equal, unequal = gaps(module.clone(dtype="float64"), double(ended), double(early), x=double(x))
  assert equal <= 1e-10 and unequal > 1e-3


def test_merging_has_the_deployed_structure_and_can_be_traced(key):
  module, x, _, _ = tiny()
  variables = randomized(module, x)
  merged = module.to_deploy(variables)
  expected = jax.eval_shape(lambda: module.deployed().init(key, x))
  assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), merged) == jax.tree.map(
    lambda leaf: (leaf.shape, leaf.dtype), expected)
  traced = jax.jit(functools.partial(module.to_deploy, force=True))(variables)
  for a, b in zip(jax.tree.leaves(traced), jax.tree.leaves(merged)):
    np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


def test_slope_of_the_last_training_step_is_remembered():
  _, x, fresh, apply = tiny()
  assert float(fresh["slope"]["lam"]) == 1.0  # as a network that is only evaluated
  _, changed = apply(fresh, x, train=True, lam=0.25, mutable=("batch_stats", "slope"))
  variables = {**fresh, **changed}
  assert float(variables["slope"]["lam"]) == 0.25
  np.testing.assert_allclose(apply(variables, x).logits, apply(variables, x, lam=0.25).logits, rtol=1e-6)
  assert not np.allclose(apply(variables, x).logits, apply(variables, x, lam=1.0).logits, rtol=1e-3)
  apply(fresh, x, train=True, mutable=("batch_stats",))  # whoever does not ask for the slope need not carry it


def test_variables_without_the_slope_need_it_as_an_argument():
  module, x, fresh, apply = tiny()
  bare = {name: fresh[name] for name in ("params", "batch_stats")}
  for modes in ({}, {"train": True, "mutable": ("batch_stats",)}):
    with_it, without = (jax.tree.leaves(apply(variables, x, lam=0.25, **modes)) for variables in (fresh, bare))
    for a, b in zip(with_it, without, strict=True):
      np.testing.assert_allclose(a, b, rtol=1e-6)
  for train, mutable in ((False, False), (True, ["batch_stats"]), (True, ["batch_stats", "slope"])):
    with pytest.raises(UserError, match="λ of this VanillaNet is not known.*; pass lam, which is 1.0"):
      module.apply(bare, x, train=train, mutable=mutable)
  _, changed = apply(bare, x, train=True, lam=0.5, mutable=("batch_stats", "slope"))
  assert float(changed["slope"]["lam"]) == 0.5  # remembered from here on


def test_every_parameter_learns(key):
  module, x, _, _ = tiny()
  variables = randomized(module, x)

  def loss(params):
    outputs, _ = module.apply(
      {**variables, "params": params}, x, train=True, lam=0.5, mutable=["batch_stats", "slope"], rngs={"dropout": key}
    )
    return -jax.nn.log_softmax(outputs.logits)[:, 0].mean()

  # A bias moves something only if a nonlinearity sees it before the next normalization takes it away.
  for name, layer in jax.jit(jax.grad(loss))(variables["params"]).items():
    for leaf, gradient in layer.items():
      assert np.isfinite(gradient).all()
      if leaf != "bias" or name.endswith(("_norm1", "_norm2")) or name == "head_conv2":
        assert np.abs(gradient).max() > 1e-6, f"{name}/{leaf}"


def test_a_new_slope_needs_no_new_program():
  module, x, variables, _ = tiny()
  schedule, compilations = as_schedule({"name": "epoch_ramp", "epochs": 2, "steps_per_epoch": 3}, path=""), []

  @jax.jit
  def forward(variables, step):
    compilations.append(step)
    return module.apply(variables, x, train=True, lam=schedule(step), mutable=["batch_stats", "slope"])

  results = {float(forward(variables, jnp.int32(step))[1]["slope"]["lam"]) for step in range(8)}
  assert results == {0.0, 0.5, 1.0}
  assert len(compilations) == forward._cache_size() == 1


def test_converting_too_early_and_twice_is_refused(key):
  module, x, done, _ = tiny()
  early = jax.jit(module.init)(key, x, lam=0.5)
  with pytest.raises(UserError, match="λ is 0.5.*force=True"):
    module.to_deploy(early)
  module.to_deploy(early, force=True)
  merged = module.to_deploy(done)
  with pytest.raises(UserError, match="already"):
    module.to_deploy(merged)
  with pytest.raises(UserError, match="already deployed"):
    module.deployed().to_deploy(merged)


def test_variables_that_cannot_be_converted_are_refused():
  module, _, done, _ = tiny()
  without = {name: done[name] for name in ("params", "batch_stats")}
  with pytest.raises(UserError, match="λ of these variables is not known"):
    module.to_deploy(without)
  module.to_deploy(without, force=True)
  with pytest.raises(UserError, match="λ of these variables is not known.*force=True"):
    jax.jit(module.to_deploy)(done)
  with pytest.raises(UserError, match="a whole ensemble"):
    module.to_deploy(jax.tree.map(lambda leaf: leaf[None], done))
  with pytest.raises(UserError, match="another network"):
    models.build("vanillanet_cifar", num_classes=3).to_deploy(done)


def test_members_are_converted_together():
  module, x, _, _ = tiny()
  members = [randomized(module, x, seed=seed) for seed in (0, 1)]
  together = jax.vmap(functools.partial(module.to_deploy, force=True))(
    jax.tree.map(lambda *leaves: jnp.stack(leaves), *members))
  for i, member in enumerate(members):
    for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(module.to_deploy(member))):
      np.testing.assert_allclose(a[i], b, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("fields, shape, words", [
  ({"strides": (2,)}, (8, 8, 3), "3 widths and config.model.strides 1"),
  ({"dims": (4,), "strides": ()}, (8, 8, 3), "one width and one stride"),
  ({"strides": (0, 1)}, (8, 8, 3), r"config.model.strides\[0\] is 0; give a whole number of at least 1"),
  ({"ada_pool": (-5, 0)}, (8, 8, 3), r"config.model.ada_pool\[0\] is -5; give a whole number of at least 0"),
  ({"act_num": -1}, (8, 8, 3), "config.model.act_num is -1"),
  ({"ada_pool": (3,)}, (8, 8, 3), "config.model.ada_pool has 1 sizes for 2 blocks"),
  ({"ada_pool": (5, 0)}, (8, 8, 3), r"config.model.ada_pool is \(5, 0\), but the image is 4 x 4 before block 0"),
  ({"strides": (2, 4)}, (8, 8, 3), "2 x 2 before block 1"),
  ({"stem_patch": 9}, (8, 8, 3), "stem_patch is 9"),
  ({}, (64,), "needs images"),
])
def test_impossible_networks_are_refused(fields, shape, words):
  with pytest.raises(UserError, match=words):
    abstract("vanillanet", 3, shape, **{**TINY, **fields})
