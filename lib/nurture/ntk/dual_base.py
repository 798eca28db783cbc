"""The interface of dual activations, and the formulas of far-away layers that follow from their ends."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jaxtyping import Float

from nurture.core import UserError
from nurture.ntk.signed_log import SignedLog, add, multiply, signed_log
from nurture.ntk.sphere import TINY, double

Array = jax.Array


class Dual:
  """A dual activation, normalized to f(1) = 1; rows are frozen dataclasses, so that jit takes them as static.

      f(c) = E[phi(u) phi(v)],    u, v ~ N(0, 1) of correlation c,    f'(c) = E[phi'(u) phi'(v)]

  With phi = sum_i h_i He_i / sqrt(i!), f(c) = sum_i h_i^2 c^i: f(0) = E[phi]^2, f'(0) = h_1^2, f'(1) = E[phi'^2].
  A layer takes the cosine of two inputs from c to f(c).

  Attributes:
    name: row of DUALS.
    lowest: lowest degree of the series: 0 where f(0) > 0, 1 where f'(0) > 0, else 2 or more.
    log_lowest: log of the weight h_i^2 of that degree.
    is_odd: whether phi is odd.
    f0, df0, df1: f(0), f'(0) and f'(1). f'(0) may underflow; log_df0 does not.
    log_df0: log f'(0), -inf if it is 0.
    log_df1: log f'(1).
    log_first: log |c| below which f is its term of lowest degree to rounding.
  """

  name: str
  if TYPE_CHECKING:  # rows have them as class attributes, or as properties

    @property
    def lowest(self) -> int: ...
    @property
    def f0(self) -> float: ...
    @property
    def df0(self) -> float: ...
    @property
    def df1(self) -> float: ...
    @property
    def log_df0(self) -> float: ...
    @property
    def log_lowest(self) -> float: ...
    @property
    def log_first(self) -> float: ...

  @property
  def is_odd(self) -> bool:
    return False

  def phi(self, u: Float[Array, " ..."]) -> Float[Array, " ..."]:
    """Returns the activation function itself, with E[phi(u)^2] = 1; in the precision of u, for finite networks."""
    raise NotImplementedError

  @property
  def log_df1(self) -> float:
    return math.log(self.df1)

  def f(self, c: Float[Array, " ..."]) -> Float[Array, " ..."]:
    """Returns f(c) for c in [-1, 1], float64; its derivative is `df`, at the ends too."""
    return _f(self, self._cosine(c))

  def df(self, c: Float[Array, " ..."]) -> Float[Array, " ..."]:
    """Returns f'(c) for c in [-1, 1], float64."""
    return self._df(1 - self._cosine(c))

  def one_minus_f(self, delta: Float[Array, " ..."]) -> Float[Array, " ..."]:
    """Returns 1 - f(1 - delta) for delta in [0, 2], to full relative precision for small delta."""
    return self._one_minus_f(_within(double(delta, "delta"), 0, 2, "delta", "1 - c of cosines c"))

  def log_f(self, log_c: Float[Array, " ..."]) -> Float[Array, " ..."]:
    """Returns log f(exp(log_c)) for log_c <= 0, to full relative precision at both ends, however small c is."""
    log_c = _within(double(log_c, "log_c"), -jnp.inf, 0, "log_c", "logarithms of cosines in (0, 1]")
    return self.layer(SignedLog(jnp.ones_like(log_c), log_c))[0].log

  def elasticity(self, c: Float[Array, " ..."]) -> Float[Array, " ..."]:
    """Returns e(c) = c f'(c) / f(c), which goes from the lowest degree at c = 0 to f'(1) at c = 1."""
    c = self._cosine(c)
    position = signed_log(jnp.where(c == 0, TINY, c))
    f, df = self.layer(position)
    ratio = position.sign * df.sign * f.sign * jnp.exp(position.log + df.log - f.log)
    return jnp.where(c == 0, float(self.lowest), ratio)

  def layer(self, c: SignedLog) -> tuple[SignedLog, SignedLog]:
    """Returns f(c) and f'(c) of cosines whose logarithm is finite; that of f(c) is finite again."""
    near = -jnp.expm1(c.log)  # 1 - |c|
    delta = jnp.where(c.sign > 0, near, 2 - near)
    gap = self._one_minus_f(delta)
    # log |f|, where an f of 0 is rounding error of 1: the duals of this form have f(0) > 0, to which it goes next.
    log = jnp.log1p(-jnp.clip(jnp.minimum(gap, 2 - gap), 0, 1 - 2.0**-53))
    return SignedLog(jnp.where(gap > 1, -1.0, 1.0), log), signed_log(self._df(delta))

  @property
  def has_jump(self) -> bool:
    """Whether the rest of the depth is one formula, sooner or later."""
    return self.lowest > 0

  def settled(self, c: SignedLog) -> Array:
    """Returns where `jump` holds: at c = 1, and where f is its term of lowest degree (or is a fixed point)."""
    return self.fixed(c) | (c.log < self.log_first if self.lowest else jnp.zeros_like(c.log, bool))

  def fixed(self, c: SignedLog) -> Array:
    """Returns where c is 1, or -1 and phi is odd: points that no layer moves."""
    return (c.log == 0) & ((c.sign > 0) | self.is_odd)

  def jump(self, c: SignedLog, k: SignedLog, layers: Array) -> tuple[SignedLog, SignedLog]:
    """Returns cosine and NTK after so many more layers, where the cosine is not `fixed` and has `settled`.

        f(c) = w c^k:    log c_L = k^L (log c + log w / (k - 1)) - log w / (k - 1),    or log c + L log w for k = 1
        r = K / c:       r_L = k^L r + (1 + k + ... + k^(L-1))
    """
    if not self.lowest:
      return c, k  # a fixed point inside
    growth = layers * math.log(self.lowest)
    r = SignedLog(k.sign * c.sign, k.log - c.log)
    one = jnp.ones_like(c.log)
    r = add(SignedLog(r.sign, r.log + growth), SignedLog(one, one * log_geometric(self.lowest, layers)))
    if self.lowest == 1:
      c = SignedLog(c.sign, c.log + layers * self.log_lowest)
    else:
      offset = self.log_lowest / (self.lowest - 1)
      sign = jnp.where((self.lowest % 2 == 0) & (layers > 0), one, c.sign)
      c = SignedLog(sign, jnp.power(float(self.lowest), layers) * (c.log + offset) - offset)
    return c, multiply(c, r)

  def log_diagonal(self, layers: Array) -> Array:
    """Returns log (1 + f'(1) + ... + f'(1)^L), the logarithm of the NTK of a point with itself."""
    return log_geometric(self.df1, layers + 1)

  def max_depth(self, depth: int) -> int:
    """Returns the layers after which all logarithms still fit: the depth itself unless `lowest` is 2 or more.

    There log c ~ lowest^L log c_0. The layers left out change no order, and gaps are already beyond all bounds.
    """
    if self.lowest < 2:
      return depth
    largest = -math.log(TINY) - self.log_lowest / (self.lowest - 1)
    return min(depth, int((math.log(1e300) - math.log(largest)) / math.log(self.lowest)))

  def _one_minus_f(self, delta: Array) -> Array:
    raise NotImplementedError

  def _df(self, delta: Array) -> Array:
    raise NotImplementedError

  def _value(self, c: Array) -> Array:
    return 1 - self._one_minus_f(1 - c)

  def _cosine(self, c: Array) -> Array:
    return _within(double(c, "c"), -1, 1, "c", "cosines")


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _f(dual: Dual, c: Array) -> Array:
  return dual._value(c)


@_f.defjvp
def _f_jvp(dual, primals, tangents):
  return _f(dual, primals[0]), dual._df(1 - primals[0]) * tangents[0]


def _within(x: Array, low: float, high: float, name: str, what: str) -> Array:
  if not isinstance(x, jax.core.Tracer) and not bool(jnp.all((x >= low) & (x <= high))):
    raise UserError(f"{name} has values outside [{low}, {high}]; give {what}.")
  return x


class OddDual(Dual):
  """A dual activation of an odd phi, from f on [0, 1] in its two stable forms.

  Attributes:
    near: -log c up to which log f comes from 1 - f, which must not be close to 1 there.
  """

  lowest = 1
  is_odd = True
  f0 = 0.0

  @property
  def near(self) -> float:
    return 0.5

  @property
  def log_lowest(self) -> float:
    return self.log_df0

  @property
  def df0(self) -> float:
    return math.exp(self.log_df0)

  def _value(self, c: Array) -> Array:
    return jnp.sign(c) * jnp.exp(self._log_f(jnp.log(jnp.maximum(jnp.abs(c), TINY))))

  def layer(self, c: SignedLog) -> tuple[SignedLog, SignedLog]:
    log_df = self._log_df(-jnp.expm1(c.log))
    return SignedLog(c.sign, self._log_f(c.log)), SignedLog(jnp.ones_like(c.log), log_df)

  def _log_df(self, delta: Array) -> Array:
    return jnp.log(self._df(delta))

  def _log_f(self, log_c: Array) -> Array:
    near = jnp.log1p(-self._near_one(-jnp.expm1(jnp.maximum(log_c, -self.near))))
    first = log_c < self.log_first
    far = self._log_far(jnp.where(first, self.log_first, log_c))
    return jnp.where(log_c > -self.near, near, jnp.where(first, log_c + self.log_df0, far))

  def _one_minus_f(self, delta: Array) -> Array:
    near = self._near_one(jnp.minimum(delta, 0.4))
    c = jnp.clip(1 - delta, -1, 1)
    far = 1 - jnp.sign(c) * jnp.exp(self._log_f(jnp.log(jnp.maximum(jnp.abs(c), TINY))))
    return jnp.where(delta < 0.4, near, far)

  def _near_one(self, delta: Array) -> Array:
    """Returns 1 - f(1 - delta) for delta up to 0.4."""
    raise NotImplementedError

  def _log_far(self, log_c: Array) -> Array:
    """Returns log f(exp(log_c)) for log_c of at least `log_first`."""
    raise NotImplementedError


def log_geometric(ratio: float, terms: Array) -> Array:
  """Returns log (1 + q + ... + q^(n-1)) for q > 0 and n terms; -inf for none."""
  if abs(ratio - 1) < 1e-12:
    return jnp.log(jnp.asarray(terms, jnp.float64))
  log_ratio = math.log(ratio) if ratio > 0 else -math.inf
  if ratio < 1:
    last = -jnp.expm1(jnp.where(terms > 0, terms * max(log_ratio, -1e300), 0.0))
    return jnp.log(last) - math.log1p(-ratio)
  return terms * log_ratio + jnp.log(-jnp.expm1(-terms * log_ratio)) - math.log(ratio - 1)

