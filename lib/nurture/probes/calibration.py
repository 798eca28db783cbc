"""Calibration: the distance of confidence and accuracy."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from nurture.core import Batch, Network
from nurture.core.hints import Count, Whole
from nurture.core.task import CLASSES
from nurture.probes.spec import SplitProbe, counted

Tree = Any


@dataclasses.dataclass(frozen=True)
class Calibration(SplitProbe):
  """Expected calibration error, proper scores and their parts, exact over the split.

      ece    sum_b n_b / n |accuracy_b - confidence_b| over equal bins ((b - 1) / M, b / M] of the confidence max_k p_k
      nll    mean of -log p_y, in nats
      brier  mean of sum_k (p_k - [k = y])^2, in [0, 2]

  and the means "confidence", "accuracy" and "p_true" (of p_y). y is the label as stored, noise included. Sequences
  count by position; positions with label -1 do not count.

  Attributes:
    split, limit: the examples, as in `SplitProbe`.
    bins: M.

  Reference: Guo et al. 2017, arXiv:1706.04599, section 2 (15 bins).
  """

  split: str
  limit: Whole = 0
  bins: Count = 15

  tasks = CLASSES

  def __call__(self, net: Network, variables: Tree, piece: Batch) -> dict[str, jax.Array]:
    """Returns sums over one batch; those over the bins are [M]."""
    logits = net.apply(variables, net.inputs(piece)).logits.astype(jnp.float32)
    label = piece["label"]
    mask = counted(piece)
    log_p = jax.nn.log_softmax(logits)
    p, y = jnp.exp(log_p), jax.nn.one_hot(label, logits.shape[-1])
    confidence, correct = jnp.max(p, axis=-1), jnp.argmax(logits, axis=-1) == label
    bin_of = jnp.clip(jnp.ceil(confidence * self.bins).astype(jnp.int32) - 1, 0, self.bins - 1)
    total = lambda values: jnp.sum(jnp.where(mask, values, 0.0))
    # Doubt, 1 - confidence, is small where a sum of confidences would lose digits; a scatter would add one by one.
    in_bin = mask[None] & (bin_of[None] == jnp.arange(self.bins).reshape((-1,) + (1,) * mask.ndim))
    in_bins = lambda values: jnp.sum(jnp.where(in_bin, values[None], 0.0), axis=tuple(range(1, in_bin.ndim)))
    doubt = jnp.sum(jnp.where(jax.nn.one_hot(jnp.argmax(logits, axis=-1), p.shape[-1]) > 0, 0.0, p), axis=-1)
    return {
      "count": total(1.0),
      "nll": -total(jnp.sum(jnp.where(y > 0, log_p, 0.0), axis=-1)),
      "brier": total(jnp.sum(jnp.square(p - y), axis=-1)),
      "p_true": total(jnp.sum(p * y, axis=-1)),
      "doubt": in_bins(doubt),
      "wrong": in_bins(1.0 - correct),
    }

  def finish(self, sums: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Returns {"ece", "nll", "brier", "confidence", "accuracy", "p_true"}."""
    mean = lambda values: jnp.sum(values) / sums["count"]
    return {
      "ece": mean(jnp.abs(sums["doubt"] - sums["wrong"])),
      "confidence": 1 - mean(sums["doubt"]),
      "accuracy": 1 - mean(sums["wrong"]),
      **{name: mean(sums[name]) for name in ("nll", "brier", "p_true")},
    }
