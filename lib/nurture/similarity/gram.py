"""Centred, normalized features and their Gram matrix: what every measure starts from."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num, Shaped

from nurture.core import UserError, linalg


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Gram:
  """The linear Gram matrix of n samples, in place of their features.

  n numbers a sample instead of d: what a frozen network has to say about fixed data can be computed once, kept, and
  indexed by sub-batch. Measures centre and scale a Gram matrix again, so that a sub-batch gives the value that its
  features would give.

  Attributes:
    values: [n, n] float32 (float64 stays), X X^T of centred features of Frobenius norm 1.
    is_centred: whether that holds for these n samples, so that it need not be done again; not so for a sub-batch.
  """

  values: Array
  is_centred: bool = dataclasses.field(default=False, metadata={"static": True})

  def take(self, rows: Int[Array, " m"]) -> Gram:
    """Returns the Gram matrix of the samples `rows`, [m] int, of these; differentiable, and jit takes traced rows."""
    return Gram(self.values[rows[:, None], rows[None, :]])


def gram(x: Float[Array, "n d"]) -> Gram:
  """Returns the Gram matrix K = X X^T of the centred features of x [n, d], scaled to trace 1 (0 if x is constant).

  2 n^2 d operations forward and 2 n^2 d backward; n^2 numbers of memory besides x.
  """
  x = checked(x, "x")
  x = x - jax.lax.stop_gradient(x[:1])
  largest = jnp.max(jnp.abs(x), initial=0.0)
  constants = jnp.mean(x, axis=0, keepdims=True), jnp.where(largest > 0, largest, 1.0)
  mean, largest = jax.lax.stop_gradient(constants)
  # Digits are saved here; the derivative of centring and scaling is taken on the n x n matrix, where it is cheap.
  return Gram(recentred(self_product((x - mean) / largest)), is_centred=True)


def flatten(activations: Shaped[Array, "n ..."]) -> Shaped[Array, "n d"]:
  """Returns activations [B, ...] as features [B, D]: axis 0 is the samples, everything else features."""
  if activations.ndim < 1:
    raise UserError("activations have no axes; the first axis must be the samples.")
  return activations.reshape(activations.shape[0], -1)


@jax.custom_jvp
def self_product(x: Float[Array, "n d"]) -> Float[Array, "n n"]:
  """Returns X X^T; its transpose costs one matrix product, where that of `linalg.matmul(x, x.T)` costs two."""
  return linalg.matmul(x, x.T)


@self_product.defjvp
def _self_product_jvp(primals, tangents):
  half = linalg.matmul(tangents[0], primals[0].T)
  return self_product(primals[0]), half + half.T


def as_float(x: Num[Array, " ..."]) -> Float[Array, " ..."]:
  """Returns x as float32; float64 stays."""
  x = jnp.asarray(x)
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def checked(x: Array, name: str) -> Array:
  """Returns features as float32 (float64 stays).

  Raises:
    UserError: if they are not [n, d].
  """
  x = as_float(x)
  if x.ndim != 2:
    raise UserError(f"{name} is {list(x.shape)}, but features are [samples, d]; nurture.similarity.flatten makes them "
                    "so.")
  return x


def features(
  x: Float[Array, "n d_x"] | Gram, y: Float[Array, "n d_y"] | Gram, measure: str
) -> tuple[Float[Array, "n d_x"], Float[Array, "n d_y"]]:
  """Returns two features matrices of the same samples.

  Raises:
    UserError: if one is a Gram matrix or not [n, d], or if their numbers of samples differ.
  """
  if isinstance(x, Gram) or isinstance(y, Gram):
    raise UserError(
      f"{measure} needs the features of both; a Gram in place of features is accepted by linear_cka, rbf_cka, "
      "procrustes, knn_overlap and rsa with centred=True."
    )
  x, y = checked(x, "x"), checked(y, "y")
  _same_samples(x, y)
  return x, y


def kernels(
  x: Float[Array, "n d_x"] | Gram, y: Float[Array, "n d_y"] | Gram
) -> tuple[Float[Array, "n n"], Float[Array, "n n"]]:
  """Returns the centred Gram matrices [n, n] of trace 1 (0 for constant input) of features or Gram matrices.

  Raises:
    UserError: if one is neither features [n, d] nor a Gram, or if their numbers of samples differ.
  """
  x, y = (s if isinstance(s, Gram) else gram(checked(s, name)) for name, s in (("x", x), ("y", y)))
  _same_samples(x.values, y.values)
  kx, ky = (as_float(s.values) if s.is_centred else recentred(as_float(s.values)) for s in (x, y))
  return kx, ky


def _same_samples(x: Array, y: Array):
  if x.shape[0] != y.shape[0]:
    raise UserError(f"x has {x.shape[0]} samples and y has {y.shape[0]}; give both the same samples in the same order.")


def centred(x: Float[Array, "n d"], weight: Shaped[Array, " n"] | None = None) -> Float[Array, "n d"]:
  """Returns x [n, d] minus its mean over samples; samples of weight 0 do not count and become 0.

  The first sample is subtracted before the mean: constant columns become exactly 0, and of a large offset nothing is
  left to be rounded. Constants fall out of a centred matrix, so both shifts that only save digits carry no gradient.
  """
  if weight is None:
    x = x - jax.lax.stop_gradient(x[:1])
    return x - jnp.mean(x, axis=0, keepdims=True)
  present = (weight > 0)[:, None]
  first = jax.lax.dynamic_slice_in_dim(x, jnp.argmax(weight > 0), 1)
  x = jnp.where(present, x - jax.lax.stop_gradient(first), 0.0)
  mean = jnp.sum(x, axis=0, keepdims=True) / jnp.maximum(jnp.sum(present), 1).astype(x.dtype)
  return jnp.where(present, x - mean, 0.0)


def normalized(x: Float[Array, "n d"]) -> Float[Array, "n d"]:
  """Returns x [n, d] centred and divided by its Frobenius norm; 0, with gradient 0, if x is constant.

  The largest entry is divided out first, so that no square over- or underflows. The result does not depend on it, so
  that it carries no gradient.
  """
  x = centred(x)
  largest = jax.lax.stop_gradient(jnp.max(jnp.abs(x), initial=0.0))
  x = x / jnp.where(largest > 0, largest, 1.0)
  return x * jax.lax.rsqrt(jnp.sum(x * x) + 1e-24)  # the sum is 0 or at least 1


def standardized(x: Float[Array, "n d"]) -> Float[Array, "n d"]:
  """Returns x [n, d] centred, with every column divided by a power of two that leaves it a length between 1 and 2.

  The span is that of the centred x, whatever the units of its columns. So the rank of the result says how many
  directions there are, and not which column is large. Columns that vary by no more than the rounding of their own
  largest entry are 0. The powers are constants to the gradient, which is right for what depends on the span alone.
  """
  largest = jax.lax.stop_gradient(jnp.max(jnp.abs(x), axis=0, initial=0.0))
  x = centred(x)
  lengths = linalg.norm(jax.lax.stop_gradient(x), axis=0)
  constant = lengths <= 8 * jnp.finfo(x.dtype).eps * x.shape[0] ** 0.5 * largest  # NaN is not
  return jnp.where(constant[None], 0.0, x / linalg.power_of_two(lengths)[None])


def recentred(k: Float[Array, "n n"]) -> Float[Array, "n n"]:
  """Returns the Gram matrix k [n, n] of features as that of the centred features, H k H / tr(H k H) with H = I - 1/n.

  It is 0, with gradient 0, where no more than 8 eps of tr K is left, which is rounding. Only the means are subtracted,
  which are 0 but for rounding where the features were centred already: samples near the mean keep their digits then.
  """
  size = jax.lax.stop_gradient(jnp.trace(jnp.abs(k)))
  k = k - jnp.mean(k, axis=0, keepdims=True)
  k = k - jnp.mean(k, axis=1, keepdims=True)
  trace = jnp.trace(k)
  constant = trace <= 8 * jnp.finfo(k.dtype).eps * size
  return jnp.where(constant, 0.0, k / jnp.where(constant, 1.0, trace))


def squared_distances(k: Float[Array, "n n"]) -> Float[Array, "n n"]:
  """Returns the squared distances [n, n] between the features whose Gram matrix is k."""
  squares = jnp.diagonal(k)
  return jnp.maximum(squares[:, None] + squares[None, :] - 2 * k, 0.0)


def cosine(
  xy: Float[Array, ""], xx: Float[Array, ""], yy: Float[Array, ""], floor: float | np.floating = 0.0
) -> Float[Array, ""]:
  """Returns xy / sqrt(xx yy); 0, with gradient 0, where xx or yy is at most `floor`."""
  constant = (xx <= floor) | (yy <= floor)  # as a comparison that NaN fails, so that NaN comes out as NaN
  roots = jnp.sqrt(jnp.where(constant, 1.0, xx)) * jnp.sqrt(jnp.where(constant, 1.0, yy))
  return jnp.where(constant, 0.0, xy / roots)
