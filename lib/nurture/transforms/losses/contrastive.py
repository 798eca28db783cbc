"""The contrast of two views of an example with those of the other examples of a batch."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from nurture.core import Context, DataSpec


@dataclasses.dataclass(frozen=True)
class Contrastive:
  """The cross-entropy of which views belong together, in both directions, in nats:

      L_i = 1/2 (H(t_i, softmax_j s_ij) + H(t'_i, softmax_j s_ji))

  s [B, B] are the similarities that the model predicts, i of the first view and j of the second; t_i shares 1 among the
  second views that belong to the first view of i, t'_i among the first views that belong to its second one. Padded
  examples are in no softmax.

  Reference: van den Oord et al. 2018, arXiv:1807.03748 (InfoNCE); Radford et al. 2021, arXiv:2103.00020, figure 3 (both
  directions), where each example belongs to itself alone.
  """

  tasks = ("pairs",)

  def init(self, spec: DataSpec) -> tuple[()]:
    del spec
    return ()

  def apply(self, state: tuple[()], ctx: Context) -> tuple[Float[Array, " B"], tuple[()]]:
    similarity = ctx.outputs.logits.astype(jnp.float32)
    counts = ctx.batch["weight"] > 0
    forward = _cross_entropy(similarity, ctx.targets > 0, counts)
    backward = _cross_entropy(similarity.T, ctx.targets.T > 0, counts)
    return 0.5 * (forward + backward), state


def _cross_entropy(
  similarity: Float[Array, "B B"], together: Bool[Array, "B B"], counts: Bool[Array, " B"]
) -> Float[Array, " B"]:
  together = together & counts[None, :]
  log_p = jax.nn.log_softmax(jnp.where(counts[None, :], similarity, -jnp.inf), axis=-1)
  number = jnp.maximum(jnp.sum(together, axis=-1), 1).astype(jnp.float32)
  return -jnp.sum(jnp.where(together, log_p, 0.0), axis=-1) / number
