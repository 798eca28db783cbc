"""Norms of the loss gradient, in all and by layer."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from nurture.core import Batch, Network, trees
from nurture.core.hints import Whole
from nurture.probes.spec import SplitProbe

Tree = Any


@dataclasses.dataclass(frozen=True)
class GradientNorms(SplitProbe):
  """l2 norms of the gradient of the experiment's loss, the model in evaluation mode, over fixed examples.

  The gradient is averaged over the examples before its norm is taken. "global" is over all parameters, the others by
  top-level layer of the model.

  Attributes:
    split, limit: the examples, as in `SplitProbe`.
  """

  split: str = "train"
  limit: Whole = 1000

  def __call__(self, net: Network, variables: Tree, piece: Batch) -> dict[str, Tree]:
    """Returns the gradient summed over the examples of one batch, and their number."""
    count = jnp.sum(piece["weight"])
    gradient = jax.grad(lambda params: net.loss({**variables, "params": params}, piece))(variables["params"])
    return {"gradient": jax.tree.map(lambda leaf: leaf * count, gradient), "count": count}

  def finish(self, sums: dict[str, Tree]) -> dict[str, jax.Array]:
    """Returns {"global", layer: ...}."""
    gradient = jax.tree.map(lambda leaf: leaf / sums["count"], sums["gradient"])
    return {"global": trees.norm(gradient), **{name: trees.norm(layer) for name, layer in gradient.items()}}
