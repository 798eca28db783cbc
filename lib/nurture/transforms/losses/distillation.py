"""Knowledge distillation with a temperature for the teachers and one for the student."""

from __future__ import annotations

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from nurture.core import Context, DataSpec
from nurture.core.hints import Positive
from nurture.core.task import CLASSES
from nurture.transforms.losses.positions import per_example
from nurture.transforms.teachers import check_teachers, log_mean_softmax, teacher_logits


@dataclasses.dataclass(frozen=True)
class Distillation:
  """The divergence of the student from the mean prediction of M frozen networks, the teachers, in nats:

      p_t = 1/M sum_m softmax(z_m / T_t),    p_s = softmax(z / T_s)
      L_i = s KL(p_t || p_s)   or   s H(p_t, p_s),    s = 1   or   s = T_s^2

  KL and cross-entropy differ by the teachers' entropy and have one gradient. L is linear in p_t, so the mean over
  teachers of H is H of their mean. Softening both by T divides the gradient by about T^2,
  which s = T_s^2 undoes; softening the student alone divides it by T_s.

  There is no hard part here: it is the term cross_entropy beside this one, and the two terms' weights are the weights
  of hard and soft. Published settings, as (T_t, T_s, form, scale):

      (T, T, "kl", "t_squared")   Hinton et al. 2015, arXiv:1503.02531, with cross_entropy; Chandrasegaran et al. 2022,
                                  arXiv:2206.14532, without it
      (T, 1, "kl", "none")        Müller et al. 2019, arXiv:1906.02629: only the teacher is softened
      (1, 1, "ce", "none")        Shen et al. 2021, arXiv:2104.00676, and MEAL V2, arXiv:2009.08453

  Shapes as in cross-entropy. float32 from any dtype. A class without teacher mass adds nothing, even at a student's
  logit of -inf.

  Args:
    teachers: labels of config.references.
    teacher_temperature: T_t > 0; may be traced.
    student_temperature: T_s > 0; may be traced.
    scale: see above; papers differ, so there is no default, nor for the temperatures.
    form: see above.

  Raises:
    UserError: (in apply) for a teacher that does not exist or has other classes or positions.
  """

  teachers: tuple[str, ...]
  teacher_temperature: Positive
  student_temperature: Positive
  scale: Literal["none", "t_squared"]
  form: Literal["kl", "ce"] = "kl"

  tasks = CLASSES

  def __post_init__(self):
    check_teachers(self.teachers)

  def init(self, spec: DataSpec) -> tuple[()]:
    del spec
    return ()

  def apply(self, state: tuple[()], ctx: Context) -> tuple[Float[Array, " B"], tuple[()]]:
    log_t = log_mean_softmax(teacher_logits(ctx, self.teachers, ctx.targets.shape), self.teacher_temperature)
    logits = ctx.outputs.logits.astype(jnp.promote_types(ctx.outputs.logits.dtype, jnp.float32))
    log_p = jax.nn.log_softmax(logits / self.student_temperature)
    p_t = jnp.exp(log_t)
    surprise = log_t - log_p if self.form == "kl" else -log_p
    values = jnp.sum(p_t * jnp.where(p_t > 0, surprise, 0.0), axis=-1)
    if self.scale == "t_squared":
      values = self.student_temperature**2 * values
    return per_example(values, ctx.targets), state
