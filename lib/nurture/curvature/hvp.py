"""Products of vectors with the Hessian and the Gauss-Newton matrix of a loss, without either matrix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from nurture.core import UserError

Array = jax.Array
Tree = Any
Operator = Callable[[Tree], Tree]  # v -> A v, linear and symmetric, on trees of one structure


def hvp(loss: Callable[[Tree], Float[Array, ""]], params: Tree, vector: Tree) -> Tree:
  """Returns H v, H the Hessian of a loss at params: the derivative of the gradient along v, forward over reverse.

  About four evaluations of the gradient's cost in time, twice its memory. v is cast to the type of params.

  Args:
    loss: params -> [] float.
    params: any pytree of floating-point arrays.
    vector: a tree of the structure and shapes of params.

  Raises:
    UserError: if the loss is no single number, or vector is not shaped as params.

  Reference: Pearlmutter 1994, "Fast exact multiplication by the Hessian".
  """
  _check_scalar(loss, params)
  return jax.jvp(jax.grad(loss), (params,), (_tangent(params, vector),))[1]


def hessian(
  loss: Callable[..., Float[Array, ""]], params: Tree, pieces: Tree | None = None,
  weights: Float[Array, " m"] | None = None,
) -> Operator:
  """Returns v -> H v of a loss at params.

  Without pieces the gradient is linearized once, and every product pays for the linear part alone; what the loss keeps
  for its backward pass stays in memory as long as the operator. With pieces it is the weighted mean of the Hessians of
  loss(params, piece), one piece at a time: the memory of one, and the whole product computed again for each v. The
  loss must be a mean over examples for that to be the Hessian of all of them.

  Args:
    loss: params -> [] float, or (params, piece) -> [] float.
    params: any pytree of floating-point arrays.
    pieces: a tree whose leaves have a leading axis of pieces.
    weights: [pieces] of the mean, such as numbers of examples; None weighs all alike.

  Raises:
    UserError: if the loss is no single number.
  """
  if pieces is None:
    _check_scalar(loss, params)
    _, derivative = jax.linearize(jax.grad(loss), params)
    return lambda vector: derivative(_tangent(params, vector))
  first = jax.tree.map(lambda leaf: leaf[0], pieces)
  _check_scalar(lambda params: loss(params, first), params)
  count = jax.tree.leaves(pieces)[0].shape[0]
  weights = jnp.ones(count) if weights is None else weights
  weights = weights / jnp.sum(weights)

  def product(vector: Tree) -> Tree:
    def add(total, one):
      piece, weight = one
      part = hvp(lambda params: loss(params, piece), params, vector)
      return jax.tree.map(lambda a, b: a + weight.astype(b.dtype) * b, total, part), None

    total, _ = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, params), (pieces, weights))
    return total

  return product


def gauss_newton(
  model: Callable[[Tree], Float[Array, " ..."]], loss: Callable[[Float[Array, " ..."]], Float[Array, ""]], params: Tree
) -> Operator:
  """Returns v -> G v, the generalized Gauss-Newton matrix of loss(model(params)):

      G = J^T H_L J,    J = d model / d params,    H_L the Hessian of the loss in the model's outputs

  It is positive semi-definite where the loss is convex in the outputs, as cross-entropy and squared error are; for
  these it is the Fisher information of the model's predictions. The model is linearized once, forward and backward.

  Args:
    model: params -> outputs, any array, such as the logits of a batch.
    loss: outputs -> [] float.
    params: any pytree of floating-point arrays.

  Raises:
    UserError: if the loss is no single number.

  Reference: Schraudolph 2002, "Fast curvature matrix-vector products for second-order gradient descent".
  """
  outputs, forward = jax.linearize(model, params)
  _check_scalar(loss, outputs)
  backward = jax.linear_transpose(forward, params)
  _, of_loss = jax.linearize(jax.grad(loss), outputs)
  return lambda vector: backward(of_loss(forward(_tangent(params, vector))))[0]


def _tangent(params: Tree, vector: Tree) -> Tree:
  shapes = [[leaf.shape for leaf in jax.tree.leaves(tree)] for tree in (params, vector)]
  structures: list[Any] = [jax.tree.structure(tree) for tree in (params, vector)]
  if structures[0] != structures[1] or shapes[0] != shapes[1]:
    raise UserError("the vector of a Hessian product is not shaped as the parameters; give a tree of their structure, "
                    "such as jax.tree.map(jnp.ones_like, params).")
  return jax.tree.map(lambda leaf, v: v.astype(leaf.dtype), params, vector)


def _check_scalar(loss: Callable[[Tree], Array], argument: Tree) -> None:
  shapes = [leaf.shape for leaf in jax.tree.leaves(jax.eval_shape(loss, argument))]
  if shapes != [()]:
    raise UserError(f"the loss returns {shapes}, and curvature is of a single number; return a mean over examples.")
