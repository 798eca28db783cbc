"""Random features of inputs, and the kernels that they become when there are infinitely many."""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import ArrayLike, Float, Key

from nurture.core import UserError
from nurture.core.hints import Count, Positive, check_argument
from nurture.ntk.precision import as_double, require_x64

Array = jax.Array
Kind = Literal["relu", "gaussian", "fourier"]


def random_features(
  key: Key[Array, ""], x: Float[ArrayLike, "n d"], num_features: int, kind: Kind = "relu", *, length: float = 1.0
) -> Float[Array, "n k"]:
  """Returns k random features of each input, whose products have `feature_kernel` as their mean over features.

      relu:      φ = max(w·x, 0), w ~ N(0, 2 I / d)               K = |x||x'| (sin θ + (π - θ) cos θ) / (π d)
      gaussian:  φ = w·x, w ~ N(0, I)                             K = x·x'
      fourier:   φ = sqrt(2) cos(w·x / ℓ + b), w ~ N(0, I), b uniform on the circle    K = exp(-|x - x'|² / (2 ℓ²))

  The same key gives the same features for other inputs of the same d. "gaussian" at x_i = sqrt(λ_i) ψ_i with
  independent ψ_i ~ N(0, 1) is the task for which the eigenframework is derived.

  Args:
    key: a JAX key.
    x: [n, d], float64.
    num_features: k.
    kind: "relu", "gaussian" or "fourier".
    length: ℓ, of "fourier".

  Returns:
    [n, k], without the factor 1 / sqrt(k).

  Raises:
    UserError: if JAX's 64-bit types are off, x is float32 or not [n, d], k is below 1, or the kind or ℓ does not exist.

  Reference: Rahimi and Recht 2007 (fourier); Cho and Saul 2009 (relu).
  """
  x = _inputs(x, kind, length)
  check_argument("num_features", num_features, Count)
  d = x.shape[1]
  for_weights, for_phases = jax.random.split(key)
  projected = x @ jax.random.normal(for_weights, (d, num_features), jnp.float64)
  if kind == "relu":
    return jnp.sqrt(2.0 / d) * jax.nn.relu(projected)
  if kind == "gaussian":
    return projected
  phases = jax.random.uniform(for_phases, (1, num_features), jnp.float64, maxval=2 * jnp.pi)
  return jnp.sqrt(2.0) * jnp.cos(projected / length + phases)


def feature_kernel(
  x1: Float[ArrayLike, "n1 d"], x2: Float[ArrayLike, "n2 d"], kind: Kind = "relu", *, length: float = 1.0
) -> Float[Array, "n1 n2"]:
  """Returns the kernel [n1, n2] of infinitely many `random_features`; arguments and errors as there."""
  x1, x2 = _inputs(x1, kind, length), _inputs(x2, kind, length)
  if x1.shape[1] != x2.shape[1]:
    raise UserError(f"x1 has {x1.shape[1]} coordinates and x2 has {x2.shape[1]}; give points of the same space.")
  product, squares = x1 @ x2.T, [jnp.sum(x * x, axis=1) for x in (x1, x2)]
  if kind == "gaussian":
    return product
  if kind == "fourier":
    distances = jnp.maximum(squares[0][:, None] + squares[1][None] - 2 * product, 0.0)
    return jnp.exp(-distances / (2 * length**2))
  lengths = jnp.sqrt(squares[0][:, None] * squares[1][None])
  cosine = jnp.clip(product / jnp.where(lengths > 0, lengths, 1.0), -1.0, 1.0)
  angle = jnp.arccos(cosine)
  return lengths * (jnp.sqrt(1 - cosine**2) + (jnp.pi - angle) * cosine) / (jnp.pi * x1.shape[1])


def _inputs(x: Any, kind: str, length: float) -> Array:
  require_x64("regression")
  x = as_double(x, "x")
  if x.ndim != 2 or not x.shape[1]:
    raise UserError(f"x has shape {x.shape}; give [n, d], images flattened.")
  if kind not in ("relu", "gaussian", "fourier"):
    raise UserError(f'the kind of features is {kind!r}; give "relu", "gaussian" or "fourier".')
  check_argument("length", length, Positive)
  return x
