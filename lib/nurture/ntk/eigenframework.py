"""Test and train error of kernel and random-feature regression, predicted from eigenvalues and target coefficients."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Num

from nurture.core import UserError
from nurture.ntk.powerlaw import (
  PowerLaw,
  fit_powerlaw,
  fitting_error,
  noise_threshold,
  optimal_fitting_ratio,
  overfitting_is_obligatory,
)
from nurture.ntk.precision import as_double, is_concrete, require_x64

__all__ = [
  "PowerLaw", "Prediction", "fit_powerlaw", "fitting_error", "held_out_error", "krr_predict", "learnability",
  "noise_threshold", "optimal_fitting_ratio", "overfitting_is_obligatory", "rf_predict", "task_learnability",
]

Array = jax.Array
ArrayLike = jax.typing.ArrayLike

_BISECTIONS = 64  # a bracket of 700 in log γ, all that float64 can hold, shrinks to 4e-17


class Prediction(NamedTuple):
  """The expected errors of a regression, and the constants behind them; float64.

  Attributes:
    test: E_te, mean squared error on new examples whose labels are noisy too; inf where it diverges.
    train: E_tr, mean squared error on the n training labels.
    kappa: κ, the implicit ridge; 0 where the ridge is 0 and there are fewer features than samples.
    gamma: γ, the eigenvalue that is learned by half; κ itself for a kernel.
    z: Σ_i L_i with L_i = λ_i / (λ_i + γ), the modes learned; at most min(n, k).
    q: Σ_i L_i².
  """

  test: Array
  train: Array
  kappa: Array
  gamma: Array
  z: Array
  q: Array


def krr_predict(
  lam: Float[ArrayLike, " M"], v2: Float[ArrayLike, " M"], n: Num[ArrayLike, "*grid"], ridge: Num[ArrayLike, "*grid"],
  noise: Num[ArrayLike, "*grid"], *, multiplicity: Num[ArrayLike, " M"] | None = None,
) -> Prediction:
  """Returns the errors of kernel ridge regression from n samples, f = k(·, X) (K + δ I)^-1 y.

      n = Σ_i λ_i / (λ_i + κ) + δ / κ,   L_i = λ_i / (λ_i + κ),
      E_te = n / (n - Σ_i L_i²) [Σ_i (1 - L_i)² v_i² + σ²],   E_tr = (δ / (n κ))² E_te

  It is `rf_predict` with k = inf, where arguments, limits and errors are described. At ridge 0 the learnabilities sum
  to n (they are conserved); with a ridge, to less.

  Reference: Simon et al. 2023, "The eigenlearning framework", arXiv:2110.03922.
  """
  return rf_predict(lam, v2, n, jnp.inf, ridge, noise, multiplicity=multiplicity)


def rf_predict(
  lam: Float[ArrayLike, " M"], v2: Float[ArrayLike, " M"], n: Num[ArrayLike, "*grid"], k: Num[ArrayLike, "*grid"],
  ridge: Num[ArrayLike, "*grid"], noise: Num[ArrayLike, "*grid"], *, multiplicity: Num[ArrayLike, " M"] | None = None,
) -> Prediction:
  """Returns the errors of ridge regression from n samples on k random features of a kernel with eigenvalues λ.

      n = z + δ / κ,   k = z + k κ / γ,   z = Σ_i λ_i / (λ_i + γ),   q = Σ_i (λ_i / (λ_i + γ))²
      E_te = [Σ_i (γ / (λ_i + γ) - κ λ_i / (λ_i + γ)² k / (k - q)) v_i² + σ²] / [1 - (q (k - 2 z) + z²) / (n (k - q))]
      E_tr = (δ / (n κ))² E_te

  The equations have one unknown: (n - z)(k - z) γ = k δ, whose left side grows with γ. One bisection in log γ solves
  them, with a Newton step behind it that makes the result differentiable in every argument.

  The ridge δ is that of K + δ I with K_ij = (1/k) Σ_f φ_f(x_i) φ_f(x_j), *not* divided by n: it goes with a sum of
  squares, and δ / n with their mean. λ are those of the operator g -> E_x[K(·, x) g(x)], so about the eigenvalues of a
  large m x m kernel matrix over m, and v_i about u_i·y / sqrt(m) with its eigenvectors u_i of length 1. `noise` is the
  variance σ², not the standard deviation.

  Limits, all without NaN:
    k = inf: kernel regression, κ = γ.
    ridge 0, k < n: z = k, κ = 0 and E_tr = ((n - k) / n)² E_te.   ridge 0, k > n: z = n and E_tr = 0.
    ridge 0, k = n: E_te = inf, the peak of double descent, with E_tr = 0.
    ridge 0, no more than min(n, k) positive eigenvalues: γ = κ = 0, all modes are learned, and what v² has at
      eigenvalue 0 is noise: E_te = (σ² + rest) n / (n - M), the variance of ordinary least squares with M regressors.

  Args:
    lam: [M] eigenvalues λ >= 0, in any order.
    v2: [M] squared coefficients v² of the target in the eigenfunctions; of a level in all its functions together.
    n: samples, above 0. n, k, ridge and noise are numbers or arrays that broadcast against each other.
    k: random features, above 0; may be inf.
    ridge: δ >= 0.
    noise: σ² >= 0, variance of the label noise.
    multiplicity: [M] number of eigenfunctions of each λ; 1 if left out. Lets a spectrum of 1e30 modes be given in bins.

  Returns:
    A `Prediction` of arrays in the shape that n, k, ridge and noise broadcast to. May be jitted and vmapped.

  Raises:
    UserError: if JAX's 64-bit types are off, lam or v2 is float32, shapes do not fit, or a value is not possible.
      Traced values cannot be looked at: where n, k, ridge or noise is impossible, the result is NaN.

  Differs from the official code, which bisects in κ within a bisection in γ and subtracts z and q from n and k where
  they nearly agree. Here E_te = n [Σ (1 - L_i)² v_i² + w Σ L_i (1 - L_i) v_i² + σ²] / (n - z + u (1 - w)) with
  u = z - q = Σ L_i (1 - L_i) and w = u / (k - z + u), which is the same number as a sum of positive terms.
  Reference: Simon et al. 2024, "More is better in modern machine learning", arXiv:2311.14646.
  """
  require_x64("the eigenframework")
  lam, v2 = as_double(lam, "lam"), as_double(v2, "v2")
  counts = jnp.ones_like(lam) if multiplicity is None else as_double(multiplicity, "multiplicity")
  if lam.ndim != 1 or lam.shape != v2.shape or lam.shape != counts.shape or not lam.size:
    raise UserError(f"lam and v2 have shapes {lam.shape} and {v2.shape}, multiplicity {counts.shape}; give [M] each.")
  numbers = {"n": n, "k": k, "ridge": ridge, "noise": noise}
  given = {name: _number(value, name) for name, value in numbers.items()}
  _check({"lam": lam, "v2": v2, "multiplicity": counts}, given)
  try:
    shape = jnp.broadcast_shapes(*(value.shape for value in given.values()))
  except ValueError:
    shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in given.items())
    raise UserError(f"the shapes {shapes} do not broadcast; give numbers, or axes of one grid.") from None
  given = {name: jnp.broadcast_to(value, shape) for name, value in given.items()}
  return _predict(lam, v2, counts, *given.values())


def learnability(lam: Float[ArrayLike, " M"], gamma: Float[ArrayLike, "*grid"]) -> Float[Array, "*grid M"]:
  """Returns L_i = λ_i / (λ_i + γ) in [0, 1], the share of mode i that is learned, of shape [*gamma.shape, M].

  Args:
    lam: [M] eigenvalues.
    gamma: `Prediction.gamma` (or κ of a kernel, the same there).
  """
  require_x64("the eigenframework")
  lam, gamma = as_double(lam, "lam"), jnp.asarray(gamma, jnp.float64)[..., None]
  return _learned(lam.reshape((1,) * (gamma.ndim - 1) + lam.shape), gamma)


def task_learnability(
  lam: Float[ArrayLike, " M"], v2: Float[ArrayLike, " M"], gamma: Float[ArrayLike, "*grid"]
) -> Float[Array, "*grid"]:
  """Returns Σ_i L_i v_i² / Σ_i v_i² in [0, 1], the share of the target that is learned; arguments as above."""
  learned, v2 = learnability(lam, gamma), as_double(v2, "v2")
  if v2.shape != learned.shape[-1:]:
    raise UserError(f"lam has {learned.shape[-1]} eigenvalues and v2 is {list(v2.shape)}; give [M] each.")
  return learned @ v2 / jnp.sum(v2)


def held_out_error(
  prediction: Prediction, n: Num[ArrayLike, "*grid"], pool: Num[ArrayLike, "*grid"]
) -> Float[Array, "*grid"]:
  """Returns the test error on those of a finite pool that were not drawn for training, (P E_te - n E_tr) / (P - n).

  Eigenvalues of a kernel matrix of P examples describe a distribution on just these P, and E_te is the mean over all of
  them, the n training examples with it. Holds without label noise and for P much larger than n.
  """
  if is_concrete(n) and is_concrete(pool) and not np.all(np.asarray(pool) > np.asarray(n)):
    raise UserError(f"a pool of {pool} leaves nothing to test on beside n = {n}; give a larger pool.")
  whole: Any = pool
  return (whole * prediction.test - n * prediction.train) / (whole - n)


def _learned(lam: Array, gamma: Array) -> Array:
  total = lam + gamma
  return jnp.where(lam > 0, lam / jnp.where(total > 0, total, 1.0), 0.0)


def _smaller_gap(gamma: Array, n: Array, k: Array, ridge: Array) -> Array:
  """Returns s = min(n, k) - z as the equations have it: the positive root of s (s + |n - k|) = k δ / γ.

  In this form nothing cancels where z is near min(n, k), and 1 / k = 0 needs no case of its own.
  """
  ratio = ridge / gamma
  half, square = jnp.where(n < k, 1 - n / k, n / k - 1), 4 * ratio / k
  inner = half**2 + square
  root = jnp.sqrt(jnp.where(inner > 0, inner, 1.0))
  return jnp.where(inner > 0, 2 * ratio / jnp.where(inner > 0, half + root, 1.0), 0.0)


def _solve(lam: Array, counts: Array, n: Array, k: Array, ridge: Array) -> Array:
  """Returns γ, or 0 where all modes are learned."""
  least, modes = jnp.where(n < k, n, k), jnp.sum(jnp.where(lam > 0, counts, 0.0))
  interpolates_all = (ridge == 0) & (modes <= least)

  def excess(log_gamma: Array) -> Array:  # falls from above 0 to below it
    gamma = jnp.exp(log_gamma)
    return jnp.sum(counts * _learned(lam, gamma)) + _smaller_gap(gamma, n, k, ridge) - least

  smallest = jnp.min(jnp.where(lam > 0, lam, jnp.inf))
  upper = 2 * jnp.sum(counts * lam) / least + 4 * ridge / n
  lower = jnp.maximum(ridge / n, smallest * jnp.maximum(modes - least, 0.0) / least)
  ends = [jax.lax.stop_gradient(jnp.log(jnp.where(interpolates_all, 1.0, end))) for end in (lower, upper)]

  def halve(_, ends):
    low, high = ends
    middle = 0.5 * (low + high)
    above = excess(middle) > 0
    return jnp.where(above, middle, low), jnp.where(above, high, middle)

  frozen = jax.lax.stop_gradient
  low, high = jax.lax.fori_loop(0, _BISECTIONS, halve, tuple(ends))
  root = frozen(0.5 * (low + high))
  for _ in range(2):  # the last digits, the gradient, and the second derivative
    value, slope = jax.value_and_grad(excess)(root)
    root = root + jnp.clip(-value / jnp.where(slope < 0, slope, -1.0), -1e-6, 1e-6)
  return jnp.where(interpolates_all, 0.0, jnp.exp(root))


@jax.jit
def _predict(lam, v2, counts, n, k, ridge, noise) -> Prediction:
  one = lambda n, k, ridge, noise: _predict_one(lam, v2, counts, n, k, ridge, noise)
  return Prediction(*jnp.vectorize(one, signature="(),(),(),()->(),(),(),(),(),()")(n, k, ridge, noise))


def _predict_one(lam, v2, counts, n, k, ridge, noise):
  gamma = _solve(lam, counts, n, k, ridge)
  learned = _learned(lam, gamma)
  z, q = jnp.sum(counts * learned), jnp.sum(counts * learned**2)
  missed = jnp.where(lam > 0, gamma / jnp.where(lam > 0, lam + gamma, 1.0), 1.0)  # 1 - learned, to all digits
  u = jnp.sum(counts * learned * missed)
  all_learned = gamma == 0
  # At n = k every choice between the two takes the same side, or their derivatives would not fit together.
  least = jnp.where(n < k, n, k)
  gap = jnp.where(all_learned, least - z, _smaller_gap(jnp.where(all_learned, 1.0, gamma), n, k, ridge))
  n_left = gap + jnp.where(n < k, 0.0, n - k)  # n - z
  left, mixed = gap / k + jnp.where(n < k, 1 - n / k, 0.0), u / k  # (k - z) / k, u / k
  kappa, rest = gamma * left, left + mixed
  w = jnp.where(rest > 0, mixed / jnp.where(rest > 0, rest, 1.0), 0.0)
  error = jnp.sum(v2 * (missed**2 + w * learned * missed)) + noise
  room = n_left + u * jnp.where(rest > 0, left / jnp.where(rest > 0, rest, 1.0), 1.0)
  # At room 0 the error diverges unless there is none; the train error is 0 by way of its factor.
  test = n * error / jnp.where(room > 0, room, 1.0)
  train = jnp.where(n_left > 0, (n_left / n) ** 2 * test, 0.0)
  test = jnp.where(room > 0, test, jnp.where(error > 0, jnp.inf, 0.0))
  possible = (n > 0) & (k > 0) & (ridge >= 0) & (noise >= 0)
  return tuple(jnp.where(possible, value, jnp.nan) for value in (test, train, kappa, gamma, z, q))


def _number(value, name: str) -> Array:
  try:
    return jnp.asarray(value, jnp.float64)
  except (TypeError, ValueError):
    raise UserError(f"{name} is {value!r}; give a number, or an array of numbers.") from None


def _check(spectrum, settings) -> None:
  for name, values in spectrum.items():
    if is_concrete(values) and not (np.isfinite(values) & (np.asarray(values) >= 0)).all():
      raise UserError(f"{name} holds values below 0 or not finite; clip what rounding made negative to 0.")
  if is_concrete(spectrum["lam"]) and not np.any(spectrum["lam"]):
    raise UserError("lam holds no eigenvalue above 0, so nothing can be learned; give the kernel's eigenvalues.")
  for name, values in settings.items():
    if not is_concrete(values):
      continue
    values, positive = np.asarray(values), name in ("n", "k")
    good = (values > 0) if positive else (values >= 0)
    if name != "k":
      good &= np.isfinite(values)
    if not good.all():
      need = "above 0" if positive else "at least 0"
      raise UserError(f"{name} is {values[~good].flat[0]}; give a number {need}.")
