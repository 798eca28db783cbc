"""Recurrent networks: against loops in numpy, PyTorch's counts, causality, and gradients through time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nurture.core import UserError, build
from nurture.core.taps import kind, select
from nurture.models.rnn import RNNS

B, T, K, C, W = 3, 5, 4, 2, 6


def make(name, **fields):
  return build(RNNS, {"name": name, "num_classes": K, "width": W, **fields}, path="config.model")


def initial(module, x, seed=0):
  return module.init({"params": jax.random.key(seed), "dropout": jax.random.key(1)}, x)


def vectors(key, *shape):
  return jax.random.normal(key, shape or (B, T, C))


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def cell_by_hand(name, a, u, h, c):
  """One example's next (h, c) from a = W x + b and u = U h + b', part by part."""
  part = lambda v, i: v[i * W : (i + 1) * W]
  if name == "rnn":
    return np.tanh(a + u), c
  if name == "lstm":
    i, f, o = (sigmoid(part(a + u, n)) for n in (0, 1, 3))
    c = f * c + i * np.tanh(part(a + u, 2))
    return o * np.tanh(c), c
  r, z = (sigmoid(part(a + u, n)) for n in (0, 1))
  return (1 - z) * np.tanh(part(a, 2) + r * part(u, 2)) + z * h, c


def layers_by_hand(name, params, x, depth):
  """The hidden and cell states [B, T, W] of each layer, one example and one step at a time."""
  hidden, cells = [], []
  for i in range(depth):
    p = {leaf: np.asarray(array, np.float64) for leaf, array in params[f"layer_{i:02d}"].items()}
    hs, cs = np.zeros((2, *x.shape[:2], W))
    for b in range(x.shape[0]):
      h, c = np.zeros(W), np.zeros(W)
      for t in range(x.shape[1]):
        a, u = x[b, t] @ p["kernel"] + p["bias"], h @ p["recurrent_kernel"] + p["recurrent_bias"]
        h, c = cell_by_hand(name, a, u, h, c)
        hs[b, t], cs[b, t] = h, c
    hidden, cells, x = [*hidden, hs], [*cells, cs], hs
  return hidden, cells


@pytest.mark.parametrize("name", RNNS)
@pytest.mark.parametrize("length", [1, T])
def test_a_stack_is_a_loop_over_time(name, length, key):
  module, x = make(name, depth=2), vectors(key, B, length, C)
  variables = initial(module, x)
  outputs = jax.jit(module.apply)(variables, x)
  hidden, cells = layers_by_hand(name, variables["params"], np.asarray(x, np.float64), depth=2)
  states = {"rnn": ("tanh",), "lstm": ("cell", "hidden"), "gru": ("hidden",)}[name]
  expected = {"cell": cells, "hidden": hidden, "tanh": hidden}
  for state in states:
    for i, tap in enumerate(select(outputs.taps, state).values()):
      np.testing.assert_allclose(tap, expected[state][i], atol=1e-5)
  head = variables["params"]["head"]
  expected = hidden[-1] @ np.asarray(head["kernel"]) + np.asarray(head["bias"])
  np.testing.assert_allclose(outputs.logits, expected, atol=1e-5)


def test_taps_are_layer_by_layer_and_the_pre_activation_is_what_goes_into_tanh(key):
  taps = jax.jit(lambda x: make("rnn", depth=2).init_with_output(key, x)[0].taps)(vectors(key))
  assert list(taps) == ["000_layer0.pre_activation", "001_layer0.tanh", "002_layer1.pre_activation", "003_layer1.tanh"]
  pre, post = select(taps, "pre").values(), select(taps, "post").values()
  for a, h in zip(pre, post):
    np.testing.assert_allclose(np.tanh(a), h, atol=1e-6)
  taps = make("lstm", depth=2, embedding=3, pool="mean").init_with_output(key, jnp.zeros((B, T), jnp.int32))[0].taps
  assert [kind(name) for name in taps] == ["embed", *["cell", "hidden"] * 2, "global_avg_pool"]


@pytest.mark.parametrize("name, gates", [("rnn", 1), ("gru", 3), ("lstm", 4)])
def test_parameter_counts_are_those_of_pytorch(name, gates):
  variables = lambda module, x: jax.eval_shape(lambda: initial(module, x))
  count = lambda module, x: sum(leaf.size for leaf in jax.tree.leaves(variables(module, x)["params"]))
  image, tokens = jnp.zeros((1, 28, 28, 1)), jnp.zeros((1, T), jnp.int32)
  per_layer = lambda inputs, width: gates * width * (inputs + width + 2)
  head = (64 + 1) * K
  assert count(make(name, depth=3, width=64), image) == per_layer(28, 64) + 2 * per_layer(64, 64) + head
  assert count(make(name, width=64, vocabulary=13), tokens) == per_layer(13, 64) + head
  assert count(make(name, width=64, embedding=8), tokens) == K * 8 + per_layer(8, 64) + head
  # torch.nn.LSTM(28, 128, 2) has 212,992 parameters.
  assert per_layer(28, 128) + per_layer(128, 128) == {1: 53_248, 3: 159_744, 4: 212_992}[gates]


@pytest.mark.parametrize("name", RNNS)
@pytest.mark.parametrize("fields", [{}, {"embedding": 3}])
def test_no_output_depends_on_a_later_token(name, fields, key):
  module = make(name, depth=2, vocabulary=7, **fields)
  tokens = jax.random.randint(key, (B, T), 0, 7)
  forward = jax.jit(lambda variables, x: module.apply(variables, x))
  variables = initial(module, tokens)
  before = forward(variables, tokens)
  for t in range(T):
    after = forward(variables, tokens.at[:, t].set((tokens[:, t] + 1) % 7))
    for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after)):
      np.testing.assert_array_equal(a[:, :t], b[:, :t])
    assert np.all(np.abs(before.logits - after.logits)[:, t:].max(axis=(0, 2)) > 0)  # and all that follow hear of it


def test_tokens_are_one_hot_vectors_and_images_are_rows(key):
  module = make("lstm", vocabulary=7)
  tokens = jax.random.randint(key, (B, T), 0, 7)
  variables = initial(module, tokens)
  one_hot = make("lstm").apply(variables, jax.nn.one_hot(tokens, 7))
  np.testing.assert_allclose(module.apply(variables, tokens).logits, one_hot.logits, atol=1e-6)
  image = vectors(key, B, T, 3, 2)
  variables = initial(make("rnn"), image)
  rows = make("rnn").apply(variables, image.reshape(B, T, 6))
  np.testing.assert_array_equal(make("rnn").apply(variables, image).logits, rows.logits)


def test_pools_read_the_last_state_or_the_mean(key):
  x = vectors(key)
  variables = initial(make("rnn"), x)
  every, last, mean = (make("rnn", pool=pool).apply(variables, x) for pool in ("none", "last", "mean"))
  assert every.logits.shape == (B, T, K) and last.logits.shape == mean.logits.shape == (B, K)
  np.testing.assert_allclose(last.logits, every.logits[:, -1], atol=1e-6)
  np.testing.assert_allclose(mean.logits, every.logits.mean(axis=1), atol=1e-6)  # the head is affine


def test_every_weight_starts_from_pytorchs_bound():
  width = 50
  variables = initial(make("lstm", depth=2, width=width), jnp.zeros((1, T, 400)))
  for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
    assert np.abs(leaf).max() <= 1 / np.sqrt(width), jax.tree_util.keystr(path)
    assert leaf.size < 1_000 or abs(leaf.std() * np.sqrt(3 * width) - 1) < 0.05


def test_every_gate_of_an_orthogonal_kernel_is_orthogonal():
  params = initial(make("lstm", recurrent_init="orthogonal"), jnp.zeros((1, T, C)))["params"]
  gates = np.split(np.asarray(params["layer_00"]["recurrent_kernel"]), 4, axis=1)
  for gate in gates:
    np.testing.assert_allclose(gate @ gate.T, np.eye(W), atol=1e-5)
  assert not np.allclose(gates[0], gates[1])


@pytest.mark.parametrize("name", RNNS)
def test_the_gradient_through_time_is_the_slope(name, key):
  with jax.enable_x64(True):
    module = make(name, depth=2, pool="last").clone(dtype="float64")
    x = vectors(key).astype(jnp.float64)
    variables = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), initial(module, x))
    loss = jax.jit(lambda variables, x: jnp.sum(jnp.sin(module.apply(variables, x).logits)))
    assert loss(variables, x).dtype == jnp.float64
    direction = jax.tree.map(lambda leaf: np.cos(np.arange(leaf.size)).reshape(leaf.shape), variables)
    by_variables, by_inputs = jax.grad(loss, argnums=(0, 1))(variables, x)
    at = lambda s: loss(jax.tree.map(lambda a, d: a + s * d, variables, direction), x)
    slope = sum(jnp.vdot(a, b) for a, b in zip(jax.tree.leaves(by_variables), jax.tree.leaves(direction)))
    np.testing.assert_allclose(slope, (at(1e-5) - at(-1e-5)) / 2e-5, rtol=1e-7)
    first = jnp.zeros_like(x).at[0, 0, 0].set(1e-5)
    np.testing.assert_allclose(
      by_inputs[0, 0, 0], (loss(variables, x + first) - loss(variables, x - first)) / 2e-5, rtol=1e-5, atol=1e-12
    )


def test_dropout_is_between_the_layers_only(key):
  x = vectors(key)
  run = lambda depth, seed: make("rnn", depth=depth, dropout=0.5).apply(
    initial(make("rnn", depth=depth), x), x, train=True, rngs={"dropout": jax.random.key(seed)}
  )
  np.testing.assert_array_equal(run(1, 0).logits, run(1, 1).logits)
  one, other = run(2, 0).taps, run(2, 1).taps
  np.testing.assert_array_equal(one["001_layer0.tanh"], other["001_layer0.tanh"])
  variables = initial(make("rnn", depth=2), x)
  layer = variables["params"]["layer_01"]
  # At the first step the second layer sees its input alone: some units are gone, the others are twice as large.
  product = one["002_layer1.pre_activation"][:, 0] - (layer["bias"] + layer["recurrent_bias"])[None]
  seen = np.linalg.solve(layer["kernel"].T, product.T).T / one["001_layer0.tanh"][:, 0]
  assert set(np.unique(seen.round(2) + 0.0)) == {0.0, 2.0}
  evaluated = make("rnn", depth=2, dropout=0.5).apply(variables, x).logits
  np.testing.assert_array_equal(evaluated, make("rnn", depth=2).apply(variables, x).logits)


@pytest.mark.parametrize("name", RNNS)
def test_bfloat16_computes_in_bfloat16_and_keeps_parameters_and_logits(name, key):
  module, x = make(name, depth=2, dtype="bfloat16"), vectors(key)
  variables = initial(module, x)
  outputs = module.apply(variables, x)
  assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))
  assert outputs.logits.dtype == jnp.float32
  assert all(tap.dtype == jnp.bfloat16 for tap in outputs.taps.values())
  np.testing.assert_allclose(outputs.logits, make(name, depth=2).apply(variables, x).logits, atol=0.03)


@pytest.mark.parametrize("fields, x, words", [
  ({}, jnp.zeros((B, T)), r"needs tokens \[T\], vectors \[T, C\] or images \[H, W, C\], not numbers \(5,\)"),
  ({}, jnp.zeros((B, T, C), jnp.int32), r"not integers \(5, 2\)"),
  ({}, jnp.zeros((B, 0, C)), r"not numbers \(0, 2\)"),
  ({"depth": 0}, jnp.zeros((B, T, C)), "config.model.depth is 0"),
  ({"width": -1}, jnp.zeros((B, T, C)), "config.model.width is -1"),
  ({"embedding": 3}, jnp.zeros((B, T, C)), "config.model.embedding is 3, but the inputs are not tokens"),
  ({"vocabulary": -3}, jnp.zeros((B, T), jnp.int32), "config.model.vocabulary is -3; give a whole"),
  ({"recurrent_init": "orthognal"}, jnp.zeros((B, T, C)), "recurrent_init.name is .* did you mean 'orthogonal'"),
])
def test_mistakes_are_named(fields, x, words):
  with pytest.raises(UserError, match=words):
    jax.eval_shape(lambda: initial(make("rnn", **fields), x))


def test_an_unknown_cell_is_named():
  with pytest.raises(UserError, match="'tanh', 'lstm', 'gru'"):
    make("rnn", cell="elman")
