"""Contracts of what turns a gradient into new parameters: gradient transforms, optimizers, parameter transforms."""

import jax
import jax.numpy as jnp
import optax
import pytest

from nurture.core import rng
from tests.contracts.laws import assert_finite, assert_maps, assert_pure, assert_scans, shapes
from tests.contracts.rows import configs, label, made


def parameters(dtype=jnp.float32):
  """A small tree; the leaf of zeros is a bias as it starts."""
  kernel = jax.random.normal(jax.random.key(0), (3, 4)).astype(dtype)
  return {"dense_00": {"bias": jnp.zeros(4, dtype), "kernel": kernel}, "norm_00": {"scale": jnp.ones(4, dtype)}}


def gradient(params):
  return jax.tree.map(lambda leaf: (0.3 * leaf + 0.1).astype(leaf.dtype), params)


def check_gradient_transform(transform):
  """Shapes and dtypes are kept, zero gradients are harmless, and the same key and step give the same update."""
  for dtype in (jnp.float32, jnp.bfloat16):
    params = parameters(dtype)

    def run(updates, params, key, step):
      more = {"key": key, "step": step, "value": jnp.float32(1), "grad_fn": gradient}
      new, _ = transform.update(updates, transform.init(params), params, **more)
      return new

    # Rounding to bfloat16 may fall to either side.
    tolerance = 1e-5 if dtype == jnp.float32 else 1e-2
    arguments = gradient(params), params, jax.random.key(0), jnp.int32(2)
    new = assert_pure(run, *arguments, tolerance=tolerance)
    assert shapes(new) == shapes(params)
    assert_finite(new)
    assert_finite(jax.jit(run)(jax.tree.map(jnp.zeros_like, params), *arguments[1:]))
    assert_maps(run, *arguments, tolerance=tolerance)

  def step(carry, t):
    params, state = carry
    more = {"key": rng.stream(jax.random.key(0), "x", t), "step": t, "value": jnp.float32(1), "grad_fn": gradient}
    updates, state = transform.update(gradient(params), state, params, **more)
    return jax.tree.map(lambda p, u: p - 0.1 * u, params, updates), state

  assert_scans(step, (parameters(), transform.init(parameters())))


def check_optimizer(optimizer):
  """Updates have the parameters' shapes and dtypes, are finite and move, and the state keeps its structure."""
  for dtype in (jnp.float32, jnp.bfloat16):
    params = parameters(dtype)
    updates, _ = jax.eval_shape(lambda p: optimizer.update(gradient(p), optimizer.init(p), p, value=1.0), params)
    new = jax.eval_shape(optax.apply_updates, params, updates)
    assert shapes(new) == shapes(params)

  def step(carry, t):
    params, state = carry
    del t
    updates, state = optimizer.update(gradient(params), state, params, value=jnp.float32(1))
    return optax.apply_updates(params, updates), state

  start = parameters(), optimizer.init(parameters())
  assert_scans(step, start, steps=2)
  members = jax.tree.map(lambda leaf: jnp.stack([leaf, 0.5 * leaf]), parameters())

  def train(params):
    return step(step((params, optimizer.init(params)), 0), 1)[0]

  together = jax.jit(jax.vmap(train))(members)
  assert_finite(together)
  alone = jax.jit(train)(jax.tree.map(lambda leaf: leaf[1], members))
  for name in ("kernel", "bias"):
    assert jnp.allclose(together["dense_00"][name][1], alone["dense_00"][name], rtol=1e-4, atol=1e-6)
    assert jnp.any(alone["dense_00"][name] != 0.5 * parameters()["dense_00"][name]), "the parameters did not move"


def check_parameter_transform(transform):
  """Parameters and state keep structure, shapes and dtypes; evaluation gives parameters; all of it is pure."""
  for dtype in (jnp.float32, jnp.bfloat16):
    params = parameters(dtype)
    state = transform.init(params)
    run = lambda state, params: transform.apply(state, params, jnp.int32(0))
    tolerance = 1e-5 if dtype == jnp.float32 else 1e-2
    new, _ = result = assert_pure(run, state, params, tolerance=tolerance)
    evaluated = assert_pure(transform.evaluation, state, params, tolerance=tolerance)
    assert shapes(new) == shapes(evaluated) == shapes(params)
    assert_finite((result, evaluated))
    assert_maps(run, state, params, tolerance=tolerance)
    assert_maps(transform.evaluation, state, params, tolerance=tolerance)

    def step(carry, t):
      state, params = carry
      params, state = transform.apply(state, jax.tree.map(lambda leaf: (0.9 * leaf).astype(leaf.dtype), params), t)
      return state, params

    assert_scans(step, (state, params), tolerance=tolerance)


@pytest.mark.parametrize("config", configs("gradients"), ids=label)
def test_gradient_transforms(config):
  check_gradient_transform(made("gradients", config))


@pytest.mark.parametrize("config", configs("optimizers"), ids=label)
def test_optimizers(config):
  check_optimizer(made("optimizers", config))


@pytest.mark.parametrize("config", configs("parameters"), ids=label)
def test_parameter_transforms(config):
  check_parameter_transform(made("parameters", config))


def stateless(update):
  return optax.GradientTransformationExtraArgs(
    lambda params: (), lambda updates, state, params=None, **extra: (update(updates, **extra), state)
  )


def over_leaves(function):
  return stateless(lambda updates, **extra: jax.tree.map(function, updates))


CALLS = []
WRONG_GRADIENT_TRANSFORMS = {
  "dtype": over_leaves(lambda g: g.astype(jnp.float32)),
  "shape": over_leaves(lambda g: g.ravel()),
  "structure": stateless(lambda updates, **extra: jax.tree.leaves(updates)),
  "nan at zero": over_leaves(lambda g: g / jnp.linalg.norm(g.astype(jnp.float32)).astype(g.dtype)),
  "hidden state": stateless(lambda g, **extra: CALLS.append(0) or jax.tree.map(lambda leaf: leaf * len(CALLS), g)),
  "not traceable": stateless(lambda updates, step, **extra: updates if int(step) else updates),
  "growing state": optax.GradientTransformationExtraArgs(
    lambda params: jnp.zeros(1), lambda updates, state, params=None, **extra: (updates, jnp.append(state, 0.0))
  ),
}


@pytest.mark.parametrize("mistake", WRONG_GRADIENT_TRANSFORMS)
def test_a_wrong_gradient_transform_is_caught(mistake):
  with pytest.raises((AssertionError, jax.errors.ConcretizationTypeError)):
    check_gradient_transform(WRONG_GRADIENT_TRANSFORMS[mistake])


def test_a_right_gradient_transform_passes():
  check_gradient_transform(over_leaves(lambda g: g))


@pytest.mark.parametrize("wrong", [
  optax.GradientTransformationExtraArgs(  # the state changes its dtype
    lambda params: jnp.int32(0), lambda g, state, params=None, **extra: (g, state + 1.0)
  ),
  optax.with_extra_args_support(optax.set_to_zero()),  # nothing moves
  over_leaves(lambda g: g / 0.0),
])
def test_a_wrong_optimizer_is_caught(wrong):
  with pytest.raises(AssertionError):
    check_optimizer(wrong)


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
    return state if self.mistake == "evaluation" else params


@pytest.mark.parametrize("mistake", ["dtype", "not finite", "state", "evaluation"])
def test_a_wrong_parameter_transform_is_caught(mistake):
  check_parameter_transform(Twin())
  with pytest.raises(AssertionError):
    check_parameter_transform(Twin(mistake))
