"""Dual activations with closed forms: ReLU, GELU, erf, sine."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from nurture.core import UserError
from nurture.ntk.dual_base import Dual, OddDual
from nurture.ntk.relu_limit import SMALL_ANGLE, relu_jump, sine_excess

Array = jax.Array

_LOG_SINH = (1 / 6, -1 / 180, 1 / 2835, -1 / 37800, 1 / 467775)  # log(sinh(a) / a) by powers of a^2


@dataclasses.dataclass(frozen=True)
class Relu(Dual):
  """phi(u) = sqrt(2) max(u, 0); f(cos t) = (sin t + (pi - t) cos t) / pi, f' = 1 - t / pi.

  Cho & Saul 2009, arc-cosine kernels of order 1 and 0.
  """

  name = "relu"
  lowest = 0
  f0, df0, df1 = 1 / math.pi, 0.5, 1.0
  log_lowest, log_df0, log_first = -math.log(math.pi), -math.log(2), -math.inf
  has_jump = True

  def phi(self, u):
    return math.sqrt(2) * jax.nn.relu(u)

  def settled(self, c):
    return (c.sign > 0) & (-jnp.expm1(c.log) < SMALL_ANGLE**2 / 2)

  def jump(self, c, k, layers):
    return relu_jump(c, k, layers)

  def _one_minus_f(self, delta):
    excess = sine_excess(_angle(jnp.minimum(delta, 2 - delta))) / math.pi
    return jnp.where(delta < 1, delta, 1.0) - excess

  def _df(self, delta):
    part = _angle(jnp.minimum(delta, 2 - delta)) / math.pi
    return jnp.where(delta < 1, 1 - part, part)


@dataclasses.dataclass(frozen=True)
class Gelu(Dual):
  """phi(u) = u Phi(u), normalized; exact, by Stein's identity.

      E[phi(u) phi(v)] = c / 4 + c arcsin(c / 2) / (2 pi) + 1 / (2 pi sqrt(4 - c^2))
  """

  name = "gelu"
  lowest = 0
  square = 1 / 3 + 1 / (2 * math.pi * math.sqrt(3))  # E[phi^2]
  f0 = 1 / (4 * math.pi * square)
  df0 = 1 / (4 * square)
  df1 = (1 / 3 + 1 / (6 * math.pi * math.sqrt(3)) + 1 / (2 * math.pi * math.sqrt(3))) / square
  log_lowest, log_df0, log_first = math.log(f0), math.log(df0), -math.inf

  def phi(self, u):
    return jax.nn.gelu(u, approximate=False) / math.sqrt(self.square)

  def _one_minus_f(self, delta):
    # Differences from the values at 1, each a product of 1 - c^2 or of 1 - |c|; c arcsin(c / 2) is even.
    size, rise = jnp.abs(1 - delta), delta * (2 - delta)
    root, root_one = jnp.sqrt(3 + rise), math.sqrt(3)
    arc = jnp.arcsin(rise / (root + size * root_one))  # pi / 6 - arcsin(|c| / 2)
    angles = jnp.minimum(delta, 2 - delta) / 12 + size * arc / (2 * math.pi)
    roots = rise / (2 * math.pi * root_one * root * (root_one + root))
    return (delta / 4 + angles + roots) / self.square

  def _df(self, delta):
    c = 1 - delta
    root = jnp.sqrt(4 - jnp.square(c))
    slope = 0.25 + (jnp.arcsin(c / 2) + c / root + c / root**3) / (2 * math.pi)
    return slope / self.square


@dataclasses.dataclass(frozen=True)
class Erf(OddDual):
  """phi(u) = erf(u), normalized; f(c) = arcsin(2 c / 3) / arcsin(2 / 3).

  Williams 1997, "Computing with infinite networks", at unit variance of the weights and without biases.
  """

  name = "erf"
  top = math.asin(2 / 3)
  log_df0 = math.log(2 / (3 * top))
  df1 = 2 / (math.sqrt(5) * top)
  log_first = -20.0

  def phi(self, u):
    return jax.scipy.special.erf(u) * math.sqrt(math.pi / (2 * self.top))

  def _near_one(self, delta):
    c = 1 - delta
    sines = 2 / 3 * (math.sqrt(5) / 3 * c + jnp.sqrt(1 - 4 / 9 * jnp.square(c)))
    return jnp.arcsin(4 / 9 * delta * (2 - delta) / sines) / self.top

  def _log_far(self, log_c):
    return jnp.log(jnp.arcsin(2 / 3 * jnp.exp(log_c)) / self.top)

  def _df(self, delta):
    return 2 / (3 * self.top) / jnp.sqrt(1 - 4 / 9 * jnp.square(1 - delta))


@dataclasses.dataclass(frozen=True)
class Sine(OddDual):
  """phi(u) = sin(sqrt(a) u), normalized; f(c) = sinh(a c) / sinh(a).

  Attributes:
    a: squared frequency, positive.
  """

  a: float

  name = "sine"

  def __post_init__(self):
    if not (isinstance(self.a, float) and 0 < self.a < math.inf):
      raise UserError(f"a is {self.a!r}; the squared frequency of a sine is a positive number.")

  @property
  def log_df0(self):
    if self.a < 0.1:
      return -_series(_LOG_SINH, self.a)
    return math.log(2 * self.a) - self.a - math.log(-math.expm1(-2 * self.a))

  @property
  def df1(self):
    return self.a / math.tanh(self.a)

  @property
  def log_df1(self):
    if self.a < 0.1:
      return _series([(4.0**i - 2) * x for i, x in enumerate(_LOG_SINH, 1)], self.a)
    return math.log(self.df1)

  @property
  def near(self):
    return 0.5 / max(self.a, 1.0)

  @property
  def log_first(self):
    return -20.0 - math.log(max(self.a, 1.0))

  def phi(self, u):
    return jnp.sin(math.sqrt(self.a) * u) / math.sqrt(-math.expm1(-2 * self.a) / 2)

  def _near_one(self, delta):
    a = self.a
    return jnp.expm1(-a * delta) * (1 + jnp.exp(-a * (2 - delta))) / math.expm1(-2 * a)

  def _log_far(self, log_c):
    a = self.a
    return a * jnp.expm1(log_c) + jnp.log(jnp.expm1(-2 * a * jnp.exp(log_c)) / math.expm1(-2 * a))

  def _log_df(self, delta):
    a = self.a
    return math.log(a) - a * delta + jnp.log1p(jnp.exp(-2 * a * (1 - delta))) - math.log(-math.expm1(-2 * a))

  def _df(self, delta):
    a = self.a
    return a * (jnp.exp(-a * delta) + jnp.exp(-a * (2 - delta))) / -math.expm1(-2 * a)


def _series(coefficients: Sequence[float], a: float) -> float:
  """Returns sum_i x_i a^(2 i) over i = 1, 2, ..."""
  return math.fsum(x * a ** (2 * i) for i, x in enumerate(coefficients, 1))


def _angle(delta: Array) -> Array:
  """Returns arccos(1 - delta) for delta in [0, 2]."""
  return 2 * jnp.arcsin(jnp.sqrt(jnp.clip(delta / 2, 0, 1)))
