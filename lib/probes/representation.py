"""How similar a network's representations are to those of a reference."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp

from lib.core import Batch, Network, UserError
from lib.core.build import suggest
from lib.core.taps import select
from lib.probes.spec import ProbeSpec
from lib.similarity import cka_of_sums, flatten, hsic_sums
from lib.transforms.losses.layer_maps import layer_pairs

Tree = Any


@dataclasses.dataclass(frozen=True)
class Representation:
  """Debiased linear CKA of pairs of layers, of the network and of a reference, over a split.

  The unbiased sums of HSIC are accumulated over the batches and divided once (Nguyen et al. 2021, arXiv:2010.15327), so
  the value hardly depends on the batch size; unrelated layers score 0 within noise, which may be negative. The names
  are "<tap of the reference>~<tap of the network>", and "mean" is over the pairs.

  Attributes:
    reference: label in config.references.
    taps, reference_taps: as `lib.core.taps.select` takes them.
    pairs: "uniform" as guidance pairs layers (see lib.transforms.losses.layer_maps); "all" is the whole matrix.
    split: "train", "validation" or "test".
    limit: takes the first examples only; 0 takes all. Batches need at least 4 examples.
  """

  reference: str
  taps: str | tuple[str, ...] = "pre"
  reference_taps: str | tuple[str, ...] = "pre"
  pairs: Literal["uniform", "all"] = "uniform"
  split: str = "test"
  limit: int = 1000

  def prepare(self, spec: ProbeSpec, key: jax.Array) -> list[Batch]:
    """Returns the split's batches."""
    return spec.batches(self.split, self.limit)

  def __call__(self, net: Network, variables: Tree, piece: Batch) -> dict[str, Tree]:
    """Returns the sums of HSIC of every pair over one batch."""
    references = net.references(piece)
    if self.reference not in references:
      raise UserError(f"the probe 'representation' reads the reference {self.reference!r}; "
                      f"{suggest(self.reference, references)}; add it to config.references.")
    theirs = select(references[self.reference].taps, self.reference_taps)
    mine = select(net.apply(variables, net.inputs(piece)).taps, self.taps)
    features = lambda tap: flatten(tap).astype(jnp.float32)
    if self.pairs == "all":
      pairs = [(a, b) for a in theirs for b in mine]
    else:
      pairs = layer_pairs(list(theirs), list(mine), "uniform")
    return {f"{a}~{b}": hsic_sums(features(theirs[a]), features(mine[b]), piece["weight"]) for a, b in pairs}

  def finish(self, sums: dict[str, Tree]) -> dict[str, jax.Array]:
    """Returns {"<tap of the reference>~<tap of the network>": CKA, "mean"}."""
    values = {pair: cka_of_sums(entry) for pair, entry in sums.items()}
    return {**values, "mean": jnp.mean(jnp.stack(list(values.values())))}
