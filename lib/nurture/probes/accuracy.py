"""Accuracy and cross-entropy on a split."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from nurture.core import Batch, Network
from nurture.core.hints import Whole
from nurture.core.task import CLASSES
from nurture.probes.spec import SplitProbe, counted

Tree = Any


@dataclasses.dataclass(frozen=True)
class Accuracy(SplitProbe):
  """Share of labels that the largest logit names, and mean cross-entropy in nats, exact over the split.

  Sequences count by position; positions with label -1 do not count. For them there is also the share of sequences in
  which every position that counts is right, of those that have one.

  Attributes:
    split, limit: the examples, as in `SplitProbe`.
  """

  split: str
  limit: Whole = 0

  tasks = CLASSES

  def __call__(self, net: Network, variables: Tree, piece: Batch) -> dict[str, jax.Array]:
    """Returns the sums {"correct", "loss", "count"} over one batch, and {"solved", "sequences"} of sequences."""
    logits = net.apply(variables, net.inputs(piece)).logits
    label = piece["label"]
    mask = counted(piece)
    log_p = jnp.take_along_axis(jax.nn.log_softmax(logits), jnp.maximum(label, 0)[..., None], axis=-1)[..., 0]
    correct = jnp.argmax(logits, axis=-1) == label
    total = lambda values: jnp.sum(jnp.where(mask, values, 0.0))
    sums = {"correct": total(correct), "loss": -total(log_p), "count": total(1.0)}
    if label.ndim == 2:
      asked = jnp.any(mask, axis=1)
      solved = asked & jnp.all(correct | (label < 0), axis=1)
      sums |= {"solved": jnp.sum(solved, dtype=jnp.float32), "sequences": jnp.sum(asked, dtype=jnp.float32)}
    return sums

  def finish(self, sums: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Returns {"accuracy", "loss"}, and "sequence_accuracy" of sequences."""
    result = {"accuracy": sums["correct"] / sums["count"], "loss": sums["loss"] / sums["count"]}
    if "sequences" in sums:
      result["sequence_accuracy"] = sums["solved"] / sums["sequences"]
    return result
