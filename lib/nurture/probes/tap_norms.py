"""Sizes of the intermediate arrays of a network."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from nurture import models
from nurture.core import Batch, Network
from nurture.core.hints import Whole
from nurture.probes.spec import SplitProbe

Tree = Any


@dataclasses.dataclass(frozen=True)
class TapNorms(SplitProbe):
  """Root mean square of every tap of a kind over fixed examples, all positions and features alike.

  Of the kind "attention", a transformer's sigmoid(Q K^T / sqrt(H) + b) V before its projection, whose size early in
  training decides whether sigmoid attention trains stably (Ramapuram et al. 2024, arXiv:2409.04431).

  Squares are added up over batches: in float32 a tap of size 1e-22 is 0, and one of 1e19 infinite.

  Attributes:
    kind: what `nurture.models.select` takes: "all", "pre", "post", or a kind such as "attention" or "conv".
    split, limit: the examples, as in `SplitProbe`.
  """

  kind: str = "all"
  split: str = "train"
  limit: Whole = 500

  def __call__(self, net: Network, variables: Tree, piece: Batch) -> dict[str, Any]:
    """Returns for every tap the sum of its mean squares over the examples of one batch, and their number."""
    taps = models.select(net.apply(variables, net.inputs(piece)).taps, self.kind)
    weight = piece["weight"]
    # Padded examples may hold anything, and infinity times a weight of 0 is not 0.
    squares = lambda tap: jnp.square(tap.astype(jnp.float32)).reshape(tap.shape[0], -1).mean(axis=-1)
    mean_squares = {name: jnp.sum(jnp.where(weight > 0, squares(tap), 0)) for name, tap in taps.items()}
    return {"squares": mean_squares, "count": jnp.sum(weight)}

  def finish(self, sums: dict[str, Any]) -> dict[str, jax.Array]:
    """Returns {tap name: root mean square}."""
    return {name: jnp.sqrt(total / sums["count"]) for name, total in sums["squares"].items()}
