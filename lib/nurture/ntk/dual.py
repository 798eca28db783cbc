"""Dual activations f(c) = E[phi(u) phi(v)], and what infinite depth makes of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from nurture.core import UserError, build
from nurture.ntk.closed_duals import Erf, Gelu, Relu, Sine
from nurture.ntk.dual_base import Dual
from nurture.ntk.hermite import Hermite, from_activation, hermite, linear, optimal_hermite
from nurture.ntk.precision import is_real

Limit = Literal["1nn", "majority", "singular"]


def relu() -> Relu:
  """Returns the dual of sqrt(2) max(u, 0): f(cos t) = (sin t + (pi - t) cos t) / pi."""
  return Relu()


def erf() -> Erf:
  """Returns the dual of the error function at unit variance: f(c) = arcsin(2 c / 3) / arcsin(2 / 3)."""
  return Erf()


def sine(a: float) -> Sine:
  """Returns the dual of sin(sqrt(a) u): f(c) = sinh(a c) / sinh(a); a is the *squared* frequency."""
  return Sine(float(a) if is_real(a) else a)


sin = sine  # its name among activation functions


def gelu() -> Gelu:
  """Returns the dual of u Phi(u), in closed form."""
  return Gelu()


DUALS = {
  "relu": relu, "erf": erf, "sine": sine, "sin": sine, "gelu": gelu, "linear": linear, "hermite": hermite,
  "optimal_hermite": optimal_hermite,
}


def as_dual(dual: Dual | str | Mapping[str, Any]) -> Dual:
  """Returns a dual as it is, or the row of DUALS that a name or {"name": "sine", "a": 2.0} describes.

  Raises:
    UserError: if there is no such row, or if its arguments are wrong.
  """
  if callable(dual):
    raise UserError(f"dual is the function {getattr(dual, '__name__', dual)}; call it, as in relu() or sine(2.0).")
  return dual if isinstance(dual, Dual) else build(DUALS, dual, path="dual")


def classify(dual: Dual | str | Mapping[str, Any]) -> Limit:
  """Returns what the classifier of infinite depth is, of NNGP and NTK alike.

  | f at 0                    | limit        |                                                                 |
  | ------------------------- | ------------ | --------------------------------------------------------------- |
  | f(0) > 0                  | "majority"   | all pairs of points get one value of the kernel                 |
  | f(0) = 0, f'(0) = 0       | "1nn"        | c_L ~ c^(k^L): the nearest neighbour outweighs all others       |
  | f(0) = 0, 0 < f'(0) < 1   | "singular"   | c_L / f'(0)^L -> R(x, x') / |x - x'|^alpha                      |

  A series of `from_activation`, which drops weights below 1e-26, may be in another class than its function.

  Raises:
    UserError: for linear activations, f(c) = c, whose kernel no depth changes.

  Reference: Radhakrishnan, Belkin & Uhler 2022, arXiv:2204.14126.
  """
  dual = as_dual(dual)
  if dual.lowest == 0:
    return "majority"
  if dual.lowest > 1:
    return "1nn"
  if dual.log_df0 >= 0:
    raise UserError("f(c) = c is in none of the three classes, no depth changes its kernel; give another activation.")
  return "singular"


def singularity_exponent(dual: Dual | str | Mapping[str, Any]) -> float:
  """Returns alpha of the singular kernel R(x, x') / |x - x'|^alpha that infinite depth leads to.

      alpha = -2 log f'(0) / log f'(1)

  Near c = 1 the gap 1 - c = |x - x'|^2 / 2 grows by f'(1) a layer until it is O(1), then c shrinks by f'(0) a layer.
  The classifier is Bayes-consistent exactly where alpha is the intrinsic dimension of the data.

  Raises:
    UserError: if the activation has no singular limit.

  Reference: Radhakrishnan, Belkin & Uhler 2022, arXiv:2204.14126.
  """
  dual = as_dual(dual)
  limit = classify(dual)
  if limit != "singular":
    raise UserError(f"{dual.name} has the limit {limit!r} and no exponent; that takes f(0) = 0 and 0 < f'(0) < 1.")
  return -2 * dual.log_df0 / dual.log_df1


__all__ = [
  "DUALS", "Dual", "Hermite", "as_dual", "classify", "erf", "from_activation", "gelu", "hermite", "linear",
  "optimal_hermite", "relu", "sin", "sine", "singularity_exponent",
]
