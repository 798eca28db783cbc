"""The causal decoder: what a token may see, how heads are shared, and the mistakes that configs make."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nurture.core import UserError, build
from nurture.models.decoder import Decoder

POSITIONS = ("sinusoidal", "learned", "rope", "alibi", "none")
TOKENS = np.random.default_rng(0).integers(0, 7, size=(2, 8))
SMALL = functools.partial(Decoder, 7, width=8, depth=2, heads=2, max_length=8, kernel_init="lecun")


def forward(module, x=TOKENS):
  """Returns some parameters and the compiled function (params, tokens) -> outputs."""
  shapes = jax.eval_shape(lambda key: module.init(key, x)["params"], jax.random.key(0))
  rng = np.random.default_rng(1)
  draw = lambda leaf: (rng.normal(size=leaf.shape) * leaf.shape[0] ** -0.5).astype(np.float32)
  params = jax.tree.map(draw, shapes)
  return params, jax.jit(lambda params, x: module.apply({"params": params}, x))


def count(module, x=TOKENS):
  params = jax.eval_shape(lambda key: module.init(key, x), jax.random.key(0))["params"]
  return sum(leaf.size for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("attention", ["softmax", "sigmoid"])
@pytest.mark.parametrize("window", [0, 2])
def test_no_token_sees_the_next(positions, attention, window):
  # Scanned or not, so that either meets every other option.
  scan = (POSITIONS.index(positions) + ("softmax", "sigmoid").index(attention) + window // 2) % 2 == 1
  depth = 2 if scan else 1
  params, apply = forward(SMALL(positions=positions, attention=attention, window=window, scan=scan, depth=depth))
  outputs = apply(params, TOKENS)
  assert outputs.logits.shape == (2, 8, 7)
  for t in (1, 5):
    changed = TOKENS.copy()
    changed[:, t] = (changed[:, t] + 1) % 7
    other = apply(params, changed)
    for a, b in zip(jax.tree.leaves(outputs), jax.tree.leaves(other)):
      np.testing.assert_array_equal(a[:, :t], b[:, :t])
    assert np.all(np.any(outputs.logits[:, t:t + 2] != other.logits[:, t:t + 2], axis=-1))


def test_options_of_the_block_keep_it_causal():
  module = SMALL(attention="sigmoid", attention_bias="learned", kv_heads=1, qk_norm=True, layer_scale=0.5,
                 hybrid_norm=True, use_bias=False, tied=True, remat=True)
  params, apply = forward(module)
  outputs, other = apply(params, TOKENS), apply(params, np.concatenate([TOKENS[:, :5], 6 - TOKENS[:, 5:]], axis=1))
  for a, b in zip(jax.tree.leaves(outputs), jax.tree.leaves(other)):
    np.testing.assert_array_equal(a[:, :5], b[:, :5])
  assert np.any(outputs.logits[:, 5:] != other.logits[:, 5:])


@pytest.mark.parametrize("positions", POSITIONS)
def test_a_prefix_gets_the_logits_that_it_has_in_the_whole(positions):
  params, apply = forward(SMALL(positions=positions, attention="sigmoid"))
  np.testing.assert_allclose(
    apply(params, TOKENS[:, :5]).logits, apply(params, TOKENS).logits[:, :5], rtol=1e-4, atol=1e-5
  )


def test_a_window_ends():
  params, apply = forward(SMALL(depth=1, window=2))
  outputs = apply(params, TOKENS).logits
  changed = TOKENS.copy()
  changed[:, 1] = (changed[:, 1] + 1) % 7
  differs = np.any(outputs != apply(params, changed).logits, axis=-1)
  np.testing.assert_array_equal(differs, np.broadcast_to([False, True, True, True, False, False, False, False], (2, 8)))


@pytest.mark.parametrize("positions, sees", [("none", False), ("rope", True), ("alibi", True), ("learned", True)])
def test_positions_tell_the_order_of_what_came_before(positions, sees):
  params, apply = forward(SMALL(depth=1, positions=positions))
  swapped = TOKENS[:, [1, 0, 3, 2, 5, 4, 6, 7]]
  assert np.any(swapped != TOKENS)
  gap = np.abs(apply(params, TOKENS).logits[:, -1] - apply(params, swapped).logits[:, -1]).max()
  assert gap > 1e-4 if sees else gap < 1e-5


def test_grouped_heads_are_heads_with_equal_keys_and_values():
  grouped = SMALL(width=16, heads=4, kv_heads=2)
  params, apply = forward(grouped)
  full = jax.tree.map(lambda p: p, params)
  for block in ("block_00", "block_01"):
    for name in ("key", "value"):
      layer = params[block]["attention"][name]
      assert layer["kernel"].shape == (16, 8)
      full[block]["attention"][name] = {
        "kernel": jnp.repeat(layer["kernel"].reshape(16, 2, 4), 2, axis=1).reshape(16, 16),
        "bias": jnp.repeat(layer["bias"].reshape(2, 4), 2, axis=0).reshape(16),
      }
  all_heads = jax.jit(SMALL(width=16, heads=4).apply)({"params": full}, TOKENS)
  np.testing.assert_allclose(apply(params, TOKENS).logits, all_heads.logits, rtol=1e-4, atol=1e-5)


def test_a_tied_head_is_the_embedding():
  module = SMALL(tied=True, positions="none")
  params, apply = forward(module)
  outputs = apply(params, TOKENS)
  table = params["embedding"]["embedding"]
  np.testing.assert_allclose(outputs.taps["000_embed"], table[TOKENS], rtol=1e-6)
  np.testing.assert_allclose(outputs.logits, outputs.taps["017_norm"] @ table.T, rtol=1e-4, atol=1e-5)
  assert "head" not in params


def test_counts():
  # 7 x 8 embedding; of each block 4 (64 + 8) attention, 2 x 256 + 32 + 8 MLP, 4 x 8 norms; 16 norm; 8 x 7 + 7 head.
  assert count(SMALL()) == 56 + 2 * (288 + 552 + 32) + 16 + 63
  assert count(SMALL(use_bias=False)) == count(SMALL()) - 2 * (4 * 8 + 32 + 8) - 7
  assert count(SMALL(tied=True)) == count(SMALL()) - 63
  assert count(SMALL(kv_heads=1)) == count(SMALL()) - 2 * 2 * (8 * 4 + 4)
  for positions in ("sinusoidal", "alibi", "none"):
    assert count(SMALL(positions=positions)) == count(SMALL())
  assert count(SMALL(positions="learned", max_length=99)) == count(SMALL()) + 99 * 8
  assert count(SMALL(attention="sigmoid", attention_bias="learned", scan=True)) == count(SMALL()) + 2 * 2


def test_the_bias_is_minus_log_of_the_length_in_training():
  params, _ = forward(SMALL())
  logits = lambda x, **fields: jax.jit(SMALL(attention="sigmoid", **fields).apply)({"params": params}, x).logits
  for x in (TOKENS, TOKENS[:, :3]):
    np.testing.assert_allclose(
      logits(x, max_length=64), logits(x, max_length=5, attention_bias=-4.158883), rtol=1e-4, atol=1e-5
    )
  assert np.abs(logits(TOKENS, max_length=64) - logits(TOKENS, max_length=8)).max() > 1e-3


def test_only_learned_positions_have_an_end():
  x = np.zeros((1, 9), np.int32)
  for positions in POSITIONS:
    if positions == "learned":
      with pytest.raises(UserError, match="9 tokens, but there are learned positions for 8 only"):
        count(SMALL(positions=positions), x)
    else:
      assert count(SMALL(positions=positions), x)


@pytest.mark.parametrize("fields, x, words", [
  ({"width": 6, "heads": 2}, TOKENS, "width / heads is 3, but positions of 'rope'"),
  ({"width": 9, "heads": 3, "positions": "sinusoidal"}, TOKENS, "width is 9, but positions of 'sinusoidal'"),
  ({"heads": 3}, TOKENS, "heads = 3 does not divide"),
  ({"heads": 4, "kv_heads": 3}, TOKENS, "kv_heads = 3 does not divide"),
  ({"window": -1}, TOKENS, "window is -1"),
  ({"max_length": 0}, TOKENS, "max_length is 0"),
  ({}, np.zeros((1, 8, 8, 3), np.float32), "needs tokens"),
  ({}, np.zeros((1, 8), np.float32), "whole numbers, not float32"),
])
def test_mistakes_are_named(fields, x, words):
  with pytest.raises(UserError, match=words) as error:
    count(SMALL(**fields), x)
  assert "config.model" in str(error.value)


def test_fields_are_checked():
  with pytest.raises(UserError, match="'alibi'"):
    build({"decoder": Decoder}, {"name": "decoder", "positions": "ALiBi"}, num_classes=7)
