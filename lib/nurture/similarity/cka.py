"""Centred kernel alignment, linear and RBF, biased and debiased, at once or summed over batches."""

from __future__ import annotations

from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from nurture.core import UserError, linalg
from nurture.core.hints import Positive, check_argument
from nurture.similarity.gram import (
  Gram,
  as_float,
  centred,
  checked,
  cosine,
  features,
  kernels,
  normalized,
  recentred,
  self_product,
  squared_distances,
)


def linear_cka(
  x: Float[Array, "n d_x"] | Gram, y: Float[Array, "n d_y"] | Gram, *, debiased: bool = False,
  side: Literal["auto", "gram", "feature"] = "auto",
) -> Float[Array, ""]:
  """Returns the linear centred kernel alignment of two sets of features of the same samples.

      CKA = <K, L> / (|K| |L|),    K = X X^T,    L = Y Y^T,    X, Y centred

  The Gram side costs 2 n^2 (d_x + d_y) operations and n^2 numbers of memory; the feature side, which uses
  <K, L> = |X^T Y|^2, costs 2 n (d_x^2 + d_x d_y + d_y^2) and d_x^2 + d_x d_y + d_y^2. They agree.

  The biased value of independent isotropic features is about d / (d + n) instead of 0, so it says little where d >> n,
  and values of different n do not compare. The debiased one is 0 in expectation there and may be negative.

  Args:
    x: [n, d_x], or a Gram.
    y: [n, d_y], or a Gram.
    debiased: replaces <K, L> by n (n - 3) times the unbiased estimator of HSIC; needs n >= 4.
    side: "gram", "feature", or "auto": the Gram side if n <= max(d_x, d_y) or if a Gram is given.

  Returns:
    [] float in [0, 1], debiased in [-1, 1]; 0, with gradient 0, if x or y is constant.

  Raises:
    UserError: for shapes that do not fit, a Gram on the feature side, or debiased with n < 4.

  Differs from the paper of guidance (Subramaniam et al. 2024, arXiv:2410.20035), which centres K instead of X and whose
  gradient is NaN where x is constant: the same number, without losing digits to a large mean.
  Reference: Kornblith et al. 2019, arXiv:1905.00414, eq. 3 to 5; Song et al. 2012, "Feature selection via dependence
  maximization", eq. 5.
  """
  given = isinstance(x, Gram) or isinstance(y, Gram)
  if side not in ("auto", "gram", "feature"):
    raise UserError(f'side is {side!r}; give "auto", "gram" or "feature".')
  if side == "feature" and given:
    raise UserError('a Gram holds no features; give side="gram" or "auto" with it.')
  if side == "gram" or given:
    return _alignment(*kernels(x, y), debiased)
  x, y = features(x, y, "linear_cka")
  if side == "auto" and x.shape[0] <= max(x.shape[1], y.shape[1]):
    return _alignment(*kernels(x, y), debiased)
  return _feature_alignment(normalized(x), normalized(y), debiased)


def rbf_cka(
  x: Float[Array, "n d_x"] | Gram, y: Float[Array, "n d_y"] | Gram, *, debiased: bool = False,
  bandwidth: float | Float[Array, ""] = 0.5,
) -> Float[Array, ""]:
  """Returns the centred kernel alignment under Gaussian kernels.

      K_ij = exp(-|x_i - x_j|^2 / (2 (bandwidth m)^2)),    m^2 = median over all i, j of |x_i - x_j|^2

  and L from y alike. Distances come from the linear Gram matrix, at 2 n^2 d operations. Differentiable through the
  median too, so that the gradient has no part along x.

  Args:
    x: [n, d_x], or a Gram.
    y: [n, d_y], or a Gram.
    debiased: as in `linear_cka`.
    bandwidth: of the kernel, as a share of the median distance. May be traced.

  Returns:
    [] float in [0, 1], debiased in [-1, 1]; 0, with gradient 0, if x or y is constant.

  Raises:
    UserError: for shapes that do not fit, debiased with n < 4, or a bandwidth that is not positive.

  Differs from the paper's code: where half of the pairs or more coincide, so that the median is 0 (in float32, below
  4e-6 of the mean), the mean of the squared distances takes its place.
  Reference: Kornblith et al. 2019, arXiv:1905.00414, section 3 and appendix.
  """
  check_argument("bandwidth", bandwidth, Positive, "a positive share of the median distance")
  kx, ky = (recentred(_gaussian(k, bandwidth)) for k in kernels(x, y))
  return _alignment(kx, ky, debiased)


def _gaussian(k: Array, bandwidth: float | Array) -> Array:
  """Returns the Gaussian kernel minus 1, which centring takes back: constant input leaves exactly 0."""
  distances = squared_distances(k)
  mean = 2.0 / k.shape[0]  # of the squared distances where the trace is 1
  median = jnp.median(distances)
  median = jnp.where(median > 32 * jnp.finfo(k.dtype).eps * mean, median, mean)
  return jnp.expm1(-distances / (2 * bandwidth**2 * median))


def _alignment(kx: Array, ky: Array, debiased: bool) -> Array:
  """Returns the cosine of two centred kernels [n, n] of trace 1."""
  n = kx.shape[0]
  if debiased:
    _check_debiased(n)
    kx, ky = _u_centred(kx), _u_centred(ky)
  floor = jnp.finfo(kx.dtype).eps / n  # |K|^2 of trace 1 is at least 1 / n
  return cosine(jnp.sum(kx * ky), jnp.sum(kx * kx), jnp.sum(ky * ky), floor)


def _feature_alignment(x: Array, y: Array, debiased: bool) -> Array:
  """Returns what `_alignment` does, from normalized features."""
  n = x.shape[0]
  xy, xx, yy = (jnp.sum(jnp.square(m)) for m in (linalg.matmul(x.T, y), self_product(x.T), self_product(y.T)))
  if debiased:
    _check_debiased(n)
    rows_x, rows_y = jnp.sum(x * x, axis=1), jnp.sum(y * y, axis=1)

    def unbiased(inner, a, b):
      return inner - n / (n - 2) * jnp.sum(a * b) + jnp.sum(a) * jnp.sum(b) / ((n - 1) * (n - 2))

    xy, xx, yy = unbiased(xy, rows_x, rows_y), unbiased(xx, rows_x, rows_x), unbiased(yy, rows_y, rows_y)
  # The terms of the unbiased sums are about 1 / n, and where all points are equally far from each other they cancel:
  # rounding leaves up to 12 eps / n of them, for 5 to 400 samples.
  return cosine(xy, xx, yy, 32 * jnp.finfo(x.dtype).eps / n)


def _check_debiased(n: int):
  if n < 4:
    raise UserError(f"the debiased CKA needs at least 4 samples, not {n}.")


def _u_centred(k: Array, weight: Array | None = None) -> Array:
  """Returns the kernel whose inner product with another such is n (n - 3) times the unbiased HSIC.

  The diagonal is 0 and off it every row sums to 0, so that the products are inner products still: |<K, L>| <= |K| |L|.
  All of it is 0 where fewer than 4 samples count.
  """
  count = k.shape[0] if weight is None else jnp.sum(weight > 0).astype(k.dtype)
  counts = ~jnp.eye(k.shape[0], dtype=bool) & (count > 3)
  if weight is not None:
    counts &= (weight > 0)[:, None] & (weight > 0)[None, :]
  k = jnp.where(counts, k, 0.0)
  rows = jnp.sum(k, axis=1, keepdims=True) / jnp.maximum(count - 2, 1)
  rows = rows - jnp.sum(rows) / (2 * jnp.maximum(count - 1, 1))
  return jnp.where(counts, k - rows - rows.T, 0.0)


def hsic_sums(
  x: Float[Array, "n d_x"] | Gram, y: Float[Array, "n d_y"] | Gram, weight: Shaped[Array, " n"] | None = None
) -> dict[str, Float[Array, ""]]:
  """Returns one batch's share of the sums that a CKA over many batches needs.

      xy = <K, L>,  xx = <K, K>,  yy = <L, L>    of U-centred K = X X^T / d_x, L = Y Y^T / d_y

  each n (n - 3) times an unbiased estimate of HSIC. Add the dicts of all batches up (jax.tree.map(jnp.add, a, b), from
  zeros) and give the sums to `cka_of_sums`. A batch counts by its n (n - 3), so a last batch that is short counts less.

  Args:
    x: [n, d_x], or a Gram.
    y: [n, d_y], or a Gram. Batches of one sum must be sub-batches (`Gram.take`) of one Gram, or all be features.
    weight: [n], 0 for rows that are padding and positive for all others; the result is as if the former were absent.

  Returns:
    {"xy", "xx", "yy"}, [] float each; 0 where fewer than 4 rows count.

  Raises:
    UserError: for shapes that do not fit.

  Features are not normalized, since every batch must be measured in the same unit: in float32 their standard
  deviations should lie between 1e-8 and 1e8.
  Reference: Nguyen et al. 2021, arXiv:2010.15327, eq. 4 and 5, and their code, whose sums these are where all batches
  are of one size.
  """
  kx, ky = (_raw_kernel(side, name, weight) for name, side in (("x", x), ("y", y)))
  if kx.shape != ky.shape:
    raise UserError(f"x has {kx.shape[0]} samples and y has {ky.shape[0]}; give both the same samples.")
  return {"xy": jnp.sum(kx * ky), "xx": jnp.sum(kx * kx), "yy": jnp.sum(ky * ky)}


def cka_of_sums(sums: dict[str, Float[Array, ""]]) -> Float[Array, ""]:
  """Returns xy / sqrt(xx yy), the debiased CKA, from `hsic_sums` added up; 0 if x or y is constant in every batch."""
  return cosine(sums["xy"], sums["xx"], sums["yy"])


def _raw_kernel(side: Array | Gram, name: str, weight: Array | None) -> Array:
  x = as_float(side.values) if isinstance(side, Gram) else checked(side, name)
  if weight is not None and weight.shape != x.shape[:1]:
    raise UserError(f"weight is {list(weight.shape)}, but {name} has {x.shape[0]} samples; give each one weight.")
  if isinstance(side, Gram):
    return _u_centred(x, weight)
  x = centred(x, weight)
  return _u_centred(self_product(x) / max(x.shape[1], 1), weight)
