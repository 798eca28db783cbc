"""Norms of the gradients of the loss terms, and their cosines."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp

from nurture.core import Batch, Network, trees
from nurture.core.hints import Whole
from nurture.probes.spec import SplitProbe

Tree = Any


@dataclasses.dataclass(frozen=True)
class TermGradients(SplitProbe):
  """l2 norms of the gradients of the weighted loss terms over fixed examples, and their cosines:

      norm/<a> = ||g_a||,    cosine/<a>.<b> = <g_a, g_b> / (||g_a|| ||g_b||)    (0 if one of them is 0)

  The ratio of two norms says which term moves the network: where the gradient of a guidance term is many times that of
  the cross-entropy, alignment wins and the task is not learned. Gradients are averaged over the batches of the split
  with the model in evaluation mode; terms that compare the examples of a batch, such as guidance, see those batches.

  Attributes:
    split, limit: the examples, as in `SplitProbe`.
  """

  split: str = "train"
  limit: Whole = 1000

  def __call__(self, net: Network, variables: Tree, piece: Batch) -> dict[str, Tree]:
    """Returns each term's gradient summed over the examples of one batch, and their number."""
    count = jnp.sum(piece["weight"])
    gradients = jax.jacrev(lambda params: net.terms({**variables, "params": params}, piece))(variables["params"])
    return {"gradients": jax.tree.map(lambda leaf: leaf * count, gradients), "count": count}

  def finish(self, sums: dict[str, Tree]) -> dict[str, jax.Array]:
    """Returns {"norm/<label>": ..., "cosine/<label>.<label>": ...}."""
    gradients = jax.tree.map(lambda leaf: leaf / sums["count"], sums["gradients"])
    norms = {label: trees.norm(gradient) for label, gradient in gradients.items()}
    result: dict[str, Any] = {f"norm/{label}": norm for label, norm in norms.items()}
    # At length 1 first: the product of two small norms, or of two large ones, would leave float32.
    unit = lambda gradient, norm: [leaf / jnp.where(norm > 0, norm, 1.0) for leaf in jax.tree.leaves(gradient)]
    units = {label: unit(gradient, norms[label]) for label, gradient in gradients.items()}
    for a, b in itertools.combinations(gradients, 2):
      result[f"cosine/{a}.{b}"] = sum(jnp.vdot(x, y) for x, y in zip(units[a], units[b]))
    return result
