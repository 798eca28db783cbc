"""Closed form of any number of ReLU layers, where the angle between two inputs is small.

f'(1) = 1, so angles shrink slowly, t_L ~ 3 pi / L, and no term of lowest degree takes over. But the layer t -> g(t) is
conjugate to a shift, and its NTK to a linear recursion along it:

    A(g(t)) = A(t) + 1,                     A(t) = 3 pi / t + (3 / 2) log t + a_1 t + a_2 t^2 + ...
    H(g(t)) = (1 - t / pi) H(t),            H(t) = t^3 exp(b_1 t + b_2 t^2 + ...)
    P(g(t)) = f(t) + (1 - t / pi) P(t),     P(t) = 3 pi / (4 t) - 1/8 + p_1 t + ... + q H(t) log t

so t_L solves A(t_L) = A(t_0) + L, and K_L = P(t_L) + (K_0 - P(t_0)) H(t_L) / H(t_0): in particular K_L / L -> 1/4. The
coefficients solve the three equations order by order; up to t^8 they give 14 digits below the angle SMALL_ANGLE.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from nurture.ntk.signed_log import SignedLog, signed_log

Array = jax.Array

SMALL_ANGLE = 0.1
_A = (
  0.73442182611255554, -0.039445710037256482, 0.0059575787767456269, -0.00057049805288482985, 0.00017474503212752433,
  -1.3253886580087873e-5, 6.387925247661114e-6, -6.6611616012503509e-7,
)
_B = (
  1 / (2 * math.pi), -0.076076942751114693, 0.0053752557388665815, 0.00017895029974167153, 0.00049637710265339327,
  0.0001320551312347544, 5.8105089125210847e-5, 1.899797525439874e-5,
)
_P = (
  -0.125, -2.4678915863429013, 0.84842761338300864, 0.0, -0.049597801542281083, 0.013859531281947745,
  7.7903876791269522e-5, -0.00066411675958471742, 1.525584632835379e-5,
)
_Q = -0.19696968672694742


def relu_jump(c: SignedLog, k: SignedLog, layers: Array) -> tuple[SignedLog, SignedLog]:
  """Returns cosine and NTK after so many more ReLU layers, from positive cosines of angles below SMALL_ANGLE."""
  gap = -jnp.expm1(c.log)
  start = 2 * jnp.arcsin(jnp.sqrt(jnp.clip(jnp.where(gap > 0, gap, SMALL_ANGLE**2 / 4), 0, 1) / 2))
  start = jnp.minimum(start, 2 * SMALL_ANGLE)  # pairs elsewhere are not read
  end = _after(start, layers)
  before = k.value()
  both = jnp.stack([start, end])  # one copy of the formulas in the program
  rest = both * _horner(_B[::-1], both)  # log (H / t^3)
  p = 3 * math.pi / (4 * both) + _horner(_P[::-1], both) + _Q * both**3 * jnp.exp(rest) * jnp.log(both)
  after = p[1] + (before - p[0]) * (end / start) ** 3 * jnp.exp(rest[1] - rest[0])
  # Of angles that hardly move, P(t_L) - P(t_0) is a small difference of large numbers: there a series in t_0.
  still = start * (layers + before) < 3e-4
  first = layers * before + layers * (layers - 1) / 2
  pairs = layers * (layers - 1) / 2
  second = (
    before * pairs * 4 / (3 * math.pi**2) + pairs * (2 * layers - 1) / (9 * math.pi**2)
    + pairs * (layers - 2) / (3 * math.pi**2) - layers / 2
  )
  taylor = before + layers - start / math.pi * first + jnp.square(start) * second
  log_c = jnp.log1p(-2 * jnp.square(jnp.sin(end / 2)))
  return SignedLog(c.sign, jnp.where(gap > 0, log_c, 0.0)), signed_log(jnp.where(still, taylor, after))


def sine_excess(t: Array) -> Array:
  """Returns sin t - t cos t for t in [0, pi / 2], to full relative precision."""
  small = jnp.minimum(t, 0.5)
  series = [(-1) ** (i + 1) * 2 * i / math.factorial(2 * i + 1) for i in range(7, 0, -1)]
  return jnp.where(t < 0.5, small**3 * _horner(series, jnp.square(small)), jnp.sin(t) - t * jnp.cos(t))


def _after(start: Array, layers: Array) -> Array:
  """Returns the angle after so many layers, by Newton's method on A."""
  goal = _abel(start) + layers
  t = 3 * math.pi / (3 * math.pi / start + layers)
  for _ in range(3):  # an error e of 3 pi / t becomes 3/4 (e t / (3 pi))^2: 2 steps reach rounding
    slope = -3 * math.pi / jnp.square(t) + 1.5 / t + _horner([i * a for i, a in enumerate(_A, 1)][::-1], t)
    t = jnp.clip(t - (_abel(t) - goal) / slope, t / 4, start)
  return t


def _abel(t: Array) -> Array:
  return 3 * math.pi / t + 1.5 * jnp.log(t) + t * _horner(_A[::-1], t)


def _horner(coefficients, t: Array) -> Array:
  """Returns the polynomial in t with these coefficients, the highest first."""
  value = jnp.zeros_like(t)
  for coefficient in coefficients:
    value = value * t + coefficient
  return value
