"""Early-learning regularization of two networks by each other's averages (ELR+)."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from nurture.core import Context, DataSpec, Outputs, UserError
from nurture.core.hints import NonNegative, Share, Whole
from nurture.core.references import outputs_of
from nurture.core.schedules import exponential_ramp
from nurture.core.taps import select
from nurture.core.task import ONE_CLASS
from nurture.transforms.losses import target_memory
from nurture.transforms.losses.cross_entropy import CrossEntropy
from nurture.transforms.losses.elr import clamped
from nurture.transforms.losses.example_rows import example_ids

_NETWORKS = ("first", "second")


@dataclasses.dataclass(frozen=True)
class EarlyLearningRegularizationPlus:
  """Early-learning regularization with targets from the other network of a `pair`, for mixed inputs:

      L = sum_k λ log(1 - <p_k, q_k>),    q_k,i = w_i t_k,i + (1 - w_i) t_k,π(i)
      t_1,i <- β t_1,i + (1 - β) softmax(ẑ_2(x_i)),    and with 1 and 2 exchanged

  p_k is what network k says of the mixed input, ẑ_k what it says of the unmixed one with averaged weights. λ log(...)
  stands beside the cross-entropy of both networks with the mixed labels. The pieces of a config:

      model       {"name": "pair", "model": {...}}
      parameters  {"average": {"name": "ema", "decay": 0.997}}
      references  {"average": {"model": {}, "parameters": "average", "view": "unmixed", "batch_norm": "batch"}}
      augment     {"mix": {"name": "mixup", "alpha": 1.0, "symmetric": False}}
      losses      {"ce": {"name": "cross_entropy", "of": "members", ...}, "elr": {"name": "elr_plus", ...}}

  With `multiply_labels`, as on CIFAR-100, the term holds the cross-entropy H too, and `losses` has no other one:

      L = sum_k H(y_k, p_k) + λ log(1 - <p_k, q_k>),    y_k,c = y_c q_k,c / sum_j y_j q_k,j

  y are the mixed labels, so that of the two classes in a mixture the one that the memory believes in counts more. Where
  q is 0 on both, y_k is y.

  The state is t of both, [num_examples, K] float32 each, from 0.

  Args:
    lam: λ; may be traced.
    beta: β in [0, 1]; may be traced.
    reference: label of the reference that runs the pair with averaged weights.
    multiply_labels: see above.
    ramp_steps: S > 0 makes λ rise as exp(-5 (1 - s / S)^2) until step S; on CIFAR-100 it is 40,000.

  Raises:
    UserError: for a model that is not a pair, a missing reference, or a batch without "id".

  Differs from the official code: both networks share one split, one draw of the label noise and one draw of the mixup.
  There each has its own, so that one sees a second noisy label of what the other one learns, and images that the other
  is validated on. The averaged weights begin as the networks', not as other random ones. There 100 classes are what
  switches `multiply_labels` on.

  Differs from the paper: there labels are multiplied before the mixup, where a one-hot label stays what it is; here, as
  in the code, after it.

  Reference: Liu et al. 2020, arXiv:2007.00151, section 4.3 and appendix G.
  """

  lam: NonNegative = 3.0
  beta: Share = 0.7
  reference: str = "average"
  multiply_labels: bool = False
  ramp_steps: Whole = 0

  tasks = ONE_CLASS

  def init(self, spec: DataSpec) -> dict[str, target_memory.Memory]:
    return {name: target_memory.empty(spec) for name in _NETWORKS}

  def apply(self, memory: dict[str, target_memory.Memory], ctx: Context) -> tuple[Float[Array, " B"], dict]:
    ids = example_ids(ctx, "ELR+")
    fix = "add it to config.references, with the averaged parameters of the pair"
    reference = outputs_of(ctx.references, self.reference, "ELR+", fix=fix)
    logits = _both(ctx.outputs.taps, "config.model")
    averaged = _both(reference.taps, f"config.references.{self.reference}")
    lam = self.lam * exponential_ramp(self.ramp_steps)(ctx.step) if self.ramp_steps else self.lam
    total: Any = 0.0
    memories = {}
    for k, name in enumerate(_NETWORKS):
      other = _softmax(averaged[1 - k])
      t, _, memories[name] = target_memory.update(memory[name], ids, other, self.beta)
      if "mix_index" in ctx.batch:
        weight = ctx.batch["mix_weight"][:, None]
        t = weight * t + (1 - weight) * t[ctx.batch["mix_index"]]
      total = total + lam * jnp.log1p(-jnp.sum(clamped(_softmax(logits[k])) * t, axis=-1))
      if self.multiply_labels:
        alone = dataclasses.replace(ctx, targets=_multiplied(ctx.targets, t), outputs=Outputs(logits[k], {}))
        total = total + CrossEntropy().apply((), alone)[0]
    return total, memories


def _multiplied(labels: Float[Array, "B K"], t: Float[Array, "B K"]) -> Float[Array, "B K"]:
  """Returns the labels [B, K] times t, scaled to sum 1; as they were where nothing is left of them."""
  product = labels * t
  mass = jnp.sum(product, axis=-1, keepdims=True)
  return jnp.where(mass > 0, product / jnp.where(mass > 0, mass, 1.0), labels)


def _softmax(logits: Float[Array, "B K"]) -> Float[Array, "B K"]:
  return jax.nn.softmax(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)))


def _both(taps: dict[str, Shaped[Array, "B ..."]], path: str) -> list[Float[Array, "B K"]]:
  try:
    found = list(select(taps, "logits").values())
  except UserError:
    found = []
  if len(found) != 2:
    raise UserError(f"ELR+ trains two networks, but {path} is one; make it {{'name': 'pair', 'model': ...}}.")
  return found
