"""Residual networks in training: drop path that a schedule moves, and rematerialization."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nurture.core.taps import kind
from nurture.models.resnet import ResNet


def images(*shape):
  return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def initialized(module, x):
  return jax.jit(lambda key: module.init(key, x))(jax.random.key(0))


# A network whose taps show every branch: the convolution before each sum, and the stem or sum before that.
STREAM = {"preactivation": True, "stem_activation": False, "norm": "none", "width": 4}


def kept(taps):
  """Returns by which factor each block [L] of each example [B] kept its branch."""
  names, factors = sorted(taps), []
  stream = taps[names[0]]
  for name in names:
    if kind(name) == "add":
      branch, added = np.asarray(taps[names[names.index(name) - 1]]), np.asarray(taps[name] - stream)
      factor = (added * branch).sum(axis=(1, 2, 3)) / (branch**2).sum(axis=(1, 2, 3))
      np.testing.assert_allclose(added, factor[:, None, None, None] * branch, atol=1e-4)  # one for a whole example
      factors.append(factor)
      stream = taps[name]
  return np.array(factors)


@pytest.fixture(scope="module")
def dropped():
  """Returns (rate, seed) -> taps of a network of three blocks in training mode, and how often it was traced."""
  module, x, traced = ResNet(3, blocks=(3,), **STREAM), images(200, 3, 3, 2), []
  variables = initialized(module, x)

  @jax.jit
  def run(rate, seed):
    traced.append(rate)
    return module.apply(variables, x, train=True, drop_path=rate, rngs={"dropout": jax.random.key(seed)}).taps

  return lambda rate, seed: run(jnp.float32(rate), seed), traced


def test_drop_path_keeps_the_mean_and_grows_with_depth(dropped):
  factors = np.concatenate([kept(dropped[0](0.6, seed)) for seed in range(3)], axis=1)
  for rate, factor in zip((0.2, 0.4, 0.6), factors):  # l / L of the last block's
    assert len(np.unique(factor > 0.5)) == 2
    np.testing.assert_allclose(factor, np.where(factor > 0.5, 1 / (1 - rate), 0), atol=1e-4)
    assert abs(factor.mean() - 1) < 3 * np.sqrt(rate / (1 - rate) / factor.size)
  assert np.abs(np.corrcoef(factors)[np.triu_indices(3, 1)]).max() < 4 / np.sqrt(factors.shape[1])  # own masks


def test_the_limits_of_drop_path(dropped):
  np.testing.assert_allclose(kept(dropped[0](0.0, 0)), 1, atol=1e-4)
  assert not np.any(kept(dropped[0](1.0, 0))[-1])


def test_a_schedule_of_drop_path_is_one_program(dropped):
  run, traced = dropped
  shares = [np.mean(kept(run(0.9 * step / 4, 5))[-1] == 0) for step in range(5)]
  np.testing.assert_allclose(shares, [0, 0.225, 0.45, 0.675, 0.9], atol=0.1)
  assert len(traced) == 1


def test_drop_path_is_for_training():
  module, x = ResNet(3, blocks=(1, 1), **STREAM), images(4, 4, 4, 2)
  variables = initialized(module, x)
  run = jax.jit(module.apply, static_argnames="train")
  evaluated = run(variables, x, drop_path=0.5)
  np.testing.assert_array_equal(evaluated.logits, run(variables, x).logits)
  # The number 0 needs no random stream in training either.
  off = jax.jit(lambda v, x: module.apply(v, x, train=True, drop_path=0.0))(variables, x)
  np.testing.assert_allclose(off.logits, evaluated.logits, rtol=1e-6)


@pytest.mark.parametrize("fields", [{"preactivation": True}, {}])
def test_dropout_stands_before_every_convolution_but_the_first(fields):
  module, x = ResNet(3, blocks=(1,), width=4, norm="none", dropout=0.5, **fields), images(2, 4, 4, 2)
  variables = initialized(module, x)
  run = lambda seed: module.apply(variables, x, train=True, rngs={"dropout": jax.random.key(seed)}).taps
  trained = jax.jit(jax.vmap(run))(jnp.arange(400))
  evaluated = jax.jit(module.apply)(variables, x).taps
  first, second = [name for name in sorted(evaluated) if name.endswith("block0.conv")]
  np.testing.assert_allclose(trained[first], np.broadcast_to(evaluated[first], trained[first].shape), atol=1e-6)
  spread = trained[second].std(axis=0)
  assert spread.min() > 0
  # The second convolution is linear in what is dropped, so the mean over masks is the value in evaluation.
  scores = (trained[second].mean(axis=0) - evaluated[second]) / (spread / 400**0.5)
  assert np.abs(scores).max() < 4.5 and 0.5 < scores.std() < 1.5


@pytest.mark.parametrize("drop_path", [0.0, 0.5])
def test_rematerialization_changes_nothing(drop_path):
  x = images(6, 4, 4, 2)
  module = ResNet(3, blocks=(1, 1), width=2, dropout=0.3 if drop_path else 0.0)
  variables = initialized(module, x)

  def loss(params, scale, remat):
    net = module.clone(remat=remat, residual_scale=scale)
    rngs = {"dropout": jax.random.key(3)} if drop_path else {}
    outputs, changed = net.apply({**variables, "params": params}, x, True, drop_path, rngs=rngs, mutable="batch_stats")
    return outputs.logits[:, 0].sum(), (outputs, changed)

  both = [jax.value_and_grad(lambda p, s, remat=remat: loss(p, s, remat), has_aux=True) for remat in (False, True)]
  programs = [str(jax.make_jaxpr(f)(variables["params"], 0.7)).count("prevent_cse") for f in both]
  assert programs == [0, 2]  # blocks that the backward pass computes again
  plain, again = (jax.jit(f)(variables["params"], 0.7) for f in both)
  assert jax.tree.structure(plain) == jax.tree.structure(again)
  for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(again)):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
  before, after = variables["batch_stats"], again[0][1][1]["batch_stats"]
  assert all(np.all(a != b) for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True))
