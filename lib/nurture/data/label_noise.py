"""Wrong labels on purpose: maps (labels [n], num_classes, rng) to labels [n], on the host, once per data set.

Counts are exact, not binomial: ceil(rate n), with the rate read as the decimal that was written (0.07 of 100 is
7, although 0.07 * 100 > 7 in floating point).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from fractions import Fraction

import numpy as np

from nurture.core import UserError
from nurture.core.hints import Share

# The superclass of each fine class of CIFAR-100; fine classes are numbered alphabetically (Krizhevsky 2009).
CIFAR100_COARSE = (
  4, 1, 14, 8, 0, 6, 7, 7, 18, 3, 3, 14, 9, 18, 7, 11, 3, 9, 7, 11, 6, 11, 5, 10, 7,
  6, 13, 15, 3, 15, 0, 11, 1, 10, 12, 14, 16, 9, 11, 5, 5, 19, 8, 8, 15, 13, 14, 17, 18, 10,
  16, 4, 17, 4, 2, 0, 17, 4, 18, 17, 10, 3, 2, 12, 12, 16, 12, 1, 9, 19, 2, 10, 0, 1, 16,
  12, 9, 13, 15, 13, 16, 19, 2, 4, 6, 19, 5, 5, 8, 19, 18, 1, 2, 15, 6, 0, 17, 8, 14, 13,
)  # fmt: skip


def _cyclic(groups: list[list[int]]) -> dict[str, int]:
  return {str(a): b for group in groups for a, b in zip(group, group[1:] + group[:1])}


MAPPINGS = {
  # truck -> automobile, bird -> airplane, deer -> horse, cat <-> dog (Patrini et al. 2017, section 5).
  "cifar10": {"9": 1, "2": 0, "3": 5, "5": 3, "4": 7},
  # Blocks of five neighbours in the alphabet, as some published code has it; these are not the superclasses.
  "cifar100_alphabetical": _cyclic([list(range(i, i + 5)) for i in range(0, 100, 5)]),
  "cifar100_superclass": _cyclic([[f for f, c in enumerate(CIFAR100_COARSE) if c == k] for k in range(20)]),
}


@dataclasses.dataclass(frozen=True)
class Symmetric:
  """Gives ceil(rate n) examples, drawn without replacement, a uniformly random label.

      T_ij = (1 - r) [i = j] + r / K                    include_true,  wrong in expectation: r (1 - 1/K)
      T_ij = (1 - r) [i = j] + r [i != j] / (K - 1)     otherwise,     wrong exactly: ceil(r n) / n

  Args:
    rate: r in [0, 1].
    include_true: draw from all K classes, the true one too, or from the other K - 1.

  Reference: Patrini et al. 2017, arXiv:1609.03683; the counts are those of Liu et al. 2020, arXiv:2007.00151,
    which includes the true class.
  """

  rate: Share
  include_true: bool

  def __call__(self, labels: np.ndarray, num_classes: int, rng: np.random.Generator) -> np.ndarray:
    chosen = rng.permutation(len(labels))[: _count(self.rate, len(labels))]
    return _redraw(labels, chosen, num_classes, self.include_true, rng)


@dataclasses.dataclass(frozen=True)
class Asymmetric:
  """Relabels ceil(rate n_c) of the n_c examples of each listed class c as the class that it maps to.

  Args:
    rate: share of each listed class, in [0, 1].
    mapping: {"class": class}, with the keys as strings, or the name of a row of MAPPINGS. Classes that
      are not listed keep their labels.
    sequential: which labels say who is of class c, and so n_c. False: the true ones, as the papers state the map, so
      3 -> 5 and 5 -> 3 swap. True: what the classes below c have left behind, so of the cats that have become dogs
      (3 -> 5) a share r becomes cats again. At r = 0.4 on CIFAR-10, cat -> dog is then 0.24 instead of 0.40, dog -> cat
      0.40 as before, and 18.4 % of all labels are wrong instead of 20 %.

  The code that Liu et al. released is sequential on CIFAR-10, and their published numbers come from it. Its noise for
  CIFAR-100 reads the true labels.

  Reference: Patrini et al. 2017, arXiv:1609.03683; Liu et al. 2020, arXiv:2007.00151.
  """

  rate: Share
  mapping: str | Mapping[str, int]
  sequential: bool = False

  def __call__(self, labels: np.ndarray, num_classes: int, rng: np.random.Generator) -> np.ndarray:
    noisy = labels.copy()
    for old, new in sorted(self._pairs(num_classes).items()):
      members = rng.permutation(np.flatnonzero((noisy if self.sequential else labels) == old))
      noisy[members[: _count(self.rate, len(members))]] = new
    return noisy

  def _pairs(self, num_classes: int) -> dict[int, int]:
    path = "config.data.label_noise.mapping"
    mapping = self.mapping
    if isinstance(mapping, str):
      if mapping not in MAPPINGS:
        raise UserError(f"{path} is {mapping!r}; known: {', '.join(MAPPINGS)}, or give a dict of classes.")
      mapping = MAPPINGS[mapping]
    whole = lambda v: isinstance(v, (int, np.integer)) and not isinstance(v, bool)
    pairs = {int(k): v for k, v in mapping.items() if str(k).isdecimal() and whole(v)}
    if len(pairs) < len(mapping):
      raise UserError(f"{path} is {dict(mapping)}; give class numbers, each once, such as {{'9': 1}}.")
    outside = [c for pair in pairs.items() for c in pair if not 0 <= c < num_classes]
    if outside:
      raise UserError(f"{path} has the class {outside[0]}, but the data has the classes 0 to {num_classes - 1}.")
    return pairs


@dataclasses.dataclass(frozen=True)
class PerClass:
  """Gives ceil(r_c n_c) of the n_c examples of each class c a uniformly random label of the other K - 1 classes.

  Args:
    rates: r_c in [0, 1] for each of the K classes.
  """

  rates: tuple[Share, ...]

  def __call__(self, labels: np.ndarray, num_classes: int, rng: np.random.Generator) -> np.ndarray:
    if len(self.rates) != num_classes:
      raise UserError(f"config.data.label_noise.rates has {len(self.rates)} rates, but the data has {num_classes} "
                      "classes.")
    members = [rng.permutation(np.flatnonzero(labels == c)) for c in range(num_classes)]
    chosen = np.concatenate([m[: _count(rate, len(m))] for m, rate in zip(members, self.rates)])
    return _redraw(labels, chosen, num_classes, False, rng)


LABEL_NOISE = {"symmetric": Symmetric, "asymmetric": Asymmetric, "per_class": PerClass}


def _count(rate: float, n: int) -> int:
  return math.ceil(Fraction(str(float(rate))) * n)


def _redraw(labels, chosen, num_classes: int, include_true: bool, rng: np.random.Generator) -> np.ndarray:
  noisy = labels.copy()
  if include_true:
    noisy[chosen] = rng.integers(0, num_classes, len(chosen))
  elif len(chosen):
    if num_classes < 2:
      raise UserError("config.data.label_noise needs another class to draw, but the data has one class.")
    # A uniform shift by 1..K-1 is a uniform draw of another class.
    noisy[chosen] = (labels[chosen] + rng.integers(1, num_classes, len(chosen))) % num_classes
  return noisy
