"""Checks of what turns a gradient into new parameters: gradient transforms, optimizers, parameter transforms."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nurture.core import rng
from nurture.testing import laws
from nurture.testing.laws import alike, during, finite, require
from nurture.testing.rows import read
from nurture.training.step import transformed
from nurture.transforms import GRADIENTS, PARAMETERS
from nurture.transforms.optimizers import OPTIMIZERS, build_optimizer

Tree = Any

_KEEP = "return a tree like the one that is given, and cast with .astype(leaf.dtype) what was computed in another dtype"
_DIVIDED = "add a small number to what is divided by, or choose with jnp.where: a gradient may be 0"


def parameters(dtype: Any = jnp.float32) -> Tree:
  """Returns a small tree of parameters; the leaf of zeros is a bias as it starts."""
  kernel = jax.random.normal(jax.random.key(0), (3, 4), jnp.float32).astype(dtype)
  return {"dense_00": {"bias": jnp.zeros(4, dtype), "kernel": kernel}, "norm_00": {"scale": jnp.ones(4, dtype)}}


def gradient(params: Tree, *_: Any) -> Tree:
  """Returns the gradient of `value`, which is not 0 where parameters are."""
  return jax.tree.map(lambda leaf: (0.3 * leaf + 0.1).astype(leaf.dtype), params)


def value(params: Tree, *_: Any, **__: Any) -> jax.Array:
  """Returns the loss of parameters, [] float32."""
  wide = [leaf.astype(jnp.float32) for leaf in jax.tree.leaves(params)]
  return sum((jnp.sum(0.15 * leaf**2 + 0.1 * leaf) for leaf in wide), jnp.float32(0.0))


def _applied(link: Any, updates: Tree, state: Tree, params: Tree, **more: Any) -> tuple[Tree, Tree]:
  """Calls the update of a link with what a step offers."""
  offered = {"value": jnp.float32(1.0), "grad": updates, "value_fn": value, "grad_fn": gradient, **more}
  return transformed(link, updates, state, params, offered)


def check_gradient(row: Any) -> None:
  """Checks a gradient transform against every law that training relies on; see `nurture.testing`.

  Gradients keep structure, shapes and dtypes, and stay finite where they are 0; the state consists of arrays and keeps
  its form; the same key and step give the same update; members of an ensemble do not mix.

  Args:
    row: {"name": "my_project.gradients:name", argument: value}, the name alone, a function that makes the
      transformation, or a transformation of optax.

  Raises:
    AssertionError: names the law that is broken, and what to do.
  """
  subject = read(GRADIENTS, row, ("init", "update"))
  link = subject.built
  with during(subject.name):
    for dtype in (jnp.float32, jnp.bfloat16):
      with during(f"{dtype.__name__} gradients"):
        _check_link(link, dtype)

    def step(carry: Any, t: jax.Array) -> Any:
      params, key = carry["params"], rng.stream(jax.random.key(0), "x", t)
      updates, state = _applied(link, gradient(params), carry["state"], params, key=key, step=t)
      return {"params": jax.tree.map(lambda p, u: p - 0.1 * u, params, updates), "state": state}

    with during("several steps"):
      laws.scans(step, {"params": parameters(), "state": link.init(parameters())})
    with jax.enable_x64(True), during("64-bit numbers switched on"):
      _check_x64(link, key=jax.random.key(0), step=jnp.int32(0))


def _check_link(link: Any, dtype: Any) -> None:
  params = parameters(dtype)
  laws.arrays(link.init(params), "the state")

  def run(updates: Tree, params: Tree, key: jax.Array, step: jax.Array) -> Tree:
    return _applied(link, updates, link.init(params), params, key=key, step=step)[0]

  # Rounding to bfloat16 may fall to either side.
  tolerance = 1e-5 if dtype == jnp.float32 else 1e-2
  arguments = gradient(params), params, jax.random.key(0), jnp.int32(2)
  new = laws.pure(run, *arguments, tolerance=tolerance)
  alike(new, params, "gradients change ({})", _KEEP)
  finite(new, "the new gradient", _DIVIDED)
  zero = jax.tree.map(jnp.zeros_like, params)
  finite(jax.jit(run)(zero, *arguments[1:]), "the new gradient of a gradient of 0", _DIVIDED)
  laws.maps(run, *arguments, tolerance=tolerance)


def _check_x64(link: Any, **more: Any) -> None:
  params = parameters()
  step = lambda state: _applied(link, params, state, params, **more)
  new, state = jax.eval_shape(step, link.init(params))
  alike(new, params, "updates change ({})", "name the dtype of every array that is made")
  laws.keeps(state, link.init(params))


def check_optimizer(row: Any) -> None:
  """Checks an optimizer against every law that training relies on; see `nurture.testing`.

  Updates have the shapes and dtypes of the parameters, are finite and move them; the state consists of arrays and
  keeps its form; members of an ensemble do not mix.

  Args:
    row: {"name": "my_project.optimizers:name", argument: value}, the name alone, a function that makes the
      transformation, or a transformation of optax. Without a learning rate it gets 0.1.

  Raises:
    AssertionError: names the law that is broken, and what to do.
  """
  subject = read(OPTIMIZERS, row, ("init", "update"), make=_optimizer)
  with during(subject.name):
    _check_optimizer(subject.built)


def _optimizer(table: Any, config: Any) -> Any:
  config = {"learning_rate": 0.1} | dict(config)
  if config["name"] in table and table is not OPTIMIZERS:  # a constructor that is no row
    return table[config.pop("name")](**config)
  return build_optimizer(config)


def _check_optimizer(optimizer: Any) -> None:
  for dtype in (jnp.float32, jnp.bfloat16):
    with during(f"{dtype.__name__} parameters"):
      params = parameters(dtype)
      laws.arrays(optimizer.init(params), "the state")
      first = lambda p: _applied(optimizer, gradient(p), optimizer.init(p), p, step=jnp.int32(0))
      updates, _ = jax.eval_shape(first, params)
      require(laws.shapes(updates)[0] == laws.shapes(params)[0], "the updates have another structure", _KEEP)
      alike(jax.eval_shape(optax.apply_updates, params, updates), params, "the parameters change ({})", _KEEP)

  def step(carry: Any, t: jax.Array) -> Any:
    updates, state = _applied(optimizer, gradient(carry["params"]), carry["state"], carry["params"], step=t)
    return {"params": optax.apply_updates(carry["params"], updates), "state": state}

  with during("several steps"):
    laws.scans(step, {"params": parameters(), "state": optimizer.init(parameters())}, steps=2)
  members = jax.tree.map(lambda leaf: np.stack([leaf, 0.5 * leaf]), parameters())

  def train(params: Tree) -> Tree:
    start = {"params": params, "state": optimizer.init(params)}
    return step(step(start, jnp.int32(0)), jnp.int32(1))["params"]

  together, own = jax.device_get(jax.jit(jax.vmap(train))(members)), jax.tree.map(lambda leaf: leaf[1], members)
  finite(together, "the parameters after two steps", _DIVIDED)
  alone = jax.jit(train)(own)
  laws.close(jax.tree.map(lambda leaf: leaf[1], together), alone, "a member of an ensemble (vmap) moves otherwise than "
             "alone", "reduce over the axes of the arguments only")
  for name in ("kernel", "bias"):
    moved = np.any(alone["dense_00"][name] != own["dense_00"][name])
    require(moved, f"the parameters of a {name} do not move", "return updates, which are added to the parameters")
  with jax.enable_x64(True), during("64-bit numbers switched on"):
    _check_x64(optimizer, step=jnp.int32(0))


def check_parameter_transform(row: Any) -> None:
  """Checks a parameter transform against every law that training relies on; see `nurture.testing`.

  Parameters keep structure, shapes and dtypes, in training and in what `evaluation` returns, and are finite; the state
  consists of arrays and keeps its form; all of it is pure and maps over the members of an ensemble.

  Args:
    row: {"name": "my_project.parameters:Name", field: value}, the name alone, or an object.

  Raises:
    AssertionError: names the law that is broken, and what to do.
  """
  subject = read(PARAMETERS, row, ("init", "apply", "evaluation"))
  with during(subject.name):
    for dtype in (jnp.float32, jnp.bfloat16):
      with during(f"{dtype.__name__} parameters"):
        _check_transform(subject.built, dtype)
    with jax.enable_x64(True), during("64-bit numbers switched on"):
      transform, params = subject.built, parameters()
      state = transform.init(params)
      new, kept = jax.eval_shape(transform.apply, state, params, jnp.int32(0))
      alike(new, params, "the parameters change ({})", _KEEP)
      laws.keeps(kept, state)
      alike(jax.eval_shape(transform.evaluation, state, params), params, "evaluation gives others ({})", _KEEP)


def _check_transform(transform: Any, dtype: Any) -> None:
  params = parameters(dtype)
  state = transform.init(params)
  laws.arrays(state, "the state")
  tolerance = 1e-5 if dtype == jnp.float32 else 1e-2

  def run(state: Tree, params: Tree) -> Tree:
    return transform.apply(state, params, jnp.int32(0))

  new, kept = laws.pure(run, state, params, tolerance=tolerance)
  with during("evaluation"):
    evaluated = laws.pure(transform.evaluation, state, params, tolerance=tolerance)
    alike(evaluated, params, "it gives no parameters of the old form ({})", _KEEP)
  alike(new, params, "the parameters change ({})", _KEEP)
  finite((new, kept, evaluated), "a parameter or the state", "leave out what is divided by 0: a bias starts at 0")
  laws.maps(run, state, params, tolerance=tolerance)
  laws.maps(transform.evaluation, state, params, tolerance=tolerance)

  def step(carry: Any, t: jax.Array) -> Any:
    moved = jax.tree.map(lambda leaf: (0.9 * leaf).astype(leaf.dtype), carry["params"])
    params, state = transform.apply(carry["state"], moved, t)
    return {"params": params, "state": state}

  laws.scans(step, {"params": params, "state": state}, tolerance=tolerance)
