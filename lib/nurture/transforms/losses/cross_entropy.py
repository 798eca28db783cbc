"""Cross-entropy with soft targets."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from nurture.core import Context, DataSpec, UserError
from nurture.core.taps import kind
from nurture.core.task import CLASSES
from nurture.transforms.losses.positions import per_example


@dataclasses.dataclass(frozen=True)
class CrossEntropy:
  """The cross-entropy of the targets and the model's probabilities, in nats:

      L_i = -sum_k t_ik log softmax(z_i)_k

  Logits z and targets t are [B, K], or [B, T, K] with the mean over the positions that have a target. float32 in
  any dtype. A class without target mass adds nothing, even at a logit of -inf.

  Args:
    of: "logits", those of the model; "members", the sum over the networks of a `pair`, of which each has its own logits
      and so learns as if it were alone.
  """

  of: Literal["logits", "members"] = "logits"

  tasks = CLASSES

  def init(self, spec: DataSpec) -> tuple[()]:
    del spec
    return ()

  def apply(self, state: tuple[()], ctx: Context) -> tuple[Float[Array, " B"], tuple[()]]:
    several = [ctx.outputs.logits]
    if self.of == "members":
      several = [tap for name, tap in sorted(ctx.outputs.taps.items()) if kind(name) == "logits"]
      if not several:
        raise UserError("cross-entropy of 'members' needs a model of several networks, such as 'pair'; choose one, or "
                        "set of='logits'.")
    total: Any = sum(per_example(_cross_entropy(logits, ctx.targets), ctx.targets) for logits in several)
    return total, state


def _cross_entropy(logits: Float[Array, "B *T K"], targets: Float[Array, "B *T K"]) -> Float[Array, " B *T"]:
  # optax.losses.safe_softmax_cross_entropy has the same values, but rounds the gradient in other places.
  log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
  return -jnp.sum(jnp.where(targets > 0, targets * log_p, 0.0), axis=-1)
