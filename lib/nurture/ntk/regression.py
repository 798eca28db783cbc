"""Ridge regression with kernels and with random features: one decomposition for all ridges, one for all sizes."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Num

from nurture.core import UserError
from nurture.core.hints import NonNegative, check_argument
from nurture.ntk.features import feature_kernel, random_features
from nurture.ntk.precision import as_double, is_concrete, require_x64

__all__ = [
  "LearningCurve", "feature_kernel", "krr_fit_predict", "learning_curve", "random_features", "rf_fit_predict",
]

Array = jax.Array
ArrayLike = jax.typing.ArrayLike


def krr_fit_predict(
  k_train: Float[ArrayLike, "n n"], k_test: Float[ArrayLike, "t n"], y: Float[ArrayLike, " n *C"],
  ridges: Num[ArrayLike, "*R"], *, jitter: float = 0.0,
) -> Float[Array, "*R t"] | Float[Array, "*R t C"]:
  """Returns the predictions of kernel ridge regression, k_test (K + δ I)^-1 y.

  Several ridges share one eigendecomposition of K, at n^3 operations and n^2 for each ridge; a single one above 0 is a
  Cholesky factorization, and another one to see that K alone is positive semi-definite. Ridge 0 is the limit of small
  ridges: the interpolant, and for a K that is singular to rounding the one of the pseudo-inverse.

  The ridge is *not* divided by n: it goes with the sum of squares plus δ |f|². There is no intercept: centre y for one.

  Args:
    k_train: [n, n] kernel of the training inputs.
    k_test: [t, n] kernel of the inputs to predict at with the training inputs. Give the rows of k_train too for the
      predictions there, and the identity for the dual coefficients (K + δ I)^-1 y.
    y: [n] labels, or [n, C].
    ridges: δ >= 0, a number or [R].
    jitter: times the mean of K's diagonal, is added to all of the diagonal, ridges aside.

  Returns:
    [t] or [t, C]; with R ridges [R, t] or [R, t, C].

  Raises:
    UserError: if JAX's 64-bit types are off, an array is float32, shapes do not fit, a ridge is negative, K is not
      symmetric or not positive semi-definite. The last two and the ridges go unchecked within jit.

  Reference: Simon et al. 2024, arXiv:2311.14646, section 2.
  """
  k_train, k_test, y, ridges = _checked(k_train, k_test, y, ridges, ("k_train", "k_test"))
  n = k_train.shape[0]
  if k_train.shape != (n, n) or k_test.shape[1:] != (n,):
    raise UserError(f"k_train and k_test have shapes {k_train.shape} and {k_test.shape}; give [n, n] and [t, n].")
  check_argument("jitter", jitter, NonNegative)
  if is_concrete(k_train):
    _check_symmetric(k_train)
  shift = jitter * jnp.trace(k_train) / n
  if ridges.ndim == 0 and is_concrete(ridges) and ridges > 0:
    predictions = _by_cholesky(k_train, k_test, y, ridges + shift)
    _check_definite(predictions, ridges)
    if is_concrete(k_train):
      _check_alone_semidefinite(k_train, shift, ridges)
    return predictions
  predictions, values = _by_eigh(k_train + shift * jnp.eye(n), k_test, y, ridges)
  if is_concrete(values):
    _check_semidefinite(values)
  return predictions


def rf_fit_predict(
  features_train: Float[ArrayLike, "n k"], features_test: Float[ArrayLike, "t k"], y: Float[ArrayLike, " n *C"],
  ridges: Num[ArrayLike, "*R"], *, side: Literal["auto", "samples", "features"] = "auto",
) -> Float[Array, "*R t"] | Float[Array, "*R t C"]:
  """Returns the predictions of ridge regression on k features φ, that is of the kernel K = φ φ^T / k.

      φ_test φ^T / k (K + δ I)^-1 y  =  φ_test (φ^T φ / k + δ I)^-1 φ^T y / k

  The left side decomposes an n x n matrix, the right side a k x k one; they agree. All ridges share the decomposition.

  Args:
    features_train: [n, k] φ_f(x_i), *not* divided by sqrt(k), so that its first columns are fewer features of the same
      kernel.
    features_test: [t, k].
    y: as for `krr_fit_predict`.
    ridges: as there; ridge 0 gives the least-squares solution of least norm, in which singular
      values of φ below about 1e-7 of the largest, whose squares are rounding, count as 0.
    side: "samples" for n x n, "features" for k x k, "auto" for the smaller.

  Returns:
    As `krr_fit_predict`.

  Raises:
    UserError: as there.
  """
  features_train, features_test, y, ridges = _checked(
    features_train, features_test, y, ridges, ("features_train", "features_test")
  )
  n, k = features_train.shape
  if not k or features_test.shape[1:] != (k,):
    raise UserError(
      f"features_train and features_test have shapes {features_train.shape} and {features_test.shape}; give [n, k] and "
      "[t, k] with k of at least 1."
    )
  if side not in ("auto", "samples", "features"):
    raise UserError(f'side is {side!r}; give "auto", "samples" or "features".')
  by_samples = side == "samples" or (side == "auto" and n <= k)
  sweep = _from_samples if by_samples else _from_features
  return sweep(features_train, features_test, y, ridges)


class LearningCurve(NamedTuple):
  """Regression on the first n of N examples, for several n.

  Attributes:
    sizes: [T] n.
    test: [T] test error: mean over examples of the squared error summed over outputs.
    inverse_trace: [T] Tr (K_n + δ I)^-1, about 1 / κ without a ridge.
  """

  sizes: np.ndarray
  test: np.ndarray
  inverse_trace: np.ndarray


def learning_curve(
  k_train: Float[ArrayLike, "N N"], k_test: Float[ArrayLike, "t N"], y: Float[ArrayLike, " N *C"],
  y_test: Float[ArrayLike, " t *C"], sizes: Sequence[int], ridge: float = 0.0,
) -> LearningCurve:
  """Returns what `krr_fit_predict` would give from the first n examples, for every n in `sizes`, at the price of one.

  The Cholesky factor of a leading block is the leading block of the factor L. So with A = k_test L^-T and b = L^-1 y,
  the predictions from n examples are the sum of the first n terms of A b, and Tr K_n^-1 that of the first n rows of
  L^-1, squared. `nurture.ntk.powerlaw.fit_powerlaw` takes the exponents of the task from both.

  Args:
    k_train: as for `krr_fit_predict`, in an order in which the first examples are as good as any.
    k_test: as there.
    y: as there.
    y_test: [t] or [t, C].
    sizes: increasing, from 1 to N.
    ridge: δ, the same for all n; 0 is allowed if K is positive definite to rounding.

  Raises:
    UserError: as `krr_fit_predict`, and for sizes that are out of range or order.
  """
  k_train, k_test, y, delta = _checked(k_train, k_test, y, ridge, ("k_train", "k_test"))
  y_test, counts = as_double(y_test, "y_test"), np.asarray(sizes)
  n = len(k_train)
  if k_train.shape != (n, n) or k_test.shape[1:] != (n,) or y_test.shape != (len(k_test), *y.shape[1:]):
    raise UserError(f"k_train, k_test and y_test have shapes {k_train.shape}, {k_test.shape} and {y_test.shape}; give "
                    "[n, n], [t, n] and [t, ...] like y.")
  whole = np.issubdtype(counts.dtype, np.integer)
  listed = whole and counts.ndim == 1 and len(counts)
  if not listed or counts[0] < 1 or counts[-1] > n or np.any(np.diff(counts) <= 0):
    raise UserError(f"the sizes are {counts.tolist()}; give increasing whole numbers from 1 to {n}.")
  if not len(k_test) or delta.ndim:
    raise UserError(f"k_test has {len(k_test)} rows and ridge is {delta.tolist()}; give at least one row, one ridge.")
  _check_symmetric(k_train)
  flat = lambda labels: labels.reshape(len(labels), -1)
  test, traces = _curve(k_train, k_test, flat(y), flat(y_test), delta, tuple(counts.tolist()))
  _check_definite(traces, delta)
  return LearningCurve(counts, np.asarray(test), np.asarray(traces))


@functools.partial(jax.jit, static_argnums=5)
def _curve(k_train, k_test, y, y_test, ridge, sizes: tuple[int, ...]) -> tuple[Array, Array]:
  identity = jnp.eye(len(y))
  factor = jnp.linalg.cholesky(k_train + ridge * identity)
  solve = lambda right: jax.scipy.linalg.solve_triangular(factor, right, lower=True)
  inverse, loadings, coefficients = solve(identity), solve(k_test.T), solve(y)
  rest, errors = y_test, []
  for start, stop in zip((0, *sizes[:-1]), sizes):
    rest = rest - loadings[start:stop].T @ coefficients[start:stop]
    errors.append(jnp.mean(jnp.sum(rest**2, axis=1)))
  return jnp.stack(errors), jnp.cumsum(jnp.sum(inverse**2, axis=1))[np.asarray(sizes) - 1]


@jax.jit
def _by_eigh(matrix: Array, left: Array, right: Array, ridges: Array) -> tuple[Array, Array]:
  """Returns left (M + δ I)^+ right for each δ, and M's eigenvalues; those within rounding of 0 are left out."""
  values, vectors = jnp.linalg.eigh(matrix)
  rounding = len(values) * jnp.finfo(values.dtype).eps * jnp.max(jnp.abs(values))
  total = jnp.where(values > rounding, values, 0.0)[None] + ridges.reshape(-1, 1)
  kept = total > rounding  # a ridge below rounding would enlarge it
  inverse = jnp.where(kept, 1 / jnp.where(kept, total, 1.0), 0.0)
  coefficients = vectors.T @ right.reshape(len(right), -1)
  predictions = jnp.einsum("tn,rn,nc->rtc", left @ vectors, inverse, coefficients)
  return predictions.reshape(*ridges.shape, len(left), *right.shape[1:]), values


@jax.jit
def _by_cholesky(matrix: Array, left: Array, right: Array, ridge: Array) -> Array:
  factor = jnp.linalg.cholesky(matrix + ridge * jnp.eye(len(matrix)))
  return left @ jax.scipy.linalg.cho_solve((factor, True), right)


@jax.jit
def _from_samples(phi: Array, phi_test: Array, y: Array, ridges: Array) -> Array:
  k = phi.shape[1]
  return _by_eigh(phi @ phi.T / k, phi_test @ phi.T / k, y, ridges)[0]


@jax.jit
def _from_features(phi: Array, phi_test: Array, y: Array, ridges: Array) -> Array:
  k = phi.shape[1]
  return _by_eigh(phi.T @ phi / k, phi_test, phi.T @ y / k, ridges)[0]


def _checked(train: Any, test: Any, y: Any, ridges: Any, names: tuple[str, str]) -> tuple[Array, Array, Array, Array]:
  require_x64("regression")
  train, test, y = as_double(train, names[0]), as_double(test, names[1]), as_double(y, "y")
  ridges = jnp.asarray(ridges, jnp.float64)
  if train.ndim != 2 or test.ndim != 2 or y.ndim not in (1, 2) or len(train) != len(y) or not len(train):
    raise UserError(f"{names[0]}, {names[1]} and y have shapes {train.shape}, {test.shape} and {y.shape}; give "
                    "[n, ...], [t, ...] and [n] or [n, C] with n of at least 1.")
  if ridges.ndim > 1:
    raise UserError(f"ridges has shape {ridges.shape}; give a number or [R].")
  if is_concrete(ridges) and not np.all((np.asarray(ridges) >= 0) & np.isfinite(ridges)):
    raise UserError(f"the ridges are {np.asarray(ridges).tolist()}; give numbers of at least 0.")
  for name, values in zip((*names, "y"), (train, test, y)):
    if is_concrete(values) and not np.isfinite(np.asarray(values)).all():
      raise UserError(f"{name} holds nan or infinity; look where it comes from.")
  return train, test, y, ridges


def _check_symmetric(k_train: Array) -> None:
  kernel = np.asarray(k_train)
  if np.abs(kernel - kernel.T).max() > 1e-8 * np.abs(kernel).max():
    raise UserError("k_train is not symmetric; give the kernel of the training inputs with themselves.")


def _check_definite(result: Array, ridge: Array) -> None:
  """The factor of a matrix that is not positive definite is all NaN, and so is what is made of it."""
  if is_concrete(result) and not np.isfinite(np.asarray(result)).all():
    raise UserError(
      f"k_train + {float(ridge):g} I is not positive definite to rounding; give a larger ridge, or a jitter of 1e-10."
    )


def _check_alone_semidefinite(kernel: Array, shift: Array, ridge: Array) -> None:
  """Looks whether the kernel by itself is positive semi-definite to 1e-8, by a second factorization if need be."""
  slack = 1e-8 * jnp.max(jnp.sum(jnp.abs(kernel), axis=1))  # at least 1e-8 of the largest eigenvalue
  if ridge > slack and not bool(_is_definite(kernel, shift + slack)):
    _check_semidefinite(jnp.linalg.eigvalsh(kernel))


@jax.jit
def _is_definite(matrix: Array, shift: Array) -> Array:
  return jnp.isfinite(jnp.linalg.cholesky(matrix + shift * jnp.eye(len(matrix)))).all()


def _check_semidefinite(eigenvalues: Array) -> None:
  values = np.asarray(eigenvalues)
  if values[0] < -1e-8 * np.abs(values).max():
    raise UserError(
      f"k_train is not positive semi-definite (eigenvalues from {float(values[0]):.3g} to {float(values[-1]):.3g}); "
      "compute it in float64, or give a jitter."
    )
