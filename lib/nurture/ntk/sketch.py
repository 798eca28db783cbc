"""Random features whose inner products estimate the empirical kernel."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Float, Key, Shaped

from nurture.core import UserError, linalg
from nurture.core.hints import Count, check_argument
from nurture.core.rng import stream
from nurture.core.trees import named_leaves
from nurture.ntk.contraction import Values
from nurture.ntk.factored import everything_free, factors
from nurture.ntk.function import NetworkFunction, as_samples, check_block, check_word, checked_function

Array = jax.Array

_WORD = 32  # signs in a random word
_COLUMNS = 2**16  # parameters whose signs exist at once


def ntk_sketch(
  apply: Callable[[Any, Shaped[Array, "n ..."]], Any],
  variables: Mapping[str, Any],
  x: Shaped[Array, "n ..."],
  num_features: int,
  key: Key[Array, ""],
  *,
  reduce: Literal["trace", "pseudo"] = "trace",
  block: int | None = None,
) -> Float[Array, "n m"]:
  """Returns Johnson-Lindenstrauss features Φ of the empirical kernel: Φ Φ^T estimates Θ of `ntk`.

      φ(x) = S u(x) / sqrt(m),    S random signs [m, K P],    u = (∂f_1 / ∂θ, ..., ∂f_K / ∂θ) / sqrt(K)

  or u = ∂(sum_k f_k / sqrt(K)) / ∂θ for "pseudo". Unbiased, E[φ(x) φ(x')] = <u, u'> = Θ(x, x'), with

      Var[φ(x) φ(x')] <= (|u|² |u'|² + <u, u'>²) / m <= 2 Θ(x, x) Θ(x', x') / m

  so that the error is about sqrt(2 / m) of the diagonal: 2 % at m = 4,096. Features of other inputs with the same key
  and variables of the same shapes go together: a kernel between two sets, or through training, needs no second
  sketch of the first.

  n K P m operations and m K P / 32 random words for each block of samples, in memory of block · K P numbers; S is never
  held. Signs of a parameter depend on the key and its path alone.

  Args:
    apply: as for `ntk`.
    variables: as for `ntk`.
    x: [n, ...].
    num_features: m.
    key: a key of jax.random.
    reduce: as for `ntk`.
    block: samples whose Jacobian is held at once; None takes all. It must divide n.

  Returns:
    [n, m], float32 at least.

  Raises:
    UserError: as for `ntk`, for num_features below 1, or a block that does not divide n.

  Reference: Johnson & Lindenstrauss 1984; Achlioptas 2003, "Database-friendly random projections" (random signs).
  """
  check_word(reduce, ("trace", "pseudo"), "reduce")
  check_argument("num_features", num_features, Count)
  if not _is_key(key):
    raise UserError("key is no single key of jax.random; give one, such as jax.random.key(0).")
  x = as_samples(x, "x")
  network = checked_function(apply, variables, x)
  check_block(block, len(x))
  size = block or len(x)
  parts = [_features(network, variables, x[i : i + size], key, num_features, reduce) for i in range(0, len(x), size)]
  return jnp.concatenate(parts)


def _is_key(key: Any) -> bool:
  if not isinstance(key, jax.Array):
    return False
  return key.shape == (() if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else (2,))


@functools.partial(jax.jit, static_argnums=(0, 4, 5))
def _features(network: NetworkFunction, variables: Any, x: Array, key: Array, num_features: int, reduce: str) -> Array:
  outputs = network.outputs
  seeds = jnp.eye(outputs) if reduce == "trace" else jnp.ones((1, outputs))
  plan = everything_free(variables)
  jacobians = factors(network.apply, variables, x, seeds, plan)
  names = [name for name, _ in named_leaves(variables["params"])]
  total: Any = 0.0
  for i, jacobian in zip(plan.free, jacobians):
    assert isinstance(jacobian, Values), "of a plan without layers"
    flat = jacobian.values.reshape(len(x), -1)
    total = total + _projected(flat, stream(key, names[i]), num_features)
  return total / jnp.sqrt(jnp.asarray(num_features * outputs, total.dtype))


def _projected(jacobian: Array, key: Array, num_features: int) -> Array:
  """Returns jacobian [n, D] times random signs [D, m], some columns and 32 features at a time."""
  n, columns = jacobian.shape
  size = min(columns, _COLUMNS)
  count, words = -(-columns // size), -(-num_features // _WORD)
  padded = jnp.pad(jacobian, [(0, 0), (0, count * size - columns)])

  def word(w):
    def piece(i, total):
      bits = jax.random.bits(jax.random.fold_in(jax.random.fold_in(key, w), i), (size,), jnp.uint32)
      signs = 1 - 2 * (bits[:, None] >> jnp.arange(_WORD, dtype=jnp.uint32)[None] & 1).astype(jacobian.dtype)
      part = jax.lax.dynamic_slice_in_dim(padded, i * size, size, axis=1)
      return total + linalg.matmul(part, signs)

    return jax.lax.fori_loop(0, count, piece, jnp.zeros((n, _WORD), jacobian.dtype))

  features = jax.lax.map(word, jnp.arange(words))  # [words, n, 32]
  return features.transpose(1, 0, 2).reshape(n, -1)[:, :num_features]
