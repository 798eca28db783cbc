"""The divergence from each prediction's running average: the alternative that early-learning regularization beats."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from nurture.core import Context, DataSpec
from nurture.core.hints import NonNegative, Share
from nurture.core.task import ONE_CLASS
from nurture.transforms.losses import target_memory
from nurture.transforms.losses.example_rows import example_ids


@dataclasses.dataclass(frozen=True)
class TargetDivergence:
  """Pulls each prediction towards its own running average by the Kullback-Leibler divergence, in nats:

      L_i = λ s_i KL(t_i / s_i || p_i) = λ sum_c t_ic log(t_ic / (s_i p_ic)),    t_i <- β t_i + (1 - β) p_i

  with p = softmax(z) and the new t_i, a constant to the gradient dL_i/dz = λ (s_i p_i - t_i). s_i = sum_c t_ic is
  1 - β^k after k visits: t starts at 0. Where p has arrived at t the gradient vanishes, so it delays memorization
  and does not prevent it. β = 0 is no regularizer, up to
  rounding. State, ids and errors as in early-learning regularization.

  Args:
    lam: λ, at least 0; may be traced.
    beta: β in [0, 1]; may be traced.

  Raises:
    UserError: for logits of sequences, or a batch without "id".

  Differs from the paper: the entropy of t and the factor s are written out, which makes the value 0 at p = t / s and
  nowhere negative, up to rounding. The gradient is that of the paper's sum once s is 1.

  Reference: Liu et al. 2020, arXiv:2007.00151, appendix C.
  """

  lam: NonNegative = 1.0
  beta: Share = 0.7

  tasks = ONE_CLASS

  def init(self, spec: DataSpec) -> target_memory.Memory:
    return target_memory.empty(spec)

  def apply(self, memory: target_memory.Memory, ctx: Context) -> tuple[Float[Array, " B"], target_memory.Memory]:
    ids = example_ids(ctx, "the divergence from the targets")
    logits = ctx.outputs.logits
    log_p = jax.nn.log_softmax(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)))
    t, _, memory = target_memory.update(memory, ids, jnp.exp(log_p), self.beta)
    log_mass = jnp.log(jnp.where(t > 0, jnp.sum(t, axis=-1, keepdims=True), 1.0))
    log_t = jnp.log(jnp.where(t > 0, t, 1.0))
    return self.lam * jnp.sum(jnp.where(t > 0, t * (log_t - log_mass - log_p), 0.0), axis=-1), memory
