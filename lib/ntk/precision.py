"""Float64 or a refusal: theory that subtracts nearly equal numbers is worth nothing in float32."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lib.core import UserError


def require_x64(what: str) -> None:
  """Raises a UserError that names the fix if JAX's 64-bit types are off."""
  if not jax.config.jax_enable_x64:
    raise UserError(f"{what} needs float64; call it within `with jax.enable_x64(True):`.")


def as_double(value: Any, name: str) -> jax.Array:
  """Returns the value as a float64 array.

  Raises:
    UserError: for floating-point numbers of fewer bits, whose digits are lost already, and for complex ones.
  """
  value = value if hasattr(value, "dtype") else np.asarray(value)
  if value.dtype != np.float64 and jnp.issubdtype(value.dtype, jnp.inexact):
    raise UserError(f"{name} is {value.dtype}; compute it in float64, or if its digits do, convert it to that.")
  return jnp.asarray(value, jnp.float64)


def is_concrete(value: Any) -> bool:
  """Whether the value can be looked at: within jit, vmap and grad it cannot."""
  return not isinstance(value, jax.core.Tracer)
