"""Forgetting events of examples with clean and with wrong labels."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from nurture.core import Batch, Network
from nurture.core.hints import Whole
from nurture.core.task import ONE_CLASS
from nurture.probes.loss_states import LossStateProbe
from nurture.transforms.losses.example_rows import read_rows

Tree = Any


@dataclasses.dataclass(frozen=True)
class Forgetting(LossStateProbe):
  """Forgetting events of all examples, of those with a clean label and of those with a wrong one.

  Of the examples that training has presented (their number: all_seen, clean_seen, wrong_seen):

      ..._events           forgetting events, mean over the examples
      ..._unforgettable    share that was learned and never forgotten
      ..._never_learned    share that was never predicted as labelled; these have no event to forget

  Numbers of an empty group are 0.

  Attributes:
    term: label of the loss term that counts, a "forgetting_events".
    limit: takes the first training examples only; 0 takes all.

  Raises:
    UserError: if there is no such loss term.

  Reference: Toneva et al. 2019, arXiv:1812.05159, sections 3 and 4.
  """

  term: str
  limit: Whole = 0

  field = "forgotten"
  keeps = "does not count forgetting events"
  example = "forgetting_events"

  tasks = ONE_CLASS

  def __call__(self, net: Network, variables: Tree, piece: Batch) -> dict[str, dict[str, jax.Array]]:
    """Returns counts over one batch, by group."""
    state = {name: read_rows(table, piece["id"]) for name, table in self.state(net).items()}
    seen = piece["weight"] * (state["presented"] > 0)
    clean = piece["label"] == piece["true_label"]
    return {
      group: {
        "seen": jnp.sum(weight),
        "events": jnp.sum(weight * state["forgotten"]),
        "unforgettable": jnp.sum(weight * (state["learned"] & (state["forgotten"] == 0))),
        "never_learned": jnp.sum(weight * ~state["learned"]),
      }
      for group, weight in (("all", seen), ("clean", seen * clean), ("wrong", seen * ~clean))
    }

  def finish(self, sums: dict[str, dict[str, jax.Array]]) -> dict[str, jax.Array]:
    """Returns {"all_seen", "all_events", "all_unforgettable", "all_never_learned", "clean_seen", ...}."""
    return {
      f"{group}_{name}": value if name == "seen" else value / jnp.maximum(counts["seen"], 1.0)
      for group, counts in sums.items() for name, value in counts.items()
    }
