"""Checks for float64: theory that subtracts nearly equal numbers is worth nothing in float32."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nurture.core import UserError


def require_x64(what: str) -> None:
  """Raises a UserError that names the fix if JAX's 64-bit types are off."""
  if not jax.config.jax_enable_x64:  # type: ignore[attr-defined]
    raise UserError(f"{what} needs float64; call it within `with jax.enable_x64(True):`.")


def as_double(value: Any, name: str) -> jax.Array:
  """Returns the value as a float64 array.

  Raises:
    UserError: for floating-point numbers of fewer bits, whose digits are lost already, for complex ones, and for what
      is no array of numbers.
  """
  if not hasattr(value, "dtype"):
    try:
      value = np.asarray(value)
    except ValueError:
      raise UserError(f"{name} has rows of different lengths; give an array of numbers.") from None
  if not isinstance(value, jax.Array) and np.dtype(value.dtype).kind not in "biufc":
    raise UserError(f"{name} holds {value.dtype}; give an array of numbers.")
  if value.dtype != np.float64 and jnp.issubdtype(value.dtype, jnp.inexact):
    raise UserError(f"{name} is {value.dtype}; compute it in float64, or if its digits do, convert it to that.")
  return jnp.asarray(value, jnp.float64)


def is_real(value: Any) -> bool:
  """Whether the value is one real number, of Python or numpy, and no bool."""
  return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def is_concrete(value: Any) -> bool:
  """Whether the value can be looked at: within jit, vmap and grad it cannot."""
  return not isinstance(value, jax.core.Tracer)
