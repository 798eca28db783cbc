"""Guidance: which layers are compared, limits of the term, and that it can be descended."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nurture.core import Context, Outputs, UserError, build
from nurture.similarity import gram
from nurture.testing import class_spec
from nurture.transforms.losses import LOSSES
from nurture.transforms.losses.layer_maps import layer_pairs

B = 12
SPEC = class_spec(num_examples=B, num_classes=3, input_shape=(4,), batch_size=B)


def names(count):
  return [f"{i:03d}_relu" for i in range(count)]


def positions(s, t, rule):
  return [(int(a[:3]), int(b[:3])) for a, b in layer_pairs(names(s), names(t), rule)]


@pytest.mark.parametrize("s, t, targets", [
  (21, 48, [0, 2, 5, 7, 9, 12, 14, 16, 19, 21, 24, 26, 28, 31, 33, 35, 38, 40, 42, 45, 47]),  # ResNet-18, deep FCN
  (1, 5, [0]),  # an RNN's only tap goes to the first of the guided network
  (4, 4, [0, 1, 2, 3]),
  (3, 1 + 2, [0, 1, 2]),
])
def test_maps_of_fewer_guide_layers(s, t, targets):
  expected = list(enumerate(targets))
  assert positions(s, t, "uniform") == expected
  assert positions(s, t, "last_wins") == expected


@pytest.mark.parametrize("s, t, pairs, lost", [
  (21, 3, [(5, 0), (14, 1), (20, 2)], 18),  # ResNet-18 and the wide FCN
  (20, 4, [(3, 0), (9, 1), (15, 2), (19, 3)], 16),  # a transformer of 4 layers and 4 recurrent ones
  (32, 4, [(5, 0), (15, 1), (25, 2), (31, 3)], 28),
  (5, 1, [(4, 0)], 4),
])
def test_maps_of_more_guide_layers(s, t, pairs, lost):
  with pytest.warns(UserWarning, match=f"so {lost} are not compared"):
    assert positions(s, t, "last_wins") == pairs
  spread = positions(s, t, "uniform")
  assert [b for _, b in spread] == list(range(t)) and len({a for a, _ in spread}) == t
  assert spread[-1][0] == s - 1 and (t == 1 or spread[0][0] == 0)


def test_the_plain_convnet_has_50_of_54_pairs():
  with pytest.warns(UserWarning, match="so 4 are not compared"):
    assert len(positions(54, 50, "last_wins")) == 50


def test_explicit_maps_by_position_and_name():
  assert layer_pairs(names(3), names(2), ((2, 0), ("000_relu", "001_relu"), (-1, -1))) == (
    ("002_relu", "000_relu"), ("000_relu", "001_relu"), ("002_relu", "001_relu")
  )
  assert layer_pairs(names(3), names(2), ((-3, -2), (0, 1))) == (("000_relu", "000_relu"), ("000_relu", "001_relu"))
  for rule, words in ((((3, 0),), "tap 3 of the guide, which has 3: 0 000_relu, 1 001_relu"),
                      (((0, -3),), "tap -3 of the guided network, which has 2"),
                      (((0, "9"),), "'9' of the guided network; known: 000_relu, 001_relu")):
    with pytest.raises(UserError, match=words):
      layer_pairs(names(3), names(2), rule)


def taps_of(key, widths, shape=(B,)):
  keys = jax.random.split(key, len(widths))
  arrays = {}
  for i, (k, width) in enumerate(zip(keys, widths)):
    arrays[f"{2 * i:03d}_dense"] = jax.random.normal(k, (*shape, width))
    arrays[f"{2 * i + 1:03d}_relu"] = jax.nn.relu(arrays[f"{2 * i:03d}_dense"])
  return arrays


def context(target, guide, count=B):
  batch = {"image": jax.random.normal(jax.random.key(9), (count, 4)), "weight": jnp.ones(count)}
  outputs = Outputs(jnp.zeros((count, 3)), target)
  guides = {"guide": Outputs(jnp.zeros((count, 7)), guide)}  # a guide may have other classes
  return Context(jnp.int32(0), jax.random.key(0), batch, jnp.ones((count, 3)) / 3, outputs, guides, jnp.float32(0))


def term(**fields):
  return build(LOSSES, {"name": "guidance", "reference": "guide"} | fields)


def value(made, ctx):
  return made.apply(made.init(SPEC), ctx)[0]


def test_a_network_that_is_its_own_guide_has_nothing_to_learn(key):
  taps = taps_of(key, (5, 6, 40))
  assert abs(float(value(term(), context(taps, taps)))) < 1e-5
  rotated = {name: tap @ jnp.linalg.qr(jax.random.normal(key, (tap.shape[1],) * 2))[0] for name, tap in taps.items()}
  assert abs(float(value(term(), context(taps, rotated)))) < 1e-5
  assert float(value(term(), context(taps, taps_of(jax.random.key(5), (5, 6, 40))))) > 0.5


@pytest.mark.parametrize("measure", ["linear_cka", "linear_cka_debiased", "rbf_cka", "procrustes", "rsa", "cca"])
def test_sum_is_the_number_of_pairs_times_the_mean(measure, key):
  ctx = context(taps_of(key, (3, 4, 5)), taps_of(jax.random.key(2), (4, 4)))
  total, mean = (value(term(measure=measure, reduction=r), ctx) for r in ("sum", "mean"))
  np.testing.assert_allclose(total, 2 * mean, rtol=1e-6)


def test_the_guide_gets_no_gradient_and_the_target_does(key):
  target, guide = taps_of(key, (5, 20)), taps_of(jax.random.key(2), (5, 20))
  by_target, by_guide = jax.grad(lambda t, g: value(term(), context(t, g)), argnums=(0, 1))(target, guide)
  assert not any(np.any(leaf) for leaf in jax.tree.leaves(by_guide))
  assert all(np.any(by_target[name]) for name in ("000_dense", "002_dense"))
  assert not np.any(by_target["001_relu"])  # "pre" reads what goes into the activations


@pytest.mark.parametrize("widths", [(5, 6), (30, 40)], ids=["narrow", "wide"])
def test_a_cached_gram_matrix_stands_for_the_features(widths, key):
  target, guide = taps_of(key, widths), taps_of(jax.random.key(2), (7, 30))
  online = value(term(), context(target, guide))
  cached = {name: gram(tap) for name, tap in guide.items() if name.endswith("dense")}
  np.testing.assert_allclose(value(term(), context(target, cached)), online, rtol=1e-5)


def test_one_pair_of_wide_layers_by_the_definition(key):
  guide = jax.random.normal(jax.random.key(4), (2 * B, 30))
  ctx = context(taps_of(key, (40,)), {"000_dense": guide[:B], "001_relu": guide[:B]})
  expected = 1 - centred_kernel_alignment(guide[:B], ctx.outputs.taps["000_dense"])
  np.testing.assert_allclose(value(term(), ctx), expected, rtol=1e-5)
  part = {"000_dense": gram(guide).take(jnp.arange(B))}  # centred over all, and so not over these
  np.testing.assert_allclose(value(term(), context(taps_of(key, (40,)), part)), expected, rtol=1e-5)


def test_wide_layers_of_one_shape_are_told_apart(key):
  target, guide = taps_of(key, (40, 40)), taps_of(jax.random.key(2), (40, 40))
  pairs = [("000_dense", "000_dense"), ("002_dense", "002_dense")]
  expected = [1 - centred_kernel_alignment(guide[a], target[b]) for a, b in pairs]
  found = term().dissimilarities(*(Outputs(jnp.zeros((B, 3)), taps) for taps in (target, guide)))
  assert list(found) == pairs and abs(expected[0] - expected[1]) > 1e-3
  np.testing.assert_allclose(list(found.values()), expected, rtol=1e-5)


def test_a_cache_is_no_guide_for_a_measure_of_features(key):
  cached = {"000_dense": gram(jax.random.normal(key, (B, 30)))}
  words = (r"'rsa' needs features, and config\.references\.guide\.cache keeps Gram matrices; set the cache to '', or "
           r"take one of linear_cka, .*rsa_centred, procrustes\.$")
  with pytest.raises(UserError, match=words):
    value(term(measure="rsa"), context(taps_of(key, (5,)), cached))


def test_tokens_can_be_the_guide(key):
  tokens = jnp.arange(B * 4).reshape(B, 4) ** 2 % 17
  ctx = dataclasses.replace(context(taps_of(key, (5,)), {}), batch={"tokens": tokens, "weight": jnp.ones(B)})
  expected = 1 - centred_kernel_alignment(tokens, ctx.outputs.taps["000_dense"])
  np.testing.assert_allclose(value(term(reference="input"), ctx), expected, rtol=1e-5)


def test_the_input_can_be_the_guide(key):
  ctx = context(taps_of(key, (5, 6)), {})
  x = ctx.batch["image"]
  expected = sum(1 - centred_kernel_alignment(x, ctx.outputs.taps[f"{i:03d}_dense"]) for i in (0, 2))
  made = term(reference="input", layer_map=((0, 0), (0, 1)))
  np.testing.assert_allclose(value(made, ctx), expected, rtol=1e-5)


def centred_kernel_alignment(x, y):
  """CKA by its definition with the centring matrix H."""
  h = np.eye(B) - 1 / B
  k, m = (h @ (np.float64(a) @ np.float64(a).T) @ h for a in (x, y))
  return np.sum(k * m) / np.sqrt(np.sum(k * k) * np.sum(m * m))


def test_descending_aligns(key):
  """64 points: gradient descent on the term alone takes it from above 0.3 to below 0.05."""
  guide = {"000_dense": jax.random.normal(jax.random.key(3), (64, 4)), "001_relu": jnp.zeros((64, 4))}
  made = term()
  loss = lambda x: value(made, context({"000_dense": x, "001_relu": x}, guide, count=64))

  @jax.jit
  def descend(x):
    return jax.lax.fori_loop(0, 400, lambda _, x: x - 8.0 * jax.grad(loss)(x), x)

  x = jax.random.normal(key, (64, 6))
  assert loss(x) > 0.3 and loss(descend(x)) < 0.05


@pytest.mark.parametrize("fields, words", [
  ({"reference": "gide"}, "reads the reference 'gide'; did you mean 'guide'"),
  ({"taps": "conv"}, "taps of the guided network: the model has no taps of kind 'conv'.*taps are: 000_dense, 001_relu"),
  ({"guide_taps": "007_conv"}, "guide_taps: the model has no taps of kind '007_conv'"),
  ({"layer_map": ((9, 0),)}, "tap 9 of the guide, which has 1: 0 000_dense"),
  ({"layer_map": ((0, 0), (-1, 0))}, "names the pair of 000_dense and 000_dense twice"),
  ({"layer_map": ()}, "layer_map is .*; give pairs"),
  ({"layer_map": ((0,),)}, "layer_map is .*; give pairs"),
  ({"measure": "knn_overlap"}, "no useful gradient; use one of linear_cka"),
  ({"measure": "cka"}, "measure|name is 'cka', which does not exist"),
])
def test_mistakes_are_sentences(fields, words, key):
  ctx = context(taps_of(key, (5,)), taps_of(key, (5,)))
  with pytest.raises(UserError, match=words):
    value(term(**fields), ctx)


def test_a_tap_without_the_batch_axis_is_refused(key):
  wrong = {name: tap[:-1] for name, tap in taps_of(key, (5,)).items()}
  with pytest.raises(UserError, match="000_dense has 11 rows for a batch of 12"):
    value(term(), context(wrong, taps_of(key, (5,))))


def test_a_cache_of_logits_guides_nothing(key):
  with pytest.raises(UserError, match="keeps no taps; make it taps such as 'pre'"):
    value(term(), context(taps_of(key, (5,)), {}))
