"""Errors of predicted numbers, in the unit of the labels."""

from __future__ import annotations

import dataclasses
from typing import Any, cast

import jax
import jax.numpy as jnp

from nurture.core import Batch, Network
from nurture.core.hints import Whole
from nurture.data.tasks import Regression
from nurture.probes.spec import SplitProbe

Tree = Any


@dataclasses.dataclass(frozen=True)
class RegressionError(SplitProbe):
  """Errors of a regression over a split, exact:

      rmse   sqrt of the mean squared error over examples and outputs, in the unit of the labels
      mae    mean absolute error, likewise
      r2     1 - squared error / variance of the labels in the split, each output by itself, and the mean over outputs

  An output whose labels do not vary in the split counts in r2 as 1 where it is met exactly and as 0 where not.

  Attributes:
    split, limit: the examples, as in `SplitProbe`.
  """

  split: str = "test"
  limit: Whole = 0

  tasks = ("regression",)

  def __call__(self, net: Network, variables: Tree, piece: Batch) -> dict[str, jax.Array]:
    """Returns the sums over one batch, [D] each but the count."""
    task = cast(Regression, net.task)
    predicted = task.in_units(net.apply(variables, net.inputs(piece)).logits)
    mean, _ = task.moments
    label, counts = piece["label"], (piece["weight"] > 0)[:, None]
    total = lambda values: jnp.sum(jnp.where(counts, values, 0.0), axis=0)
    error, offset = predicted - label, label - mean[None]  # sums of squares about a point near the mean lose no digits
    return {
      "squared": total(jnp.square(error)), "absolute": total(jnp.abs(error)),
      "offset": total(offset), "spread": total(jnp.square(offset)), "count": jnp.sum(counts, dtype=jnp.float32),
    }

  def finish(self, sums: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Returns {"rmse", "mae", "r2"}."""
    count = sums["count"]
    variance = jnp.maximum(sums["spread"] - jnp.square(sums["offset"]) / count, 0.0)
    constant = jnp.where(sums["squared"] == 0, 1.0, 0.0)
    r2 = jnp.where(variance > 0, 1 - sums["squared"] / jnp.where(variance > 0, variance, 1.0), constant)
    mean = lambda values: jnp.mean(values) / count
    return {"rmse": jnp.sqrt(mean(sums["squared"])), "mae": mean(sums["absolute"]), "r2": jnp.mean(r2)}
