"""Recall of the other view of an example among the views of a sample."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from nurture.core import Batch, Network, UserError
from nurture.core.hints import Count, Whole
from nurture.probes.sample import SampleProbe
from nurture.probes.spec import ProbeSpec

Tree = Any


@dataclasses.dataclass(frozen=True)
class Recall(SampleProbe):
  """The share of examples of which one of the k most similar views belongs to them, in a sample of n examples.

  "at_1" asks with the first views among the second ones, "reverse_at_1" with the second among the first. Views that
  belong together have one label, so where several second views are alike (ten names for a thousand digits) finding any
  of them counts. By chance "at_k" is about k times the share of the examples that belong to one.

  Attributes:
    split: "train", "validation" or "test".
    limit: n: takes the first examples only; 0 takes all.
    k: the numbers of views that are looked at.
  """

  split: str = "test"
  limit: Whole = 1000
  k: tuple[Count, ...] = (1, 5)

  tasks = ("pairs",)

  def prepare(self, spec: ProbeSpec, key: jax.Array) -> list[Batch]:
    """Returns one piece, the sample.

    Raises:
      UserError: for a k larger than the sample.
    """
    [sample] = super().prepare(spec, key)
    n = len(sample["weight"])
    if max(self.k, default=1) > n:
      raise UserError(f"the probe {self.name!r} looks at {max(self.k)} of {n} examples; lower its k or raise its "
                      "limit.")
    return [sample]

  def __call__(self, net: Network, variables: Tree, piece: Batch) -> dict[str, jax.Array]:
    """Returns {"at_<k>", "reverse_at_<k>"} of the one piece."""
    similarity = net.apply(variables, net.inputs(piece)).logits
    together = piece["label"][:, None] == piece["label"][None, :]
    measured: dict[str, jax.Array] = {}
    for name, scores in (("at", similarity), ("reverse_at", similarity.T)):
      # The best of those that belong is behind as many as are strictly more similar; NaN finds nothing.
      best = jnp.max(jnp.where(together, scores, -jnp.inf), axis=1, keepdims=True)
      ahead = jnp.sum(~(scores <= best), axis=1)
      measured |= {f"{name}_{k}": jnp.mean(ahead < k, dtype=jnp.float32) for k in self.k}
    return measured
