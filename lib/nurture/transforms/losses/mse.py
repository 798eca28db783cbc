"""Squared error of predictions, logits or probabilities."""

from __future__ import annotations

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from nurture.core import Context, DataSpec
from nurture.transforms.losses.positions import per_example


@dataclasses.dataclass(frozen=True)
class MeanSquaredError:
  """The squared error, mean over the K classes or outputs, without a factor of one half:

      L_i = 1/K sum_k (f(z_i)_k - t_ik)^2

  With f = softmax it is the Brier score divided by K. Shapes as in cross-entropy; numbers of a regression are [B, K].

  Args:
    on: f, "logits" (the identity) or "probabilities" (the softmax).
  """

  on: Literal["logits", "probabilities"] = "logits"

  tasks = ("classification", "per_position", "generation", "regression")

  def init(self, spec: DataSpec) -> tuple[()]:
    del spec
    return ()

  def apply(self, state: tuple[()], ctx: Context) -> tuple[Float[Array, " B"], tuple[()]]:
    predicted = ctx.outputs.logits.astype(jnp.float32)
    if self.on == "probabilities":
      predicted = jax.nn.softmax(predicted)
    return per_example(jnp.mean(jnp.square(predicted - ctx.targets), axis=-1), ctx.targets), state
