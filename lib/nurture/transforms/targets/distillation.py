"""Targets from the predictions of frozen networks."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from nurture.core import Context
from nurture.core.hints import Positive, Share
from nurture.core.task import CLASSES
from nurture.transforms.teachers import check_teachers, teacher_logits


@dataclasses.dataclass(frozen=True)
class DistillationTargets:
  """Mixes the targets with the mean prediction of M frozen networks, the teachers:

      t <- w t + (1 - w) 1/M sum_m softmax(z_m / T)

  The teachers see the batch that the student sees, augmented and mixed. With the loss cross_entropy this is
  distillation whose student is not softened. Rows that sum to 0 stay 0.

  Transforms apply in the order of the config. Label smoothing before this one smooths the hard part only, after it the
  whole mixture. The augmentation "mixup" has mixed the hard part before: the teachers see the mixed images, so their
  predictions are not mixed again.

  Args:
    teachers: labels of config.references.
    temperature: T > 0 of the teachers; may be traced.
    hard_weight: w in [0, 1]; may be traced. 1 changes no bit.

  Raises:
    UserError: (when called) for a teacher that does not exist or has other classes or positions.

  References: Hinton et al. 2015, arXiv:1503.02531; Shen & Savvides 2020, arXiv:2009.08453 (MEAL V2: several teachers,
  T = 1, w = 0).
  """

  teachers: tuple[str, ...]
  temperature: Positive = 1.0
  hard_weight: Share = 0.0

  tasks = CLASSES

  def __post_init__(self):
    check_teachers(self.teachers)

  def __call__(self, ctx: Context, targets: Float[Array, "B *T K"]) -> Float[Array, "B *T K"]:
    logits = teacher_logits(ctx, self.teachers, targets.shape)
    soft = jnp.mean(jax.nn.softmax(logits / self.temperature), axis=0).astype(targets.dtype)
    mass = jnp.sum(targets, axis=-1, keepdims=True)
    return self.hard_weight * targets + (1 - self.hard_weight) * mass * soft
