"""Contracts of what turns a gradient into new parameters: gradient transforms, optimizers, parameter transforms."""

import random

import jax
import jax.numpy as jnp
import optax
import pytest

from nurture.testing import check_gradient, check_optimizer, check_parameter_transform
from tests.contracts.rows import configs, label


@pytest.mark.parametrize("config", configs("gradients"), ids=label)
def test_gradient_transforms(config):
  check_gradient(config)


@pytest.mark.parametrize("config", configs("optimizers"), ids=label)
def test_optimizers(config):
  check_optimizer(config)


@pytest.mark.parametrize("config", configs("parameters"), ids=label)
def test_parameter_transforms(config):
  check_parameter_transform(config)


def stateless(update):
  return optax.GradientTransformationExtraArgs(
    lambda params: (), lambda updates, state, params=None, **extra: (update(updates, **extra), state)
  )


def over_leaves(function):
  return stateless(lambda updates, **extra: jax.tree.map(function, updates))


CALLS = []
GROWING = optax.GradientTransformationExtraArgs(
  lambda params: jnp.zeros(1), lambda updates, state, params=None, **extra: (updates, jnp.append(state, 0.0))
)
WRONG_GRADIENT_TRANSFORMS = {
  r"bfloat16 gradients: gradients change \(dense_00/bias is float32": over_leaves(lambda g: g.astype(jnp.float32)),
  r"gradients change \(dense_00/kernel is float32\[12\]": over_leaves(lambda g: g.ravel()),
  r"gradients change \(.* is nothing instead of": stateless(lambda updates, **extra: jax.tree.leaves(updates)),
  "the new gradient of a gradient of 0 is not finite": over_leaves(
    lambda g: g / jnp.linalg.norm(g.astype(jnp.float32)).astype(g.dtype)
  ),
  "the same arguments give another result when it is called again": stateless(
    lambda g, **extra: CALLS.append(0) or jax.tree.map(lambda leaf: leaf * len(CALLS), g)
  ),
  "called again": over_leaves(lambda g: g * random.random()),
  "it needs the plain value of an array": stateless(lambda updates, step, **extra: updates if int(step) else updates),
  r"a step changes the form of its state \(state is float32\[2\] instead of float32\[1\]\)": GROWING,
  "the state holds mode of the type str": optax.GradientTransformation(
    lambda params: {"mode": "fast"}, lambda updates, state, params=None: (updates, state)
  ),
  "64-bit numbers switched on: updates change": over_leaves(lambda g: g + jnp.array(0.1) * jnp.ones(4)[(None,) * (
    g.ndim - 1)].astype(jnp.result_type(float) if jax.config.jax_enable_x64 else g.dtype)),
}


@pytest.mark.parametrize("words", WRONG_GRADIENT_TRANSFORMS)
def test_a_wrong_gradient_transform_is_caught(words):
  with pytest.raises(AssertionError, match=words) as error:
    check_gradient(WRONG_GRADIENT_TRANSFORMS[words])
  assert "\n" not in str(error.value)


def test_a_right_gradient_transform_passes():
  check_gradient(over_leaves(lambda g: g))
  check_gradient(optax.identity)  # without the arguments that it does not take


@pytest.mark.parametrize("words, wrong", {
  r"a step changes the form of its state \(.*float32": optax.GradientTransformationExtraArgs(
    lambda params: jnp.int32(0), lambda g, state, params=None, **extra: (g, state + 1.0)
  ),
  "the parameters of a kernel do not move; return updates": optax.set_to_zero(),
  "the parameters after two steps is not finite": over_leaves(lambda g: g / 0.0),
  "updates have another structure": stateless(lambda g, **extra: jax.tree.leaves(g)),
}.items())
def test_a_wrong_optimizer_is_caught(words, wrong):
  with pytest.raises(AssertionError, match=words):
    check_optimizer(wrong)


def own_sgd(learning_rate: float, sign: float = 1.0):
  return optax.scale(-learning_rate * sign)


def test_an_optimizer_may_be_a_function_that_makes_one():
  check_optimizer(own_sgd)
  with pytest.raises(AssertionError, match="<lambda>: the field 'learning_rate' has no type, so a config may set it"):
    check_optimizer(lambda learning_rate: own_sgd(learning_rate))


class Twin:
  """Leaves parameters alone but for one mistake of choice."""

  def __init__(self, mistake=""):
    self.mistake = mistake

  def init(self, params):
    return {"count": jnp.int32(0)}

  def apply(self, state, params, step):
    if self.mistake == "dtype":
      params = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
    if self.mistake == "not finite":
      params = jax.tree.map(lambda leaf: leaf / leaf, params)
    if self.mistake == "state":
      return params, {"count": state["count"] + 1.0}
    return params, {"count": state["count"] + 1}

  def evaluation(self, state, params):
    if self.mistake == "evaluation drawn":
      return jax.tree.map(lambda leaf: leaf * random.random(), params)
    return state if self.mistake == "evaluation" else params


def test_a_right_parameter_transform_passes():
  check_parameter_transform(Twin())


@pytest.mark.parametrize("mistake, words", {
  "dtype": r"bfloat16 parameters: the parameters change \(dense_00/bias is float32\[4\] instead of bfloat16",
  "not finite": "a parameter or the state is not finite",
  "state": r"a step changes the form of its state \(.*count is float32",
  "evaluation": "evaluation: it gives no parameters of the old form",
  "evaluation drawn": "evaluation: the same arguments give another result when it is called again",
}.items())
def test_a_wrong_parameter_transform_is_caught(mistake, words):
  with pytest.raises(AssertionError, match=words):
    check_parameter_transform(Twin(mistake))


def test_a_parameter_transform_without_a_method_is_told_which():
  with pytest.raises(AssertionError, match="optional has no method 'evaluation'; add it"):
    check_parameter_transform(type("optional", (), {"init": Twin.init, "apply": Twin.apply}))
