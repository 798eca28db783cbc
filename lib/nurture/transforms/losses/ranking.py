"""The order of labels within a batch, learned from pairs."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from nurture.core import Context, DataSpec


@dataclasses.dataclass(frozen=True)
class Ranking:
  """The logistic loss of the order of pairs, for each example i over those below it:

      L_i = sum_j [t_i > t_j] log(1 + exp(f_j - f_i)) / #{j: t_i > t_j}

  and the mean over the D outputs. Only the order of the labels t counts; predictions f are scores of no unit. An
  example below which there is none has the loss 0. Pairs are within a batch; padded examples are in none.

  f and t are [B, D].

  Differs from the paper: the mean is over the pairs of an example instead of over all pairs of a query, and a batch is
  one query.

  Reference: Burges et al. 2005, "Learning to rank using gradient descent" (RankNet), eq. 3 with a known order.
  """

  tasks = ("regression",)

  def init(self, spec: DataSpec) -> tuple[()]:
    del spec
    return ()

  def apply(self, state: tuple[()], ctx: Context) -> tuple[Float[Array, " B"], tuple[()]]:
    score, target = ctx.outputs.logits.astype(jnp.float32), ctx.targets
    counts = (ctx.batch["weight"] > 0)[None, :, None]
    below = (target[:, None, :] > target[None, :, :]) & counts  # [B, B, D]
    loss = jnp.where(below, jax.nn.softplus(score[None, :, :] - score[:, None, :]), 0.0)
    number = jnp.sum(below, axis=1)
    return jnp.mean(jnp.sum(loss, axis=1) / jnp.maximum(number, 1).astype(jnp.float32), axis=-1), state
