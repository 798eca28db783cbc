"""The common part of vision transformer and decoder: the block, its options, and how blocks are stacked."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nurture.attention.positions import rope, sincos2d, sinusoidal
from nurture.core import UserError
from nurture.core.taps import select
from nurture.models.decoder import Decoder
from nurture.models.vit import ViT

TOKENS = np.random.default_rng(0).integers(0, 7, size=(3, 6))
LEARNED = {"attention": "sigmoid", "attention_bias": "learned"}
SMALL = functools.partial(Decoder, 7, width=8, depth=3, heads=2, max_length=6, kernel_init="lecun")


def initialized(module, x=TOKENS):
  """Returns parameters of which none stands at a value that hides it, such as a shift of 0; compiles nothing."""
  shapes = jax.eval_shape(lambda key: module.init(key, x)["params"], jax.random.key(0))
  rng = np.random.default_rng(0)

  def draw(path, leaf):
    mean = 1.0 if path[-1].key == "scale" else 0.0
    return (mean + rng.normal(size=leaf.shape) * (leaf.shape[-2] if leaf.ndim > 1 else 9) ** -0.5).astype(np.float32)

  return jax.tree_util.tree_map_with_path(draw, shapes)


def fresh(module):
  """Returns parameters as they start."""
  return jax.jit(module.init)(jax.random.key(0), TOKENS)["params"]


def apply(module, params, x=TOKENS, **arguments):
  rngs = {"dropout": jax.random.key(1)} if arguments.get("train") else None
  return jax.jit(lambda params: module.apply({"params": params}, x, rngs=rngs, **arguments))(params)


def stacked(params, depth):
  """Returns the parameters of a scanned model from those of a loop."""
  rest = {name: leaf for name, leaf in params.items() if not name.startswith("block_")}
  blocks = [params[f"block_{i:02d}"] for i in range(depth)]
  return {**rest, "blocks": jax.tree.map(lambda *leaves: jnp.stack(leaves), *blocks)}


def assert_trees_close(a, b, **tolerance):
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), a, b)


def count(module, x=TOKENS):
  params = jax.eval_shape(lambda key: module.init(key, x), jax.random.key(0))["params"]
  return sum(leaf.size for leaf in jax.tree.leaves(params))


def objective(module, params, x=TOKENS, taps=True):
  """A scalar that depends on the logits and, if asked, on every tap."""
  outputs = module.apply({"params": params}, x)
  return jnp.sum(jnp.sin(outputs.logits)) + sum(jnp.sum(jnp.sin(tap)) for tap in outputs.taps.values() if taps)


def test_scan_and_remat_are_the_loop():
  fields = LEARNED | {"qk_norm": True, "layer_scale": 0.5, "hybrid_norm": True, "depth": 2}
  loop = SMALL(**fields)
  params = initialized(loop)
  outputs, gradient = jax.jit(lambda p: (loop.apply({"params": p}, TOKENS), jax.grad(
    functools.partial(objective, loop))(p)))(params)
  for remat, scan in ((True, False), (False, True), (True, True)):
    other = SMALL(**fields, remat=remat, scan=scan)
    own = stacked(params, 2) if scan else params
    shapes = jax.eval_shape(lambda key, other=other: other.init(key, TOKENS)["params"], jax.random.key(0))
    assert jax.tree.map(jnp.shape, own) == jax.tree.map(jnp.shape, shapes)
    assert count(other) == count(loop)
    outputs_of, gradient_of = jax.jit(lambda p, other=other: (other.apply({"params": p}, TOKENS), jax.grad(
      functools.partial(objective, other))(p)))(own)
    assert list(outputs_of.taps) == list(outputs.taps)
    assert_trees_close(outputs_of, outputs, rtol=1e-4, atol=1e-5)
    assert_trees_close(gradient_of, stacked(gradient, 2) if scan else gradient, rtol=1e-3, atol=1e-4)


def test_scanned_blocks_start_differently():
  kernels = fresh(SMALL(scan=True))["blocks"]["attention"]["query"]["kernel"]
  assert kernels.shape == (3, 8, 8)
  assert np.abs(kernels[0] - kernels[1]).max() > 0.1
  np.testing.assert_allclose(kernels.std(axis=(1, 2)), 8**-0.5, rtol=0.4)


def test_taps_are_the_network_in_call_order():
  module = SMALL(**LEARNED)
  params = initialized(module)
  taps = apply(module, params).taps
  inside = ["attention_mass", "attention", "projection", "add", "dense", "gelu", "mlp", "add"]
  names = ["embed", *(f"block{i}.{kind}" for i in range(3) for kind in inside), "norm"]
  assert list(taps) == sorted(taps) == [f"{i:03d}_{name}" for i, name in enumerate(names)]
  assert taps["001_block0.attention_mass"].shape == (3, 6, 2)
  assert list(select(taps, "pre")) == [name for name in taps if name.endswith(".dense")]
  for pre, post in zip(select(taps, "pre").values(), select(taps, "post").values()):
    np.testing.assert_allclose(post, jax.nn.gelu(pre, approximate=False), rtol=1e-5, atol=1e-6)
  x = taps["000_embed"]
  for i in range(3):
    attention, first, mlp, second = (taps[f"{k + 8 * i:03d}_block{i}.{name}"] for k, name in (
      (3, "projection"), (4, "add"), (7, "mlp"), (8, "add")))
    out = params[f"block_{i:02d}"]["attention"]["out"]
    weighted = taps[f"{2 + 8 * i:03d}_block{i}.attention"]
    np.testing.assert_allclose(attention, weighted @ out["kernel"] + out["bias"][None, None], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(first, x + attention, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(second, first + mlp, rtol=1e-5, atol=1e-6)
    x = second


def test_taps_that_nobody_reads_cost_nothing():
  def memory(depth, read):
    module = ViT(3, patch=2, width=32, depth=depth, heads=2, scan=True)
    x = jnp.zeros((8, 16, 16, 1))
    variables = jax.eval_shape(lambda key: module.init(key, x), jax.random.key(0))
    stats = jax.jit(lambda v, x: read(module.apply(v, x))).lower(variables, x).compile().memory_analysis()
    return stats.temp_size_in_bytes + stats.output_size_in_bytes

  residual = 8 * 64 * 32 * 4  # bytes of one tap of the residual stream
  logits = lambda outputs: outputs.logits
  assert memory(8, logits) - memory(2, logits) < residual
  assert memory(8, lambda outputs: outputs) - memory(2, lambda outputs: outputs) > 6 * 10 * residual


@pytest.mark.parametrize("attention", ["softmax", "sigmoid"])
def test_gradients_reach_queries_and_keys(attention):
  module = SMALL(attention=attention)
  params = initialized(module)
  gradient = jax.jit(jax.grad(functools.partial(objective, module, taps=False)))(params)
  for i in range(3):
    for name in ("query", "key", "value", "out"):
      assert np.abs(gradient[f"block_{i:02d}"]["attention"][name]["kernel"]).max() > 1e-4


@pytest.mark.parametrize("fields, more", [
  ({"attention": "sigmoid"}, 0),
  (LEARNED, 3 * 2),
  ({"qk_norm": True}, 3 * 4 * 4),  # two norms, scale and shift, of 4 features
  ({"layer_scale": 1e-4}, 3 * 2 * 8),
  ({"hybrid_norm": True}, 3 * 2 * 8),
])
def test_what_options_add_to_the_count(fields, more):
  assert count(SMALL(**fields)) - count(SMALL()) == more


@pytest.mark.parametrize("fields", [{"remat": True}, {"scan": True}, {}])
def test_drop_path_is_traced(fields):
  module, traces = SMALL(**fields), []
  params = initialized(module)

  @jax.jit
  def forward(rate):
    traces.append(rate)
    return module.apply({"params": params}, TOKENS, train=True, drop_path=rate, rngs={"dropout": jax.random.key(1)})

  plain = apply(module, params)
  assert_trees_close(forward(0.0), plain, rtol=1e-5, atol=1e-5)
  taps = forward(1.0).taps
  assert len(traces) == 1
  np.testing.assert_array_equal(taps["024_block2.add"], taps["016_block1.add"])
  assert np.any(taps["016_block1.add"] != plain.taps["016_block1.add"])
  assert_trees_close(apply(module, params, drop_path=1.0), plain, rtol=1e-5, atol=1e-5)  # evaluation


@pytest.mark.parametrize("scan", [False, True])
def test_drop_path_grows_with_depth_and_keeps_the_mean(scan):
  module = Decoder(2, width=4, depth=4, heads=1, max_length=1, scan=scan, kernel_init="lecun")
  x, rate = np.zeros((4000, 1), np.int32), 0.6
  params = initialized(module, x)
  taps = apply(module, params, x, train=True, drop_path=rate).taps
  stream = [taps[name] for name in taps if name.endswith(("embed", "add"))]
  dropped = [float(jnp.mean(jnp.all(a == b, axis=(1, 2)))) for a, b in zip(stream, stream[1:])]
  np.testing.assert_allclose(dropped, np.repeat([0.15, 0.3, 0.45, 0.6], 2), atol=5 * 0.5 / math.sqrt(4000))
  kept = np.any(stream[1] != stream[0], axis=(1, 2))
  np.testing.assert_allclose(  # one token in, so the branch before the drop is the same for all
    (stream[1] - stream[0])[kept], taps["003_block0.projection"][kept] / 0.85, rtol=1e-4, atol=1e-5
  )


@pytest.mark.parametrize("scan", [False, True])
def test_dropout_needs_its_stream_and_acts_in_training_only(scan):
  module = SMALL(dropout=0.5, scan=scan)
  params = initialized(module)
  plain = apply(module, params).logits
  np.testing.assert_array_equal(plain, apply(module, params).logits)
  taps = apply(module, params, train=True).taps
  first = taps["004_block0.add"]
  kept = first - 2 * taps["003_block0.projection"]  # the embedding, dropped or doubled, where the branch is kept
  embed = 2 * taps["000_embed"]
  cases = [jnp.isclose(a, b, atol=1e-4) for a in (first, kept) for b in (embed, jnp.zeros_like(embed))]
  assert np.all(sum(c.astype(int) for c in cases) >= 1)
  assert all(0.1 < float(c.mean()) < 0.45 for c in cases)


def test_tiny_layer_scale_makes_the_blocks_the_identity():
  taps = apply(module := SMALL(layer_scale=1e-6), fresh(module)).taps
  assert np.abs(taps["003_block0.projection"]).max() > 0.01
  np.testing.assert_allclose(taps["024_block2.add"], taps["000_embed"], atol=3e-5)
  module = SMALL(layer_scale=0.25)
  taps = apply(module, fresh(module)).taps
  for before, branch, after in ((0, "003_block0.projection", 4), (4, "007_block0.mlp", 8)):
    names = list(taps)
    np.testing.assert_allclose(taps[names[after]] - taps[names[before]], 0.25 * taps[branch], atol=1e-5)


def test_hybrid_norm_normalizes_the_attention_branch_alone():
  module = SMALL(hybrid_norm=True, attention="sigmoid", attention_bias=0.0)
  taps = apply(module, fresh(module)).taps
  branch = taps["004_block0.add"] - taps["000_embed"]
  np.testing.assert_allclose(branch.mean(axis=-1), 0, atol=1e-5)
  np.testing.assert_allclose(branch.std(axis=-1), 1, rtol=1e-3)
  assert np.abs(taps["003_block0.projection"].std(axis=-1) - 1).max() > 0.05
  np.testing.assert_allclose(taps["008_block0.add"] - taps["004_block0.add"], taps["007_block0.mlp"], atol=1e-5)


def test_qk_norm_takes_the_size_of_queries_and_keys_away():
  module = SMALL(qk_norm=True, attention="sigmoid")
  params = initialized(module)
  larger = jax.tree.map(lambda p: p, params)
  for name in ("query", "key"):
    larger["block_01"]["attention"][name] = jax.tree.map(lambda p: 30 * p, params["block_01"]["attention"][name])
  np.testing.assert_allclose(apply(module, larger).logits, apply(module, params).logits, atol=2e-3)
  without = SMALL(attention="sigmoid")
  drop = lambda tree: {k: drop(v) if isinstance(v, dict) else v for k, v in tree.items() if k[-5:] != "_norm" or
                       not k.startswith(("query", "key"))}
  gap = np.abs(apply(without, drop(larger)).logits - apply(without, drop(params)).logits).max()
  assert gap > 0.02


def test_attention_mass_is_one_under_softmax_and_half_the_keys_at_zero_bias():
  params = jax.tree.map(jnp.zeros_like, initialized(SMALL()))
  seen = np.broadcast_to(np.arange(1.0, 7)[None, :, None], (3, 6, 2))
  mass = lambda **fields: apply(SMALL(**fields), params).taps["001_block0.attention_mass"]
  np.testing.assert_allclose(mass(), 1, rtol=1e-6)
  np.testing.assert_allclose(mass(attention="sigmoid", attention_bias=0.0), seen / 2, rtol=1e-6)
  np.testing.assert_allclose(mass(attention="sigmoid"), seen / 7, rtol=1e-6)


def test_the_computation_follows_the_dtype():
  for dtype, x64 in (("bfloat16", False), ("float64", True)):
    with jax.enable_x64(x64):
      module = SMALL(**LEARNED, qk_norm=True, layer_scale=0.1, hybrid_norm=True, scan=True, dtype=dtype)
      variables = jax.eval_shape(lambda key, module=module: module.init(key, TOKENS), jax.random.key(0))
      outputs = jax.eval_shape(lambda v, module=module: module.apply(v, TOKENS), variables)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype("float32")}
    assert {str(tap.dtype) for tap in outputs.taps.values()} == {dtype}
    assert outputs.logits.dtype == ("float64" if x64 else "float32")


@pytest.mark.parametrize("fields, words", [
  ({"width": 9}, "heads = 2 does not divide"),
  ({"heads": 4, "kv_heads": 3}, "kv_heads = 3 does not divide"),
  ({"attention_bias": "learned"}, "softmax attention cancels it"),
])
def test_mistakes_are_named(fields, words):
  with pytest.raises(UserError, match=words):
    count(SMALL(**fields))


def test_rope_scores_depend_on_the_distance():
  with jax.enable_x64(True):
    rng = np.random.default_rng(0)
    query, key = (jnp.asarray(rng.normal(size=(1, 5, 2, 6))) for _ in range(2))
    scores = lambda a, b: jnp.einsum("btnh,bsnh->bnts", rope(query, offset=a), rope(key, offset=b))
    np.testing.assert_allclose(scores(7, 7), scores(0, 0), rtol=1e-10)
    assert np.abs(scores(7, 6) - scores(0, 0)).max() > 0.1
    np.testing.assert_allclose(jnp.linalg.norm(rope(query), axis=-1), jnp.linalg.norm(query, axis=-1), rtol=1e-12)
    np.testing.assert_allclose(rope(query)[:, 0], query[:, 0])
    # Token 1 of the pair (0, 3) turns by 1 radian, of (2, 5) by 10000^(-2/3).
    turn = lambda a, b, angle: a * np.cos(angle) - b * np.sin(angle)
    np.testing.assert_allclose(rope(query)[0, 1, 0, 0], turn(query[0, 1, 0, 0], query[0, 1, 0, 3], 1.0))
    np.testing.assert_allclose(rope(query)[0, 1, 0, 2], turn(query[0, 1, 0, 2], query[0, 1, 0, 5], 1e4 ** (-2 / 3)))


def test_sinusoidal_table():
  table = sinusoidal(50, 8)
  assert table.shape == (50, 8)
  np.testing.assert_allclose(table[3, :4], [math.sin(3), math.cos(3), math.sin(0.3), math.cos(0.3)])
  products = table @ table.T  # depend on the distance alone
  np.testing.assert_allclose(products[:-5, :-5], products[5:, 5:], rtol=1e-12)


def test_sincos2d_table():
  table = sincos2d(3, 5, 16)
  assert table.shape == (15, 16) and len(np.unique(table.round(6), axis=0)) == 15
  row, column = 2, 4
  frequencies = 1e4 ** -(np.arange(4) / 3)  # from 1 to 1 / 10000
  halves = [np.concatenate([np.sin(at * frequencies), np.cos(at * frequencies)]) for at in (column, row)]
  np.testing.assert_allclose(table[row * 5 + column], np.concatenate(halves))
  np.testing.assert_allclose((table**2).sum(axis=1), 8)
