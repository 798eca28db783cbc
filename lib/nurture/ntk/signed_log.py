"""Numbers as a sign and the logarithm of their size: kernels far outside the range of float64."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array

ROUNDING = 37.0  # exp(-37) is less than the spacing of float64 at 1


class SignedLog(NamedTuple):
  """The number sign * exp(log).

  Attributes:
    sign: 1 or -1, float64.
    log: natural logarithm of the absolute value, float64; -inf is 0.
  """

  sign: Array
  log: Array

  def value(self) -> Array:
    """Returns the number itself, which may overflow or underflow."""
    return self.sign * jnp.exp(self.log)


def signed_log(value: Array) -> SignedLog:
  """Returns a plain number as sign and logarithm."""
  return SignedLog(jnp.where(value < 0, -1.0, 1.0), jnp.log(jnp.abs(value)))


def multiply(a: SignedLog, b: SignedLog) -> SignedLog:
  """Returns a * b."""
  return SignedLog(a.sign * b.sign, a.log + b.log)


def add(a: SignedLog, b: SignedLog) -> SignedLog:
  """Returns a + b, of which one is not 0. What cancels to nothing counts as rounding error of its parts."""
  smaller = a.sign * b.sign * jnp.exp(-jnp.abs(a.log - b.log))  # over the larger one
  size = jnp.where(smaller == -1, -ROUNDING, jnp.log1p(jnp.where(smaller == -1, 0.0, smaller)))
  return SignedLog(jnp.where(a.log < b.log, b.sign, a.sign), jnp.maximum(a.log, b.log) + size)
