"""Any number of ReLU layers at once, where the angle between two inputs is small.

f'(1) = 1, so angles shrink slowly, t_L ~ 3 pi / L, and no term of lowest degree takes over. But the layer t -> g(t) is
conjugate to a shift, and its NTK to a linear recursion along it:

    A(g(t)) = A(t) + 1,                     A(t) = 3 pi / t + (3 / 2) log t + a_1 t + a_2 t^2 + ...
    H(g(t)) = (1 - t / pi) H(t),            H(t) = t^3 exp(b_1 t + b_2 t^2 + ...)
    P(g(t)) = f(t) + (1 - t / pi) P(t),     P(t) = 3 pi / (4 t) - 1/8 + p_1 t + ... + q H(t) log t

so t_L solves A(t_L) = A(t_0) + L, and K_L = P(t_L) + (K_0 - P(t_0)) H(t_L) / H(t_0): in particular K_L / L -> 1/4. The
coefficients solve the three equations order by order; up to t^5 they give 15 digits below the angle SMALL_ANGLE.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from lib.ntk.signed_log import SignedLog, signed_log

Array = jax.Array

SMALL_ANGLE = 0.1
_A = (0.7344218261125556, -0.03944571003725647, 0.005957578776745628, -0.0005704980528848284, 0.00017474503212752416)
_B = (1 / (2 * math.pi), -0.0760769427511147, 0.005375255738866581, 0.00017895029974167157, 0.000496377102653393)
_P = (-0.125, -2.4678915863429007, 0.8484276133830084, 0.0, -0.04959780154228106, 0.013859531281947743)
_Q = -0.19696968672694742


def relu_jump(c: SignedLog, k: SignedLog, layers: Array) -> tuple[SignedLog, SignedLog]:
  """Returns cosine and NTK after so many more ReLU layers, from positive cosines of angles below SMALL_ANGLE."""
  gap = -jnp.expm1(c.log)
  start = 2 * jnp.arcsin(jnp.sqrt(jnp.clip(jnp.where(gap > 0, gap, SMALL_ANGLE**2 / 4), 0, 1) / 2))
  start = jnp.minimum(start, 2 * SMALL_ANGLE)  # pairs elsewhere are not read
  end = _after(start, layers)
  before = k.value()
  both = jnp.stack([start, end])  # one copy of the formulas in the program
  log_h = _log_homogeneous(both)
  p = 3 * math.pi / (4 * both) + _horner(_P[::-1], both) + _Q * jnp.exp(log_h) * jnp.log(both)
  after = p[1] + (before - p[0]) * jnp.exp(log_h[1] - log_h[0])
  # Of angles that do not move, P(t_L) - P(t_0) is a small difference of large numbers: there a Taylor series.
  still = start * (layers + before) < 1e-5
  taylor = before + layers - start / math.pi * layers * (before + layers / 2)
  log_c = jnp.log1p(-2 * jnp.square(jnp.sin(end / 2)))
  return SignedLog(c.sign, jnp.where(gap > 0, log_c, 0.0)), signed_log(jnp.where(still, taylor, after))


def sine_excess(t: Array) -> Array:
  """Returns sin t - t cos t for t in [0, pi / 2], to full relative precision."""
  small = jnp.minimum(t, 0.5)
  series = [(-1) ** (i + 1) * 2 * i / math.factorial(2 * i + 1) for i in range(7, 0, -1)]
  return jnp.where(t < 0.5, small**3 * _horner(series, jnp.square(small)), jnp.sin(t) - t * jnp.cos(t))


def _after(start: Array, layers: Array) -> Array:
  """Returns the angle after so many layers, by Newton's method on A."""
  target = _abel(start) + layers
  t = 3 * math.pi / (3 * math.pi / start + layers)
  for _ in range(3):  # an error e of 3 pi / t becomes 3/4 (e t / (3 pi))^2: 2 steps reach rounding
    slope = -3 * math.pi / jnp.square(t) + 1.5 / t + _horner([i * a for i, a in enumerate(_A, 1)][::-1], t)
    t = jnp.clip(t - (_abel(t) - target) / slope, t / 4, start)
  return t


def _abel(t: Array) -> Array:
  return 3 * math.pi / t + 1.5 * jnp.log(t) + t * _horner(_A[::-1], t)


def _log_homogeneous(t: Array) -> Array:
  return 3 * jnp.log(t) + t * _horner(_B[::-1], t)


def _horner(coefficients, t: Array) -> Array:
  """Returns the polynomial in t with these coefficients, the highest first."""
  value = jnp.zeros_like(t)
  for coefficient in coefficients:
    value = value * t + coefficient
  return value
