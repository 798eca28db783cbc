"""Optimizers from configs: they are optax's, their rates may vary, and mistakes are named."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nurture.core import UserError
from nurture.transforms.optimizers import OPTIMIZERS, build_optimizer

PARAMS = {"b": jnp.array([1.0, -2.0]), "w": jnp.array([[1.0, 2.0], [3.0, 4.0]])}
GRADIENT = jax.tree.map(lambda p: 0.1 * p + 0.3, PARAMS)
RAMP = {"name": "linear_schedule", "init_value": 0.2, "end_value": 0.0, "transition_steps": 4}


def first_updates(optimizer, count=3):
  state, updates = optimizer.init(PARAMS), []
  for _ in range(count):
    update, state = optimizer.update(GRADIENT, state, PARAMS)
    updates.append(update)
  return updates


@pytest.mark.parametrize("config, theirs", [
  ({"name": "sgd", "learning_rate": 0.1, "momentum": 0.9}, lambda: optax.sgd(0.1, momentum=0.9)),
  ({"name": "adamw", "learning_rate": 0.1, "weight_decay": 0.5}, lambda: optax.adamw(0.1, weight_decay=0.5)),
  ({"name": "sgd", "learning_rate": RAMP}, lambda: optax.sgd(optax.linear_schedule(0.2, 0.0, 4))),
])
def test_a_config_is_the_call_that_it_spells(config, theirs):
  for ours, expected in zip(first_updates(build_optimizer(config)), first_updates(theirs())):
    jax.tree.map(np.testing.assert_array_equal, ours, expected)


@pytest.mark.parametrize("name", ["adamw", "lamb", "lion", "nadamw", "adan", "adamaxw", "adafactor", "lars"])
def test_decay_of_matrices_spares_the_biases(name):
  rate = "weight_decay_rate" if name == "adafactor" else "weight_decay"
  config = {"name": name, "learning_rate": 0.1}
  plain, all_, some = (
    first_updates(build_optimizer({**config, rate: decay, **more}), 1)[0]
    for decay, more in ((0.0, {}), (0.5, {"decay": "all"}), (0.5, {"decay": "matrices"}))
  )
  np.testing.assert_allclose(some["b"], plain["b"], rtol=1e-6)
  assert np.abs(all_["b"] - plain["b"]).max() > 1e-6
  if name != "lamb":  # the trust ratio rescales a leaf with its decay; here it cancels a change of length
    assert np.abs(some["w"] - plain["w"]).max() > 1e-6


@pytest.mark.parametrize("config, words", [
  ({"name": "sgdd", "learning_rate": 0.1}, "did you mean 'sgd'"),
  ({"name": "sgd"}, "needs 'name' .* and 'learning_rate'"),
  ({"name": "sgd", "learning_rate": "fast"}, "optimizer.learning_rate is 'fast'"),
  ({"name": "sgd", "learning_rate": {"name": "cosine"}}, "optimizer.learning_rate.name is 'cosine'"),
  ({"name": "sgd", "learning_rate": 0.1, "momentun": 0.9}, "did you mean 'momentum'"),
  ({"name": "sgd", "learning_rate": 0.1, "decay": "matrices"}, "decay does not exist for 'sgd'"),
  ({"name": "adamw", "learning_rate": 0.1, "decay": "kernels"}, "give 'all' or 'matrices'"),
  ({"name": "adamw", "learning_rate": 0.1, "mask": True}, "give optimizer.decay"),
  ("sgd", "needs 'name'"),
])
def test_mistakes_are_named(config, words):
  with pytest.raises(UserError, match=words):
    build_optimizer(config)


def test_rmsprop_keeps_its_own_decay():
  ours = first_updates(build_optimizer({"name": "rmsprop", "learning_rate": 0.1, "decay": 0.5}))
  jax.tree.map(np.testing.assert_array_equal, ours, first_updates(optax.rmsprop(0.1, decay=0.5)))


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_the_learning_rate_may_be_swept(name):
  def first(rate):
    return first_updates(build_optimizer({"name": name, "learning_rate": rate}), 1)[0]

  rates = jnp.array([0.01, 0.1])
  swept = jax.jit(jax.vmap(first))(rates)
  for i, rate in enumerate((0.01, 0.1)):
    jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-3, atol=1e-7), swept, first(rate))
  assert np.abs(swept["w"][1]).max() > 5 * np.abs(swept["w"][0]).max()  # the rate is not lost on the way
