"""Foreign linen modules: their submodules' outputs against hand computation, in order, through every transformation."""

import dataclasses
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from nurture import models, training
from nurture.core import UserError
from nurture.core.taps import select
from nurture.models.capture import capture
from nurture.reporting import read_rows
from tests.tiny import tiny_config

B, D = 4, 5


def dense(params, x):
  return x @ params["kernel"] + params["bias"].reshape((1,) * (x.ndim - 1) + (-1,))


def assert_taps(model, variables, x, expected, tolerance=1e-5):
  """The taps are exactly these, in order, eagerly, again, and under jit, vmap and grad; names go without numbers."""
  members = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), variables)
  several = jax.jit(jax.vmap(model.apply, in_axes=(0, None)))(members, x)

  def total(variables):
    outputs = model.apply(variables, x)
    return sum(jnp.sum(tap**2) for tap in outputs.taps.values()), outputs

  gradient, differentiated = jax.jit(jax.grad(total, has_aux=True))(variables)
  ways = {
    "eager": model.apply(variables, x), "again": model.apply(variables, x), "jit": jax.jit(model.apply)(variables, x),
    "vmap": jax.tree.map(lambda leaf: leaf[1], several), "grad": differentiated,
  }
  for way, outputs in ways.items():
    assert [name[4:] for name in sorted(outputs.taps)] == [name for name, _ in expected], way
    for (name, tap), (_, array) in zip(sorted(outputs.taps.items()), expected):
      np.testing.assert_allclose(tap, array, atol=tolerance, rtol=tolerance, err_msg=f"{way}: {name}")
  slope = jax.tree.leaves(gradient["params"])
  assert all(np.isfinite(leaf).all() for leaf in slope) and any(np.any(leaf) for leaf in slope)


class ConvNet(nn.Module):
  """The common shape of a foreign network."""

  @nn.compact
  def __call__(self, x, training: bool):
    x = nn.Conv(3, (1, 1), use_bias=False)(x)
    x = nn.relu(nn.BatchNorm(use_running_average=not training, momentum=0.9)(x))
    x = nn.Dropout(0.5, deterministic=not training)(x.mean(axis=(1, 2)))
    return nn.Dense(2)(x)


def test_a_network_with_batch_norm_is_tapped_in_both_modes(key):
  model, x = capture(ConvNet()), jax.random.normal(key, (B, 3, 3, 2))
  variables = model.init(key, x)
  assert set(variables) == {"params", "batch_stats"}
  params = variables["params"]
  conv = np.einsum("bhwc,cd->bhwd", x, params["Conv_0"]["kernel"][0, 0])
  pooled = np.maximum(conv / np.sqrt(1 + 1e-5), 0).mean(axis=(1, 2))
  logits = dense(params["Dense_0"], pooled)
  assert_taps(model, variables, x, [
    ("Conv_0", conv), ("BatchNorm_0", conv / np.sqrt(1 + 1e-5)), ("Dropout_0", pooled), ("Dense_0", logits),
  ])
  outputs, changed = model.apply(variables, x, train=True, rngs={"dropout": key}, mutable=["batch_stats"])
  normalized = (conv - conv.mean(axis=(0, 1, 2))) / np.sqrt(conv.var(axis=(0, 1, 2)) + 1e-5)
  np.testing.assert_allclose(outputs.taps["001_BatchNorm_0"], normalized, atol=1e-4)
  assert set(changed) == {"batch_stats"}
  np.testing.assert_allclose(changed["batch_stats"]["BatchNorm_0"]["mean"], 0.1 * conv.mean(axis=(0, 1, 2)), atol=1e-6)
  kept = np.asarray(outputs.taps["002_Dropout_0"]) / np.maximum(normalized, 0).mean(axis=(1, 2))
  assert set(kept.round(3).ravel()) == {0.0, 2.0}


def test_the_interface_of_the_spine(key):
  model, x = capture(ConvNet()), jax.random.normal(key, (B, 3, 3, 2))
  variables = model.init({"params": key, "dropout": key}, x)
  assert model.apply(variables, x).logits.shape == (B, 2)
  outputs, changed = model.apply(variables, x, train=True, rngs={"dropout": key}, mutable=["batch_stats"])
  structure = lambda tree: jax.tree.structure(tree)
  assert structure(changed) == structure({"batch_stats": variables["batch_stats"]})
  stale = {**variables, "intermediates": {"Conv_0": {"__call__": (jnp.zeros(3),)}}}
  assert structure(model.apply(stale, x)) == structure(model.apply(variables, x))
  assert structure(outputs) == structure(model.apply(variables, x))
  plain = capture(nn.Dense(2))
  outputs, changed = plain.apply(plain.init(key, x), x, train=True, rngs={"dropout": key}, mutable=[])
  assert changed == {} and outputs.taps == {}


class Twice(nn.Module):
  """Submodules from setup, one of them called twice, in another order than that of their definition."""

  def setup(self):
    self.last, self.inner = nn.Dense(D), Pair()

  def __call__(self, x):
    return self.last(self.inner(nn.tanh(self.last(x))))


class Pair(nn.Module):
  """Two layers, the second defined first."""

  @nn.compact
  def __call__(self, x):
    return nn.Dense(D, name="b")(nn.Dense(D, name="a2", use_bias=True)(x))


def pair(params, x, place):
  first = dense(params["a2"], x)
  second = dense(params["b"], first)
  return [(f"{place}.a2", first), (f"{place}.b", second), (place, second)]


def test_a_module_that_is_called_twice_has_two_taps(key):
  model, x = capture(Twice()), jax.random.normal(key, (B, D))
  variables = model.init(key, x)
  params = variables["params"]
  first = dense(params["last"], x)
  inner = pair(params["inner"], jnp.tanh(first), "inner")
  assert_taps(model, variables, x, [("last", first), *inner, ("last", dense(params["last"], inner[-1][1]))])


JitPair = nn.jit(Pair)  # a class of its own, so that its traces are kept between calls


class Lifted(nn.Module):
  """The same block rematerialized, and compiled by itself twice."""

  @nn.compact
  def __call__(self, x):
    x = nn.remat(Pair)(name="remat")(x)
    x = JitPair(name="jit")(x)
    return nn.Dense(2, name="z")(JitPair(name="again")(nn.Dense(D, name="a")(x)))


def test_rematerialized_and_compiled_submodules_are_tapped_in_order(key):
  model, x = capture(Lifted()), jax.random.normal(key, (B, D))
  variables = model.init(key, x)
  params = variables["params"]
  taps = pair(params["remat"], x, "remat")
  taps += pair(params["jit"], taps[-1][1], "jit")
  taps.append(("a", dense(params["a"], taps[-1][1])))
  taps += pair(params["again"], taps[-1][1], "again")
  taps.append(("z", dense(params["z"], taps[-1][1])))
  assert_taps(model, variables, x, taps)


class Body(nn.Module):
  """One layer of a scan."""

  @nn.compact
  def __call__(self, x, _):
    return Pair(name="pair")(x), None


class Scanned(nn.Module):
  """Two scans, the second within a block, of as many layers as there are examples."""

  captured: bool = True
  layers: int = B

  @nn.compact
  def __call__(self, x):
    axes = {"params": 0, "intermediates": 0} if self.captured else {"params": 0}
    scan = nn.scan(Body, variable_axes=axes, split_rngs={"params": True}, length=self.layers)
    x, _ = scan(name="one")(x, None)
    x, _ = scan(name="two")(x, None)
    return nn.Dense(2, name="head")(x)


@pytest.mark.parametrize("layers", [1, B])
def test_the_layers_of_a_scan_are_taps_of_their_own(layers, key):
  model, x = capture(Scanned(layers=layers)), jax.random.normal(key, (B, D))
  variables = model.init(key, x)
  params, taps, y = variables["params"], [], x
  for scan in ("one", "two"):
    for i in range(layers):
      layer = jax.tree.map(lambda leaf, i=i: leaf[i], params[scan]["pair"])
      taps += pair(layer, y, f"{scan}[{i}].pair")
      y = taps[-1][1]
      taps.append((f"{scan}[{i}]", y))
  assert_taps(model, variables, x, [*taps, ("head", dense(params["head"], y))], tolerance=1e-4)


def test_a_scan_that_does_not_carry_them_has_no_taps(key):
  x = jax.random.normal(key, (B, D))
  model = capture(Scanned(captured=False))
  assert list(model.apply(model.init(key, x), x).taps) == ["000_head"]


class TimeMajor(nn.Module):
  """Returns something whose first axis is not the batch's."""

  @nn.compact
  def __call__(self, x):
    return x.swapaxes(0, 1)


class Batched(nn.Module):
  """A layer written for one example, mapped over the batch; one that swaps axes; one that returns several arrays."""

  @nn.compact
  def __call__(self, x):
    axes = {"params": None, "intermediates": 0}
    x = nn.vmap(nn.Dense, variable_axes=axes, split_rngs={"params": False})(D, name="each")(x)
    x = TimeMajor(name="swapped")(x).T
    cell = nn.LSTMCell(D, name="cell")
    _, y = cell(cell.initialize_carry(jax.random.key(0), x.shape), x)
    return {"logits": y, "aux": x}


def test_a_mapped_batch_is_one_tap_and_several_arrays_are_several(key):
  model, x = capture(Batched(), logits=lambda out: out["logits"]), jax.random.normal(key, (B, D + 1))
  variables = model.init(key, x)
  outputs = model.apply(variables, x)
  each = dense(variables["params"]["each"], x)
  np.testing.assert_allclose(outputs.taps["000_each"], each, atol=1e-6)
  names = list(outputs.taps)
  assert [name[4:] for name in names[-3:]] == ["cell/0/0", "cell/0/1", "cell/1"]
  assert not any("swapped" in name for name in names)
  np.testing.assert_array_equal(outputs.taps[names[-1]], outputs.logits)
  with pytest.raises(UserError, match="Batched, which returns a dict and not logits"):
    capture(Batched()).apply(variables, x)


def test_attention_of_flax_is_tapped(key):
  model = capture(nn.MultiHeadDotProductAttention(num_heads=1, dropout_rate=0.5))
  x = jax.random.normal(key, (B, 3, D))
  variables = model.init(key, x)
  flat = lambda layer: {"kernel": layer["kernel"].reshape(D, D), "bias": layer["bias"].ravel()}
  params = {name: flat(layer) for name, layer in variables["params"].items()}
  query, key_, value = (dense(params[name], x) for name in ("query", "key", "value"))
  attention = jax.nn.softmax(np.einsum("btd,bsd->bts", query, key_) / np.sqrt(D), axis=-1)
  out = dense(params["out"], np.einsum("bts,bsd->btd", attention, value))
  heads = lambda y: y.reshape(B, 3, 1, D)
  assert_taps(model, variables, x, [
    ("query", heads(query)), ("key", heads(key_)), ("value", heads(value)), ("out", out),
  ])
  draws = [model.apply(variables, x, train=True, rngs={"dropout": jax.random.key(i)}).logits for i in range(2)]
  assert not np.allclose(*draws)


def test_submodules_can_be_chosen_and_the_taps_fit_the_selection(key):
  x = jax.random.normal(key, (B, 3, 3, 2))
  model = capture(ConvNet(), submodules=lambda module: isinstance(module, (nn.Dense, nn.Conv)))
  taps = model.apply(model.init(key, x), x).taps
  assert list(taps) == ["000_Conv_0", "001_Dense_0"]
  assert list(select(taps, "Dense_0")) == ["001_Dense_0"]


class Flagged(nn.Module):
  """Says in its output how it was called; one of the flags is a field."""

  deterministic: bool = True

  @nn.compact
  def __call__(self, x, is_training=False, rate=0.0, *, quiet=True):
    code = [self.deterministic, is_training, rate, quiet]
    return jnp.stack([jnp.asarray(c, jnp.float32) for c in code])[None].repeat(x.shape[0], axis=0)


def test_the_mode_reaches_every_flag_and_scheduled_arguments_pass(key):
  model, x = capture(Flagged()), jnp.zeros((B, 1))
  assert model.init(key, x) == {}
  call = lambda model, **arguments: model.apply({}, x, **arguments).logits[0].tolist()
  assert call(model) == [1, 0, 0, 1]
  assert call(model, train=True, rate=0.5) == [0, 1, 0.5, 1]
  named = capture(Flagged(), eval_flag="quiet")
  assert call(named) == [1, 0, 0, 1] and call(named, train=True) == [1, 0, 0, 0]
  # The trainer reads from the class which arguments a schedule may set.
  assert list(inspect.signature(type(model).__call__).parameters) == ["self", "x", "train", "rate", "quiet"]
  with pytest.raises(UserError, match="no argument or field 'is_trainig'; did you mean 'is_training'"):
    capture(Flagged(), train_flag="is_trainig")


class Halved(nn.Module):
  """Has batch statistics, dropout, a flag and something to schedule."""

  num_classes: int

  @nn.compact
  def __call__(self, x, deterministic=True, rate=1.0):
    x = nn.BatchNorm(use_running_average=deterministic)(nn.Dense(8)(x.reshape(x.shape[0], -1)))
    x = nn.Dropout(0.1, deterministic=deterministic)(nn.relu(x))
    return {"logits": rate * nn.Dense(self.num_classes)(x)}


def test_the_trainer_trains_it(monkeypatch, tmp_path):
  theirs = lambda num_classes: capture(Halved(num_classes), logits=lambda out: out["logits"])
  monkeypatch.setitem(models.MODELS, "theirs", theirs)
  ramp = {"name": "linear_schedule", "init_value": 1.0, "end_value": 0.5, "transition_steps": 12}
  bare = {"gradients": {}, "parameters": {}, "probes": {}, "ensemble__seeds": 2, "report__metrics": ()}
  config = tiny_config(model={"name": "theirs"}, scheduled={"rate": ramp}, **bare)
  training.run(config, tmp_path / "run", name="theirs")
  rows = [row for row in read_rows(tmp_path / "run" / "metrics.jsonl") if "loss" in row]
  for member in range(2):
    losses = [row["loss"] for row in rows if row["member"] == member]
    assert losses[-1] < losses[0]
  with pytest.raises(UserError, match="config.scheduled.rat is no argument of the model 'theirs'; did you mean 'rate'"):
    training.run({**config, "scheduled": {"rat": ramp}}, tmp_path / "other", name="theirs")


def test_a_tap_in_the_wrong_order_would_be_seen(key):
  model, x = capture(Twice()), jax.random.normal(key, (B, D))
  variables = model.init(key, x)
  expected = [(name[4:], tap) for name, tap in model.apply(variables, x).taps.items()]
  assert_taps(model, variables, x, expected)
  with pytest.raises(AssertionError):
    assert_taps(model, variables, x, [expected[-1], *expected[1:-1], expected[0]])  # both are "last"

  @dataclasses.dataclass(frozen=True)
  class Sorted:
    """What the order would be if it came from the names, as a dict has it after jit."""

    def apply(self, variables, x):
      outputs = model.apply(variables, x)
      names = sorted(outputs.taps, key=lambda name: name[4:])
      return outputs._replace(taps={f"{i:03d}_{name[4:]}": outputs.taps[name] for i, name in enumerate(names)})

  with pytest.raises(AssertionError):
    assert_taps(Sorted(), variables, x, expected)
