"""Early-learning regularization."""

from __future__ import annotations

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from nurture.core import Context, DataSpec
from nurture.core.hints import NonNegative, Share
from nurture.core.task import ONE_CLASS
from nurture.transforms.losses import target_memory
from nurture.transforms.losses.example_rows import example_ids

SMALLEST = 1e-4  # probability of the clamped form


def clamped(p: Float[Array, "*B K"]) -> Float[Array, "*B K"]:
  """Cuts probabilities to [1e-4, 1 - 1e-4], in their own dtype; outside of it no gradient flows."""
  return jax.lax.clamp(jnp.asarray(SMALLEST, p.dtype), p, jnp.asarray(1 - SMALLEST, p.dtype))


@dataclasses.dataclass(frozen=True)
class EarlyLearningRegularization:
  """Pulls each prediction towards its own running average, so that what was learned early outlasts memorization:

      L_i = λ log(1 - <p_i, t_i>),    t_i <- β t_i + (1 - β) p_i,    p = softmax(z)

  with the new t_i, a constant to the gradient. For the logits z [B, K] that is

      dL_i/dz_c = λ g_c,    g_c = p_c (<p, t> - t_c) / (1 - <p, t>) = softmax_c(log p + log(1 - t)) - p_c   (lemma 2)

  which sums to 0 and raises the class of the largest t_c, with a force of λ p_c where t is one-hot: on a clean label
  long after the cross-entropy has faded, on a wrong one against it. The loss has no lower bound: its value says little.

  The state is t, [num_examples, K] float32 from 0: the regularizer starts weakly, at t = (1 - β) p. Rows are found by
  the batch's "id"; only visited rows change, each once a step, and ids outside of [0, num_examples) are read as t = 0
  and not written. (A test split counts its ids from 0 too, so the term's value there means nothing.) λ = 0 changes no
  gradient. β = 0 has no memory of earlier visits and fails (38 % on CIFAR-10 with 60 % noise in the paper's study of
  the hyper-parameters; the exact form diverges). It is a control, not a mistake.

  Args:
    lam: λ, at least 0; may be traced.
    beta: β in [0, 1]; may be traced.
    form: "clamped" cuts p to [1e-4, 1 - 1e-4] in the inner product, where outside of it no gradient flows, and scales
      the cut p to sum 1 for the average: with p_k above 0.9999 and all others below 1e-4, the regularizer stops.
      "exact" has log(1 - <p, t>) = log sum_c p_c (1 - t_c), stable in the logits and where t is almost 1: it never
      stops.

  Raises:
    UserError: for logits of sequences, or a batch without "id".

  Differs from the paper: "clamped" is the official code's form, "exact" the paper's equation.

  Reference: Liu et al. 2020, arXiv:2007.00151, eq. 6, section 4.
  """

  lam: NonNegative = 3.0
  beta: Share = 0.7
  form: Literal["clamped", "exact"] = "clamped"

  tasks = ONE_CLASS

  def init(self, spec: DataSpec) -> target_memory.Memory:
    return target_memory.empty(spec)

  def apply(self, memory: target_memory.Memory, ctx: Context) -> tuple[Float[Array, " B"], target_memory.Memory]:
    ids = example_ids(ctx, "early-learning regularization")
    logits = ctx.outputs.logits
    log_p = jax.nn.log_softmax(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)))
    if self.form == "exact":
      t, missing, memory = target_memory.update(memory, ids, jnp.exp(log_p), self.beta)
      # A factor of exactly 0 takes its class out of the sum.
      return self.lam * jax.nn.logsumexp(log_p, axis=-1, b=target_memory.complement(t, missing)), memory
    p = clamped(jnp.exp(log_p))
    t, _, memory = target_memory.update(memory, ids, p / jnp.sum(p, axis=-1, keepdims=True), self.beta)
    return self.lam * jnp.log1p(-jnp.sum(p * t, axis=-1)), memory
