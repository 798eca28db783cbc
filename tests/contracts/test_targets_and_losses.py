"""Contracts of target transforms and of loss terms."""

import random

import jax
import jax.numpy as jnp
import pytest

from nurture.testing import check_loss, check_target
from tests.contracts.rows import configs, label, tasks_of

# Counts only; and one whose targets are the predictions themselves at the first visit.
WITHOUT_GRADIENT = ("forgetting_events", "target_divergence")
# Compares the Gram matrices of a batch.
WHOLE = ("guidance",)
B, K = 4, 5


@pytest.mark.parametrize("config", configs("targets"), ids=label)
def test_targets(config):
  check_target(config)


@pytest.mark.parametrize("config, task", [
  (config, task) for config in configs("losses") for task in tasks_of("losses", config) if task != "generation"
], ids=label)
def test_losses(config, task):
  check_loss(config, task, gradient=config["name"] not in WITHOUT_GRADIENT, whole=config["name"] in WHOLE)


WRONG_TARGETS = {
  "add up to 0.9 instead of 1; take away": lambda ctx, targets: 0.9 * targets,
  "targets become negative": lambda ctx, targets: targets + 0.3 - 0.3 * K * (targets > 0.3),
  r"targets change shape or dtype \(it is bfloat16": lambda ctx, targets: targets.astype(jnp.bfloat16),
  "a position without prediction, whose targets are all 0, gets targets":
    lambda ctx, targets: targets + 0.1 * (1 - targets.sum(axis=-1, keepdims=True)),
  "targets change shape": lambda ctx, targets: targets[:, :1],
  "needs the plain value of an array that is traced": lambda ctx, t: t if float(t.sum()) > 0 else 2 * t,
  "the same arguments give another result when it is called again": lambda ctx, t: t * (1 - 1e-3 * random.random()),
  "64-bit numbers switched on: targets change shape or dtype": lambda ctx, t: t + 0 * jnp.arange(float(K))[None],
  "it raises KeyError: 'coach'": lambda ctx, targets: ctx.references["coach"].logits,
}


@pytest.mark.parametrize("words", WRONG_TARGETS)
def test_a_wrong_target_transform_is_caught(words):
  task = "per_position" if "position" in words else "classification"
  with pytest.raises(AssertionError, match=words) as error:
    check_target(WRONG_TARGETS[words], task)
  assert str(error.value).startswith(f"<lambda>, {task}") and "\n" not in str(error.value)


def test_a_right_target_transform_passes():
  check_target(lambda ctx, targets: targets)


class Twin:
  """Mean squared logits, with a table as its state and one mistake of choice."""

  def __init__(self, mistake=""):
    self.mistake, self.calls = mistake, 0

  def init(self, spec):
    if self.mistake == "state of words":
      return {"mode": "fast"}
    dtype = None if self.mistake == "state in 64 bits" else jnp.float32
    table = jnp.full((spec.num_examples, spec.num_classes), random.random() * (self.mistake == "state drawn"), dtype)
    return {"table": table}

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
    if self.mistake == "no state":
      return value
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
    if self.mistake == "weights ignored":
      return value.mean(), {"table": table}
    if self.mistake == "one dtype only":
      return value + jax.lax.clamp(1e-4, jax.nn.softmax(logits), 1 - 1e-4)[:, 0], {"table": table}
    if self.mistake == "64 bits by default":
      return value, {"table": state["table"] + 0.5 * jnp.arange(5.0)[None]}
    if self.mistake == "neighbours":
      return value + value.mean(), {"table": table}
    return value, {"table": table}


def test_a_right_loss_passes():
  check_loss(Twin(), "classification")
  check_loss(Twin(), "per_position")


@pytest.mark.parametrize("mistake, words", {
  "state of words": r"the state holds mode of the type str, which no checkpoint keeps; make it of arrays",
  "state drawn": "init makes another state each time",
  "state changes structure": r"changes the form of its state \(count is int32\[\] instead of nothing\); return a",
  "state changes dtype": r"changes the form of its state \(table is bfloat16\[9, 5\] instead of float32\[9, 5\]\)",
  "state lives outside": "the same arguments give another result when it is called again",
  "state in 64 bits": "64-bit numbers switched on: a state is float64",
  "one dtype only": "64-bit numbers switched on: it raises TypeError: lax.clamp requires",
  "64 bits by default": r"64-bit numbers switched on: a step changes the form of its state \(table is float64",
  "no state": r"apply returns something else than \(value, state\)",
  "value in the dtype": "bfloat16 logits: the value is bfloat16; start from logits.astype",
  "value of every class": r"the value of a batch of 4 has the shape \[4, 5\]; return one number for each example",
  "no gradient": "no gradient flows into the logits; leave out stop_gradient",
  "not finite at extremes": r"logits of \+-10000: the value is not finite; work on log-probabilities",
  "mean over members": "it needs the plain value of an array that is traced",
  "weights ignored": "a padded batch: an example of weight 0 has an influence on the others",
  "neighbours": "a padded batch: an example of weight 0 has an influence on the others",
}.items())
def test_a_wrong_loss_is_caught(mistake, words):
  with pytest.raises(AssertionError, match=words) as error:
    check_loss(Twin(mistake), "classification")
  assert str(error.value).startswith("Twin, classification") and "\n" not in str(error.value)


class Classes(Twin):
  """Compares logits with one-hot labels, which only some tasks have."""

  def apply(self, state, ctx):
    log_p = jax.nn.log_softmax(ctx.outputs.logits.astype(jnp.float32))
    return -log_p[jnp.arange(B), ctx.batch["label"]], state


def test_a_loss_that_does_not_say_which_tasks_it_serves_is_told_to():
  with pytest.raises(AssertionError, match="Classes, per_position.*If it does not serve this task, say in the class"):
    check_loss(Classes())
  Classes.tasks = ("classification",)
  check_loss(Classes())
