"""Tasks: what the labels of a data set are, and what networks predict of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from nurture.core import UserError
from nurture.core.task import Task
from nurture.core.types import is_tokens
from nurture.data.checks import as_int32, check_labels

_FIX = "mend the label, or leave the example out"


@dataclasses.dataclass(frozen=True)
class Classification(Task):
  """One class an example: labels [n] from 0 to K - 1, targets [B, K] one-hot, predictions [B, K] logits.

  Attributes:
    outputs: names of the K classes.

  Raises:
    UserError: for fewer than two classes.
  """

  outputs: tuple[str, ...]

  name: ClassVar[str] = "classification"

  def __post_init__(self):
    if len(self.outputs) < 2:
      raise UserError(f"the classes are {list(self.outputs)}; give at least two to tell apart.")

  def check_labels(self, label: np.ndarray, inputs: Mapping[str, np.ndarray], where: str) -> np.ndarray:
    label = self._whole(label, where)
    if label.ndim > 1:
      raise UserError(f"{where} has labels {label.shape}; give one an example.")
    return check_labels(label, self.num_outputs, where, _FIX)

  def _whole(self, label: np.ndarray, where: str) -> np.ndarray:
    try:
      return as_int32(label, f"the labels of {where}")
    except UserError as error:
      if label.dtype.kind == "f" and np.isfinite(label).all():
        raise UserError(f"{str(error).rstrip('.')}, or choose the task 'regression'.") from error
      raise

  def targets(self, batch: Mapping[str, jax.Array]) -> jax.Array:
    # An ignored position has label -1, whose one-hot row is all zero.
    return jax.nn.one_hot(batch["label"], self.num_outputs, dtype=jnp.float32)


@dataclasses.dataclass(frozen=True)
class PerPosition(Classification):
  """One class at each position of a sequence of tokens: labels [n, T], -1 where nothing is asked.

  Targets are [B, T, K], all zero where nothing is asked, predictions [B, T, K] logits.
  """

  name: ClassVar[str] = "per_position"

  def check_labels(self, label: np.ndarray, inputs: Mapping[str, np.ndarray], where: str) -> np.ndarray:
    label = self._whole(label, where)
    shapes = [values.shape for field, values in inputs.items() if is_tokens(field)]
    if label.shape not in shapes:
      tokens = shapes[0] if shapes else "that are missing"
      raise UserError(f"{where} has labels {label.shape} for tokens {tokens}; give one a token.")
    return check_labels(label, self.num_outputs, where, _FIX, unasked=True)


@dataclasses.dataclass(frozen=True)
class Regression(Task):
  """D numbers an example: labels [n, D] float32, or [n] where D = 1; targets and predictions [B, D].

  Networks predict (label - mean) / std, so that a loss has the same size whatever the unit of the labels; probes give
  their results in the unit of the labels.

  Attributes:
    outputs: names of the D numbers.
    mean, std: D each; () for 0 and 1, the labels as they are.
  """

  outputs: tuple[str, ...]
  mean: tuple[float, ...] = ()
  std: tuple[float, ...] = ()

  name: ClassVar[str] = "regression"

  def standardized(self, label: np.ndarray) -> Regression:
    """Returns the task with the moments of labels [n, D]; what never varies keeps its unit."""
    mean, std = label.mean(axis=0, dtype=np.float64), label.std(axis=0, dtype=np.float64)
    return dataclasses.replace(self, mean=tuple(mean.tolist()), std=tuple(np.where(std > 0, std, 1.0).tolist()))

  def check_labels(self, label: np.ndarray, inputs: Mapping[str, np.ndarray], where: str) -> np.ndarray:
    if label.dtype.kind not in "biuf":
      raise UserError(f"the labels of {where} have the type {label.dtype}; give numbers.")
    given = label[:, None] if label.ndim == 1 else label
    with np.errstate(over="ignore"):
      label = given.astype(np.float32)
    if label.shape[1:] != (self.num_outputs,):
      raise UserError(f"{where} has labels {given.shape}; give {self.num_outputs} numbers an example "
                      f"({', '.join(self.outputs)}).")
    if not np.isfinite(label).all():
      row, column = np.argwhere(~np.isfinite(label))[0]
      number = given[row, column]
      raise UserError(f"{where} gives example {row} the {self.outputs[column]} {number}, which is no finite number of "
                      f"32 bits; {_FIX}.")
    return label

  def targets(self, batch: Mapping[str, jax.Array]) -> jax.Array:
    mean, std = self.moments
    return (batch["label"] - mean[None]) / std[None]

  def in_units(self, predictions: jax.Array) -> jax.Array:
    """Returns predictions [..., D] in the unit of the labels."""
    mean, std = self.moments
    shape = (1,) * (predictions.ndim - 1) + (-1,)
    return predictions.astype(jnp.float32) * std.reshape(shape) + mean.reshape(shape)

  @property
  def moments(self) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each output, [D] float32."""
    ones = np.ones(self.num_outputs, np.float32)
    return (np.asarray(self.mean, np.float32) if self.mean else 0 * ones,
            np.asarray(self.std, np.float32) if self.std else ones)


@dataclasses.dataclass(frozen=True)
class Pairs(Task):
  """Two views of each example, such as an image and its caption; the network says which views belong together.

  Labels [n] are whole numbers of at least 0; the first view of i and the second of j belong together where both have
  the same label. Where each example is a pair of its own the label is its id. Predictions are similarities [B, B], in
  row i those of the first view of i; targets [B, B] share 1 among the second views that belong to it.
  """

  outputs: tuple[str, ...] = ()

  name: ClassVar[str] = "pairs"
  advice: ClassVar[str] = "take 'two_towers'"

  def check_labels(self, label: np.ndarray, inputs: Mapping[str, np.ndarray], where: str) -> np.ndarray:
    if len(inputs) < 2:
      raise UserError(f"{where} has the field {', '.join(inputs)}, and pairs need two; give a second one.")
    label = as_int32(label, f"the labels of {where}")
    if label.ndim > 1:
      raise UserError(f"{where} has labels {label.shape}; give one an example.")
    return check_labels(label, 2**31 - 1, where, _FIX)

  def targets(self, batch: Mapping[str, jax.Array]) -> jax.Array:
    together = (batch["label"][:, None] == batch["label"][None, :]) & (batch["weight"] > 0)[None, :]
    count = jnp.sum(together, axis=1, keepdims=True)
    return jnp.where(together, 1 / jnp.maximum(count, 1).astype(jnp.float32), 0.0)


@dataclasses.dataclass(frozen=True)
class Generation(PerPosition):
  """A sequence to write behind a prefix: trained as `PerPosition`, measured on what the network writes.

  Position t of `tokens` is followed by label t; the first -1s are the prefix, which is given.

  Attributes:
    outputs: names of the K tokens.
  """

  name: ClassVar[str] = "generation"


TASKS = {task.name: task for task in (Classification, PerPosition, Regression, Pairs, Generation)}
