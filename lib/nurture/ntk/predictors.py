"""Classifiers of the infinite-depth theory: by a kernel given as its logarithm, by distances, or by counting."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Float, Shaped

from nurture.core import UserError, linalg
from nurture.core.hints import NonNegative, Positive, Whole, check_argument
from nurture.ntk.sphere import TINY, double, points, squared_distances

Array = jax.Array


def smoother_predict(log_k: Any, y: Any, sign: Any | None = None) -> np.ndarray:
  """Returns the labels with the largest kernel sum, which is what kernel regression becomes at infinite depth.

      argmax_k  sum_j K(x, x_j) 1[y_j = k]

  The largest logarithm of each row is subtracted before the exponential, which changes no argmax: factors such as
  f'(0)^L cancel.

  Args:
    log_k: [n_test, n_train] float64, log |K| of test points with training points.
    y: [n_train] labels of any type: -1 and 1, classes, strings.
    sign: [n_test, n_train] signs of K where some are negative.

  Returns:
    [n_test], of the type of y. Ties go to the class that sorts first.

  Raises:
    UserError: if 64-bit arithmetic is off, or for shapes that do not fit or logarithms that are nan.
  """
  log_k = _log_kernel(log_k, "log_k")
  classes, codes = _coded(y, log_k.shape[1], "columns of log_k")
  return classes[_argmax(_scores(log_k, _signs(sign, log_k), jax.nn.one_hot(codes, len(classes), dtype=jnp.float64)))]


def ridgeless_predict(
  log_k_test: Any, log_k_train: Any, log_diag: Any, y: Any, *, jitter: float = 1e-8, sign_test: Any | None = None,
  sign_train: Any | None = None,
) -> np.ndarray:
  """Returns the labels of kernel regression on one-hot labels, without a ridge but for a jitter.

      argmax_k  K(x, X) (K(X, X) / K(x, x) + jitter I)^{-1} 1[y = k]

  Training kernels are divided by their diagonal, which is set to exactly 1 + jitter, test kernels by the largest value
  of their row, so that depth neither overflows nor underflows. Without a jitter float64 cannot solve shallow kernels of
  many points, and accuracies there tell of rounding; keep to depths where the result does not move with the jitter.

  Args:
    log_k_test: [n_test, n_train] float64, log |K| of test points with training points.
    log_k_train: [n_train, n_train], log |K| among training points; the diagonal is not read.
    log_diag: [], log K(x, x).
    y: [n_train] labels of any type.
    jitter: added to the diagonal, in units of it.
    sign_test: [n_test, n_train], signs of K where some are negative.
    sign_train: [n_train, n_train], likewise.

  Returns:
    [n_test], of the type of y. Ties go to the class that sorts first.

  Raises:
    UserError: as in `smoother_predict`, or if the training kernel plus jitter is not positive definite.

  Differs from the official code, which has no jitter.
  """
  log_test, log_train = _log_kernel(log_k_test, "log_k_test"), _log_kernel(log_k_train, "log_k_train")
  n = log_test.shape[1]
  if log_train.shape != (n, n):
    raise UserError(f"log_k_train is {list(log_train.shape)}, but log_k_test has {n} columns; give [{n}, {n}].")
  log_diag = double(log_diag, "log_diag")
  if log_diag.ndim:
    raise UserError(f"log_diag is {list(log_diag.shape)}; give the one number that deep_log_kernel returns with log K.")
  check_argument("jitter", jitter, NonNegative)
  classes, codes = _coded(y, n, "columns of log_k_test")
  targets = jax.nn.one_hot(codes, len(classes), dtype=jnp.float64)
  coefficients = _solve(log_train, _signs(sign_train, log_train), log_diag, targets, float(jitter))
  if not bool(jnp.isfinite(coefficients).all()):
    raise UserError(f"the training kernel plus {jitter:g} is not positive definite; give a larger jitter.")
  return classes[_argmax(_scores(log_test, _signs(sign_test, log_test), coefficients))]


def one_nn_predict(
  x_train: Float[ArrayLike, "n d"], y: Shaped[np.ndarray, " n"], x_test: Float[ArrayLike, "t d"]
) -> Shaped[np.ndarray, " t"]:
  """Returns the label of the nearest training point, in Euclidean distance; of several, of the first.

  Args:
    x_train: [n_train, d] float64.
    y: [n_train] labels of any type.
    x_test: [n_test, d] float64.

  Raises:
    UserError: if 64-bit arithmetic is off, or for shapes that do not fit.
  """
  x_train, x_test = _both(x_train, x_test)
  classes, codes = _coded(y, x_train.shape[0], "rows of x_train")
  return classes[codes[np.asarray(jnp.argmin(_distances(x_test, x_train), axis=1))]]


def hilbert_predict(
  x_train: Float[ArrayLike, "n d"], y: Shaped[np.ndarray, " n"], x_test: Float[ArrayLike, "t d"], dimension: float
) -> Shaped[np.ndarray, " t"]:
  """Returns the labels of the Hilbert kernel estimate, which is Bayes-consistent and interpolates.

      argmax_k  sum_j |x - x_j|^(-D) 1[y_j = k]

  Args:
    x_train: [n_train, d] float64.
    y: [n_train] labels of any type.
    x_test: [n_test, d] float64.
    dimension: D, that of the data: d - 1 on the sphere of R^d.

  Raises:
    UserError: if 64-bit arithmetic is off, for shapes that do not fit, or a dimension that is not positive.

  Reference: Devroye, Györfi & Krzyżak 1998, "The Hilbert kernel regression estimate".
  """
  check_argument("dimension", dimension, Positive, "the dimension of the data, d - 1 on the sphere of R^d")
  x_train, x_test = _both(x_train, x_test)
  return smoother_predict(-dimension / 2 * jnp.log(jnp.maximum(_distances(x_test, x_train), TINY)), y)


def majority_predict(y: Any, num_test: int) -> np.ndarray:
  """Returns the most frequent label num_test times; of several, the one that sorts first.

  Raises:
    UserError: if there are no labels, or for a number that is none.
  """
  check_argument("num_test", num_test, Whole, "the number of test points")
  classes, codes = _coded(y, None, "")
  return np.repeat(classes[np.argmax(np.bincount(codes))], num_test)


@jax.jit
def _scores(log_k: Array, sign: Array, targets: Array) -> Array:
  weights = sign * jnp.exp(log_k - jnp.max(log_k, axis=1, keepdims=True))
  return linalg.matmul(weights, targets)


@jax.jit
def _solve(log_k: Array, sign: Array, log_diag: Array, targets: Array, jitter: float) -> Array:
  off = 1 - jnp.eye(log_k.shape[0])
  k = off * sign * jnp.exp(jnp.minimum(log_k - log_diag, 0.0)) + (1 + jitter) * jnp.eye(log_k.shape[0])
  return jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(k, lower=True), targets)


_distances = jax.jit(squared_distances)


def _argmax(scores: Array) -> np.ndarray:
  return np.asarray(jnp.argmax(scores, axis=1))


def _log_kernel(log_k: Any, name: str) -> Array:
  log_k = double(log_k, name)
  if log_k.ndim != 2 or 0 in log_k.shape:
    raise UserError(f"{name} is {list(log_k.shape)}; give [test points, training points], at least one of each.")
  if bool((jnp.isnan(log_k) | (log_k == jnp.inf)).any()):
    raise UserError(f"{name} holds nan or infinity; compute it by nurture.ntk.deep.deep_log_kernel.")
  if not bool(jnp.isfinite(jnp.max(log_k, axis=1)).all()):
    raise UserError(f"{name} has a row of -inf only, a point without neighbours; compute it by deep_log_kernel.")
  return log_k


def _signs(sign: Any | None, log_k: Array) -> Array:
  if sign is None:
    return jnp.ones_like(log_k)
  sign = double(sign, "sign")
  if sign.shape != log_k.shape:
    raise UserError(f"sign is {list(sign.shape)}, but the kernel is {list(log_k.shape)}; give one sign for each value.")
  if not bool((jnp.abs(sign) == 1).all()):
    raise UserError("sign has values other than -1 and 1; give those of deep_signed_log_kernel.")
  return sign


def _coded(y: Any, n: int | None, of: str) -> tuple[np.ndarray, np.ndarray]:
  """Returns the classes, sorted, and the place of each label among them."""
  y = np.asarray(y)
  if y.dtype.kind == "f" and np.isnan(y).any():
    raise UserError("y holds nan; give every training point a label.")
  if y.ndim != 1 or not len(y):
    raise UserError(f"y is {list(y.shape)}; give one label for each training point, [n_train], and at least one.")
  if n is not None and len(y) != n:
    raise UserError(f"y has {len(y)} labels, but there are {n} {of}; give each training point one label.")
  try:
    return np.unique(y, return_inverse=True)
  except TypeError:
    raise UserError("y holds labels of several types, which have no order; give labels of one type.") from None


def _both(x_train: Any, x_test: Any) -> tuple[Array, Array]:
  x_train, x_test = points(x_train, "x_train"), points(x_test, "x_test")
  if x_train.shape[1] != x_test.shape[1]:
    raise UserError(f"x_train has {x_train.shape[1]} coordinates, x_test has {x_test.shape[1]}; give the same space.")
  return x_train, x_test
