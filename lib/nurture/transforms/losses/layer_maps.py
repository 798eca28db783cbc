"""Pairs of layers, of a guide and of the guided network."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Literal

from nurture.core import UserError
from nurture.core.build import suggest

Pair = tuple[int | str, int | str]
LayerMap = Literal["uniform", "last_wins"] | tuple[Pair, ...]


def layer_pairs(guide: Sequence[str], guided: Sequence[str], rule: LayerMap) -> tuple[tuple[str, str], ...]:
  """Pairs taps of a guide with taps of the guided network.

      uniform, S <= T:   guide i with guided round(i (T - 1) / (S - 1)), halves to even     (0 if S = 1)
      uniform, S > T:    guide round(j (S - 1) / (T - 1)) with guided j: every guided once  (S - 1 if T = 1)
      last_wins:         guide i with guided min(round(i (T - 1) / (S - 1)), T - 1) for every S; of the guide's taps
                         that meet at one guided tap only the last counts, and a warning says how many are lost

  "last_wins" is what the code of Subramaniam et al. 2024 (arXiv:2410.20035) does: its losses are kept by the guided
  tap, so later ones overwrite. For S <= T the two rules agree.

  Args:
    guide: S names in call order.
    guided: T names in call order.
    rule: one of these, or pairs (guide, guided) by position or name.

  Returns:
    Pairs of names, in the order of the guided taps; explicit ones in the order given.

  Raises:
    UserError: for a position or name that does not exist; lists those that do.
  """
  if not isinstance(rule, str):
    pairs = tuple((_find(guide, a, "guide"), _find(guided, b, "guided network")) for a, b in rule)
    twice = [pair for i, pair in enumerate(pairs) if pair in pairs[:i]]
    if twice:
      raise UserError(f"the layer map names the pair of {twice[0][0]} and {twice[0][1]} twice; name each pair once.")
    return pairs
  s, t = len(guide), len(guided)
  if rule == "uniform" and s > t:
    step = (s - 1) / (t - 1) if t > 1 else 0
    return tuple((guide[round(j * step) if t > 1 else s - 1], guided[j]) for j in range(t))
  step = (t - 1) / (s - 1) if s > 1 else 1
  chosen = {}
  for i in range(s):
    chosen[min(round(i * step), t - 1)] = i
  if len(chosen) < s:
    warnings.warn(
      f"layer map 'last_wins': {s} taps of the guide meet at {len(chosen)} of the guided network, so {s - len(chosen)} "
      "are not compared; 'uniform' says which to compare.", stacklevel=2,
    )
  return tuple((guide[i], guided[j]) for j, i in sorted(chosen.items()))


def check_layer_map(rule: LayerMap | str) -> None:
  """Checks that an explicit map is at least one pair.

  Raises:
    ValueError: if it is not.
  """
  if not isinstance(rule, str) and not (rule and all(isinstance(p, (tuple, list)) and len(p) == 2 for p in rule)):
    raise ValueError(f"layer_map is {rule}; give pairs (guide, guided) such as ((0, 0), (6, 23)), or 'uniform'")


def _find(names: Sequence[str], which: int | str, whose: str) -> str:
  listing = ", ".join(f"{i} {name}" for i, name in enumerate(names))
  if isinstance(which, int):
    if not -len(names) <= which < len(names):
      raise UserError(f"the layer map names tap {which} of the {whose}, which has {len(names)}: {listing}.")
    return names[which]
  if which not in names:
    raise UserError(f"the layer map names the tap {which!r} of the {whose}; {suggest(which, names)}.")
  return which
