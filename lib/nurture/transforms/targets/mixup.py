"""The targets' half of mixup."""

from __future__ import annotations

import dataclasses

import jax

from nurture.core import Context


@dataclasses.dataclass(frozen=True)
class Mixup:
  """Mixes the targets as the augmentation "mixup" mixed the images: t_i <- w_i t_i + (1 - w_i) t_π(i).

  π [B] and w [B] are the batch's "mix_index" and "mix_weight". A batch without them was not mixed (that of an
  evaluation), and its targets stay as they are.

  Reference: Zhang et al. 2018, arXiv:1710.09412, eq. 2.
  """

  def __call__(self, ctx: Context, targets: jax.Array) -> jax.Array:
    if "mix_index" not in ctx.batch:
      return targets
    weight = ctx.batch["mix_weight"].reshape(-1, *[1] * (targets.ndim - 1)).astype(targets.dtype)
    # t + (1 - w)(t_π - t) is t itself at w = 1, bit for bit.
    return targets + (1 - weight) * (targets[ctx.batch["mix_index"]] - targets)
