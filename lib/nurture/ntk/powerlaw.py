"""Tasks whose eigenvalues and coefficients fall as powers: their exponents, and how closely to fit their labels."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from nurture.core import UserError


@dataclasses.dataclass(frozen=True)
class PowerLaw:
  """y = prefactor x^-exponent.

  Attributes:
    exponent: of the decay, so positive where y falls.
    prefactor: y at x = 1.
    sem: standard error of the exponent from the scatter about the line; nan from two points.
  """

  exponent: float
  prefactor: float
  sem: float

  def __call__(self, x: Any) -> np.ndarray:
    return self.prefactor * np.asarray(x, np.float64) ** -self.exponent


def fit_powerlaw(x: Any, y: Any, low: float = 0.0, high: float = np.inf) -> PowerLaw:
  """Fits y = C x^-p by least squares of log y on log x, over the points with low <= x <= high.

  For the exponents of a task give sizes n and, from `nurture.ntk.regression.learning_curve`,
    a: y = 1 / Tr K_n^-1, about the implicit ridge κ, which falls as n^-a;
    b: y = the ridgeless test error, which falls as n^-(b-1): b = exponent + 1.
  A line through the eigenvalues themselves is a worse estimate of a: the smallest of n empirical ones lie too low.

  Args:
    x: [T] positive numbers.
    y: [T] positive numbers.
    low: the least x to fit, itself included.
    high: the largest x to fit, itself included.

  Raises:
    UserError: for shapes that do not fit, values that are not positive, or fewer than two different x in the range.
  """
  x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
  if x.ndim != 1 or x.shape != y.shape:
    raise UserError(f"x and y have shapes {x.shape} and {y.shape}; give [T] each.")
  kept = (x >= low) & (x <= high)
  x, y = x[kept], y[kept]
  if len(np.unique(x)) < 2:
    raise UserError(f"fewer than two different x lie from {low:g} to {high:g}, so no line fits; widen the range.")
  if not (np.isfinite(x) & np.isfinite(y) & (x > 0) & (y > 0)).all():
    raise UserError("a power law passes through positive numbers only; leave the other points out.")
  log_x, log_y = np.log(x), np.log(y)
  centred = log_x - log_x.mean()
  slope = centred @ log_y / (centred @ centred)
  intercept = log_y.mean() - slope * log_x.mean()
  rest = log_y - intercept - slope * log_x
  sem = np.sqrt(rest @ rest / (len(x) - 2) / (centred @ centred)) if len(x) > 2 else np.nan
  return PowerLaw(float(-slope), float(np.exp(intercept)), float(sem))


def noise_threshold(a: Any, b: Any) -> Any:
  """Returns s* = (b - a) / (a (a - 1)), the relative noise up to which interpolation is best; below 0, it never is.

  Args:
    a: exponent of λ_i ~ i^-a, 1 < a; a number or an array.
    b: exponent of v_i² ~ i^-b, 1 < b < 2 a + 1; a number or an array.

  Raises:
    UserError: for exponents out of this range.
  """
  a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
  if not _broadcast(a, b):
    raise UserError(f"the exponents a {a.shape} and b {b.shape} do not broadcast; give numbers, or one shape.")
  if not np.all((a > 1) & (b > 1) & (b < 2 * a + 1)):
    raise UserError(f"the exponents are a = {a} and b = {b}; the theory holds for a > 1 and 1 < b < 2 a + 1.")
  return _plain((b - a) / (a * (a - 1)))


def overfitting_is_obligatory(a: Any, b: Any, s_rel2: Any) -> Any:
  """Returns whether every ridge above 0 makes the test error of a large power-law task worse: s_rel2 <= s*.

  Without noise this is b >= a. Arguments and errors as for `optimal_fitting_ratio`.
  """
  threshold = noise_threshold(a, b)
  return _plain(_noise(s_rel2) <= threshold)


def fitting_error(ratio: Any, a: Any, b: Any, s_rel2: Any) -> Any:
  """Returns the test error of a large power-law task fitted to the ratio R = E_tr / E_te, but for a factor n^(1-b).

      E_te ~ [(1 - √R)^(1-b) + a s²] / [1 + (a - 1) √R]

  which is 1 + a s² when interpolating, and grows without bound as R goes to 1.

  Args:
    ratio: R in [0, 1), set by the ridge.
    a: as for `optimal_fitting_ratio`.
    b: likewise.
    s_rel2: likewise.
  """
  noise_threshold(a, b)
  ratio = np.asarray(ratio, np.float64)
  if not np.all((ratio >= 0) & (ratio < 1)):
    raise UserError(f"the fitting ratio is {ratio}; give E_train / E_test in [0, 1).")
  root = np.sqrt(ratio)
  return _plain(((1 - root) ** (1 - np.asarray(b)) + a * _noise(s_rel2)) / (1 + (np.asarray(a) - 1) * root))


def optimal_fitting_ratio(a: Any, b: Any, s_rel2: Any) -> Any:
  """Returns R* = E_tr / E_te at the ridge that is best for a large power-law task.

      r = √R* solves  a - b - (a - 1) b r + a (a - 1) s² (1 - r)^b = 0  on [0, 1),   or R* = 0 if r = 0 leaves it <= 0

  The left side falls in r, and from the sign of the derivative of the test error: R* = 0 exactly where
  `overfitting_is_obligatory`. Solved in float64 on the host, so that it needs no 64-bit types of JAX.

  Args:
    a: λ_i ~ i^-a, a > 1.
    b: v_i² ~ i^-b, 1 < b < 2 a + 1.
    s_rel2: s² = σ² / E_te of the same task without noise and ridge, at least 0. The *relative* noise: σ² itself falls
      with n when it is held fixed.

  Returns:
    A number, or an array of the shape that the arguments broadcast to.

  Raises:
    UserError: for exponents or noise out of these ranges.

  Reference: Simon et al. 2024, arXiv:2311.14646.
  """
  noise_threshold(a, b)
  a, b, noise = np.asarray(a, np.float64), np.asarray(b, np.float64), _noise(s_rel2)
  if not _broadcast(a, b, noise):
    raise UserError(f"the shapes of a {a.shape}, b {b.shape} and s_rel2 {noise.shape} do not broadcast; give numbers, "
                    "or one shape.")
  a, b, noise = np.broadcast_arrays(a, b, noise)
  falling = lambda r: a - b - (a - 1) * b * r + a * (a - 1) * noise * (1 - r) ** b
  low, high = np.zeros(a.shape), np.ones(a.shape)
  for _ in range(60):
    middle = 0.5 * (low + high)
    above = falling(middle) > 0
    low, high = np.where(above, middle, low), np.where(above, high, middle)
  return _plain(np.where(overfitting_is_obligatory(a, b, noise), 0.0, low**2))


def _noise(s_rel2: Any) -> np.ndarray:
  noise = np.asarray(s_rel2, np.float64)
  if not np.all(np.isfinite(noise) & (noise >= 0)):
    raise UserError(f"the relative noise is {s_rel2}; give a variance of at least 0.")
  return noise


def _broadcast(*arrays: np.ndarray) -> bool:
  try:
    np.broadcast_shapes(*(array.shape for array in arrays))
  except ValueError:
    return False
  return True


def _plain(value: Any) -> Any:
  return np.asarray(value).item() if np.ndim(value) == 0 else np.asarray(value)
