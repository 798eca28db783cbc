"""Probes that read the state of a loss term: a row for each training example."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from nurture.core import Network, UserError
from nurture.probes.spec import SplitProbe


class LossStateProbe(SplitProbe):
  """A probe of the training split, the only one whose ids are those of a loss term's rows.

  Attributes:
    term: label of the loss term in config.losses.
    field: what the state of such a term has, by which it is known.
    keeps, example: in words, what such a term does, and one to add; for the message.
  """

  term: str
  split = "train"
  field: ClassVar[str]
  keeps: ClassVar[str]
  example: ClassVar[str]

  def state(self, net: Network) -> dict[str, Any]:
    """Returns the state of the loss term.

    Raises:
      UserError: if there is no such term; lists those of its kind.
    """
    found = {k: state for k, state in net.loss_states.items() if isinstance(state, Mapping) and self.field in state}
    if self.term not in found:
      known = ", ".join(found) or f"none, add one: {{name: {self.example}, weight: 1.0}} in config.losses"
      raise UserError(f"the probe {self.name!r} reads the loss term {self.term!r}, which {self.keeps}; known: {known}.")
    return dict(found[self.term])
