"""The average of the parameters against its sum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nurture.core import build
from nurture.transforms.parameters import PARAMETERS

STEPS = 12


def run(decay, initial=100.0, steps=STEPS):
  """Feeds random parameters; returns them [t, 3], and what evaluation would use after each."""
  ema = build(PARAMETERS, {"name": "ema", "decay": decay})
  thetas = jax.random.normal(jax.random.key(0), (steps, 3))
  state = ema.init({"w": jnp.full(3, initial)})

  def body(state, inputs):
    step, theta = inputs
    params, state = ema.apply(state, {"w": theta}, step)
    return state, (params["w"], ema.evaluation(state, params)["w"])

  _, (params, averages) = jax.lax.scan(body, state, (jnp.arange(steps), thetas))
  np.testing.assert_array_equal(params, thetas)  # training goes on with the parameters themselves
  return np.asarray(thetas, np.float64), np.asarray(averages)


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.999])
def test_average_is_the_weighted_mean_of_all_updates(decay):
  thetas, averages = run(decay)
  for t in range(STEPS):
    weights = decay ** np.arange(t, -1.0, -1.0)
    np.testing.assert_allclose(averages[t], weights @ thetas[: t + 1] / weights.sum(), rtol=1e-4, atol=1e-6)


def test_decay_of_zero_is_the_parameters_and_of_one_their_mean():
  thetas, averages = run(0.0)
  np.testing.assert_array_equal(averages, thetas.astype(np.float32))
  thetas, averages = run(1.0)
  np.testing.assert_allclose(averages[-1], thetas.mean(axis=0), rtol=1e-5)


def test_the_initial_parameters_leave_no_trace():
  np.testing.assert_array_equal(run(0.9, initial=100.0)[1], run(0.9, initial=-1.0)[1])


def test_before_the_first_update_evaluation_uses_the_initial_parameters():
  ema = PARAMETERS["ema"](0.9)
  params = {"w": jnp.array([1.0, 2.0], jnp.bfloat16)}
  evaluated = ema.evaluation(ema.init(params), params)
  assert evaluated["w"].dtype == jnp.bfloat16
  np.testing.assert_array_equal(evaluated["w"], params["w"])


def test_the_average_has_more_bits_than_bfloat16_parameters():
  ema = PARAMETERS["ema"](0.99)
  state = ema.init({"w": jnp.zeros((), jnp.bfloat16)})
  for value in (1.0, 1.0, 1.0078125):  # one step of bfloat16 apart
    _, state = ema.apply(state, {"w": jnp.asarray(value, jnp.bfloat16)}, jnp.int32(0))
  assert 1.0 < float(state["average"]["w"]) < 1.0078125


def test_decay_may_be_traced():
  swept = jax.jit(jax.vmap(lambda decay: run_average(decay)))(jnp.array([0.0, 0.5]))
  np.testing.assert_allclose(swept, [3.0, 7 / 3], rtol=1e-6)


def run_average(decay):
  ema = build(PARAMETERS, {"name": "ema", "decay": decay})
  state = ema.init({"w": jnp.float32(9.0)})
  for value in (1.0, 3.0):
    _, state = ema.apply(state, {"w": jnp.float32(value)}, jnp.int32(0))
  return ema.evaluation(state, {"w": jnp.float32(3.0)})["w"]
