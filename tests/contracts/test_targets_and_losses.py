"""Contracts of target transforms and of loss terms."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nurture.core import Context, Outputs, UserError
from nurture.testing import class_spec
from nurture.transforms.losses.forgetting_events import ForgettingEvents
from nurture.transforms.losses.target_divergence import TargetDivergence
from tests.contracts.laws import assert_close, assert_finite, assert_maps, assert_pure, assert_scans, shapes
from tests.contracts.rows import ONE_PREDICTION, configs, label, made

B, T, K = 4, 3, 5
# Counts only; and one whose targets are the predictions themselves at the first visit.
WITHOUT_GRADIENT = (ForgettingEvents, TargetDivergence)
SPEC = class_spec(num_examples=9, num_classes=K, input_shape=(2,), batch_size=B)


def context(logits, sequence=False):
  labels = jnp.array([[0, 1, -1], [2, 3, 4], [1, -1, -1], [4, 0, 2]]) if sequence else jnp.array([0, 3, 1, 4])
  batch = {
    "image": jnp.ones((B, 2)), "label": labels, "true_label": labels, "id": jnp.array([7, 0, 3, 8]),
    "weight": jnp.ones(B), "mix_index": jnp.array([2, 0, 1, 3]), "mix_weight": jnp.full(B, 0.7),
  }
  targets = jax.nn.one_hot(labels, K)
  outputs = lambda z: Outputs(z, {"000_dense": z, "001_first.logits": z, "002_second.logits": z[::-1]})
  references = {"teacher": outputs(2 * jax.random.normal(jax.random.key(2), logits.shape))}
  return Context(jnp.int32(3), jax.random.key(0), batch, targets, outputs(logits), references, jnp.float32(0.5))


def logits_of(sequence=False, dtype=jnp.float32):
  return (2 * jax.random.normal(jax.random.key(1), (B, T, K) if sequence else (B, K))).astype(dtype)


def check_target(transform):
  """Targets stay float32 distributions (or nothing, at ignored positions), and the transform is pure."""
  for sequence in (False, True):
    ctx = dataclasses.replace(context(logits_of(sequence), sequence), outputs=None)
    soft = 0.5 * ctx.targets + 0.5 * ctx.targets.sum(axis=-1, keepdims=True) / K
    for targets in (ctx.targets, soft):
      new = assert_pure(transform, ctx, targets)
      assert shapes(new) == shapes(targets)
      assert np.min(new) >= 0
      np.testing.assert_allclose(new.sum(axis=-1), targets.sum(axis=-1), atol=1e-6)
    assert_maps(transform, ctx, soft)


def check_loss(term, sequence=False):
  """The value is float32, [B] or [], finite with its gradient in any dtype; the state keeps its structure."""
  for dtype in (jnp.float32, jnp.bfloat16):
    logits = logits_of(sequence, dtype)

    def run(state, logits):
      return term.apply(state, context(logits, sequence))

    # Operation by operation, as without jit, in one dtype: the operations are those of the other, and each is compiled.
    check = functools.partial(assert_pure, run) if dtype == jnp.float32 else jax.jit(run)
    value, _ = result = check(term.init(SPEC), logits)
    assert value.shape in ((), (B,)) and value.dtype == jnp.float32
    gradient = jax.jit(jax.grad(lambda z, run=run: run(term.init(SPEC), z)[0].sum()))(logits)
    assert_finite((result, gradient))
    assert gradient.dtype == dtype and (np.any(gradient) or isinstance(term, WITHOUT_GRADIENT))
    assert_maps(run, term.init(SPEC), logits)
    assert_scans(lambda state, t, run=run, logits=logits: run(state, logits)[1], term.init(SPEC))
  extreme = jnp.where(jax.nn.one_hot(jnp.arange(B) % K, K) > 0, 1e4, -1e4)
  single = context(extreme)
  value, gradient = jax.vjp(lambda z: term.apply(term.init(SPEC), context(z))[0], extreme)
  assert_finite((value, gradient(jnp.ones_like(value))))
  assert shapes(term.init(SPEC)) == shapes(jax.eval_shape(lambda: term.init(SPEC)))
  assert_close(single.targets, context(extreme).targets)


@pytest.mark.parametrize("config", configs("targets"), ids=label)
def test_targets(config):
  check_target(made("targets", config))


@pytest.mark.parametrize("sequence", [False, True], ids=["single", "sequence"])
@pytest.mark.parametrize("config", configs("losses"), ids=label)
def test_losses(config, sequence):
  term = made("losses", config)
  if sequence and config["name"] in ONE_PREDICTION:
    with pytest.raises(UserError, match="keeps one prediction an example"):
      term.apply(term.init(SPEC), context(logits_of(sequence), sequence))
    return
  check_loss(term, sequence)


@pytest.mark.parametrize("mistake", [
  lambda ctx, targets: 0.9 * targets,  # rows that do not sum to 1
  lambda ctx, targets: targets + 0.1 - 0.1 * K * (targets > 0.3),  # nor are positive
  lambda ctx, targets: targets.astype(jnp.bfloat16),  # another dtype
  lambda ctx, targets: targets + 0.1 * (1 - targets.sum(axis=-1, keepdims=True)),  # targets where there were none
  lambda ctx, targets: targets[:, :1],  # another shape
  lambda ctx, targets: targets if float(targets.sum()) > 0 else 2 * targets,  # not traceable
])
def test_a_wrong_target_transform_is_caught(mistake):
  with pytest.raises((AssertionError, jax.errors.ConcretizationTypeError)):
    check_target(mistake)


def test_a_right_target_transform_passes():
  check_target(lambda ctx, targets: targets)


class Twin:
  """Mean squared logits, with a table as its state and one mistake of choice."""

  def __init__(self, mistake=""):
    self.mistake, self.calls = mistake, 0

  def init(self, spec):
    return {"table": jnp.zeros((spec.num_examples, spec.num_outputs))}

  def apply(self, state, ctx):
    logits = ctx.outputs.logits.astype(jnp.float32).reshape(B, -1)
    value = jnp.mean(logits**2, axis=-1)
    table = state["table"] + 1
    if self.mistake == "state changes structure":
      return value, {"table": table, "count": jnp.int32(1)}
    if self.mistake == "state changes dtype":
      return value, {"table": table.astype(jnp.bfloat16)}
    if self.mistake == "state lives outside":
      self.calls += 1
      return value + self.calls, state
    if self.mistake == "value in the dtype":
      return value.astype(ctx.outputs.logits.dtype), {"table": table}
    if self.mistake == "value of every class":
      return logits**2, {"table": table}
    if self.mistake == "no gradient":
      return jax.lax.stop_gradient(value), {"table": table}
    if self.mistake == "not finite at extremes":
      return jnp.log(jnp.sum(jnp.exp(logits), axis=-1)), {"table": table}
    if self.mistake == "mean over members":
      return value if value.sum() > 0 else -value, {"table": table}
    return value, {"table": table}


def test_a_right_loss_passes():
  check_loss(Twin())
  check_loss(Twin(), sequence=True)


@pytest.mark.parametrize("mistake", [
  "state changes structure", "state changes dtype", "state lives outside", "value in the dtype", "value of every class",
  "no gradient", "not finite at extremes", "mean over members",
])
def test_a_wrong_loss_is_caught(mistake):
  with pytest.raises((AssertionError, jax.errors.ConcretizationTypeError)):
    check_loss(Twin(mistake))
