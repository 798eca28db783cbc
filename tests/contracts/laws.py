"""Laws that every pure function of the spine must obey, as assertions on any function and arguments."""

import jax
import jax.numpy as jnp
import numpy as np


def shapes(tree):
  """Returns the structure, shapes and dtypes of a tree of arrays, concrete or abstract, in a form that compares."""
  leaves, structure = jax.tree.flatten(tree)
  return structure, [(leaf.shape, leaf.dtype) for leaf in map(abstract, leaves)]


def abstract(leaf):
  return jax.eval_shape(lambda: jnp.asarray(leaf)) if not hasattr(leaf, "dtype") else leaf


def assert_close(a, b, tolerance=1e-5):
  assert shapes(a) == shapes(b)
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)):
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)


def assert_finite(tree):
  for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    assert np.isfinite(np.asarray(leaf, np.float64)).all(), f"{jax.tree_util.keystr(path)} is not finite"


def assert_pure(function, *args, tolerance=1e-5):
  """jit gives what running eagerly gives, twice over, and eval_shape foresees it."""
  result = function(*args)
  assert shapes(jax.eval_shape(function, *args)) == shapes(result)
  assert_close(function(*args), result, tolerance=0)
  assert_close(jax.jit(function)(*args), result, tolerance)
  return result


def assert_maps(function, *args, tolerance=1e-5):
  """vmap over two members gives what each gives alone."""
  other = jax.tree.map(varied, args)
  stacked = jax.tree.map(lambda a, b: jnp.stack([a, b]), args, other)
  together = jax.jit(jax.vmap(function))(*stacked)
  alone = jax.jit(function)
  for i, one in enumerate((args, other)):
    assert_close(jax.tree.map(lambda leaf, i=i: leaf[i], together), alone(*one), tolerance)


def varied(leaf):
  """Returns other values of the same kind: keys and floating-point numbers change, integers stay."""
  if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
    return jax.random.fold_in(leaf, 1)
  return (leaf * 0.75).astype(leaf.dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf


def assert_scans(function, state, steps=3, tolerance=1e-5):
  """(state, step) -> state keeps the structure, and scanned gives what a loop gives."""
  assert shapes(jax.eval_shape(function, state, jnp.int32(0))) == shapes(state)
  scanned, _ = jax.jit(lambda s: jax.lax.scan(lambda s, t: (function(s, t), None), s, jnp.arange(steps)))(state)
  step, looped = jax.jit(function), state
  for t in range(steps):
    looped = step(looped, jnp.int32(t))
  assert_close(scanned, looped, tolerance)
