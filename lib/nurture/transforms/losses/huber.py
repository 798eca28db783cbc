"""Huber's loss: squared for small errors, absolute for large ones."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from nurture.core import Context, DataSpec
from nurture.core.hints import Positive


@dataclasses.dataclass(frozen=True)
class Huber:
  """The mean over the D outputs of

      e^2 / 2                 for |e| <= delta,    e = f(x) - t
      delta (|e| - delta / 2)    for larger errors

  Predictions f(x) and targets t are [B, D], in the unit in which the task compares them: with
  `config.data.normalize_labels = "standardize"`, standard deviations of the labels.

  Args:
    delta: where the loss turns from squared to absolute; may be traced.

  Reference: Huber 1964, "Robust estimation of a location parameter".
  """

  delta: Positive = 1.0

  tasks = ("regression",)

  def init(self, spec: DataSpec) -> tuple[()]:
    del spec
    return ()

  def apply(self, state: tuple[()], ctx: Context) -> tuple[Float[Array, " B"], tuple[()]]:
    predicted = ctx.outputs.logits.astype(jnp.float32)
    delta = jnp.asarray(self.delta, jnp.float32)
    return jnp.mean(optax.losses.huber_loss(predicted, ctx.targets, delta=delta), axis=-1), state
