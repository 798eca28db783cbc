"""Gradient flow of an infinitely wide network on the squared error, in closed form."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from nurture.core import UserError
from nurture.core.hints import NonNegative, Positive, check_argument
from nurture.ntk.infinite import repair
from nurture.ntk.precision import as_double, require_x64

Array = jax.Array


class Prediction(NamedTuple):
  """Outputs on the training inputs [T, n, K] and on the test inputs [T, m, K]; no axis T where time is one number."""

  train: Array
  test: Array


def predict(
  k_train: Float[Array, "n n"], k_test: Float[Array, "m n"], y: Float[Array, "n K"],
  times: float | Float[Array, " T"] | None = None, *, learning_rate: float = 1.0, ridge: float = 0.0,
) -> Prediction:
  """Returns what gradient flow on the squared error makes of a network with this kernel, from outputs 0.

      f_t(x) = k(x, X) A^-1 (1 - exp(-η t A / (n K))) y,    A = k(X, X) + δ 1

  which is gradient flow at rate η on sum (f - y)^2 / (2 n K) + δ |θ - θ_0|^2 / (2 n K), and at t = ∞ kernel regression.

  Args:
    k_train: [n, n], k(X, X).
    k_test: [m, n], k(x, X).
    y: [n, K].
    times: t, [] or [T]; None stands for infinity. One step of gradient descent is a time of 1.
    learning_rate: η.
    ridge: δ.

  Returns:
    `Prediction`. To start from f_0, give y - f_0(X) as y and add f_0.

  Raises:
    UserError: without float64, for shapes that do not fit, for a kernel that is not symmetric and positive
      semidefinite, and at t = ∞ for one that is singular.

  Differs from `neural_tangents.predict.gradient_descent_mse`, whose outputs on the training inputs ignore the ridge.
  Reference: Lee et al. 2019, arXiv:1902.06720, section 2.2.
  """
  require_x64("kernel regression")
  k_train, k_test, y = as_double(k_train, "k_train"), as_double(k_test, "k_test"), as_double(y, "y")
  n = len(k_train)
  if k_train.shape != (n, n) or k_test.ndim != 2 or k_test.shape[1] != n or y.ndim != 2 or len(y) != n:
    raise UserError(f"k_train is {list(k_train.shape)}, k_test {list(k_test.shape)} and y {list(y.shape)}; "
                    "give [n, n], [m, n] and [n, K].")
  check_argument("ridge", ridge, NonNegative)
  check_argument("learning_rate", learning_rate, Positive)
  if times is not None and not np.all(np.asarray(times) >= 0):
    raise UserError(f"times are {times}; give numbers of at least 0, or None for infinity.")
  if not (np.isfinite(k_test).all() and np.isfinite(y).all()):
    raise UserError("k_test or y holds nan or infinity; look where it comes from.")
  _check_positive(np.asarray(k_train), ridge, singular_is_bad=times is None)
  rows = jnp.concatenate([k_train, k_test])
  with repair.rank_promotion():
    flow = repair.neural_tangents().predict.gradient_descent_mse(
      k_train, y, learning_rate=learning_rate, diag_reg=ridge, diag_reg_absolute_scale=True
    )
    outputs = flow(times, None, jnp.zeros((len(rows), y.shape[1])), rows)
  return Prediction(outputs[..., :n, :], outputs[..., n:, :])


def _check_positive(k: np.ndarray, ridge: float, singular_is_bad: bool) -> None:
  if not np.isfinite(k).all() or not np.allclose(k, k.T, rtol=1e-6, atol=1e-6 * np.abs(k).max()):
    raise UserError("k_train is not a finite symmetric matrix; give the kernel of the training inputs with themselves.")
  values = np.linalg.eigvalsh(k) + ridge
  rounding = len(k) * np.finfo(k.dtype).eps * np.abs(values).max()
  if values[0] < -1e3 * rounding:
    raise UserError(f"k_train + ridge has the eigenvalue {values[0]:.3g}, so it is no kernel; give a larger ridge.")
  if singular_is_bad and values[0] < rounding:
    raise UserError("k_train + ridge is singular up to rounding; give a ridge, or a finite time.")
