"""Predictions for examples with clean and with wrong labels."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from nurture.core import Batch, Network
from nurture.core.hints import Whole
from nurture.core.task import ONE_CLASS
from nurture.probes.spec import SplitProbe

Tree = Any


@dataclasses.dataclass(frozen=True)
class Memorization(SplitProbe):
  """Fractions of predictions, among examples with a clean label and among those with a wrong one.

      clean_correct, clean_other                      the label, or something else
      wrong_correct, wrong_memorized, wrong_other     the true class, the wrong label, or something else

  An example is wrong if its label differs from the true one, not if it was merely drawn for noise. Fractions of an
  empty group are 0; clean_count and wrong_count say how many there are.

  Attributes:
    split, limit: the examples, as in `SplitProbe`.

  Reference: Liu et al. 2020, arXiv:2007.00151, figure 1.
  """

  split: str = "train"
  limit: Whole = 0

  tasks = ONE_CLASS

  def __call__(self, net: Network, variables: Tree, piece: Batch) -> dict[str, jax.Array]:
    """Returns counts over one batch."""
    predicted = jnp.argmax(net.apply(variables, net.inputs(piece)).logits, axis=-1)
    label, truth, weight = piece["label"], piece["true_label"], piece["weight"]
    wrong = weight * (label != truth)
    clean = weight * (label == truth)
    return {
      "clean_count": jnp.sum(clean),
      "clean_correct": jnp.sum(clean * (predicted == label)),
      "wrong_count": jnp.sum(wrong),
      "wrong_correct": jnp.sum(wrong * (predicted == truth)),
      "wrong_memorized": jnp.sum(wrong * (predicted == label)),
    }

  def finish(self, sums: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Returns the fractions and the counts."""
    clean, wrong = jnp.maximum(sums["clean_count"], 1.0), jnp.maximum(sums["wrong_count"], 1.0)
    others = sums["wrong_count"] - sums["wrong_correct"] - sums["wrong_memorized"]
    return {
      "clean_count": sums["clean_count"],
      "clean_correct": sums["clean_correct"] / clean,
      "clean_other": (sums["clean_count"] - sums["clean_correct"]) / clean,
      "wrong_count": sums["wrong_count"],
      "wrong_correct": sums["wrong_correct"] / wrong,
      "wrong_memorized": sums["wrong_memorized"] / wrong,
      "wrong_other": others / wrong,
    }
