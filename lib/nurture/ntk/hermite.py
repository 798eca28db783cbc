"""Dual activations as Hermite series, and the optimal ones of every dimension."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nurture.core import UserError
from nurture.core.hints import NonNegative, Whole, check_argument
from nurture.ntk.dual_base import Dual
from nurture.ntk.precision import is_real, require_x64
from nurture.ntk.signed_log import ROUNDING, SignedLog

Array = jax.Array

_SAFE = -600.0  # log weights down to which plain float64 sums do


@dataclasses.dataclass(frozen=True)
class Hermite(Dual):
  """f(c) = sum_i h_i^2 c^i. Build it by `hermite` or `from_activation`.

  Attributes:
    degrees: those with a weight, ascending.
    log_weights: log h_i^2 of these degrees; the weights add up to 1.
    name: for tables and messages.
    function: the activation that the series is of; None stands for sum_i h_i He_i / sqrt(i!) with h_i >= 0.
    scale: E[function(u)^2] to the power -1/2.
  """

  degrees: tuple[int, ...]
  log_weights: tuple[float, ...]
  name: str = "hermite"
  function: Callable[[Array], Array] | None = None
  scale: float = 1.0

  @property
  def lowest(self):
    return self.degrees[0]

  @property
  def log_lowest(self):
    return self.log_weights[0]

  @property
  def is_odd(self):
    return all(i % 2 == 1 for i in self.degrees)

  @property
  def log_df0(self):
    return dict(zip(self.degrees, self.log_weights)).get(1, -math.inf)

  @property
  def f0(self):
    return math.exp(self.log_lowest) if self.lowest == 0 else 0.0

  @property
  def df0(self):
    return math.exp(self.log_df0)

  @property
  def df1(self):
    return math.fsum(i * math.exp(w) for i, w in zip(self.degrees, self.log_weights))

  @property
  def log_first(self):
    if len(self.degrees) == 1:
      return math.inf
    rest = _logsumexp(self.log_weights[1:])
    return (self.log_lowest - rest - ROUNDING - 2) / (self.degrees[1] - self.degrees[0])

  def phi(self, u):
    if self.function is not None:
      return self.scale * self.function(u)
    scales = {i: math.exp(w / 2) for i, w in zip(self.degrees, self.log_weights)}
    before, this = jnp.zeros_like(u), jnp.ones_like(u)
    total = scales.get(0, 0.0) * this
    for i in range(1, self.degrees[-1] + 1):
      before, this = this, (u * this - math.sqrt(i - 1) * before) / math.sqrt(i)
      total = total + scales.get(i, 0.0) * this
    return total

  def _value(self, c):
    return _polynomial(self._dense(), c)

  def layer(self, c):
    sums = self._log_sums if min(self.log_weights) < _SAFE else self._plain_sums
    f, df = sums(c)
    # Near f = 1 and f = -1 from the distance to them. At -|c| that of 1 is 1 - f(|c|) and twice the odd terms, that of
    # -1 the same and twice the even ones: no difference is taken.
    size, dense = jnp.maximum(c.log, -1.0), self._dense()
    gap = self._one_minus_f(-jnp.expm1(size))
    odd = np.arange(len(dense)) % 2 == 1
    twice = lambda terms: 2 * _polynomial(np.where(terms, dense, 0.0), jnp.exp(size))
    to_one = jnp.where(c.sign > 0, gap, gap + twice(odd))
    to_minus_one = jnp.where(c.sign > 0, 2 - gap, gap + twice(~odd))
    least = jnp.minimum(to_one, to_minus_one)
    near = (least < 0.5) & (c.log > -1.0)
    sign = jnp.where(to_one <= to_minus_one, 1.0, -1.0)
    return SignedLog(jnp.where(near, sign, f.sign), jnp.where(near, jnp.log1p(-jnp.minimum(least, 0.5)), f.log)), df

  def _plain_sums(self, c):
    """Returns f and f' with the lowest power as a logarithm and the rest in plain numbers."""
    x, dense = c.sign * jnp.exp(c.log), self._dense()
    slopes = np.arange(len(dense)) * dense
    f = _times_power(_polynomial(dense[self.lowest:], x), c, self.lowest)
    first = max(self.lowest, 1)
    return f, _times_power(_polynomial(slopes[first:], x), c, first - 1)

  def _log_sums(self, c):
    """Returns f and f' with every term as a logarithm, for weights beyond the range of float64."""
    slopes = [(i - 1, w + math.log(i)) for i, w in zip(self.degrees, self.log_weights) if i]
    return _signed_sum(list(zip(self.degrees, self.log_weights)), c), _signed_sum(slopes, c)

  def _one_minus_f(self, delta):
    # 1 - f = (1 - c) sum_j c^j (weight of degrees above j): no difference is taken where c > 0.
    dense = self._dense()
    above = np.cumsum(dense[::-1])[::-1][1:]
    return delta * _polynomial(above, 1 - delta)

  def _df(self, delta):
    dense = self._dense()
    return _polynomial((np.arange(len(dense)) * dense)[1:], 1 - delta)

  def _dense(self) -> np.ndarray:
    dense = np.zeros(self.degrees[-1] + 1)
    dense[list(self.degrees)] = np.exp(self.log_weights)
    return dense


def hermite(log_weights: Sequence[float] | np.ndarray, name: str = "hermite") -> Hermite:
  """Returns the dual activation f(c) = sum_i h_i^2 c^i, normalized to f(1) = 1.

  Args:
    log_weights: log h_i^2 for i = 0, 1, ...; -inf where there is no such term. As logarithms the weights may lie far
      below the range of float64.
    name: for tables and messages.

  Raises:
    UserError: if no weight is positive, or if one is nan or infinite.
  """
  try:
    values = np.asarray(log_weights, np.float64)
  except (TypeError, ValueError):
    values = np.empty(())
  if values.ndim != 1 or np.isnan(values).any() or (values == np.inf).any() or not np.isfinite(values).any():
    raise UserError(f"log_weights is {log_weights!r}; give log h_i^2 for i = 0, 1, ..., -inf for no term, one finite.")
  degrees = np.flatnonzero(np.isfinite(values))
  total = _logsumexp(values[degrees])
  return Hermite(tuple(int(i) for i in degrees), tuple(float(values[i] - total) for i in degrees), name)


def linear() -> Hermite:
  """Returns f(c) = c, phi(u) = u: every depth has the kernel of the inputs."""
  return hermite((-math.inf, 0.0), "linear")


def optimal_hermite(D: int) -> Hermite:
  """Returns the activation whose infinitely deep kernel is Bayes-consistent on data of intrinsic dimension D.

      D = 1:     f(c) = c^7 / 2 + c / 2,
      D >= 2:    f(c) = 2^(-D/2) c^3 + (1 - 2^(1 - D/2)) c^2 + 2^(-D/2) c

  so that alpha = -2 log f'(0) / log f'(1) = D. Points on the unit sphere of R^d have D = d - 1. Beyond D = 2044 the
  weight 2^(-D/2) is less than float64 holds and only its logarithm is kept.

  Raises:
    UserError: if D is not 1 or at least 2, where the weight of c^2 would be negative.

  Reference: Radhakrishnan, Belkin & Uhler 2022, arXiv:2204.14126.
  """
  if not is_real(D) or not (D == 1 or 2 <= D < math.inf):
    raise UserError(f"D is {D!r}; give the dimension of the data, 1 or at least 2: d - 1 on the sphere of R^d.")
  name, half, none = f"optimal_{D}", math.log(0.5), -math.inf
  if D == 1:
    return hermite((none, half, none, none, none, none, none, half), name)
  outer = D * half / 2
  share = 2.0 ** (1 - D / 2)
  return hermite((none, outer, math.log1p(-share) if share < 1 else none, outer), name)


def from_activation(phi: Callable[[Array], Array], degree: int = 200, tolerance: float = 1e-6) -> Hermite:
  """Returns the dual activation of any smooth function phi, from its Hermite coefficients.

      h_i = E[phi(u) He_i(u)] / sqrt(i!),    u ~ N(0, 1)

  They come from the trapezoidal rule on [-40, 40], which converges exponentially for analytic phi. Weights below 1e-26
  of the whole are rounding error and count as 0: of functions whose exact f(0) or f'(0) is as small, such as sines of
  high frequency, the limit of infinite depth is then another; `sine` and `optimal_hermite` have it right.

  Args:
    phi: elementwise, on float64.
    degree: highest degree kept.
    tolerance: share of E[phi^2], and of f'(1) = E[phi'^2], that higher degrees may hold.

  Raises:
    UserError: if 64-bit arithmetic is off, if phi is not finite or not float64, is 0, or has more than `tolerance`
      beyond `degree`, as functions with kinks have; for ReLU and GELU there are closed forms.
  """
  require_x64("a Hermite series")
  check_argument("degree", degree, Whole)
  check_argument("tolerance", tolerance, NonNegative)
  u = np.linspace(-40, 40, 16001)
  values = _at(phi, u)
  root = np.exp(-np.square(u) / 4) * math.sqrt((u[1] - u[0]) / math.sqrt(2 * math.pi))  # of the normal density
  before, this = np.zeros_like(u), root
  square = np.sum(np.square(values * root))
  if not square > 0:
    raise UserError("phi is 0 everywhere; give an activation function.")
  weights = []
  for i in range(int(degree) + 1):
    weights.append(np.sum(values * root * this) ** 2)
    before, this = this, (u * this - math.sqrt(i) * before) / math.sqrt(i + 1)
  shares = np.array(weights) / square
  step = 3e-5
  slopes = (_at(phi, u + step) - _at(phi, u - step)) / (2 * step)
  slope = np.sum(np.square(slopes * root)) / square
  for what, kept, whole in (("E[phi^2]", shares.sum(), 1.0), ("E[phi'^2]", np.arange(len(shares)) @ shares, slope)):
    if whole - kept > tolerance * whole:
      raise UserError(f"phi has {1 - kept / whole:.1e} of {what} beyond degree {degree}; give a higher degree, a "
                      "smoother phi, a closed form such as relu(), or a higher tolerance.")
  logs = np.log(np.where(shares > 1e-26, shares, 1.0))
  series = hermite(np.where(shares > 1e-26, logs, -np.inf), getattr(phi, "__name__", "activation"))
  return dataclasses.replace(series, function=phi, scale=float(square**-0.5))


def _at(phi: Callable[[Array], Array], u: np.ndarray) -> np.ndarray:
  """Returns phi(u), float64 and finite."""
  try:
    values = np.asarray(phi(jnp.asarray(u)))
  except (TypeError, AttributeError) as error:
    raise UserError(f"phi cannot be called on an array ({error}); give a function such as jnp.tanh.") from None
  if values.shape != u.shape or values.dtype != np.float64:
    raise UserError(f"phi takes float64 {list(u.shape)} to {values.dtype} {list(values.shape)}; give a function that "
                    "works elementwise, in float64.")
  if not np.isfinite(values).all():
    raise UserError("phi must map [-40, 40] to finite numbers.")
  return values


def _polynomial(ascending: np.ndarray, x: Array) -> Array:
  return jnp.polyval(jnp.asarray(ascending[::-1], jnp.float64), x, unroll=8)


def _times_power(value: Array, c: SignedLog, power: int) -> SignedLog:
  scaled = _scaled(value, power * c.log)
  return SignedLog(scaled.sign * c.sign ** (power % 2), scaled.log)


def _signed_sum(terms: Sequence[tuple[int, float]], c: SignedLog) -> SignedLog:
  logs = [log_weight + i * c.log for i, log_weight in terms]
  top = jnp.max(jnp.stack(logs), axis=0)
  total: Any = sum(c.sign ** (i % 2) * jnp.exp(log - top) for (i, _), log in zip(terms, logs))
  return _scaled(total, top)


def _scaled(total: Array, top: Array) -> SignedLog:
  """Returns total * exp(top); a total of 0 counts as rounding error of terms of size 1."""
  size = jnp.where(total == 0, -ROUNDING, jnp.log(jnp.where(total == 0, 1.0, jnp.abs(total))))
  return SignedLog(jnp.where(total < 0, -1.0, 1.0), top + size)


def _logsumexp(values: Sequence[float] | np.ndarray) -> float:
  top = max(values)
  return top + math.log(math.fsum(math.exp(v - top) for v in values))
