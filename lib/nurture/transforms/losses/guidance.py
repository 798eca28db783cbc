"""Guidance: the representations of a network are drawn towards those of another one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from nurture.core import Context, DataSpec, Outputs, UserError
from nurture.core.build import lookup
from nurture.core.references import outputs_of
from nurture.core.taps import select
from nurture.similarity import MEASURES, Gram, flatten, gram
from nurture.transforms.losses.layer_maps import LayerMap, check_layer_map, layer_pairs

INPUT = "input"  # the name that stands for the batch itself as a guide of one tap


@dataclasses.dataclass(frozen=True)
class Guidance:
  """The dissimilarity of pairs of layers, of the network and of a frozen guide, on the batch:

      L = sum_{(g, t)} d(A_g^guide, A_t^guided),      d = 1 - CKA for the default measure

  Samples are the examples of the batch; everything else of an activation is features. The guide is whatever
  config.references has under its label: trained or not, run in the step or looked up in a cache of Gram matrices.
  The paper's alpha is the term's weight, and may be a schedule. "stop_step" releases the network: from then on the
  guide is not computed. "start_step" on the cross-entropy makes a phase that only aligns, and the augmentation
  "noise_input" with the same "stop_step" one that aligns on noise.

  Args:
    reference: label of the guide in config.references; "input" compares with the batch's own input, as a control.
    measure: a row of `nurture.similarity.MEASURES` that is differentiable.
    taps: of the guided network, as `nurture.core.taps.select` takes them. "pre" is what goes into the activations. The
      official code takes what comes out of convolutions, dense layers and the last average pool, ("conv",
      "global_avg_pool") or "dense": another thing where a normalization follows.
    guide_taps: of the guide; a guide in a cache has those that it keeps, whatever this says.
    layer_map: how they are paired: see `layer_maps.layer_pairs`.
    reduction: "sum" over the pairs, as in the paper, so that the term grows with their number; or "mean".

  The value of biased CKA depends on the batch size n (unrelated features of d dimensions score d / (d + n)), so n is
  part of the method. In an evaluation the padding of the last batch counts: limit it to full batches.

  Differs from the official code: one forward pass of the guided network for both terms, with one dropout mask and one
  update of batch statistics. The guide is always in evaluation mode unless its `batch_norm` says otherwise. The batch
  axis is the first of every tap, never found by its size.

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

  def apply(self, state: tuple[()], ctx: Context) -> tuple[Float[Array, ""], tuple[()]]:
    values = self.dissimilarities(ctx.outputs, self.guide(ctx.references, ctx.batch))
    total = jnp.sum(jnp.stack(list(values.values())))
    return (total / len(values) if self.reduction == "mean" else total).astype(jnp.float32), state

  def guide(self, references: Mapping[str, Outputs], batch: Mapping[str, Shaped[Array, "B ..."]]) -> Outputs:
    """Returns the outputs of the guide.

    Raises:
      UserError: if config.references has no such label.
    """
    if self.reference != INPUT:
      return outputs_of(references, self.reference, "guidance", others=[INPUT])
    inputs = batch["image"] if "image" in batch else batch["tokens"]
    return Outputs(inputs, {"000_input": inputs.astype(jnp.float32)})

  def dissimilarities(self, guided: Outputs, guide: Outputs) -> dict[tuple[str, str], Float[Array, ""]]:
    """Returns {(tap of the guide, tap of the guided network): [] dissimilarity}, differentiable in the latter only."""
    measure = MEASURES[self.measure]
    if not guide.taps:
      raise UserError(f"the cache of the reference {self.reference!r} keeps no taps; make it taps such as 'pre'.")
    mine = self._select(guided.taps, self.taps, "taps of the guided network")
    cached = any(isinstance(tap, Gram) for tap in guide.taps.values())
    if cached and not measure.accepts_gram:
      known = ", ".join(name for name, row in MEASURES.items() if row.accepts_gram and row.differentiable)
      raise UserError(f"the measure {self.measure!r} needs features, and config.references.{self.reference}.cache "
                      f"keeps Gram matrices; set the cache to '', or take one of {known}.")
    whole = cached or self.reference == INPUT
    theirs = guide.taps if whole else self._select(guide.taps, self.guide_taps, "guide_taps")
    pairs = layer_pairs(sorted(theirs), sorted(mine), self.layer_map)
    count = len(guided.logits)
    x = {name: _features(theirs[name], name, count) for name in dict.fromkeys(name for name, _ in pairs)}
    y = {name: _features(mine[name], name, count) for name in dict.fromkeys(name for _, name in pairs)}
    x = jax.lax.stop_gradient(x)
    wide = all(f.shape[0] <= f.shape[1] for f in (*x.values(), *y.values()) if not isinstance(f, Gram))
    if not (measure.accepts_gram and (cached or wide)):
      return {(a, b): measure.dissimilarity(x[a], y[b]) for a, b in pairs}
    # All Gram matrices are [B, B], so that all pairs are compared at once: few large operations instead of many.
    x, y = _grams(x), _grams(y)
    stack = lambda grams: Gram(jnp.stack([gram.values for gram in grams]), grams[0].is_centred)
    values = jax.vmap(measure.dissimilarity)(stack([x[a] for a, _ in pairs]), stack([y[b] for _, b in pairs]))
    return dict(zip(pairs, values))

  def _select(self, taps: Mapping[str, Any], which: str | tuple[str, ...], field: str) -> dict[str, Any]:
    try:
      return select(taps, which)
    except UserError as error:
      raise UserError(f"guidance: {field}: {error}") from error


def _features(tap: Any, name: str, count: int) -> Any:
  """Returns a tap as features [B, D] in float32; a Gram matrix as it is."""
  if isinstance(tap, Gram):
    return tap
  if tap.shape[0] != count:
    raise UserError(f"the tap {name} has {tap.shape[0]} rows for a batch of {count}; the first axis of a tap must be "
                    "the examples of the batch.")
  return flatten(tap).astype(jnp.promote_types(tap.dtype, jnp.float32))


def _grams(features: Mapping[str, Any]) -> dict[str, Gram]:
  """Returns the Gram matrix of each; those of features of one shape are computed together."""
  shapes: dict[Any, list[str]] = {}
  for name, x in features.items():
    shapes.setdefault(None if isinstance(x, Gram) else x.shape, []).append(name)
  grams = {name: features[name] for name in shapes.pop(None, ())}
  for names in shapes.values():
    together = jax.vmap(gram)(jnp.stack([features[name] for name in names]))
    grams |= {name: Gram(together.values[i], together.is_centred) for i, name in enumerate(names)}
  return grams
