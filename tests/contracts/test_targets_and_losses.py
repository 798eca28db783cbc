"""Contracts of target transforms and of loss terms."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nurture.core import Context, DataSpec, Outputs
from nurture.data.tasks import TASKS
from nurture.transforms.losses.forgetting_events import ForgettingEvents
from nurture.transforms.losses.target_divergence import TargetDivergence
from tests.contracts.laws import assert_close, assert_finite, assert_maps, assert_pure, assert_scans, shapes
from tests.contracts.rows import configs, label, made, tasks_of

B, T, K = 4, 3, 5
# Counts only; and one whose targets are the predictions themselves at the first visit.
WITHOUT_GRADIENT = (ForgettingEvents, TargetDivergence)
NAMES = tuple("abcde")
SPECS = {
  name: DataSpec(task() if name == "pairs" else task(NAMES), 9, B, {"image": (2,)}) for name, task in TASKS.items()
}
_POSITIONS = [[0, 1, -1], [2, 3, 4], [1, -1, -1], [4, 0, 2]]
LABELS = {
  "classification": [0, 3, 1, 4], "per_position": _POSITIONS, "generation": _POSITIONS, "pairs": [2, 0, 2, 1],
  "regression": np.float32([[0, 3, 1, 4, -1], [0.5, 3, 2, -4, 0], [1, 1, 1, 1, 1], [-2, 0, 5, 1, 2]]),
}


def context(logits, task="classification"):
  labels = jnp.asarray(LABELS[task])
  batch = {
    "image": jnp.ones((B, 2)), "label": labels, "true_label": labels, "id": jnp.array([7, 0, 3, 8]),
    "weight": jnp.ones(B), "mix_index": jnp.array([2, 0, 1, 3]), "mix_weight": jnp.full(B, 0.7),
  }
  targets = SPECS[task].task.targets(batch)
  outputs = lambda z: Outputs(z, {"000_dense": z, "001_first.logits": z, "002_second.logits": z[::-1]})
  references = {"teacher": outputs(2 * jax.random.normal(jax.random.key(2), logits.shape))}
  return Context(jnp.int32(3), jax.random.key(0), batch, targets, outputs(logits), references, jnp.float32(0.5))


def logits_of(task="classification", dtype=jnp.float32):
  shape = {"per_position": (B, T, K), "generation": (B, T, K), "pairs": (B, B)}.get(task, (B, K))
  return (2 * jax.random.normal(jax.random.key(1), shape)).astype(dtype)


def check_target(transform):
  """Targets stay float32 distributions (or nothing, at ignored positions), and the transform is pure."""
  for task in ("classification", "per_position"):
    ctx = dataclasses.replace(context(logits_of(task), task), outputs=None)
    soft = 0.5 * ctx.targets + 0.5 * ctx.targets.sum(axis=-1, keepdims=True) / K
    for targets in (ctx.targets, soft):
      new = assert_pure(transform, ctx, targets)
      assert shapes(new) == shapes(targets)
      assert np.min(new) >= 0
      np.testing.assert_allclose(new.sum(axis=-1), targets.sum(axis=-1), atol=1e-6)
    assert_maps(transform, ctx, soft)


def check_loss(term, task="classification"):
  """The value is float32, [B] or [], finite with its gradient in any dtype; the state keeps its structure."""
  spec = SPECS[task]
  for dtype in (jnp.float32, jnp.bfloat16):
    logits = logits_of(task, dtype)

    def run(state, logits):
      return term.apply(state, context(logits, task))

    # Operation by operation, as without jit, in one dtype: the operations are those of the other, and each is compiled.
    check = functools.partial(assert_pure, run) if dtype == jnp.float32 else jax.jit(run)
    value, _ = result = check(term.init(spec), logits)
    assert value.shape in ((), (B,)) and value.dtype == jnp.float32
    gradient = jax.jit(jax.grad(lambda z, run=run: run(term.init(spec), z)[0].sum()))(logits)
    assert_finite((result, gradient))
    assert gradient.dtype == dtype and (np.any(gradient) or isinstance(term, WITHOUT_GRADIENT))
    assert_maps(run, term.init(spec), logits)
    assert_scans(lambda state, t, run=run, logits=logits: run(state, logits)[1], term.init(spec))
  width = logits.shape[-1]
  largest = jax.nn.one_hot(jnp.arange(B) % width, width).reshape(B, *[1] * (logits.ndim - 2), width) > 0
  extreme = jnp.broadcast_to(jnp.where(largest, 1e4, -1e4), logits.shape)
  single = context(extreme, task)
  value, gradient = jax.vjp(lambda z: term.apply(term.init(spec), context(z, task))[0], extreme)
  assert_finite((value, gradient(jnp.ones_like(value))))
  assert shapes(term.init(spec)) == shapes(jax.eval_shape(lambda: term.init(spec)))
  assert_close(single.targets, context(extreme, task).targets)


@pytest.mark.parametrize("config", configs("targets"), ids=label)
def test_targets(config):
  check_target(made("targets", config))


@pytest.mark.parametrize("config, task", [
  (config, task) for config in configs("losses") for task in tasks_of("losses", config) if task != "generation"
], ids=label)
def test_losses(config, task):
  check_loss(made("losses", config), task)


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
    return {"table": jnp.zeros((spec.num_examples, spec.num_classes))}

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
  check_loss(Twin(), "per_position")


@pytest.mark.parametrize("mistake", [
  "state changes structure", "state changes dtype", "state lives outside", "value in the dtype", "value of every class",
  "no gradient", "not finite at extremes", "mean over members",
])
def test_a_wrong_loss_is_caught(mistake):
  with pytest.raises((AssertionError, jax.errors.ConcretizationTypeError)):
    check_loss(Twin(mistake))
