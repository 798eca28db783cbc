"""Counts of how often each example is learned and forgotten in the course of training."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from nurture.core import Context, DataSpec
from nurture.core.task import ONE_CLASS
from nurture.transforms.losses.example_rows import example_ids, read_rows, write_rows


@dataclasses.dataclass(frozen=True)
class ForgettingEvents:
  """Counts forgetting events, and adds nothing to the loss: its value is 0.

  An example has a forgetting event when the largest logit names its label at one presentation and not at the next,
  by the predictions that training makes: before the update, on the augmented example, in training mode. The label is
  the one that is trained on, right or wrong, before any target transform. The probe "forgetting" reads the state:

      presented  [n] int32    presentations so far
      correct    [n] bool     whether the last one was correct
      learned    [n] bool     whether any was
      forgotten  [n] int32    forgetting events

  Raises:
    UserError: for logits of sequences, or a batch without "id".

  Reference: Toneva et al. 2019, arXiv:1812.05159, section 3.
  """

  tasks = ONE_CLASS

  def init(self, spec: DataSpec) -> dict[str, Shaped[Array, " n"]]:
    zeros = lambda dtype: jnp.zeros(spec.num_examples, dtype)
    return {
      "presented": zeros(jnp.int32), "correct": zeros(jnp.bool), "learned": zeros(jnp.bool),
      "forgotten": zeros(jnp.int32),
    }

  def apply(
    self, state: dict[str, Shaped[Array, " n"]], ctx: Context
  ) -> tuple[Float[Array, ""], dict[str, Shaped[Array, " n"]]]:
    ids = example_ids(ctx, "the count of forgetting events")
    correct = jnp.argmax(ctx.outputs.logits, axis=-1) == ctx.batch["label"]
    before = {name: read_rows(table, ids) for name, table in state.items()}
    now = {
      "presented": before["presented"] + 1,
      "correct": correct,
      "learned": before["learned"] | correct,
      "forgotten": before["forgotten"] + (before["correct"] & ~correct),
    }
    return jnp.float32(0.0), {name: write_rows(table, ids, now[name]) for name, table in state.items()}
