"""Agreement of the errors of two networks."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from nurture.core import Batch, Network
from nurture.core.hints import Whole
from nurture.core.references import outputs_of
from nurture.core.task import CLASSES
from nurture.probes.spec import SplitProbe, counted
from nurture.similarity import kappa

Tree = Any


@dataclasses.dataclass(frozen=True)
class Agreement(SplitProbe):
  """Agreement of a network with a reference, beyond what their accuracies p_1 and p_2 make likely:

      κ = (c_obs - c_exp) / (1 - c_exp),    c_exp = p_1 p_2 + (1 - p_1)(1 - p_2)        error consistency

  c_obs is the share of examples on which both are right or both are wrong. 0 is chance, 1 the same errors; where c_exp
  = 1 (both always right, or both always wrong) κ is not defined and given as 0. "same_prediction" is the share of equal
  predictions, right or wrong.

  Attributes:
    reference: label in config.references.
    split, limit: the examples, as in `SplitProbe`.

  Reference: Geirhos et al. 2020, arXiv:2006.16736, eq. 1 to 3.
  """

  reference: str
  split: str = "test"
  limit: Whole = 0

  tasks = CLASSES

  def __call__(self, net: Network, variables: Tree, piece: Batch) -> dict[str, jax.Array]:
    """Returns counts over one batch; positions with label -1 do not count."""
    reference = outputs_of(net.references(piece), self.reference, f"the probe {self.name!r}")
    label, mask = piece["label"], counted(piece)
    mine = jnp.argmax(net.apply(variables, net.inputs(piece)).logits, axis=-1)
    theirs = jnp.argmax(reference.logits, axis=-1)
    right, also = mine == label, theirs == label
    count = lambda which: jnp.sum(mask & which, dtype=jnp.float32)
    return {
      "count": count(True), "both_right": count(right & also), "both_wrong": count(~right & ~also),
      "only_right": count(right & ~also), "only_reference_right": count(~right & also), "same": count(mine == theirs),
    }

  def finish(self, sums: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Returns {"error_consistency", "same_prediction", "reference_accuracy"}."""
    share = lambda name: sums[name] / sums["count"]
    return {
      "error_consistency": kappa(
        share("both_right"), share("both_wrong"), share("only_right"), share("only_reference_right")
      ),
      "same_prediction": share("same"),
      "reference_accuracy": share("both_right") + share("only_reference_right"),
    }
