"""How far confidence and accuracy are apart."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from lib.core import Batch, Network
from lib.probes.spec import ProbeSpec

Tree = Any


@dataclasses.dataclass(frozen=True)
class Calibration:
  """Expected calibration error, proper scores and their parts, exact over the split.

      ece    sum_b n_b / n |accuracy_b - confidence_b| over equal bins ((b - 1) / M, b / M] of the confidence max_k p_k
      nll    mean of -log p_y, in nats
      brier  mean of sum_k (p_k - [k = y])^2, in [0, 2]

  and the means "confidence", "accuracy" and "p_true" (of p_y). y is the label as stored, noise included. Sequences
  count by position; positions with label -1 do not count.

  Attributes:
    split: "train", "validation" or "test".
    limit: takes the first examples only; 0 takes all.
    bins: M.

  Reference: Guo et al. 2017, arXiv:1706.04599, section 2 (15 bins).
  """

  split: str
  limit: int = 0
  bins: int = 15

  def __post_init__(self):
    if self.bins < 1:
      raise ValueError(f"bins is {self.bins}; give at least 1")

  def prepare(self, spec: ProbeSpec, key: jax.Array) -> list[Batch]:
    """Returns the split's batches."""
    return spec.batches(self.split, self.limit)

  def __call__(self, net: Network, variables: Tree, piece: Batch) -> dict[str, jax.Array]:
    """Returns sums over one batch; those over the bins are [M]."""
    logits = net.apply(variables, net.inputs(piece)).logits.astype(jnp.float32)
    label = piece["label"]
    counted = (piece["weight"].reshape((-1,) + (1,) * (label.ndim - 1)) > 0) & (label >= 0)
    log_p = jax.nn.log_softmax(logits)
    p, y = jnp.exp(log_p), jax.nn.one_hot(label, logits.shape[-1])
    confidence, correct = jnp.max(p, axis=-1), jnp.argmax(logits, axis=-1) == label
    bin_of = jnp.clip(jnp.ceil(confidence * self.bins).astype(jnp.int32) - 1, 0, self.bins - 1)
    # Padded examples may hold anything, and infinity times a weight of 0 is not 0.
    total = lambda values, **axes: jnp.sum(jnp.where(counted, values, 0.0), **axes)
    in_bins = lambda values: jnp.zeros(self.bins).at[bin_of].add(jnp.where(counted, values, 0.0))
    return {
      "count": total(1.0),
      "nll": -total(jnp.sum(jnp.where(y > 0, log_p, 0.0), axis=-1)),
      "brier": total(jnp.sum(jnp.square(p - y), axis=-1)),
      "p_true": total(jnp.sum(p * y, axis=-1)),
      "confidence": in_bins(confidence),
      "accuracy": in_bins(correct.astype(jnp.float32)),
    }

  def finish(self, sums: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Returns {"ece", "nll", "brier", "confidence", "accuracy", "p_true"}."""
    count = sums["count"]
    gaps = jnp.abs(sums["accuracy"] - sums["confidence"])
    return {"ece": jnp.sum(gaps) / count} | {
      name: jnp.sum(sums[name]) / count for name in ("nll", "brier", "confidence", "accuracy", "p_true")
    }
