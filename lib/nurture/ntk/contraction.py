"""Inner products of the factors of Jacobians, which are the entries of a kernel.

Every array of a factor has the samples as its first axis. K is the number of outputs (of cotangents), T that of the
positions at which a layer acts (1 for a dense layer on vectors), G that of groups of features.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math

import jax
import jax.numpy as jnp

Array = jax.Array

WORK = 2**28  # bytes that one contraction may take beside its factors and its result
_ENTRY = 8  # operations that an entry of a Gram matrix over positions costs beside its inner product


@dataclasses.dataclass(frozen=True)
class Window:
  """Where a convolution looks: unfolds images [n, m, spatial..., C] to patches [n, T, G, features of a patch]."""

  size: tuple[int, ...]
  strides: tuple[int, ...]
  padding: tuple[tuple[int, int], ...]
  dilation: tuple[int, ...]
  groups: int
  mode: str = "constant"  # of padding, as in jnp.pad

  def __call__(self, x: Array) -> Array:
    samples = x.shape[0]
    x = x.reshape(-1, *x.shape[2:])
    x = jnp.pad(x, [(0, 0), *self.padding, (0, 0)], mode=self.mode)
    reach = [(k - 1) * d for k, d in zip(self.size, self.dilation)]
    spatial = range(len(self.size))
    shifted = []
    for place in itertools.product(*map(range, self.size)):
      start = [0, *(i * d for i, d in zip(place, self.dilation)), 0]
      stop = [x.shape[0], *(x.shape[1 + a] - reach[a] + start[1 + a] for a in spatial), x.shape[-1]]
      shifted.append(jax.lax.slice(x, start, stop, [1, *self.strides, 1]))
    patches = jnp.stack(shifted, axis=-2)  # [n, spatial..., places, C]
    places, channels = patches.shape[-2:]
    grouped = patches.reshape(samples, -1, places, self.groups, channels // self.groups)
    return grouped.swapaxes(2, 3).reshape(*grouped.shape[:2], self.groups, -1)


@functools.partial(
  jax.tree_util.register_dataclass, data_fields=["inputs", "cotangents"], meta_fields=["windows", "bias"]
)
@dataclasses.dataclass(frozen=True)
class Linear:
  """The Jacobian sum_t a_t (x) d_t of a kernel [G, p, c], and sum_t d_t of a bias.

  A layer that is called several times has its calls one after another along the positions, which adds them up.

  Attributes:
    inputs: of each call, a [n, T, G, p], or [n, m, spatial..., C] where there is a window.
    cotangents: of each call, d [n, K, T, G, c].
    windows: of each call, a `Window` or None.
    bias: whether the layer has one.
  """

  inputs: tuple[Array, ...]
  cotangents: tuple[Array, ...]
  windows: tuple[Window | None, ...]
  bias: bool

  def joined(self) -> tuple[Array, Array]:
    """Returns a [n, T, G, p] and d [n, K, T, G, c] over all calls."""
    unfolded = [window(a) if window else a for a, window in zip(self.inputs, self.windows)]
    return _joined(unfolded, 1), _joined(self.cotangents, 2)

  def expanded_bytes(self) -> int:
    """Returns the memory of all that `contract` reads, patches unfolded; shapes are enough."""
    return num_bytes(jax.eval_shape(Linear.joined, self))

  def contract(self, other: Linear, full: bool) -> Array:
    """Returns the inner products with another factor of the same layer: over positions or over gradients."""
    same = other is self
    a, d = self.joined()
    b, e = (a, d) if same else other.joined()
    outputs, width = d.shape[1], d.shape[-1]
    pairs, tokens = d.shape[0] * e.shape[0], d.shape[2] * e.shape[2]
    products = outputs**2 if full else outputs
    by_position = pairs * tokens * (a.shape[-1] + products * width + _ENTRY)
    gradients = d.shape[0] * d.shape[2] + (0 if same else e.shape[0] * e.shape[2])
    by_gradient = a.shape[-1] * width * (outputs * gradients + products * pairs)
    if by_position <= by_gradient:
      offset = 1.0 if self.bias else 0.0
      return _over_positions(lambda a: dot("tgp,jsgp->gtjs", a, b) + offset, a, d, e, full)
    kernel = _over_gradients(a, d, b, e, full)
    return kernel + contract_values(_summed(d), _summed(e), full) if self.bias else kernel


@functools.partial(
  jax.tree_util.register_dataclass, data_fields=["tokens", "cotangents"], meta_fields=["vocabulary"]
)
@dataclasses.dataclass(frozen=True)
class Lookup:
  """The Jacobian sum_t onehot(token_t) (x) d_t of an embedding table.

  Attributes:
    tokens: of each call, [n, T] int.
    cotangents: of each call, [n, K, T, c].
    vocabulary: rows of the table.
  """

  tokens: tuple[Array, ...]
  cotangents: tuple[Array, ...]
  vocabulary: int

  def expanded_bytes(self) -> int:
    """Returns the memory of all that `contract` reads; shapes are enough."""
    return num_bytes(self)

  def contract(self, other: Lookup, full: bool) -> Array:
    """Returns the inner products: pairs of positions that hold the same token, or gradients of the table."""
    (a, d), (b, e) = ((_joined(f.tokens, 1), _joined(f.cotangents, 2)) for f in (self, other))
    column = (len(d) + len(e)) * d.shape[1] * self.vocabulary * accumulator(d).itemsize  # of both tables
    if d.shape[2] * e.shape[2] <= self.vocabulary or column > WORK:
      same = lambda a: (a[None, :, None, None] == b[None, None]).astype(d.dtype)
      return _over_positions(same, a, d[:, :, :, None], e[:, :, :, None], full)
    size, pieces = _pieces(d.shape[-1], column)

    def piece(i):
      of = lambda d: jax.lax.dynamic_slice_in_dim(d, i * size, size, axis=3)
      j = self._gradients(a, of(d))
      return contract_values(j, j if other is self else self._gradients(b, of(e)), full)

    return _added(piece, pieces)

  def _gradients(self, tokens: Array, d: Array) -> Array:
    add = lambda tokens, d: jnp.zeros((self.vocabulary, d.shape[-1]), accumulator(d)).at[tokens].add(d, mode="drop")
    table = jax.vmap(jax.vmap(add, in_axes=(None, 0)))(tokens, d)
    return table.reshape(*table.shape[:2], -1)


@functools.partial(jax.tree_util.register_dataclass, data_fields=["values"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class Values:
  """A Jacobian as it is, [n, K, P]."""

  values: Array

  def expanded_bytes(self) -> int:
    """Returns the memory of all that `contract` reads; shapes are enough."""
    return num_bytes(self)

  def contract(self, other: Values, full: bool) -> Array:
    """Returns the inner products."""
    return contract_values(self.values, other.values, full)


Factor = Linear | Lookup | Values


def accumulator(x: Array) -> jnp.dtype:
  """Returns the dtype that sums of x are kept in."""
  return jnp.promote_types(x.dtype, jnp.float32)


def dot(equation: str, *operands: Array) -> Array:
  """Returns an einsum in full precision, accumulated in float32 at least."""
  dtype = functools.reduce(jnp.promote_types, (x.dtype for x in operands), jnp.float32)
  return jnp.einsum(equation, *operands, precision=jax.lax.Precision.HIGHEST, preferred_element_type=dtype)


def contract_values(j: Array, k: Array, full: bool) -> Array:
  """Returns the inner products of j [n1, K, P] and k [n2, K, P]."""
  if full:
    return dot("ikp,jlp->ijkl", j, k)
  # One axis to sum over: XLA on CPU is many times slower with two.
  return dot("ip,jp->ij", j.reshape(len(j), -1), k.reshape(len(k), -1))


def _joined(arrays, axis: int) -> Array:
  return arrays[0] if len(arrays) == 1 else jnp.concatenate(arrays, axis=axis)


def _summed(d: Array) -> Array:
  return jnp.sum(d, axis=2, dtype=accumulator(d)).reshape(*d.shape[:2], -1)


def _over_positions(similarity, a: Array, d: Array, e: Array, full: bool) -> Array:
  """Returns sum_{t, s} A[t, s] <d_t, e_s> for every pair of samples.

  Args:
    similarity: a of one sample -> A [G, T, n2, S].
    a: [n1, ...].
    d: [n1, K, T, G, c].
    e: [n2, K, S, G, c].
    full: as for `contract`.
  """
  d, e = (m.transpose(0, 3, 2, 1, 4) for m in (d, e))  # [n, G, T, K, c]
  if not full:
    d, e = (m.reshape(*m.shape[:3], -1) for m in (d, e))

  def row(sample):
    a, d = sample
    products = dot("gtkc,jgslc->gtjskl" if full else "gtm,jgsm->gtjs", d, e)
    return jnp.einsum("gtjs,gtjs...->j...", similarity(a), products, precision=jax.lax.Precision.HIGHEST)

  entries = math.prod(d.shape[1:3]) * e.shape[0] * e.shape[2] * (1 + (d.shape[3] ** 2 if full else 1))
  rows = max(1, WORK // (entries * accumulator(d).itemsize))
  return jax.vmap(row)((a, d)) if rows >= len(d) else jax.lax.map(row, (a, d), batch_size=rows)


def _over_gradients(a: Array, d: Array, b: Array, e: Array, full: bool) -> Array:
  """Returns the inner products of the gradients sum_t a_t (x) d_t of every sample, some features of a at a time."""
  features, (outputs, _, groups, width) = a.shape[-1], d.shape[1:]
  column = (len(a) + len(b)) * outputs * groups * width * accumulator(d).itemsize
  size, pieces = _pieces(features, column)
  ordered = lambda a, d: (a.transpose(0, 2, 3, 1), d.transpose(0, 3, 2, 1, 4).reshape(len(d), groups, d.shape[2], -1))
  left = ordered(a, d)
  right = left if b is a else ordered(b, e)

  def gradient(a, d):
    g = dot("ngpt,ngtm->ngpm", a, d)
    if not full:
      return g.reshape(len(g), 1, -1)
    return g.reshape(len(g), groups, size, outputs, width).transpose(0, 3, 1, 2, 4).reshape(len(g), outputs, -1)

  def piece(i):
    of = lambda a: jax.lax.dynamic_slice_in_dim(a, i * size, size, axis=2) if pieces > 1 else a
    j = gradient(of(left[0]), left[1])
    return contract_values(j, j if right is left else gradient(of(right[0]), right[1]), full)

  return _added(piece, pieces)


def _pieces(features: int, column: int) -> tuple[int, int]:
  """Returns how many features at a time, of `column` bytes each, and how many times, so that they take WORK at most."""
  fitting = (p for p in range(1, features + 1) if features % p == 0 and column * features // p <= WORK)
  pieces = next(fitting, max(1, features))
  return features // pieces, pieces


def _added(piece, pieces: int) -> Array:
  """Returns piece(0) + ... + piece(pieces - 1), one after another."""
  if pieces == 1:
    return piece(0)
  start = jax.eval_shape(piece, 0)
  return jax.lax.fori_loop(0, pieces, lambda i, total: total + piece(i), jnp.zeros(start.shape, start.dtype))


def num_bytes(factors) -> int:
  """Returns the memory that factors take; shapes are enough."""
  return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(factors))
