"""Guidance: the representations of a network are drawn towards those of another one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp

from lib.core import Context, DataSpec, Outputs, UserError
from lib.core.build import lookup, suggest
from lib.core.taps import select
from lib.similarity import MEASURES, Gram, flatten, gram
from lib.transforms.losses.layer_maps import LayerMap, check_layer_map, layer_pairs

INPUT = "input"  # the name that stands for the batch itself as a guide of one tap


@dataclasses.dataclass(frozen=True)
class Guidance:
  """The dissimilarity of pairs of layers, of the network and of a frozen guide, on the batch:

      L = sum_{(g, t)} d(A_g^guide, A_t^target),      d = 1 - CKA for the default measure

  Samples are the examples of the batch; everything else of an activation is features. The guide is whatever
  config.references has under its label: trained or not, run in the step or looked up in a cache of Gram matrices.
  The paper's alpha is the term's weight, and may be a schedule. "stop_step" releases the network: from then on the
  guide is not computed. "start_step" on the cross-entropy makes a phase that only aligns, and the augmentation
  "noise_input" with the same "stop_step" one that aligns on noise.

  Args:
    reference: label of the guide in config.references; "input" compares with the batch's own input, as a control.
    measure: a row of `lib.similarity.MEASURES` that is differentiable.
    taps: of the target, as `lib.core.taps.select` takes them. "pre" is what goes into the activations; the official
      code takes what comes out of convolutions and dense layers, "conv" or "dense": another thing where a normalization
      follows.
    guide_taps: of the guide; a guide in a cache has those that it keeps, whatever this says.
    layer_map: how they are paired: see `layer_maps.layer_pairs`.
    reduction: "sum" over the pairs, as in the paper, so that the term grows with their number; or "mean".

  The value of biased CKA depends on the batch size n (unrelated features of d dimensions score d / (d + n)), so n is
  part of the method. In an evaluation the padding of the last batch counts: limit it to full batches.

  Differs from the official code: one forward pass of the target for both terms, with one dropout mask and one update of
  batch statistics; the guide always in evaluation mode unless its `batch_norm` says otherwise; the batch axis is
  the first of every tap, never found by its size.

  Reference: Subramaniam et al. 2024, arXiv:2410.20035, eq. 1.
  """

  reference: str
  measure: str = "linear_cka"
  taps: str | tuple[str, ...] = "pre"
  guide_taps: str | tuple[str, ...] = "pre"
  layer_map: LayerMap = "uniform"
  reduction: Literal["sum", "mean"] = "sum"

  def __post_init__(self):
    measure = lookup(MEASURES, self.measure)
    if not measure.differentiable:
      known = ", ".join(name for name, row in MEASURES.items() if row.differentiable)
      raise ValueError(f"the measure {self.measure!r} has no useful gradient; use one of {known}")
    check_layer_map(self.layer_map)

  def init(self, spec: DataSpec) -> tuple[()]:
    del spec
    return ()

  def apply(self, state: tuple[()], ctx: Context) -> tuple[jax.Array, tuple[()]]:
    values = self.dissimilarities(ctx.outputs, self.guide(ctx.references, ctx.batch))
    total = jnp.sum(jnp.stack(list(values.values())))
    return (total / len(values) if self.reduction == "mean" else total).astype(jnp.float32), state

  def guide(self, references: Mapping[str, Outputs], batch: Mapping[str, jax.Array]) -> Outputs:
    """Returns the outputs of the guide.

    Raises:
      UserError: if config.references has no such label.
    """
    if self.reference != INPUT:
      if self.reference in references:
        return references[self.reference]
      known = suggest(self.reference, [*references, INPUT])
      raise UserError(f"guidance reads the reference {self.reference!r}; {known}; add it to config.references.")
    inputs = batch["image"] if "image" in batch else batch["tokens"]
    return Outputs(inputs, {"000_input": inputs.astype(jnp.float32)})

  def dissimilarities(self, target: Outputs, guide: Outputs) -> dict[tuple[str, str], jax.Array]:
    """Returns {(tap of the guide, tap of the target): [] dissimilarity}, differentiable in the target only."""
    measure = MEASURES[self.measure]
    if not guide.taps:
      raise UserError(f"the cache of the reference {self.reference!r} keeps no taps; make it taps such as 'pre'.")
    mine = self._select(target.taps, self.taps, "taps of the target")
    cached = any(isinstance(tap, Gram) for tap in guide.taps.values())
    if cached and not measure.accepts_gram:
      known = ", ".join(name for name, row in MEASURES.items() if row.accepts_gram and row.differentiable)
      raise UserError(f"the measure {self.measure!r} needs features, and config.references.{self.reference}.cache "
                      f"keeps Gram matrices; set the cache to '', or take one of {known}.")
    whole = cached or self.reference == INPUT
    theirs = guide.taps if whole else self._select(guide.taps, self.guide_taps, "guide_taps")
    prepared: dict[tuple[str, str], Any] = {}  # what several pairs share is computed once

    def prepare(side, name, tap):
      if (side, name) not in prepared:
        prepared[side, name] = _prepare(tap, measure.accepts_gram, len(target.logits), name)
      return prepared[side, name]

    values = {}
    for theirs_name, mine_name in layer_pairs(sorted(theirs), sorted(mine), self.layer_map):
      x = jax.lax.stop_gradient(prepare("guide", theirs_name, theirs[theirs_name]))
      y = prepare("target", mine_name, mine[mine_name])
      values[theirs_name, mine_name] = measure.dissimilarity(x, y)
    return values

  def _select(self, taps: Mapping[str, Any], which: str | tuple[str, ...], field: str) -> dict[str, Any]:
    try:
      return select(taps, which)
    except UserError as error:
      raise UserError(f"guidance: {field}: {error}") from error


def _prepare(tap: Any, as_gram: bool, batch_size: int, name: str) -> Any:
  """Returns a tap as its Gram matrix where the measure takes one, else as features [B, D] in float32."""
  if isinstance(tap, Gram):
    return tap
  if tap.shape[0] != batch_size:
    raise UserError(f"the tap {name} has {tap.shape[0]} rows for a batch of {batch_size}; the first axis of a tap must "
                    "be the examples of the batch.")
  features = flatten(tap).astype(jnp.promote_types(tap.dtype, jnp.float32))
  return gram(features) if as_gram and features.shape[0] <= features.shape[1] else features
