"""Gradient links that need more than the gradient, and what each is given."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nurture import data, training
from nurture.core import rng
from nurture.reporting import read_json
from nurture.training import restore
from nurture.training import step as steps
from nurture.training.experiment import hyper_parameters
from nurture.transforms.gradients import GRADIENTS
from tests.linear import D, K, make_parts
from tests.tiny import read, tiny_config

PLAIN = {"targets": {}, "gradients": {}, "parameters": {}, "probes": {}, "data__label_noise": {}}


def by_hand(config, steps, direction):
  """Returns the parameters after some steps of plain gradient descent with a direction of one's own."""
  experiment = read(config)
  parts, dataset = experiment.parts(), experiment.read()
  state, fields = experiment.init(hyper_parameters(0)), data.device_fields(dataset.train)
  rate, params = config["optimizer"]["learning_rate"], state.variables["params"]

  def loss(params, rows):
    batch = data.gather(fields, rows)
    logits = parts.model.apply({"params": params}, parts.preprocess.inputs(batch)).logits
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]).mean()

  key = rng.stream(jax.random.key(0), "order")
  step = jax.jit(lambda params, rows: jax.tree.map(lambda p, d: p - rate * d, params, direction(loss, params, rows)))
  for t in range(steps):
    params = step(params, data.epoch_order_index(key, t, len(dataset.train), config["batch_size"]))
  return params


def sam_direction(rho):
  def direction(loss, params, rows):
    g = jax.grad(loss)(params, rows)
    norm = jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(g)))
    return jax.grad(loss)(jax.tree.map(lambda p, g: p + rho * g / norm, params, g), rows)

  return direction


def ahead(eta):
  def direction(loss, params, rows):
    g = jax.grad(loss)(params, rows)
    return jax.grad(loss)(jax.tree.map(lambda p, g: p - eta * g, params, g), rows)

  return direction


@pytest.mark.parametrize("link, direction", [
  ({"name": "sam", "rho": 0.1}, sam_direction(0.1)),
  pytest.param({"name": "extragradient", "step_size": 0.2}, ahead(0.2), marks=pytest.mark.long),
])
def test_a_link_by_config_is_its_loop_by_hand(tmp_path, link, direction):
  config = tiny_config(**PLAIN | {
    "steps": 20, "gradients": {"link": link}, "optimizer": {"name": "sgd", "learning_rate": 0.1}, "model__width": 32,
  })
  training.run(config, tmp_path / "run")
  found = restore(tmp_path / "run").state.variables["params"]
  expected = by_hand(config, 20, direction)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), dict(found), dict(expected))


def quadratic(params):
  return sum(jnp.sum((1 + jnp.arange(leaf.size).reshape(leaf.shape)) * leaf**2) for leaf in jax.tree.leaves(params))


def test_sam_is_that_of_optax():
  params = {"a": jnp.array([1.0, -2.0]), "b": jnp.array([[0.5]])}
  rho, rate = 0.1, 0.05
  reference = optax.contrib.sam(
    optax.sgd(rate), optax.chain(optax.contrib.normalize(), optax.sgd(rho)), opaque_mode=True
  )
  grad_fn = lambda params, *_: jax.grad(quadratic)(params)
  state, ours, theirs = reference.init(params), params, params
  link = GRADIENTS["sam"](rho)
  for _ in range(5):
    updates, state = reference.update(grad_fn(theirs), state, theirs, grad_fn=grad_fn)
    theirs = optax.apply_updates(theirs, updates)
    direction, _ = link.update(grad_fn(ours), link.init(ours), ours, grad_fn=grad_fn)
    ours = jax.tree.map(lambda p, d: p - rate * d, ours, direction)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), ours, theirs)


def test_adaptive_sam_scales_by_the_parameters():
  params, rho = {"a": jnp.array([1.0, -2.0])}, 0.1
  g = jax.grad(quadratic)(params)
  t = jnp.abs(params["a"])
  worst = params["a"] + rho * t**2 * g["a"] / jnp.linalg.norm(t * g["a"])
  found, _ = GRADIENTS["sam"](rho, adaptive=True).update(g, (), params, grad_fn=jax.grad(quadratic))
  np.testing.assert_allclose(found["a"], jax.grad(quadratic)({"a": worst})["a"], rtol=1e-6)


def test_a_gradient_of_zero_goes_nowhere():
  params = {"a": jnp.zeros(3)}
  found, _ = GRADIENTS["sam"](0.1).update(params, (), params, grad_fn=jax.grad(quadratic))
  assert not np.any(found["a"])


def test_line_searches_of_optax_work_by_config(tmp_path):
  config = tiny_config(**PLAIN | {
    "steps": 12, "batch_size": 64, "optimizer": {"name": "optax:lbfgs", "learning_rate": 1.0}, "log_every": 1,
  })
  results = training.run(config, tmp_path / "run")
  plain = training.run(
    config | {"optimizer": {"name": "sgd", "learning_rate": 0.1}}, tmp_path / "plain"
  )
  extensions = read_json(tmp_path / "run" / "manifest.json")["extensions"]
  assert extensions == {"optax": {"version": optax.__version__}}  # an installed package is known by its version
  assert read_json(tmp_path / "plain" / "manifest.json")["extensions"] == {}  # nor does one run see another's
  loss = lambda results: results["members"][0]["metrics"]["loss"]
  assert loss(results) < 0.7 * loss(plain)


def test_arguments_that_a_transform_does_not_take_are_not_passed():
  seen = []

  def picky(updates, state, params=None, *, value, step):
    seen.append({"value", "step"})
    return jax.tree.map(lambda g: g * value, updates), state

  def greedy(updates, state, params=None, **more):
    seen.append(set(more))
    return updates, state

  nothing = lambda params: ()
  parts = make_parts(
    gradients={"picky": optax.GradientTransformationExtraArgs(nothing, picky),
               "greedy": optax.GradientTransformationExtraArgs(nothing, greedy)},
    optimizer=optax.GradientTransformation(nothing, lambda updates, state, params=None: (updates, state)),
  )
  root = jax.random.key(5)
  state = steps.init(parts, root)
  batch = {"image": jnp.ones((4, D)), "label": jnp.arange(4) % K, "id": jnp.arange(4), "weight": jnp.ones(4)}
  steps.update(parts, state, {**batch, "true_label": batch["label"]}, root, {})
  assert seen == [{"value", "step"}, {"key", "step", "value", "grad", "value_fn", "grad_fn"}]


def test_noise_works_in_a_plain_chain_of_optax():
  noise = GRADIENTS["annealed_noise"](0.25, 0.0, seed=3)
  chain = optax.chain(noise, optax.sgd(1.0))
  params = {"a": jnp.zeros(10_000)}
  state, drawn = chain.init(params), []
  for _ in range(2):
    updates, state = jax.jit(chain.update)(params, state, params)
    drawn.append(np.asarray(updates["a"]))
  assert all(abs(one.std() - 0.5) < 0.02 for one in drawn) and abs(np.corrcoef(*drawn)[0, 1]) < 0.05
  again, _ = chain.update(params, chain.init(params), params)
  np.testing.assert_allclose(again["a"], drawn[0], rtol=1e-6)
