"""The discriminator of MEAL V2: a small network that tells students from teachers, trained inside a loss term."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from nurture.core import Context, DataSpec
from nurture.core.hints import Count, Memory, NonNegative, Seed
from nurture.core.task import CLASSES
from nurture.transforms.losses.positions import per_example
from nurture.transforms.teachers import check_teachers, teacher_logits

Params = Mapping[str, Mapping[str, jax.Array]]
_STUDENT, _TEACHER = (1.0, 0.0), (0.0, 1.0)  # what D is to answer


@dataclasses.dataclass(frozen=True)
class Discriminator:
  """A network D maps logits to two numbers and learns to answer (1, 0) to the student, (0, 1) to the teachers' mean:

      L_D = 1/2 BCE(D(z), (1, 0)) + 1/2 BCE(D(1/M sum_m z_m), (0, 1))

  BCE is the binary cross-entropy of the logistic function of each number, mean of the two. D has dense layers
  K -> K/8 -> K/64 -> 2 with ReLU between them. It is the term's state and descends on L_D by SGD with momentum, one
  step a call, outside the model's optimizer and the term's weight; the student sees D as it was before the step, and D
  sees the student's logits as constants. The student's value is

      published     L_D itself, as in the official code: the student is pushed to be told from the teachers
      adversarial   1/2 BCE(D(z), (0, 1)), pushed to be taken for them: the non-saturating loss of Goodfellow et al.
                    2014, arXiv:1406.2661, whose gradient does not vanish where D is sure

  D starts from U(-1/sqrt(fan_in), 1/sqrt(fan_in)) drawn from `seed`, the same for every member of an ensemble.

  Differs from the official code: there the flag for D's learning rate has no effect and D trains at the student's rate,
  with its momentum; and D's two numbers pass a ReLU, here only with final_relu=True. Such a D answers at least 1/2 to
  both, and once both are cut off its loss is log 2 without a gradient.

  Args:
    teachers: labels of config.references.
    form: see above; the papers' words and code differ, so there is no default.
    learning_rate: of D; may be traced.
    momentum: of D, in [0, 1); may be traced.
    hidden: units of D's hidden layers; () is (K/8, K/64), rounded down, the published (125, 15) for 1,000 classes, and
      at least 8: layers of one or two ReLUs are often dead from the start.
    final_relu: see above.
    seed: of D's initial weights.

  Raises:
    UserError: (in apply) for a teacher that does not exist or has other classes or positions.

  Reference: Shen & Savvides 2020, arXiv:2009.08453.
  """

  teachers: tuple[str, ...]
  form: Literal["published", "adversarial"]
  learning_rate: NonNegative = 0.01
  momentum: Memory = 0.9
  hidden: tuple[Count, ...] = ()
  final_relu: bool = False
  seed: Seed = 0

  tasks = CLASSES

  def __post_init__(self):
    check_teachers(self.teachers)

  def init(self, spec: DataSpec) -> dict[str, Params]:
    """Returns {"params", "momentum"} of D."""
    hidden = self.hidden or (max(8, spec.num_classes // 8), max(8, spec.num_classes // 64))
    sizes = (spec.num_classes, *hidden, 2)
    keys = jax.random.split(jax.random.key(self.seed), len(sizes) - 1)
    params = {f"dense_{i}": _dense(key, *sizes[i : i + 2]) for i, key in enumerate(keys)}
    return {"params": params, "momentum": jax.tree.map(jnp.zeros_like, params)}

  def apply(self, state: dict[str, Params], ctx: Context) -> tuple[Float[Array, " B"], dict[str, Params]]:
    student = ctx.outputs.logits.astype(jnp.float32)
    teacher = jnp.mean(teacher_logits(ctx, self.teachers, ctx.targets.shape), axis=0).astype(jnp.float32)
    params = jax.lax.stop_gradient(state["params"])

    def loss_of(params: Params, student: jax.Array) -> jax.Array:
      wrong = self._bce(params, student, _STUDENT) + self._bce(params, teacher, _TEACHER)
      return per_example(0.5 * wrong, ctx.targets)

    def mean_loss(params: Params) -> jax.Array:
      weight = ctx.batch["weight"]
      return jnp.sum(loss_of(params, jax.lax.stop_gradient(student)) * weight) / jnp.sum(weight)

    gradient = jax.grad(mean_loss)(params)
    momentum = jax.tree.map(lambda m, g: self.momentum * m + g, state["momentum"], gradient)
    new_params = jax.tree.map(lambda p, m: p - self.learning_rate * m, params, momentum)
    if self.form == "published":
      value = loss_of(params, student)
    else:
      value = per_example(0.5 * self._bce(params, student, _TEACHER), ctx.targets)
    return value, {"params": new_params, "momentum": momentum}

  def _bce(self, params: Params, logits: jax.Array, answer: tuple[float, float]) -> jax.Array:
    """Returns how far D's answer is from the right one, [..., K] -> [...]."""
    x = logits
    for i in range(len(params)):
      x = x @ params[f"dense_{i}"]["kernel"] + params[f"dense_{i}"]["bias"].reshape((1,) * (x.ndim - 1) + (-1,))
      if self.final_relu or i < len(params) - 1:
        x = jax.nn.relu(x)
    return jnp.mean(optax.sigmoid_binary_cross_entropy(x, jnp.broadcast_to(jnp.array(answer), x.shape)), axis=-1)


def _dense(key: jax.Array, fan_in: int, units: int) -> dict[str, jax.Array]:
  bound = fan_in**-0.5
  kernel, bias = jax.random.split(key)
  draw = lambda key, shape: jax.random.uniform(key, shape, jnp.float32, -bound, bound)
  return {"kernel": draw(kernel, (fan_in, units)), "bias": draw(bias, (units,))}
