"""States of loss terms that hold a row for each example: how rows are found, read and written."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Shaped

from nurture.core import Context, UserError


def example_ids(ctx: Context, term: str) -> Int[Array, " B"]:
  """Returns the ids [B] of a batch of single predictions.

  Raises:
    UserError: for the logits of a sequence, or a batch without ids; `term` names who needs them.
  """
  if ctx.outputs.logits.ndim != 2:
    raise UserError(
      f"{term} keeps one prediction an example, but the logits have the shape {ctx.outputs.logits.shape}; "
      "take a model with logits [B, K], or remove the term."
    )
  if "id" not in ctx.batch:
    raise UserError(f"{term} keeps a row an example, but the batch has no 'id'; add the examples' ids [B] to it.")
  return ctx.batch["id"]


def read_rows(table: Shaped[Array, "n ..."], ids: Int[Array, " B"], fill: float = 0) -> Shaped[Array, "B ..."]:
  """Returns the rows of some examples, [B, ...]; `fill` for an id outside of the table, such as the -1 of padding."""
  return table.at[_inside_or_beyond(table, ids)].get(mode="fill", fill_value=fill)


def write_rows(
  table: Shaped[Array, "n ..."], ids: Int[Array, " B"], rows: Shaped[Array, "B ..."]
) -> Shaped[Array, "n ..."]:
  """Returns the table with the rows of some examples replaced; an id outside of the table is dropped.

  Which of two rows with one id stays is not defined. Batches of training have no id twice: each lies within one epoch,
  which draws without replacement.
  """
  return table.at[_inside_or_beyond(table, ids)].set(rows.astype(table.dtype), mode="drop")


def _inside_or_beyond(table: jax.Array, ids: jax.Array) -> jax.Array:
  return jnp.where(ids < 0, table.shape[0], ids)  # an index below 0 would count from the end
