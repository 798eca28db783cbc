"""Sequences that are generated from a seed: parity, copying, and multiplication of binary numbers.

Every set is one pure function `generate(key, n)` in JAX. `load` calls it once for each split, and the augmentation
"regenerate" once a step, which makes the training data infinite. The splits and the steps have random streams of their
own, so no batch is drawn from the numbers behind the test split. Short sequences repeat all the same (there are four
of two bits): only where the sequences far outnumber those trained on is test accuracy about unseen ones.

Labels are -1 where no prediction is asked, and losses and probes leave such positions out. A class is a token, so a
model that takes its vocabulary from num_classes fits.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
import hashlib
import os
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from nurture.core.hints import Count, Range, Seed
from nurture.core.rng import stream
from nurture.data.arrays import Dataset, Split
from nurture.data.checks import check_memory
from nurture.data.tasks import Generation, PerPosition

_WORDS = 5  # of 4 bytes for each token while a split is made: three results, and up to two that its program holds


@dataclasses.dataclass(frozen=True)
class GeneratedSequences(abc.ABC):
  """Base of the generated sets. The length l of each example is uniform over [min_length, max_length].

  Attributes:
    min_length, max_length: of l, in the unit of the set.
    num_examples: training sequences. With "regenerate" only their number counts, as the length of an epoch, and a
      probe of the training split measures sequences that were not trained on.
    test_examples: test sequences, which do not depend on num_examples.
    seed: of both splits. data.seed draws validation split and subsets from them, and moves no sequence.
    written: whether each token of the answer stands in the input at the next position, instead of a blank: what a
      network needs that is to write the answer itself, token by token (the task "generation").
  """

  min_length: Count
  max_length: Count
  num_examples: Count = 10_000
  test_examples: Count = 1_000
  seed: Seed = 0
  written: bool = False

  name: ClassVar[str]

  def __post_init__(self):
    if self.min_length > self.max_length:
      raise ValueError(f"lengths run from {self.min_length} to {self.max_length}; give min_length <= max_length")
    if self.length >= 2**31:
      raise ValueError(f"max_length is {self.max_length}, which makes {self.length} tokens; give what makes under 2^31")

  @property
  @abc.abstractmethod
  def length(self) -> int:
    """T, the tokens of an example."""

  @property
  @abc.abstractmethod
  def class_names(self) -> tuple[str, ...]:
    """The tokens, which are the classes."""

  @abc.abstractmethod
  def generate(self, key: jax.Array, n: int) -> dict[str, jax.Array]:
    """Returns n fresh examples {"tokens", "label", "true_label"}, each [n, T] int32. Can be traced."""

  def examples(self, key: jax.Array, n: int) -> dict[str, jax.Array]:
    """Returns n fresh examples as networks see them, like `generate`; the answer is in the input if `written`."""
    fields = self.generate(key, n)
    if not self.written:
      return fields
    label = fields["label"]
    before = jnp.pad(label[:, :-1], ((0, 0), (1, 0)), constant_values=-1)
    return {**fields, "tokens": jnp.where((before >= 0) & (label >= 0), before, fields["tokens"])}

  def load(self, data_dir: str | os.PathLike = "") -> Dataset:
    """Returns both splits; `data_dir` is not read.

    Raises:
      UserError: if they take more memory than there is.
    """
    count = self.num_examples + self.test_examples
    what = f"config.data.source: {count} examples of {self.length} tokens"
    check_memory(4 * _WORDS * count * self.length, what, "give fewer or shorter ones")
    root = jax.random.key(np.uint32(self.seed))

    def split(name: str, n: int) -> Split:
      fields = jax.device_get(_generate(self, stream(root, name), n))
      return Split.clean({"tokens": fields["tokens"]}, fields["label"])

    train, test = split("train", self.num_examples), split("test", self.test_examples)
    digest = hashlib.sha256()
    for array in (train.inputs["tokens"], train.label, test.inputs["tokens"], test.label):
      digest.update(np.ascontiguousarray(array).data)
    task = (Generation if self.written else PerPosition)(self.class_names)
    checksums = {repr(self): digest.hexdigest()}
    return Dataset.read(self.name, train, test, task, checksums=checksums, generate=self.examples)

  def _lengths(self, key: jax.Array, n: int) -> jax.Array:
    return jax.random.randint(key, (n, 1), self.min_length, self.max_length + 1, jnp.int32)


@dataclasses.dataclass(frozen=True)
class Parity(GeneratedSequences):
  """Whether a string of fair coins has an odd number of ones: 2 classes, asked once a string, by chance 1/2.

      tokens   x_0 x_1 ... x_{l-1}  pad  pad ...       x_t in {0, 1}, pad = 2,  T = max_length
      label    -1  -1  ... y        -1   -1  ...       y = (x_0 + ... + x_{l-1}) mod 2

  The vocabulary has the 3 tokens; pad is never a label. A causal model cannot see that a string ends, so it has to
  know the parity of every prefix.

  Differs from the official code of Subramaniam et al. 2024 (arXiv:2410.20035), which pools over the string and has 2
  logits; its lengths are 2 to 50.
  """

  name: ClassVar[str] = "parity"

  @property
  def length(self) -> int:
    return self.max_length

  @property
  def class_names(self) -> tuple[str, ...]:
    return ("0", "1", "pad")

  def generate(self, key: jax.Array, n: int) -> dict[str, jax.Array]:
    length_key, bit_key = jax.random.split(key)
    length, position = self._lengths(length_key, n), _positions(self.length)
    inside = position < length
    bits = jnp.where(inside, _bits(bit_key, n, self.max_length), 0)
    parity = jnp.sum(bits, axis=1, keepdims=True) % 2
    return _fields(jnp.where(inside, bits, 2), jnp.where(position == length - 1, parity, -1))


@dataclasses.dataclass(frozen=True)
class Copy(GeneratedSequences):
  """Repeats a string after a delimiter. A network that ignores the string has accuracy 1 / S.

      tokens   s_0 ... s_{l-1}  delimiter  blank ... blank    end   blank ...       T = 2 max_length + 1 (+ 1 with end)
      label    -1  ... -1       -1         s_0   ... s_{l-1}  end   -1    ...

  The symbols s_i are uniform over 0 ... S - 1, delimiter = S, blank = S + 1 and end = S + 2. Without `end` there is a
  blank in its place, and nothing is asked.

  Differs from the official code of Subramaniam et al. 2024 (arXiv:2410.20035; l from 20 to 40, S = 10): there symbol
  0 is the padding too and is not counted, and the end token is, although the input already shows it. With both, a
  network that has learned nothing scores (0.1 E[l] + 1) / (0.9 E[l] + 1) = 14.3 %. Here padding is no symbol, and end
  counts only if asked for, which makes chance (E[l] / S + 1) / (E[l] + 1).

  Attributes:
    num_symbols: S.
    end: whether an end token stands in the input after the answer and is asked for.
  """

  num_symbols: Annotated[int, Range(least=2, most=2**16)] = 10
  end: bool = False

  name: ClassVar[str] = "copy"

  @property
  def length(self) -> int:
    return 2 * self.max_length + 1 + self.end

  @property
  def class_names(self) -> tuple[str, ...]:
    return (*map(str, range(self.num_symbols)), "delimiter", "blank") + self.end * ("end",)

  def generate(self, key: jax.Array, n: int) -> dict[str, jax.Array]:
    delimiter, blank, end = range(self.num_symbols, self.num_symbols + 3)
    length_key, symbol_key = jax.random.split(key)
    length, position = self._lengths(length_key, n), _positions(self.length)
    symbols = jax.random.randint(symbol_key, (n, self.max_length), 0, self.num_symbols, jnp.int32)
    answer = jnp.where((position > length) & (position <= 2 * length), _at(symbols, position - length - 1), -1)
    tokens = jnp.where(position < length, _at(symbols, position), jnp.where(position == length, delimiter, blank))
    if self.end:
      last = position == 2 * length + 1
      tokens, answer = jnp.where(last, end, tokens), jnp.where(last, end, answer)
    return _fields(tokens, answer)


@dataclasses.dataclass(frozen=True)
class Multiplication(GeneratedSequences):
  """The product of two binary numbers of l bits each, least significant bit first.

      tokens   a_0 ... a_{l-1}  times  b_0 ... b_{l-1}  blank ... blank       blank ...       T = 4 max_length + 1
      label    -1  ... -1       -1     -1  ... -1       c_0   ... c_{2l-1}    -1    ...

  where sum_i c_i 2^i = (sum_i a_i 2^i) (sum_i b_i 2^i), times = 2 and blank = 3. Bits of a and b are fair coins, zeros
  at the end included; those of c are not (c_0 is 1 in a quarter of the examples), so chance is above 1/2. Any number of
  bits is exact: columns are added with a carry of at most l. There are 4^l examples of l bits, 256 of four.

  Differs from Kaiser & Sutskever 2016: the answer stands after the numbers instead of over them, because a causal
  model has to read both first, and l is uniform.

  Reference: Kaiser & Sutskever 2016, "Neural GPUs learn algorithms", arXiv:1511.08228.
  """

  name: ClassVar[str] = "multiplication"

  @property
  def length(self) -> int:
    return 4 * self.max_length + 1

  @property
  def class_names(self) -> tuple[str, ...]:
    return ("0", "1", "times", "blank")

  def generate(self, key: jax.Array, n: int) -> dict[str, jax.Array]:
    length_key, *bit_keys = jax.random.split(key, 3)
    length, position = self._lengths(length_key, n), _positions(self.length)
    inside = _positions(self.max_length) < length
    a, b = (jnp.where(inside, _bits(k, n, self.max_length), 0) for k in bit_keys)
    asked = (position > 2 * length) & (position <= 4 * length)
    numbers = jnp.where(position < length, _at(a, position), _at(b, position - length - 1))
    tokens = jnp.where(position == length, 2, jnp.where(position <= 2 * length, numbers, 3))
    return _fields(tokens, jnp.where(asked, _at(_product(a, b), position - 2 * length - 1), -1))


@functools.partial(jax.jit, static_argnums=(0, 2))
def _generate(source: GeneratedSequences, key: jax.Array, n: int) -> dict[str, jax.Array]:
  return source.examples(key, n)  # compiled once for all equal sources


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
  """Returns the bits [n, 2 L] of the products of numbers of L bits, [n, L] int32 each, least significant first."""
  count, width = a.shape
  reverse = jnp.pad(b[:, ::-1], ((0, 0), (width, width - 1)))

  def column(carry, j):
    window = jax.lax.dynamic_slice_in_dim(reverse, 2 * width - 1 - j, width, axis=1)  # b_{j-i} for i = 0 ... L - 1
    total = carry + jnp.sum(a * window, axis=1, dtype=jnp.int32)
    return total >> 1, total & 1

  _, bits = jax.lax.scan(column, jnp.zeros(count, jnp.int32), jnp.arange(2 * width))
  return bits.T


def _positions(length: int) -> jax.Array:
  return jnp.arange(length, dtype=jnp.int32)[None]


def _bits(key: jax.Array, n: int, length: int) -> jax.Array:
  return jax.random.bernoulli(key, 0.5, (n, length)).astype(jnp.int32)


def _at(values: jax.Array, index: jax.Array) -> jax.Array:
  """Returns values[i, index[i, t]], with what lies outside moved to the nearest; index is [n, T] or [1, T]."""
  index = jnp.broadcast_to(index, (values.shape[0], index.shape[1]))
  return jnp.take_along_axis(values, jnp.clip(index, 0, values.shape[1] - 1), axis=1)


def _fields(tokens: jax.Array, label: jax.Array) -> dict[str, jax.Array]:
  label = label.astype(jnp.int32)
  return {"tokens": tokens.astype(jnp.int32), "label": label, "true_label": label}
