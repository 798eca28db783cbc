"""Selection of a model's taps by what their layers do, from names alone.

A name is a number, the block that the layer stands in, and what the layer does: "007_stage1.block0.relu".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from nurture.core.build import suggest
from nurture.core.errors import UserError

# The kinds of taps that are outputs of a nonlinearity. The tap before one is always what goes into it.
ACTIVATION_KINDS = frozenset({
  "annealed_relu", "elu", "erf", "gelu", "leaky_relu", "linear", "relu", "sigmoid", "silu", "sine", "softplus", "tanh",
})


def kind(name: str) -> str:
  """Returns what the layer of a tap does: "relu" for "007_stage1.block0.relu"."""
  return name[4:].rpartition(".")[2]


def select(taps: Mapping[str, Any], which: str | Iterable[str]) -> dict[str, Any]:
  """Returns some of the taps, in call order.

  Args:
    taps: of one model.
    which: "all"; "post", what comes out of the activations; "pre", what goes into them; a kind such as "conv"; a whole
      name; or several of these.

  Raises:
    UserError: if the model has no such tap; lists those it has.
  """
  names = sorted(taps)
  active = [i for i, name in enumerate(names) if kind(name) in ACTIVATION_KINDS]
  groups = {
    "all": names,
    "post": [names[i] for i in active],
    "pre": [names[i - 1] for i in active if i],
  }
  chosen: set[str] = set()
  for word in (which,) if isinstance(which, str) else tuple(which):
    found = groups.get(word) or [name for name in names if word in (kind(name), name)]
    if not found:
      known = [*(group for group, members in groups.items() if members), *dict.fromkeys(kind(name) for name in names)]
      raise UserError(f"the model has no taps of kind {word!r}; {suggest(word, known)}; its taps are: "
                      f"{_listing(names)}.")
    chosen.update(found)
  return {name: taps[name] for name in names if name in chosen}


def _listing(names: list[str]) -> str:
  return ", ".join(names) if len(names) <= 30 else f"{', '.join(names[:30])} and {len(names) - 30} more"
