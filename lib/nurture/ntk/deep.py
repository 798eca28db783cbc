"""NNGP and NTK of infinitely wide fully connected networks, of any depth, as logarithms."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Float

from nurture.core import UserError
from nurture.ntk.dual import Dual, as_dual
from nurture.ntk.signed_log import SignedLog, add, multiply
from nurture.ntk.sphere import TINY, double, log_cosines, unit_points

Array = jax.Array
Kind = Literal["nngp", "ntk"]

_CONVERGED = 4e-15  # relative change of both logarithms in a layer
_DEEPEST = 1e15  # float64 counts layers one by one up to 9e15


def fc_kernel(
  x1: Float[ArrayLike, "n1 d"], x2: Float[ArrayLike, "n2 d"] | None, dual: Dual | str | Mapping[str, Any], depth: int,
  kind: Kind = "nngp",
) -> Float[Array, "n1 n2"]:
  """Returns the kernel of an infinitely wide fully connected network on the unit sphere.

      NNGP:  c_0 = <x, x'>,  c_{l+1} = f(c_l)
      NTK:   K_0 = c_0,      K_{l+1} = f(c_l) + K_l f'(c_l)

  `deep_signed_log_kernel` exponentiated: at great depth values underflow, or overflow for the NTK of equal points.

  Args, Raises: as there.

  Returns:
    [n1, n2] float64; its diagonal for x2 = None is 1 for the NNGP and 1 + f'(1) + ... + f'(1)^L for the NTK.
  """
  return deep_signed_log_kernel(x1, x2, dual, depth, kind)[0].value()


def deep_log_kernel(
  x1: Float[ArrayLike, "n1 d"], x2: Float[ArrayLike, "n2 d"] | None, dual: Dual | str | Mapping[str, Any], depth: int,
  kind: Kind = "nngp",
) -> tuple[Float[Array, "n1 n2"], Float[Array, ""]]:
  """Returns the logarithm of the kernel of a very deep network, where the kernel is positive.

  It always is where all cosines are non-negative (points of one orthant), and for duals with f(0) > 0 after enough
  layers. Elsewhere use `deep_signed_log_kernel`, which this one is but for the sign.

  Args: as there.

  Returns:
    (log K [n1, n2], log diag [] the logarithm of the kernel of a point with itself), float64 and finite.

  Raises:
    UserError: as there, and if a value of the kernel is negative. Under jit those are nan.
  """
  (sign, log), diagonal = deep_signed_log_kernel(x1, x2, dual, depth, kind)
  negative = sign < 0
  if isinstance(sign, jax.core.Tracer):
    return jnp.where(negative, jnp.nan, log), diagonal
  if bool(negative.any()):
    raise UserError(
      f"the kernel is negative for {int(negative.sum())} pairs of points, which has no logarithm; use "
      "deep_signed_log_kernel, or points whose inner products are not negative."
    )
  return log, diagonal


def deep_signed_log_kernel(
  x1: Float[ArrayLike, "n1 d"], x2: Float[ArrayLike, "n2 d"] | None, dual: Dual | str | Mapping[str, Any], depth: int,
  kind: Kind = "nngp",
) -> tuple[SignedLog, Float[Array, ""]]:
  """Returns the kernel of a very deep network on the whole sphere as sign and logarithm.

  The state of each pair is the sign and log |c|, which keeps all digits at both ends. Near c = 1 it is minus the gap
  |x - x'|^2 / 2, which f'(1) enlarges layer by layer. Near c = 0 it may be far below the range of float64. As soon as
  every pair has reached a closed form (the lowest term of the series, a fixed point, small angles of ReLU), the rest of
  the depth is one formula, so that 10^6 layers cost as many as some hundred.

  Args:
    x1: [n1, d] float64, rows of length 1.
    x2: [n2, d], or None for x1 again.
    dual: a Dual, the name of a row of DUALS, or a dict with its arguments.
    depth: L, number of hidden layers, at least 1.
    kind: "nngp" or "ntk".

  Returns:
    (SignedLog of K [n1, n2], log diag []), all finite. Where f(0) = f'(0) = 0, log K ~ -k^L leaves the range of float64
    (at L ~ 1000 for c^2). There it is that of the deepest network whose logarithms fit, which has the same order of
    points and the same nearest neighbours. log diag is always that of depth L. A cosine of exactly 0 counts as
    2.2e-308.

  Raises:
    UserError: if 64-bit arithmetic is off, if points are not float64 or not on the unit sphere, or for an unknown dual,
      a depth below 1, or another kind.

  Memory is a few arrays [n1, n2]; for more points call it by blocks of rows. Layers are computed one by one until a
  closed form holds: some hundred for the activations above, 20 / |log f'(0)| where f is nearly linear, such as `sine`
  of a small frequency, and all of them where f(0) > 0, f'(1) = 1 and it is not ReLU. Differentiable forwards (jax.jvp),
  but not backwards: the number of those layers is not known beforehand.

  Differs from the official code, which iterates c in plain float64: there f(c) = c^2 underflows within 30 layers and
  the nearest neighbours are lost.
  Reference: Radhakrishnan, Belkin & Uhler 2022, arXiv:2204.14126.
  """
  dual = _checked(dual, depth, kind)
  x1 = unit_points(x1, "x1")
  x2 = x1 if x2 is None else unit_points(x2, "x2")
  if x1.shape[1] != x2.shape[1]:
    raise UserError(f"x1 has {x1.shape[1]} coordinates and x2 has {x2.shape[1]}; give points of the same space.")
  return _from_cosines(_log_cosines(x1, x2), dual, depth, kind)


def log_kernel_of_cosines(
  log_c: Float[ArrayLike, " ..."], dual: Dual | str | Mapping[str, Any], depth: int, kind: Kind = "nngp"
) -> tuple[Float[Array, " ..."], Float[Array, ""]]:
  """Returns what `deep_log_kernel` does, from positive cosines given as log c <= 0, of any shape.

  All pairs of points with one cosine have one value of the kernel: a table over cosines serves any number of pairs.

  Raises:
    UserError: as there, or if log_c is positive or not finite.
  """
  dual = _checked(dual, depth, kind)
  log_c = double(log_c, "log_c")
  if not isinstance(log_c, jax.core.Tracer) and not bool(jnp.all((log_c <= 0) & jnp.isfinite(log_c))):
    raise UserError("log_c must be finite and not positive; give logarithms of cosines in (0, 1].")
  if dual.lowest > 1:
    log_c = jnp.maximum(log_c, math.log(TINY))  # as a cosine of 0; log K ~ -k^L leaves no room for less
  k, diagonal = _from_cosines(SignedLog(jnp.ones_like(log_c), log_c), dual, depth, kind)
  return jnp.where(k.sign < 0, jnp.nan, k.log), diagonal


def _from_cosines(c: SignedLog, dual: Dual, depth: int, kind: Kind) -> tuple[SignedLog, Array]:
  layers = jnp.asarray(dual.max_depth(int(depth)), jnp.float64)
  diagonal = dual.log_diagonal(jnp.asarray(depth, jnp.float64)) if kind == "ntk" else jnp.zeros(())
  return _iterate(c, layers, diagonal, dual, kind), diagonal


_log_cosines = jax.jit(log_cosines)


@functools.partial(jax.jit, static_argnames=("dual", "kind"))
def _iterate(c: SignedLog, depth: Array, diagonal: Array, dual: Dual, kind: Kind) -> SignedLog:
  """Returns the kernel after `depth` layers, [] float64, which is traced: a sweep over depths compiles once.

  Args:
    c: cosines.
    depth: layers.
    diagonal: [], logarithm of the kernel where the cosine is 1, or -1 and phi is odd.
    dual, kind: as above.
  """

  def layer(carry):
    done, _, c, k = carry
    f, df = dual.layer(c)
    after = add(f, multiply(k, df)) if kind == "ntk" else f
    still = None if dual.has_jump else dual.fixed(c) | (_change(f, c) & _change(after, k))
    return done + 1, still, f, after

  def goes_on(carry):
    done, still, c, _ = carry
    return (done < depth) & ~jnp.all(dual.settled(c) if dual.has_jump else still | dual.settled(c))

  start = None if dual.has_jump else jnp.zeros_like(c.log, bool)
  done, _, end, k = jax.lax.while_loop(goes_on, layer, (jnp.zeros(()), start, c, c))
  fixed = dual.fixed(end)
  left = depth - done
  jumped = dual.jump(SignedLog(end.sign, jnp.where(fixed, -1.0, end.log)), k, left)
  here, there = (k, jumped[1]) if kind == "ntk" else (end, jumped[0])
  kernel = jax.tree.map(lambda a, b: jnp.where(left > 0, b, a), here, there)
  return SignedLog(jnp.where(fixed, end.sign, kernel.sign), jnp.where(fixed, diagonal, kernel.log))


def _change(after: SignedLog, before: SignedLog) -> Array:
  """Returns where a layer changed nothing but rounding."""
  return (after.sign == before.sign) & (jnp.abs(after.log - before.log) <= _CONVERGED * jnp.abs(before.log))


def _checked(dual: Dual | str | Mapping[str, Any], depth: int, kind: str) -> Dual:
  dual = as_dual(dual)
  whole = isinstance(depth, (int, np.integer)) and not isinstance(depth, bool)
  if not whole and not (isinstance(depth, (float, np.floating)) and float(depth).is_integer()):
    raise UserError(f"depth is {depth!r}; give a whole number of hidden layers, at least 1.")
  if not 1 <= depth <= _DEEPEST:
    raise UserError(f"depth is {str(depth)[:20]}; give at least 1 hidden layer, and at most {_DEEPEST:.0e}.")
  if kind not in ("nngp", "ntk"):
    raise UserError(f'kind is {kind!r}; give "nngp" or "ntk".')
  return dual
