"""A small batch of every task, as target transforms and loss terms get it."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nurture.core import Context, DataSpec, Outputs, Task
from nurture.data.tasks import Classification, Generation, Pairs, PerPosition, Regression

B, T, K = 4, 3, 5  # examples, positions, classes
IDS = np.array([7, 0, 3, 8], np.int32)
_NAMES = tuple("abcde")
_TASKS: tuple[Task, ...] = (
  Classification(_NAMES), PerPosition(_NAMES), Generation(_NAMES), Regression(_NAMES), Pairs(),
)
SPECS = {task.name: DataSpec(task, 9, B, {"image": (2,)}) for task in _TASKS}
_POSITIONS = [[0, 1, -1], [2, 3, 4], [1, -1, -1], [4, 0, 2]]
LABELS: dict[str, Any] = {
  "classification": [0, 3, 1, 4], "per_position": _POSITIONS, "generation": _POSITIONS, "pairs": [2, 0, 2, 1],
  "regression": np.array([[0, 3, 1, 4, -1], [0.5, 3, 2, -4, 0], [1, 1, 1, 1, 1], [-2, 0, 5, 1, 2]], np.float32),
}


def tasks_to_check(served: tuple[str, ...], task: str | None) -> tuple[str, ...]:
  """Returns the given task, or those that are served; "generation" has the arrays of "per_position"."""
  if task is not None:
    return (task,)
  return tuple(name for name in served if name != "generation" or "per_position" not in served)


def logits_of(task: str = "classification", dtype: Any = jnp.float32) -> jax.Array:
  """Returns predictions of the shape that a task asks for."""
  shape = {"per_position": (B, T, K), "generation": (B, T, K), "pairs": (B, B)}.get(task, (B, K))
  return (2 * jax.random.normal(jax.random.key(1), shape, jnp.float32)).astype(dtype)


def outputs_of(logits: jax.Array) -> Outputs:
  """Returns what a network of two, as ELR+ trains it, would return."""
  return Outputs(logits, {"000_dense": logits, "001_first.logits": logits, "002_second.logits": -logits})


def context(
  logits: jax.Array, task: str = "classification", weight: jax.Array | None = None, ids: jax.Array | None = None
) -> Context:
  """Returns the context of a step. References are called "teacher" and "guide"; both are the same.

  Args:
    logits: predictions of the model.
    task: of the data.
    weight: [B]; None is 1 for each example.
    ids: [B]; None is IDS.
  """
  labels = jnp.asarray(LABELS[task])
  batch = {
    "image": jnp.ones((B, 2)), "label": labels, "true_label": labels, "id": jnp.array(IDS) if ids is None else ids,
    "weight": jnp.ones(B) if weight is None else weight, "mix_index": jnp.array([2, 0, 1, 3]),
    "mix_weight": jnp.full(B, 0.7),
  }
  targets = SPECS[task].task.targets(batch)
  reference = outputs_of(2 * jax.random.normal(jax.random.key(2), logits.shape))
  references = {"teacher": reference, "guide": reference}
  return Context(jnp.int32(3), jax.random.key(0), batch, targets, outputs_of(logits), references, jnp.float32(0.5))


def in_dtype(ctx: Context, dtype: Any) -> Context:
  """Returns a context as training makes it where 64-bit numbers are switched on.

  Logits, references and taps are in the model's dtype, targets and weights in float32, whole numbers in int32.
  """
  outputs, references = jax.tree.map(lambda leaf: leaf.astype(dtype), (ctx.outputs, ctx.references))
  narrow = lambda leaf: leaf.astype({"f": jnp.float32, "i": jnp.int32}[leaf.dtype.kind])
  return dataclasses.replace(
    ctx, outputs=outputs, references=references, targets=narrow(ctx.targets), batch=jax.tree.map(narrow, ctx.batch)
  )
