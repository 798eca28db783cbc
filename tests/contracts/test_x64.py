"""Every row where 64-bit numbers are switched on: it can be traced, and what is float32 stays float32.

Traces alone tell: operations that take one dtype only refuse two, and a state that changes its dtype cannot be carried
by a scan.
"""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from nurture.core import Outputs
from tests.contracts import test_models as models
from tests.contracts import test_probes as probes
from tests.contracts import test_targets_and_losses as losses
from tests.contracts import test_updates as updates
from tests.contracts.laws import shapes
from tests.contracts.rows import configs, label, made, tasks_of


@pytest.fixture(autouse=True)
def x64():
  with jax.enable_x64(True):
    yield


def context(dtype, task="classification"):
  """As training makes it: logits, references and taps in the model's dtype, targets and weights in float32."""
  ctx = losses.context(jnp.zeros_like(losses.logits_of(task), dtype), task)
  outputs = jax.tree.map(lambda leaf: leaf.astype(dtype), (ctx.outputs, ctx.references))
  narrow = lambda leaf: leaf.astype({"f": jnp.float32, "i": jnp.int32}[leaf.dtype.kind])
  return dataclasses.replace(
    ctx, outputs=outputs[0], references=outputs[1], targets=narrow(ctx.targets), batch=jax.tree.map(narrow, ctx.batch)
  )


def check_loss(term, dtype, task="classification"):
  """Values are float32, or float64 for such logits; states keep their dtypes; gradients are in that of the logits."""
  ctx = context(dtype, task)

  def run(state, logits):
    taps = {"000_dense": logits, "001_first.logits": logits, "002_second.logits": logits}
    return term.apply(state, dataclasses.replace(ctx, outputs=Outputs(logits, taps)))

  def train(state, logits):
    (_, new), gradient = jax.value_and_grad(lambda z: (run(state, z)[0].sum(), run(state, z)[1]), has_aux=True)(logits)
    return new, gradient

  state = term.init(losses.SPECS[task])
  value, new = jax.eval_shape(run, state, ctx.outputs.logits)
  assert value.dtype in (jnp.float32, dtype) and value.dtype != jnp.bfloat16
  assert all(leaf.dtype != jnp.float64 for leaf in jax.tree.leaves(state)), "a state is float64"
  assert shapes(new) == shapes(state)
  scanned, gradients = jax.eval_shape(lambda s, z: jax.lax.scan(train, s, z), state, ctx.outputs.logits[None])
  assert shapes(scanned) == shapes(state) and gradients.dtype == dtype


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
@pytest.mark.parametrize("config", configs("losses"), ids=label)
def test_losses(config, dtype):
  for task in tasks_of("losses", config):
    check_loss(made("losses", config), jnp.dtype(dtype), task)


@pytest.mark.parametrize("config", configs("targets"), ids=label)
def test_targets(config):
  ctx = context(jnp.dtype("float32"))
  new = jax.eval_shape(made("targets", config), dataclasses.replace(ctx, outputs=None), ctx.targets)
  assert shapes(new) == shapes(ctx.targets)


@pytest.mark.parametrize("table", ["gradients", "optimizers"])
def test_updates(table):
  params = updates.parameters()
  for config in configs(table):
    link = made(table, config)
    more = {"key": jax.random.key(0), "step": jnp.int32(0), "grad_fn": updates.gradient} if table == "gradients" else {}
    step = lambda state, link=link, more=more: link.update(params, state, params, value=jnp.float32(1), **more)
    new, state = jax.eval_shape(step, link.init(params))
    assert shapes(new) == shapes(params), config
    assert shapes(state) == shapes(link.init(params)), config


@pytest.mark.parametrize("config", configs("parameters"), ids=label)
def test_parameters(config):
  transform, params = made("parameters", config), updates.parameters()
  state = transform.init(params)
  assert shapes(jax.eval_shape(transform.apply, state, params, jnp.int32(0))) == shapes((params, state))
  assert shapes(jax.eval_shape(transform.evaluation, state, params)) == shapes(params)


@pytest.mark.parametrize("config", configs("probes"), ids=label)
def test_probes(config):
  probe, task = made("probes", config), probes.task_of(config)
  [piece, *_] = probe.prepare(probes.spec(7, task), jax.random.key(0))
  measure = lambda variables: probe.finish(probe(probes.network(task), variables, piece))
  jax.eval_shape(jax.vmap(measure), jax.tree.map(lambda leaf: leaf[None], probes.VARIABLES))


@pytest.mark.parametrize("config", models.CONFIGS, ids=label)
def test_models_train(config):
  module, x = made("models", config), models.example(config)
  x = jax.tree.map(lambda leaf: leaf.astype({"f": jnp.float32, "i": jnp.int32}[leaf.dtype.kind]), x)
  variables = jax.eval_shape(lambda: models.variables_of(module, jax.random.key(0), x))
  assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
  (_, changed), gradient = jax.eval_shape(lambda v: models.loss_of(module, v, x), variables)
  assert shapes({**changed, "params": gradient}) == shapes(variables)


class Twin(losses.Twin):
  """Adds something to its table."""

  def __init__(self, mistake=lambda p: 0.5 * p):
    super().__init__()
    self.mistake = mistake

  def init(self, spec):
    return {"table": jnp.zeros((spec.num_examples, spec.num_classes), jnp.float32)}

  def apply(self, state, ctx):
    value, state = super().apply(state, ctx)
    return value, {"table": state["table"] + self.mistake(jax.nn.softmax(ctx.outputs.logits))[:1]}


@pytest.mark.parametrize("mistake", [
  lambda p: jax.lax.clamp(1e-4, p, 1 - 1e-4),  # one dtype only
  lambda p: p * jnp.arange(5.0)[None],  # float64 by default
])
def test_a_wrong_loss_is_caught(mistake):
  check_loss(Twin(), jnp.dtype("float32"))
  with pytest.raises((AssertionError, TypeError)):
    check_loss(Twin(mistake), jnp.dtype("float32"))


def test_a_state_in_float64_is_caught():
  with pytest.raises(AssertionError, match="a state is float64"):
    check_loss(losses.Twin(), jnp.dtype("float32"))
