"""Attention against loops in float64, other libraries, closed forms and invariances."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from nurture.attention import Chunked, alibi_slopes, api, sigmoid_attention, softmax_attention
from nurture.core import UserError

BOTH = pytest.mark.parametrize("attention", [sigmoid_attention, softmax_attention])


@pytest.fixture(autouse=True)
def float64():
  with jax.enable_x64(True):
    yield


def inputs(queries=5, keys=5, heads=2, kv_heads=2, features=4, batch=2, seed=0, value_features=None):
  rng = np.random.default_rng(seed)
  draw = lambda *shape: jnp.asarray(rng.normal(size=shape))
  return (
    draw(batch, queries, heads, features),
    draw(batch, keys, kv_heads, features),
    draw(batch, keys, kv_heads, value_features or features),
  )


def by_loops(kind, query, key, value, *, bias=0.0, sees=lambda b, n, t, s: True, slopes=None, scale=None):
  """Attention one weight at a time; the bias is a number or [N], and a query stands at t + S - T."""
  query, key, value = (np.asarray(a) for a in (query, key, value))
  batch, queries, heads, features = query.shape
  keys, group = key.shape[1], heads // key.shape[2]
  bias = np.broadcast_to(bias, (heads,))
  out = np.zeros((batch, queries, heads, value.shape[3]))
  for b, t, n in np.ndindex(batch, queries, heads):
    weights = {}
    for s in range(keys):
      if sees(b, n, t, s):
        logit = query[b, t, n] @ key[b, s, n // group] * (features**-0.5 if scale is None else scale) + bias[n]
        logit -= 0 if slopes is None else slopes[n] * abs(t + keys - queries - s)
        weights[s] = 1 / (1 + math.exp(-logit)) if kind is sigmoid_attention else math.exp(logit)
    total = 1 if kind is sigmoid_attention else sum(weights.values())
    for s, weight in weights.items():
      out[b, t, n] += weight / total * value[b, s, n // group]
  return out


@pytest.mark.parametrize("queries, keys, heads, kv_heads", [(1, 1, 1, 1), (5, 5, 2, 2), (7, 3, 4, 2), (3, 7, 3, 1)])
@pytest.mark.parametrize("bias", [0.0, "-log_n", -10, "per head"])
@BOTH
def test_loops(attention, queries, keys, heads, kv_heads, bias):
  arrays = inputs(queries, keys, heads, kv_heads, value_features=3)
  bias = np.linspace(-2, 1, heads) if bias == "per head" else bias
  number = -math.log(keys) if isinstance(bias, str) else bias
  np.testing.assert_allclose(attention(*arrays, bias), by_loops(attention, *arrays, bias=number), rtol=1e-12)


# With more keys than queries every combination, with fewer all at once.
CHOICES = [(3, 7, *rest) for rest in itertools.product((0, 1), (None, 1, (2, 0)), (0, 1), (0, 1))]


@pytest.mark.parametrize("queries, keys, causal, window, mask, slopes", [*CHOICES, (7, 3, 1, (2, 1), 1, 1)])
@BOTH
def test_masks_and_alibi_by_loops(attention, queries, keys, causal, window, mask, slopes):
  arrays = inputs(queries, keys, heads=3, kv_heads=1)
  allowed = np.random.default_rng(1).random((2, 3, queries, keys)) < 0.6
  left, right = (window, window) if isinstance(window, int) else window or (99, 99)

  def sees(b, n, t, s):
    ahead = s - (t + keys - queries)
    return (not causal or ahead <= 0) and -left <= ahead <= right and (not mask or allowed[b, n, t, s])

  steep = 0.1 + np.arange(3.0) if slopes else None
  out = attention(
    *arrays, -1.0, allowed if mask else None, is_causal=bool(causal), local_window_size=window, alibi_slopes=steep
  )
  expected = by_loops(attention, *arrays, bias=-1.0, sees=sees, slopes=steep)
  np.testing.assert_allclose(out, expected, rtol=1e-12, atol=1e-15)


@BOTH
def test_lengths_segments_and_scale_by_loops(attention):
  arrays = inputs(4, 6)
  segments = np.array([[0, 0, 1, 2], [5, 5, 5, 5]]), np.array([[0, 1, 1, 0, 3, 2], [5, 5, 5, 4, 5, 5]])
  lengths = np.array([3, 4]), np.array([6, 2])

  def sees(b, n, t, s):
    return t < lengths[0][b] and s < lengths[1][b] and segments[0][b, t] == segments[1][b, s]

  out = attention(
    *arrays, 0.5, scale=0.3, q_segment_ids=segments[0], kv_segment_ids=segments[1], query_seq_lengths=lengths[0],
    key_value_seq_lengths=lengths[1],
  )
  np.testing.assert_allclose(out, by_loops(attention, *arrays, bias=0.5, scale=0.3, sees=sees), rtol=1e-12)


@BOTH
def test_a_tensor_bias_adds_to_the_logits(attention):
  query, key, value = inputs()
  extra = np.random.default_rng(2).normal(size=(1, 2, 5, 1))
  # One more feature whose product is the bias.
  query_and = jnp.concatenate([query, jnp.broadcast_to(extra, (2, 2, 5, 1)).transpose(0, 2, 1, 3)], axis=-1)
  key_and = jnp.concatenate([key, jnp.full((2, 5, 2, 1), 2.0)], axis=-1)
  expected = attention(query_and, key_and, value, 0.0, scale=0.5)
  np.testing.assert_allclose(attention(query, key, value, extra), expected, rtol=1e-12)


@pytest.mark.parametrize("fields", [
  {}, {"is_causal": True}, {"local_window_size": (2, 1)}, {"is_causal": True, "local_window_size": 2},
  {"key_value_seq_lengths": np.array([2, 5], np.int32)},
])
def test_softmax_is_jax_nn(fields):
  arrays = [a.astype(jnp.float32) for a in inputs(6, 9, heads=4, kv_heads=2)]
  expected = jax.nn.dot_product_attention(*arrays, implementation="xla", **fields)
  out = softmax_attention(*arrays, causal_offset=0, **fields)
  np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-6)


def test_softmax_is_flax(key):
  x = jax.random.normal(key, (2, 5, 8))
  module = nn.MultiHeadDotProductAttention(num_heads=2, param_dtype=jnp.float64)
  mask = nn.make_causal_mask(x[..., 0])
  params = module.init(key, x)["params"]
  project = lambda name: jnp.einsum("btd,dnh->btnh", x, params[name]["kernel"]) + params[name]["bias"][None, None]
  out = softmax_attention(project("query"), project("key"), project("value"), is_causal=True)
  out = jnp.einsum("btnh,nhd->btd", out, params["out"]["kernel"]) + params["out"]["bias"][None, None]
  np.testing.assert_allclose(out, module.apply({"params": params}, x, mask=mask), rtol=1e-10)


def test_without_logits_both_average_the_values():
  _, key, value = inputs(keys=64)
  query = jnp.zeros((2, 64, 2, 4))
  mean = jnp.broadcast_to(value.mean(axis=1, keepdims=True), value.shape)
  np.testing.assert_allclose(softmax_attention(query, key, value), mean, rtol=1e-12)
  np.testing.assert_allclose(sigmoid_attention(query, key, value), mean * 64 / 65, rtol=1e-12)
  np.testing.assert_allclose(sigmoid_attention(query, key, value, reference_length=99), mean * 64 / 100, rtol=1e-12)
  np.testing.assert_allclose(sigmoid_attention(query, key, value, 0.0), mean * 32, rtol=1e-12)


def test_n_does_not_follow_what_a_row_sees():
  query, key, value = inputs(keys=8, queries=8)
  whole = sigmoid_attention(query, key, value, is_causal=True)
  first = sigmoid_attention(query[:, :3], key[:, :3], value[:, :3], is_causal=True, reference_length=8)
  np.testing.assert_allclose(whole[:, :3], first, rtol=1e-12)


def test_a_very_negative_bias_makes_sigmoid_an_unnormalized_softmax():
  arrays = inputs(keys=9)
  out, total = sigmoid_attention(*arrays, -30.0, return_row_sum=True)
  np.testing.assert_allclose(out / total[..., None], softmax_attention(*arrays), rtol=1e-9)


@BOTH
def test_row_sums(attention):
  query, key, value = inputs(4, 6, heads=4, kv_heads=2)
  ones = jnp.ones((2, 6, 2, 1))
  out, total = attention(query, key, ones, is_causal=True, causal_offset=-1, return_row_sum=True)
  np.testing.assert_allclose(total, out[..., 0], rtol=1e-12)
  assert not np.any(total[:, 0])
  if attention is softmax_attention:
    np.testing.assert_allclose(total[:, 1:], 1, rtol=1e-12)


@BOTH
def test_masked_keys_and_empty_rows_are_exactly_nothing(attention):
  query, key, value = inputs(4, 6)
  mask = np.random.default_rng(3).random((2, 1, 4, 6)) < 0.5
  mask[:, :, 1], mask[:, :, :, 2] = False, False
  out = attention(query, key, value, -1.0, mask)
  assert not np.any(out[:, 1])
  assert np.all(np.any(out[:, 0] != 0, axis=-1) == np.any(mask[:, 0, 0], axis=-1)[:, None])
  other = attention(query, key.at[:, 2].set(1e3), value.at[:, 2].set(-1e30), -1.0, mask)
  np.testing.assert_array_equal(out, other)


@BOTH
def test_padded_keys_change_nothing(attention):
  query, key, value = inputs(3, 4)
  pad = lambda x: jnp.pad(x, ((0, 0), (0, 3), (0, 0), (0, 0)))
  expected = attention(query, key, value, reference_length=4)
  mask = (np.arange(7) < 4)[None, None, None]
  np.testing.assert_allclose(
    attention(query, pad(key), pad(value), mask=mask, reference_length=4), expected, rtol=1e-12
  )
  if attention is sigmoid_attention:  # zero values need no mask, whatever their weights
    np.testing.assert_allclose(attention(query, pad(key), pad(value), reference_length=4), expected, rtol=1e-12)


def test_duplicated_keys_with_n_doubled_change_nothing_at_first_order():
  query, key, value = inputs(3, 50)
  twice = lambda x: jnp.concatenate([x, x], axis=1)
  duplicated = sigmoid_attention(query, twice(key), twice(value))
  # 2 sigmoid(s - log 2n) = sigmoid(s - log n) (1 + p) / (1 + p/2) with p = e^s / n, for each key.
  odds = jnp.exp(jnp.einsum("btnh,bsnh->bnts", query, key) / 2) / 50
  expected = jnp.einsum("bnts,bsnh->btnh", odds / (1 + odds / 2), value)
  np.testing.assert_allclose(duplicated, expected, rtol=1e-10)
  assert np.abs(duplicated - sigmoid_attention(query, key, value)).max() > 1e-3
  # The longer the sequence, the smaller the odds: the gap falls as 1 / n.
  tiled = lambda copies: jax.jit(sigmoid_attention)(query, *(np.tile(a, (1, copies, 1, 1)) for a in (key, value)))
  gaps = [float(np.abs(tiled(2 * copies) - tiled(copies)).max()) for copies in (64, 128)]
  assert 0.45 < gaps[1] / gaps[0] < 0.55
  # Softmax does not see the copies at all.
  np.testing.assert_allclose(
    softmax_attention(query, twice(key), twice(value)), softmax_attention(query, key, value), rtol=1e-10
  )


@BOTH
def test_permuted_tokens_permute_the_result(attention):
  arrays, order = inputs(7, 7), np.random.default_rng(4).permutation(7)
  np.testing.assert_allclose(
    attention(*(a[:, order] for a in arrays)), attention(*arrays)[:, order], rtol=1e-12
  )


@BOTH
def test_a_causal_prefix_does_not_see_the_rest(attention):
  query, key, value = inputs(7, 7)
  out = attention(query, key, value, is_causal=True)
  changed = attention(query, key.at[:, 4:].add(9.0), value.at[:, 4:].add(9.0), is_causal=True)
  np.testing.assert_array_equal(out[:, :4], changed[:, :4])
  assert np.all(np.any(out[:, 4:] != changed[:, 4:], axis=-1))
  last = attention(query[:, -2:], key, value, is_causal=True)
  np.testing.assert_allclose(last, out[:, -2:], rtol=1e-12)


def total(attention, mask):
  def function(vector):
    query, key, value = (a.reshape(1, 3, 1, 2) for a in jnp.split(vector[:18], 3))
    out = attention(query, key, value, vector[18:19], mask, alibi_slopes=vector[19:])
    return jnp.sum(jnp.tanh(out + jnp.arange(2.0)[None, None, None]))

  return function


@pytest.mark.parametrize("mask", [
  np.array([[1, 0, 1], [0, 0, 0], [1, 1, 0]], bool)[None, None],
  pytest.param(None, marks=pytest.mark.long),  # the same without what guards masked logits
])
@BOTH
def test_derivatives_of_every_order(attention, mask):
  function = total(attention, mask)
  rng = np.random.default_rng(5)
  at, directions = jnp.asarray(rng.normal(size=20)), jnp.asarray(rng.normal(size=(3, 20)))
  d, step = directions[0], 1e-5
  derivatives = jax.jit(lambda x: (function(x), jax.grad(function)(x), jax.hessian(function)(x)))
  _, gradient, hessian = derivatives(at)
  third, forward, reverse_twice = jax.jit(lambda x: (
    jax.jvp(jax.hessian(function), (x,), (d,))[1], jax.jvp(function, (x,), (d,))[1],
    jax.jacrev(jax.jacrev(function))(x),
  ))(at)
  for value in (gradient, hessian, third):
    assert np.all(np.isfinite(value)) and np.any(value)
  ahead, behind = derivatives(at + step * d), derivatives(at - step * d)
  of_value, of_gradient, of_hessian = ((a - b) / (2 * step) for a, b in zip(ahead, behind))
  np.testing.assert_allclose(gradient @ d, of_value, rtol=1e-6, atol=1e-8)
  np.testing.assert_allclose(forward, gradient @ d, rtol=1e-9)
  np.testing.assert_allclose(hessian @ d, of_gradient, rtol=1e-5, atol=1e-7)
  np.testing.assert_allclose(hessian, reverse_twice, rtol=1e-8, atol=1e-10)
  np.testing.assert_allclose(third, of_hessian, rtol=1e-4, atol=1e-6)
  if mask is not None:
    assert not np.any(gradient[2:4])  # the query that sees nothing
    assert np.any(gradient[:2]) and np.any(gradient[4:6])


@BOTH
def test_masked_logits_and_biases_of_any_size_leave_gradients_finite(attention):
  query, key, value = (a.astype(jnp.float32) for a in inputs(3, 3))
  key = key.at[:, 2].set(1e4)
  bias = jnp.zeros((1, 1, 3, 3)).at[..., 1].set(-jnp.inf).at[:, :, 0].set(-jnp.inf)

  def loss(query, key, value, bias):
    return jnp.sum(attention(query, key, value, bias, mask=np.array([True, True, False])[None, None, None]) ** 2)

  def both(*at):
    along = *at[:3], jnp.zeros_like(bias)
    return jax.grad(loss, argnums=(0, 1, 2, 3))(*at), jax.jvp(jax.grad(loss), at, along)[1]

  gradients, second = jax.jit(both)(query, key, value, bias)
  assert all(np.all(np.isfinite(g)) for g in (*gradients, second))
  assert not np.any(gradients[1][:, 2]) and not np.any(gradients[2][:, 2])
  assert not np.any(attention(query, key, value, bias)[:, 0])


@pytest.mark.parametrize("implementation", ["xla", Chunked(2, 2)])
def test_a_bias_that_is_masked_may_be_anything(implementation):
  query, key, value = inputs(3, 3)
  mask = np.array([True, True, False])[None, None, None]

  def loss(query, bias):
    return jnp.sum(sigmoid_attention(query, key, value, bias, mask, implementation=implementation) ** 2)

  biases = [jnp.zeros((1, 1, 3, 3)).at[..., 2].set(at) for at in (0.0, jnp.nan)]
  plain, masked = (jax.grad(loss)(query, bias) for bias in biases)
  np.testing.assert_array_equal(masked, plain)


@BOTH
def test_numbers_of_every_kind_are_numbers(attention):
  arrays = inputs(7, 7)
  plain = attention(*arrays, 0.5, scale=0.25, local_window_size=(2, 1), causal_offset=1)
  of = jnp.asarray
  for window, offset, scale in [((np.int64(2), 1), np.int32(1), np.float32(0.25)), ([2, of(1)], of(1), of(0.25))]:
    same = attention(*arrays, np.float32(0.5), scale=scale, local_window_size=window, causal_offset=offset)
    np.testing.assert_allclose(same, plain, rtol=1e-12)
  np.testing.assert_array_equal(attention(*arrays, local_window_size=2**40), attention(*arrays))


@BOTH
def test_precision_follows_the_query(attention):
  arrays = inputs(16, 16)
  exact = np.asarray(attention(*arrays))
  for dtype, tolerance in ((jnp.float32, 1e-5), (jnp.bfloat16, 4e-3)):
    low = [a.astype(dtype) for a in arrays]
    out, total = attention(*low, return_row_sum=True)
    assert (out.dtype, total.dtype) == (dtype, jnp.float32)
    # Only the result is rounded, so the distance to exact arithmetic on the rounded inputs is one rounding.
    reference = np.asarray(attention(*(a.astype(jnp.float64) for a in low)))
    np.testing.assert_allclose(out.astype(jnp.float64), reference, rtol=tolerance, atol=1e-6)
  assert exact.dtype == np.float64


@pytest.mark.parametrize("change, words", [
  ({"query": (2, 5, 8)}, "give four axes"),
  ({"query": (2, 5, 3, 4)}, "3 query heads and 2 key heads"),
  ({"query": (2, 5, 2, 3)}, "batch and features"),
  ({"value": (2, 4, 2, 4)}, "length and heads of key and value"),
  ({"local_window_size": (-1, 0)}, "of at least 0"),
  ({"bias": "-log n"}, "'-log_n', a number"),
  ({"bias": np.zeros(3)}, "3 numbers for 2 heads"),
  ({"bias": np.zeros((2, 2, 5, 4))}, "bias .* does not broadcast"),
  ({"mask": np.ones((5, 5), bool)}, "mask .* does not broadcast"),
  ({"mask": np.ones((1, 1, 5, 5))}, "give booleans"),
  ({"q_segment_ids": np.zeros((2, 5), int)}, "one side only"),
  ({"query_seq_lengths": np.zeros(3, int)}, r"it must be \(2,\)"),
  ({"alibi_slopes": np.ones(3)}, "one slope for each"),
  ({"reference_length": 0, "bias": "-log_n"}, "at least 1"),
  ({"reference_length": 2.5, "bias": 0.0}, "reference_length .* is 2.5; give a whole number"),
  ({"query": (0, 5, 2, 4)}, "no axis may be empty"),
  ({"value": (2, 5, 2, 0)}, "no axis may be empty"),
  ({"query": "q"}, "query of attention is str"),
  ({"query": np.ones((2, 5, 2, 4), int)}, "query of dtype int"),
  ({"query": np.ones((2, 5, 2, 4), complex)}, "query of dtype complex"),
  ({"bias": np.ones((1, 1, 5, 7), bool)}, "dtype bool; give numbers, and booleans as the mask"),
  ({"bias": True}, "dtype bool"),
  ({"bias": float("nan")}, "bias of attention is nan"),
  ({"mask": [[True]]}, "mask .* does not broadcast"),
  ({"scale": "large"}, "scale of attention is str"),
  ({"scale": np.ones(4)}, "scale of attention has shape"),
  ({"scale": np.ones((1, 1, 1, 4))}, "scale of attention has shape"),
  ({"is_causal": "no"}, "is_causal is 'no'; give True or False"),
  ({"causal_offset": 0.5}, "causal_offset of attention is 0.5"),
  ({"causal_offset": 2**31}, "at most"),
  ({"local_window_size": True}, "local_window_size of attention is True"),
  ({"local_window_size": (1.5, 2)}, "local_window_size of attention is 1.5"),
  ({"local_window_size": (1, 2, 3)}, r"a number of keys, or \(before, after\)"),
  ({"q_segment_ids": np.zeros((2, 5)), "kv_segment_ids": np.zeros((2, 5), int)}, "dtype float.*whole numbers"),
  ({"q_segment_ids": np.zeros((2, 5), int), "kv_segment_ids": np.full((2, 5), 2**40)}, "ids between"),
  ({"query_seq_lengths": np.array([2.5, 3])}, "dtype float.*whole numbers"),
])
@BOTH
def test_mistakes_are_named(attention, change, words):
  arguments = dict(zip(("query", "key", "value"), inputs()))
  for name, value in change.items():
    arguments[name] = jnp.zeros(value) if name in ("query", "value") and isinstance(value, tuple) else value
  with pytest.raises(UserError, match=words) as error:
    attention(**arguments)
  assert str(error.value).count(". ") == 0 and str(error.value).endswith(".")


@pytest.mark.parametrize("heads", [1, 2, 4, 8, 16])
def test_alibi_slopes_of_a_power_of_two_are_geometric(heads):
  slopes = alibi_slopes(heads)
  assert slopes.shape == (heads,)
  np.testing.assert_allclose(slopes, 2.0 ** (-8 * np.arange(1, heads + 1) / heads), rtol=1e-6)


@pytest.mark.parametrize("heads, expected", [
  (3, [2**-4, 2**-8, 2**-2]),
  (12, [2.0**-i for i in range(1, 9)] + [2.0 ** (-i / 2) for i in (1, 3, 5, 7)]),
])
def test_alibi_slopes_of_other_numbers_come_from_the_powers_around(heads, expected):
  np.testing.assert_allclose(alibi_slopes(heads), expected, rtol=1e-6)


def test_softmax_names_its_implementations():
  arrays = inputs()
  np.testing.assert_array_equal(softmax_attention(*arrays, implementation="xla"), softmax_attention(*arrays))
  with pytest.raises(UserError, match="no implementation 'mosaic_gpu'; known: cudnn, xla"):
    softmax_attention(*arrays, implementation="mosaic_gpu")


@pytest.mark.parametrize("change, words", [
  ({}, "all in float16 or all in bfloat16, not in float64"),
  ({"dtype": jnp.bfloat16, "features": 12}, "a multiple of 8, not 12 and 12"),
  ({"dtype": jnp.bfloat16, "alibi_slopes": np.ones(2)}, "takes no arrays of biases, masks"),
  ({"dtype": jnp.bfloat16, "is_causal": True, "keys": 7}, "with as many queries as keys"),
  ({"dtype": jnp.bfloat16, "local_window_size": 3}, "with as many queries as keys"),
])
def test_what_cudnn_cannot_do_is_refused(change, words):
  fields = {"features": 8, "keys": 5, "dtype": jnp.float64} | change
  arrays = inputs(keys=fields.pop("keys"), features=fields.pop("features"))
  arrays = [a.astype(fields["dtype"]) for a in arrays]
  del fields["dtype"]
  with pytest.raises(UserError, match=words):
    softmax_attention(*arrays, **fields, implementation="cudnn")


@pytest.mark.parametrize("fields", [
  {}, {"is_causal": True}, {"is_causal": True, "local_window_size": 2}, {"scale": 0.3, "bias": -1.0},
])
@pytest.mark.parametrize("implementation", ["cudnn", None])
def test_cudnn_is_asked_for_the_same_attention(monkeypatch, fields, implementation):
  """cuDNN needs a GPU, but jax.nn gives its other implementation the same meaning."""
  asked, real = [], jax.nn.dot_product_attention

  def on_cpu(*arrays, implementation, **rest):
    asked.append(implementation)
    return real(*arrays, implementation="xla", **rest)

  monkeypatch.setattr(jax.nn, "dot_product_attention", on_cpu)
  monkeypatch.setattr(api, "_elsewhere", lambda name: "")
  arrays = [a.astype(jnp.float16) for a in inputs(9, 9, heads=4, kv_heads=2, features=8)]
  out, total = softmax_attention(*arrays, **fields, implementation=implementation, return_row_sum=True)
  expected, sums = softmax_attention(*arrays, **fields, implementation="xla", return_row_sum=True)
  assert asked == ["cudnn"]
  np.testing.assert_allclose(out, expected, rtol=4e-3, atol=2e-3)
  np.testing.assert_allclose(total, sums, rtol=1e-6)


def test_what_cudnn_cannot_do_goes_to_the_plain_form_unless_it_is_named(monkeypatch):
  monkeypatch.setattr(api, "_elsewhere", lambda name: "")
  query, key, value = inputs(features=8)
  mixed = query.astype(jnp.bfloat16), key.astype(jnp.float32), value.astype(jnp.float32)
  np.testing.assert_array_equal(softmax_attention(*mixed), softmax_attention(*mixed, implementation="xla"))
  with pytest.raises(UserError, match="all in float16 or all in bfloat16, not in"):
    softmax_attention(*mixed, implementation="cudnn")


@pytest.mark.parametrize("attention, names, words", [
  (softmax_attention, ("cudnn",), "runs on NVIDIA GPUs .* the default device is a cpu"),
  (sigmoid_attention, ("mosaic_gpu",), "takes query, key|runs on Hopper GPUs"),
  (sigmoid_attention, ("mosaic_tpu",), "runs on TPUs"),
  (softmax_attention, (3, ["xla"], Chunked()), "no implementation"),
  (sigmoid_attention, (3, ["xla"], Chunked), "give xla, .* or an object such as"),
])
def test_an_implementation_that_cannot_be_is_refused(attention, names, words):
  arrays = [a.astype(jnp.bfloat16) for a in inputs(features=64)]
  for name in names:
    with pytest.raises(UserError, match=words):
      attention(*arrays, implementation=name)
