"""Products with the empirical kernel: a gradient, and the derivative of the outputs along it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float, Shaped

from nurture.core import UserError, linalg
from nurture.ntk.contraction import accumulator
from nurture.ntk.factored import logits_of
from nurture.ntk.function import (
  REDUCTIONS,
  NetworkFunction,
  Reduce,
  as_samples,
  check_block,
  check_word,
  checked_function,
  float_params,
  forward_derivatives,
  with_params,
)

Array = jax.Array


def products(network: NetworkFunction, seeds: Array, variables: Any, x1: Array, x2: Array) -> Array:
  """Returns [n1, n2, S, S]: of each column and seed the gradient, and along it the derivative of all rows."""
  params = float_params(variables)

  def f(params, x):
    logits = logits_of(network.apply, with_params(variables, params), x)
    return linalg.matmul(seeds.astype(logits.dtype), logits)

  def column(x):
    _, pull = jax.vjp(lambda params: f(params, x), params)
    rows = lambda params: jax.vmap(lambda x: f(params, x))(x1)
    along = lambda gradient: jax.jvp(rows, (params,), (gradient,))[1]
    return jax.vmap(lambda seed: along(*pull(seed)))(jnp.eye(len(seeds), dtype=jax.eval_shape(f, params, x).dtype))

  columns = jax.lax.map(column, x2)  # [n2, S, n1, S]
  return columns.transpose(2, 0, 3, 1).astype(jnp.promote_types(columns.dtype, jnp.float32))


def ntk_matvec(
  apply: Callable[[Any, Shaped[Array, "n ..."]], Any],
  variables: Mapping[str, Any],
  x: Shaped[Array, "n ..."],
  vector: Float[Array, " n2 *K"],
  x2: Shaped[Array, "n2 ..."] | None = None,
  *,
  reduce: Reduce = "trace",
  block: int | None = None,
) -> Float[Array, " n *K"]:
  """Returns Θ v without forming the kernel Θ of `ntk`: a gradient, and the derivative along it.

      full    (Θ v)_ik = <∂f_k(x_i) / ∂θ, g>,    g = sum_jl v_jl ∂f_l(x2_j) / ∂θ
      trace   (Θ v)_i = (1 / K) sum_k of the same with g_k = sum_j v_j ∂f_k(x2_j) / ∂θ;  pseudo: one such g

  Two passes over the data ("trace": 2 K), in memory of P + block · (activations of one sample).

  Args:
    apply: as for `ntk`.
    variables: as for `ntk`.
    x: [n, ...], the rows of the kernel.
    vector: v, [n2], or [n2, K] for "full".
    x2: [n2, ...], its columns; None takes x.
    reduce: as for `ntk`.
    block: samples in one pass; None takes all. It must divide n and n2.

  Returns:
    [n], or [n, K] for "full". In the dtype that the network computes in, float32 at least, in which gradients add up.

  Raises:
    UserError: as for `ntk`, for a vector of another shape or a complex one, a block that does not divide, or a network
      with functions that have a reverse derivative only: forward and reverse derivatives meet here.
  """
  check_word(reduce, REDUCTIONS, "reduce")
  x, x2 = as_samples(x, "x"), None if x2 is None else as_samples(x2, "x2")
  network = checked_function(apply, variables, x, x2)
  x2 = x if x2 is None else x2
  vector = jnp.asarray(vector)
  expected = (len(x2), network.outputs) if reduce == "full" else (len(x2),)
  if vector.shape != expected:
    raise UserError(f"vector is {list(vector.shape)}, but the kernel acts on {list(expected)}; reshape it.")
  if jnp.issubdtype(vector.dtype, jnp.complexfloating):
    raise UserError("vector is complex; give its real and imaginary parts one after the other.")
  for n in (len(x), len(x2)):
    check_block(block, n)
  with forward_derivatives():
    return _matvec(network, reduce, variables, x, x2, vector, block)


@functools.partial(jax.jit, static_argnums=(0, 1, 6))
def _matvec(
  network: NetworkFunction, reduce: str, variables: Any, x: Array, x2: Array, vector: Array, block: int | None
) -> Array:
  params, outputs = float_params(variables), network.outputs
  pieces = lambda a: a.reshape(-1, block or len(a), *a.shape[1:])

  def f(params, x):
    return jax.vmap(lambda x: logits_of(network.apply, with_params(variables, params), x))(x)

  def product(cotangents):  # [n2, K] -> [n, K]
    def add(total, piece):
      x, cotangent = piece
      logits, pull = jax.vjp(lambda params: f(params, x), params)
      return jax.tree.map(lambda t, g: t + g.astype(t.dtype), total, pull(cotangent.astype(logits.dtype))[0]), None

    parts = pieces(x2), pieces(cotangents)
    total = jax.lax.scan(add, jax.tree.map(lambda p: jnp.zeros(p.shape, accumulator(p)), params), parts)[0]
    gradient = jax.tree.map(lambda t, p: t.astype(p.dtype), total, params)
    along = lambda x: jax.jvp(lambda params: f(params, x), (params,), (gradient,))[1]
    result = jax.lax.map(along, pieces(x)).reshape(len(x), outputs)
    return result.astype(accumulator(result))

  if reduce == "full":
    return product(vector)
  if reduce == "pseudo":
    return product(jnp.broadcast_to(vector[:, None], (len(x2), outputs))).sum(axis=1) / outputs
  unit = jnp.eye(outputs, dtype=vector.dtype)
  return jax.lax.map(lambda k: product(vector[:, None] * unit[k][None])[:, k], jnp.arange(outputs)).mean(axis=0)
