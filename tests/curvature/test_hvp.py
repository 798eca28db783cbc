"""Products with the Hessian and the Gauss-Newton matrix against dense ones."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from nurture.core import UserError
from nurture.curvature.hvp import gauss_newton, hessian, hvp

LABEL = jnp.arange(6) % 3


def network(dtype=jnp.float64):
  """A tanh network of 4 -> 3 -> 3 with 24 parameters, and 6 inputs."""
  draws = np.random.default_rng(0)
  draw = lambda *shape: jnp.asarray(draws.normal(size=shape), dtype)
  return {"in": draw(4, 3), "out": {"w": draw(3, 3), "b": draw(3)}}, draw(6, 4)


def model(params, x):
  return jnp.tanh(x @ params["in"]) @ params["out"]["w"] + params["out"]["b"][None]


def cross_entropy(logits, label=LABEL):
  return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, label))


def dense(make, params):
  """Returns the matrix of the operator make(params), column by column."""
  @jax.jit
  def columns(params):
    flat, unravel = ravel_pytree(params)
    operator = make(params)
    return jax.vmap(lambda v: ravel_pytree(operator(unravel(v)))[0])(jnp.eye(flat.size, dtype=flat.dtype)).T

  return columns(params)


def exact_hessian(loss, params):
  """Returns the matrix, flat."""
  @jax.jit
  def matrix(params):
    flat, unravel = ravel_pytree(params)
    return jax.hessian(lambda flat: loss(unravel(flat)))(flat)

  return matrix(params)


def test_hessian_products_are_the_dense_hessians_at_once_and_in_pieces():
  with jax.enable_x64(True):
    params, x = network()
    loss = lambda params: cross_entropy(model(params, x))
    of_piece = lambda params, piece: cross_entropy(model(params, piece[0]), piece[1])
    pieces = tuple(values.reshape(3, 2, *values.shape[1:]) for values in (x, LABEL))
    exact = exact_hessian(loss, params)
    for make in (
      lambda params: lambda v: hvp(loss, params, v), lambda params: hessian(loss, params),
      lambda params: hessian(of_piece, params, pieces),
    ):
      np.testing.assert_allclose(dense(make, params), exact, atol=1e-12)
    # Weights are those of a mean.
    weighed = dense(lambda params: hessian(of_piece, params, pieces, jnp.array([3.0, 1.0, 0.0])), params)
    of_part = jax.jit(lambda piece: exact_hessian(lambda params: of_piece(params, piece), params))
    parts = [of_part((pieces[0][i], pieces[1][i])) for i in (0, 1)]
    np.testing.assert_allclose(weighed, 0.75 * parts[0] + 0.25 * parts[1], atol=1e-12)


def test_gauss_newton_is_the_dense_product_and_positive_semi_definite():
  with jax.enable_x64(True):
    params, x = network()

    @jax.jit
    def exact(params):
      flat, unravel = ravel_pytree(params)
      outputs = lambda flat: model(unravel(flat), x).reshape(-1)
      j = jax.jacobian(outputs)(flat)
      return j.T @ jax.hessian(lambda logits: cross_entropy(logits.reshape(6, 3)))(outputs(flat)) @ j

    g = dense(lambda params: gauss_newton(lambda p: model(p, x), cross_entropy, params), params)
    np.testing.assert_allclose(g, exact(params), atol=1e-12)
    assert np.linalg.eigvalsh(g)[0] > -1e-14
    # In a linear model the two matrices are one.
    linear = {"w": params["out"]["w"]}
    through = lambda p: x[:, :3] @ p["w"]
    both = [dense(make, linear) for make in (
      lambda p: gauss_newton(through, cross_entropy, p), lambda p: hessian(lambda q: cross_entropy(through(q)), p))]
    np.testing.assert_allclose(*both, atol=1e-14)


def test_products_map_over_members_and_take_vectors_of_another_type():
  params, x = network(jnp.float32)
  members = jax.tree.map(lambda leaf: jnp.stack([leaf, 0.5 * leaf]), params)
  loss = lambda p: cross_entropy(model(p, x))
  product = jax.jit(lambda params, vector: hessian(loss, params)(vector))
  together = jax.jit(jax.vmap(product))(members, members)
  for i in range(2):
    one = jax.tree.map(lambda leaf, i=i: leaf[i], members)
    for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(product(one, one))):
      np.testing.assert_allclose(a[i], b, atol=1e-6)
  half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
  result = jax.eval_shape(lambda params, vector: hvp(loss, params, vector), half, params)
  assert {leaf.dtype for leaf in jax.tree.leaves(result)} == {jnp.dtype(jnp.bfloat16)}


def test_mistakes_name_the_fix():
  params, x = network(jnp.float32)
  with pytest.raises(UserError, match="return a mean over examples"):
    hessian(lambda p: model(p, x), params)
  with pytest.raises(UserError, match="return a mean over examples"):
    gauss_newton(lambda p: model(p, x), lambda logits: logits, params)
  renamed, shorter = {"inn": params["in"], "out": params["out"]}, jax.tree.map(lambda leaf: leaf[:1], params)
  for wrong in ({"in": params["in"]}, renamed, shorter):
    with pytest.raises(UserError, match="give a tree of their structure"):
      hvp(lambda p: cross_entropy(model(p, x)), params, wrong)
