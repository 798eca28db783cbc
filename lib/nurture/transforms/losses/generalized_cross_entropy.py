"""Generalized cross-entropy, between cross-entropy and the absolute error."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from nurture.core import Context, DataSpec
from nurture.core.hints import Range
from nurture.core.task import CLASSES
from nurture.transforms.losses.positions import per_example


@dataclasses.dataclass(frozen=True)
class GeneralizedCrossEntropy:
  """The negative Box-Cox transform of the probability of the target, a loss that is bounded by 1/q:

      L_i = sum_k t_ik (1 - p_ik^q) / q,    p = softmax(z)

  Its gradient is that of the cross-entropy times p_y^q, with y the label: an example that the network does not believe
  counts less, so a wrong label that contradicts what was learned pulls weakly. q = 1 is 1 - p_y, half of the absolute
  error between p and a one-hot target; q -> 0 is the cross-entropy, -log p_y. At initialization the gradient is K^-q of
  the cross-entropy's (a fifth at K = 10 and q = 0.7), so the learning rate wants tuning along.

  Logits z and targets t are [B, K], or [B, T, K] with the mean over the positions that have a target. float32 in any
  dtype.

  Args:
    q: in (0, 1]; may be traced.

  Differs from the paper: targets may be soft, and the loss is then the mean over labels drawn from them. The truncated
  form of section 3.3, which drops examples of p_y below a threshold, is not here.

  Reference: Zhang and Sabuncu 2018, arXiv:1805.07836, eq. 6.
  """

  q: Annotated[float, Range(above=0, most=1)] = 0.7

  tasks = CLASSES

  def init(self, spec: DataSpec) -> tuple[()]:
    del spec
    return ()

  def apply(self, state: tuple[()], ctx: Context) -> tuple[Float[Array, " B"], tuple[()]]:
    log_p = jax.nn.log_softmax(ctx.outputs.logits.astype(jnp.float32))
    of_label = -jnp.expm1(self.q * log_p) / self.q  # 1 - p^q would round to 0 where p is near 1 or q near 0
    return per_example(jnp.sum(ctx.targets * of_label, axis=-1), ctx.targets), state
