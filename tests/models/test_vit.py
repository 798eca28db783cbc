"""The vision transformer: published sizes, what attention may not see, and the mistakes that configs make."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nurture.core import UserError, build
from nurture.models.vit import VITS, ViT


def variables_of(module, shape):
  return jax.eval_shape(lambda key: module.init(key, jnp.zeros((1, *shape))), jax.random.key(0))


def count(module, shape):
  return sum(leaf.size for leaf in jax.tree.leaves(variables_of(module, shape)["params"]))


def images(shape=(3, 8, 12, 2)):
  return jax.random.normal(jax.random.key(5), shape)


def initialized(module, key, x):
  """Returns variables and what the network says of x, by one program."""
  outputs, variables = jax.jit(module.init_with_output)(key, x)
  return variables, outputs


def small(**fields):
  return ViT(5, **{"patch": 2, "width": 8, "depth": 2, "heads": 2, "kernel_init": "lecun"} | fields)


@pytest.mark.parametrize("name, expected", [
  ("vit_s16", 21_974_632), ("vit_b16", 86_567_656), ("deit_ti16", 5_717_416), ("deit_s16", 22_050_664),
])
@pytest.mark.parametrize("fields", [{"scan": True}, {"scan": True, "remat": True, "attention": "sigmoid"}])
def test_published_counts(name, expected, fields):
  assert count(build(VITS, {"name": name, **fields}, num_classes=1000), (224, 224, 3)) == expected


def test_a_loop_has_the_parameters_of_the_scan():
  counts = [count(build(VITS, {"name": "deit_ti16", "scan": scan}, num_classes=1000), (224, 224, 3))
            for scan in (False, True)]
  assert counts == [5_717_416] * 2


@pytest.mark.parametrize("width, depth, sincos, learned", [
  (64, 4, 203_850, 207_946), (128, 6, 1_197_450, 1_205_642), (192, 6, 2_680_906, 2_693_194),
  (192, 9, 4_015_498, 4_027_786), (192, 12, 5_350_090, 5_362_378),
])
def test_counts_for_images_of_32_pixels(width, depth, sincos, learned):
  make = lambda **fields: ViT(10, patch=4, width=width, depth=depth, heads=4, scan=True, **fields)  # traced in no time
  assert count(make(), (32, 32, 3)) == sincos
  assert count(make(positions="none"), (32, 32, 3)) == sincos
  assert count(make(positions="learned"), (32, 32, 3)) == learned
  assert count(make(attention="sigmoid"), (32, 32, 3)) == sincos
  assert count(make(attention="sigmoid", attention_bias="learned"), (32, 32, 3)) == sincos + 4 * depth
  assert count(make(pool="cls", positions="learned"), (32, 32, 3)) == learned + 2 * width


def test_presets_for_small_images():
  assert count(build(VITS, "vit", num_classes=10), (32, 32, 3)) == 203_850
  assert count(build(VITS, "vit_cifar", num_classes=10), (32, 32, 3)) == 1_197_450


def test_the_embedding_cuts_the_image_into_patches(key):
  module, x = small(positions="none"), images()
  variables, outputs = initialized(module, key, x)
  params, embed = variables["params"], outputs.taps["000_embed"]
  patches = np.asarray(x).reshape(3, 4, 2, 6, 2, 2).transpose(0, 1, 3, 2, 4, 5).reshape(3, 24, 8)
  kernel = np.asarray(params["embedding"]["kernel"]).reshape(8, 8)
  np.testing.assert_allclose(embed, patches @ kernel, atol=1e-5)


@pytest.mark.parametrize("attention", ["softmax", "sigmoid"])
@pytest.mark.parametrize("pool", ["gap", "cls"])
def test_without_positions_the_patches_are_a_set(key, attention, pool):
  module, x = small(positions="none", attention=attention, pool=pool), images()
  variables = jax.jit(module.init)(key, x)
  patches = x.reshape(3, 4, 2, 6, 2, 2).transpose(0, 1, 3, 2, 4, 5).reshape(3, 24, 2, 2, 2)
  order = np.random.default_rng(0).permutation(24)
  permuted = patches[:, order].reshape(3, 4, 6, 2, 2, 2).transpose(0, 1, 3, 2, 4, 5).reshape(x.shape)
  forward = jax.jit(lambda v, x: module.apply(v, x))
  a, b = forward(variables, x), forward(variables, permuted)
  np.testing.assert_allclose(a.logits, b.logits, atol=1e-5)
  np.testing.assert_allclose(a.taps["017_norm"][:, -24:][:, order], b.taps["017_norm"][:, -24:], atol=1e-5)
  with_positions = jax.jit(lambda v, x: small(attention=attention, pool=pool).apply(v, x).logits)
  assert np.abs(with_positions(variables, x) - with_positions(variables, permuted)).max() > 1e-3


@pytest.mark.parametrize("pool, n", [("gap", 64), ("cls", 65)])
def test_the_bias_is_minus_log_of_the_number_of_tokens(key, pool, n):
  fields = {"attention": "sigmoid", "pool": pool}
  x = images((2, 32, 32, 1))
  learned = small(patch=4, attention_bias="learned", **fields)
  variables = jax.jit(learned.init)(key, x)
  for block in ("block_00", "block_01"):
    biases = variables["params"][block]["attention"].pop("attention_bias")
    np.testing.assert_allclose(biases, np.full(2, -4.158883 if n == 64 else -math.log(65)), rtol=1e-6)
  logits = lambda **more: jax.jit(lambda v: small(patch=4, **fields, **more).apply(v, x).logits)(variables)
  np.testing.assert_allclose(logits(), logits(attention_bias=-math.log(n)), atol=1e-6)
  np.testing.assert_allclose(logits(reference_length=7), logits(attention_bias=-math.log(7)), atol=1e-6)
  assert np.abs(logits() - logits(reference_length=7)).max() > 1e-3


def test_pooling_and_head(key):
  x = images()
  for pool in ("gap", "cls"):
    variables, outputs = initialized(small(pool=pool), key, x)
    norm, pooled = outputs.taps["017_norm"], outputs.taps["018_pool"]
    np.testing.assert_allclose(pooled, norm.mean(axis=1) if pool == "gap" else norm[:, 0], rtol=1e-5, atol=1e-6)
    head = variables["params"]["head"]
    np.testing.assert_allclose(outputs.logits, pooled @ head["kernel"] + head["bias"][None], rtol=1e-5, atol=1e-6)
  assert not np.any(initialized(small(head_zero_init=True), key, x)[1].logits)


def test_the_cls_token_has_no_fixed_position_but_a_learned_one(key):
  x = images()
  variables, outputs = initialized(small(pool="cls"), key, x)
  embed = outputs.taps["000_embed"]
  cls = variables["params"]["cls"][0, 0]
  np.testing.assert_array_equal(embed[:, 0], jnp.broadcast_to(cls[None], (3, 8)))
  variables, outputs = initialized(small(pool="cls", positions="learned"), key, x)
  table = variables["params"]["positions"]
  assert table.shape == (25, 8) and 0.01 < float(table.std()) < 0.03
  embed = outputs.taps["000_embed"]
  expected = variables["params"]["cls"][0, 0] + table[0]
  np.testing.assert_allclose(embed[:, 0], jnp.broadcast_to(expected[None], (3, 8)), rtol=1e-6)


@pytest.mark.parametrize("fields, shape, words", [
  ({"patch": 3}, (8, 8, 1), "patch is 3, which does not divide"),
  ({"width": 10}, (8, 8, 1), "multiple of 4"),
  ({"heads": 3}, (8, 8, 1), "heads = 3 does not divide"),
  ({}, (64,), "needs images"),
  ({"attention_bias": "learned"}, (8, 8, 1), "softmax attention cancels it"),
])
def test_mistakes_in_shapes_are_named(fields, shape, words):
  with pytest.raises(UserError, match=words) as error:
    variables_of(small(**fields), shape)
  assert "config.model" in str(error.value)


def test_images_of_another_size_need_fixed_positions():
  learned = small(positions="learned")
  variables = variables_of(learned, (8, 8, 1))
  with pytest.raises(UserError, match="16 tokens, but the image has 24"):
    jax.eval_shape(lambda v: learned.apply(v, jnp.zeros((1, 8, 12, 1))), variables)
  fixed = small()
  jax.eval_shape(lambda v: fixed.apply(v, jnp.zeros((1, 8, 12, 1))), variables_of(fixed, (8, 8, 1)))


@pytest.mark.parametrize("fields, words", [
  ({"positions": "sincos"}, "'sincos2d'"),
  ({"attention_bias": "-log n"}, "a number or one of '-log_n', 'learned'"),
  ({"pool": "mean"}, "'gap'"),
])
def test_mistakes_in_fields_are_named(fields, words):
  with pytest.raises(UserError, match=words):
    build(VITS, {"name": "vit", **fields}, num_classes=5, path="model")
