"""The sigmoid inside a kernel: forms of it by what they cost a GPU and by how exact they are where weights are small.

With b = -log n a weight is about 1 / n. Written as 1/2 + 1/2 tanh(x / 2) it is the difference of two numbers near 1/2,
so that an absolute error e of the hardware's tanh is a relative error of e n / 2 of every weight, and of the output.
The forms by exp2 have the same relative error for every n:

    e = 2^-|y|,  y = x log2(e),    sigmoid(x) = e / (1 + e) for x < 0, 1 / (1 + e) otherwise

A Hopper multiprocessor evaluates 16 special functions (tanh, exp2, rsqrt) and 128 multiply-adds in a clock; a weight
costs D / 1024 clocks of the tensor cores forward, for heads of D features.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

LOG2_E = 1 / math.log(2)

# Largest errors of the instructions that the forms below become, by NVIDIA's PTX documentation.
TANH_ERROR = 2**-11  # tanh.approx.f32, relative
EXP2_ERROR = 2**-22  # ex2.approx.ftz.f32, relative
RSQRT_ERROR = 2**-22.9  # rsqrt.approx.ftz.f32, relative

TOLERANCE = 2e-3  # relative, of a weight; rounding it to bfloat16 alone is up to 2^-8 = 3.9e-3


@dataclasses.dataclass(frozen=True)
class Functions:
  """What the forms are made of; a test replaces them by the hardware's with their largest errors."""

  exp2: Callable = jnp.exp2
  tanh: Callable = jnp.tanh
  rsqrt: Callable = jax.lax.rsqrt
  where: Callable = jnp.where


def by_tanh(y, functions: Functions = Functions()):
  """Returns (sigmoid, 1 - sigmoid) of y / log2(e): 1 special function, 2 to 3 multiply-adds."""
  half = 0.5 * functions.tanh(y * (0.5 / LOG2_E))
  return 0.5 + half, 0.5 - half


def by_rsqrt(y, functions: Functions = Functions()):
  """Returns (sigmoid, 1 - sigmoid) of y / log2(e): 2 special functions, 3 multiplications."""
  e = functions.exp2(jnp.minimum(y, 60.0))  # beyond, 1 - sigmoid is 0 in float32 anyway, and e^2 must not overflow
  root = functions.rsqrt(1.0 + e)
  rest = root * root
  return e * rest, rest


def by_polynomial(y, functions: Functions = Functions()):
  """Returns (sigmoid, 1 - sigmoid) of y / log2(e): 1 special function, 5 multiply-adds, 2 selections."""
  e = functions.exp2(jnp.minimum(y, -y))
  inverse = RECIPROCAL[-1]
  for coefficient in RECIPROCAL[-2::-1]:
    inverse = inverse * e + coefficient
  small = e * inverse
  positive = y > 0
  return functions.where(positive, inverse, small), functions.where(positive, small, inverse)


def reciprocal(degree: int) -> tuple[float, ...]:
  """Returns the coefficients, constant first, of the best p(e) for 1 / (1 + e) on [0, 1], by its relative error.

  (1 + e) p(e) - 1 is a polynomial of one degree more that is -1 at e = -1. The smallest such is a multiple of the
  Chebyshev polynomial of [0, 1], so p interpolates at its roots, and the error is 1 / T_{degree + 1}(3).
  """
  nodes = 0.5 + 0.5 * np.cos(np.pi * (np.arange(degree + 1) + 0.5) / (degree + 1))
  powers = nodes[:, None] ** np.arange(degree + 1)[None]
  return tuple(np.linalg.solve(powers * (1 + nodes)[:, None], np.ones(degree + 1)).tolist())


RECIPROCAL = reciprocal(4)

FORMS = {"tanh": by_tanh, "rsqrt": by_rsqrt, "polynomial": by_polynomial}


def choose(bias: float | None) -> str:
  """Returns the name of the cheapest form that is exact enough, given the bias if it is one known number.

  "rsqrt" takes fewer instructions than "polynomial" but two special functions, of which a GPU makes eight times fewer.
  """
  if bias is not None and TOLERANCE / (1 + math.exp(-bias)) >= TANH_ERROR / 2:
    return "tanh"
  return "polynomial"
