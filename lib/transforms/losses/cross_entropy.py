"""Cross-entropy with soft targets."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from lib.core import Context, DataSpec
from lib.transforms.losses.positions import per_example


@dataclasses.dataclass(frozen=True)
class CrossEntropy:
  """The cross-entropy of the targets and the model's probabilities, in nats:

      L_i = -sum_k t_ik log softmax(z_i)_k

  Logits z and targets t are [B, K], or [B, T, K] with the mean over the positions that have a target. float32 in
  any dtype. A class without target mass adds nothing, even at a logit of -inf.
  """

  def init(self, spec: DataSpec) -> tuple[()]:
    del spec
    return ()

  def apply(self, state: tuple[()], ctx: Context) -> tuple[jax.Array, tuple[()]]:
    log_p = jax.nn.log_softmax(ctx.outputs.logits.astype(jnp.float32))
    terms = jnp.where(ctx.targets > 0, ctx.targets * log_p, 0.0)
    return per_example(-jnp.sum(terms, axis=-1), ctx.targets), state
