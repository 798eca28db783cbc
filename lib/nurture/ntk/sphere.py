"""Points on the unit sphere in float64: distances and cosines that lose no digits where points nearly coincide."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nurture.core import UserError
from nurture.ntk.precision import as_double, require_x64
from nurture.ntk.signed_log import SignedLog

Array = jax.Array

TINY = float(np.finfo(np.float64).tiny)  # what a cosine of exactly 0 counts as, so that logarithms stay finite


def double(x: Any, name: str) -> Array:
  """Returns x as a float64 array; whole numbers and lists of numbers are converted.

  Raises:
    UserError: if 64-bit arithmetic is off, or if x is of a shorter floating type or holds no numbers.
  """
  require_x64("a deep kernel")
  return as_double(x, name)


def points(x: Any, name: str) -> Array:
  """Returns x [n, d] as float64.

  Raises:
    UserError: as in `double`; if x has another shape or no rows, or is not finite.
  """
  x = double(x, name)
  if x.ndim != 2 or 0 in x.shape:
    raise UserError(f"{name} is {list(x.shape)}; give points as [n, d] with n and d at least 1.")
  if not isinstance(x, jax.core.Tracer) and not bool(jnp.isfinite(x).all()):
    raise UserError(f"{name} has values that are not finite; leave those points out.")
  return x


def unit_points(x: Any, name: str) -> Array:
  """Returns x [n, d] with rows of length 1 to rounding.

  Raises:
    UserError: as in `points`, or if a row's length differs from 1 by more than 1e-6.
  """
  x = points(x, name)
  # Row by row, so that a point has the same last bits in every set: only then are equal points at a distance of 0.
  norms = jax.lax.map(lambda row: jnp.sqrt(jnp.sum(jnp.square(row), keepdims=True)), x)
  if not isinstance(x, jax.core.Tracer):
    worst = float(norms[jnp.argmax(jnp.abs(norms - 1)), 0])
    if abs(worst - 1) > 1e-6:
      raise UserError(f"{name} has a row of length {worst:.6g}, but the kernels live on the unit sphere; divide {name} "
                      "by numpy.linalg.norm(..., axis=1, keepdims=True).")
  return x / norms


def squared_distances(x1: Array, x2: Array) -> Array:
  """Returns |x - x'|^2 of x1 [n1, d] and x2 [n2, d], [n1, n2], from the differences: exactly 0 for equal points."""
  return jax.lax.map(lambda row: jnp.sum(jnp.square(x2 - row[None]), axis=1), x1)


def log_cosines(x1: Array, x2: Array) -> SignedLog:
  """Returns the cosines of unit vectors x1 [n1, d] and x2 [n2, d] as sign and log |c|, [n1, n2].

  Both ends keep their digits: near 1 and -1 the cosine comes from |x - x'|^2 / 2 and |x + x'|^2 / 2, so that log |c|
  is 0 only for equal or opposite points; elsewhere it is the inner product. A cosine of exactly 0 counts as 2.2e-308.
  """

  def row(point):
    products = jnp.sum(x2 * point[None], axis=1)
    sign = jnp.where(products < 0, -1.0, 1.0)
    gap = jnp.sum(jnp.square(x2 - sign[:, None] * point[None]), axis=1) / 2  # 1 - |c|
    size = jnp.maximum(jnp.abs(products), TINY)
    return SignedLog(sign, jnp.where(gap < 0.5, jnp.log1p(-jnp.minimum(gap, 0.5)), jnp.log(size)))

  return jax.lax.map(row, x1)
