"""Similarity of a network's representations to those of a reference."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp

from nurture.core import Batch, Network, UserError
from nurture.core.hints import Whole
from nurture.core.references import outputs_of
from nurture.core.taps import select
from nurture.probes.spec import ProbeSpec, SplitProbe
from nurture.similarity import cka_of_sums, flatten, hsic_sums
from nurture.transforms.losses.layer_maps import LayerMap, check_layer_map, layer_pairs

Tree = Any


@dataclasses.dataclass(frozen=True)
class Representation(SplitProbe):
  """Debiased linear CKA of pairs of layers, of the network and of a reference, over a split.

  The unbiased sums of HSIC are accumulated over the batches and divided once (Nguyen et al. 2021, arXiv:2010.15327), so
  the value hardly depends on the batch size; unrelated layers score 0 within noise, which may be negative. The names
  are "<tap of the reference>~<tap of the network>", and "mean" is over the pairs.

  Attributes:
    reference: label in config.references, or "input" for the input itself.
    taps, reference_taps: as `nurture.core.taps.select` takes them.
    pairs: as guidance pairs layers, by a rule or one by one (see nurture.transforms.losses.layer_maps); "all" is the
      whole matrix.
    split: "train", "validation" or "test".
    limit: takes the first examples only; 0 takes all. Batches need at least 4 examples.
  """

  reference: str
  taps: str | tuple[str, ...] = "pre"
  reference_taps: str | tuple[str, ...] = "pre"
  pairs: LayerMap | Literal["all"] = "uniform"
  split: str = "test"
  limit: Whole = 1000

  def __post_init__(self):
    check_layer_map(self.pairs)

  def prepare(self, spec: ProbeSpec, key: jax.Array) -> list[Batch]:
    """Returns the split's batches.

    Raises:
      UserError: if they are too small for an unbiased estimate.
    """
    batches = super().prepare(spec, key)
    if len(batches[0]["weight"]) < 4:
      raise UserError("the probe 'representation' needs batches of at least 4 examples; raise its limit, or "
                      "config.evaluation.batch_size.")
    return batches

  def __call__(self, net: Network, variables: Tree, piece: Batch) -> dict[str, Tree]:
    """Returns the sums of HSIC of every pair over one batch."""
    if self.reference == "input":
      theirs = {"000_input": net.inputs(piece)}
    else:
      reference = outputs_of(net.references(piece), self.reference, f"the probe {self.name!r}", others=["input"])
      theirs = select(reference.taps, self.reference_taps)
    mine = select(net.apply(variables, net.inputs(piece)).taps, self.taps)
    features = lambda tap: flatten(tap).astype(jnp.float32)
    if self.pairs == "all":
      pairs = tuple((a, b) for a in theirs for b in mine)
    else:
      pairs = layer_pairs(list(theirs), list(mine), self.pairs)
    return {f"{a}~{b}": hsic_sums(features(theirs[a]), features(mine[b]), piece["weight"]) for a, b in pairs}

  def finish(self, sums: dict[str, Tree]) -> dict[str, jax.Array]:
    """Returns {"<tap of the reference>~<tap of the network>": CKA, "mean"}."""
    values = {pair: cka_of_sums(entry) for pair, entry in sums.items()}
    return {**values, "mean": jnp.mean(jnp.stack(list(values.values())))}
