"""Tasks: the meaning of labels, the targets that they become, and the rows that can be used with them."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import numpy as np

from nurture.core.build import Preset, lookup
from nurture.core.errors import UserError

# The tasks that rows serve which read predictions as logits of classes.
ONE_CLASS: tuple[str, ...] = ("classification",)
CLASSES: tuple[str, ...] = ("classification", "per_position", "generation")


class Task(abc.ABC):
  """The task of a data set: the meaning of its labels, and the shape of targets and predictions.

  A row of a table that serves some tasks only names them in `tasks`, a tuple of names; one without `tasks` serves all.

  Attributes:
    name: of the kind, such as "classification".
    outputs: the names of the K numbers that the network predicts, for tables and plots; () where there are as many as
      examples in the batch.
    advice: what to do about a model whose predictions have another shape, for messages.
  """

  name: ClassVar[str]
  advice: ClassVar[str] = "set config.model.pool of a recurrent network"
  outputs: tuple[str, ...]

  @property
  def num_outputs(self) -> int:
    """K, the numbers of one prediction, which is the width of a network's last layer."""
    return len(self.outputs)

  @abc.abstractmethod
  def check_labels(self, label: np.ndarray, inputs: Mapping[str, np.ndarray], where: str) -> np.ndarray:
    """Returns the labels of a split in the type in which they are kept.

    Args:
      label: [n, ...], as read.
      inputs: field -> [n, ...].
      where: names the split, for messages.

    Raises:
      UserError: for a label that this task does not know; names the first one.
    """

  @abc.abstractmethod
  def targets(self, batch: Mapping[str, jax.Array]) -> jax.Array:
    """Returns what predictions are compared with, [B, ...] float32, of the shape that the predictions have."""


def served_by(row: Any) -> tuple[str, ...] | None:
  """Returns the names of the tasks that a row of a table serves; None for all."""
  return getattr(row.constructor if isinstance(row, Preset) else row, "tasks", None)


def check_served(table: Mapping[str, Any], config: str | Mapping[str, Any], task: str, data: str, path: str) -> None:
  """Refuses a row that does not serve a task.

  Args:
    table: of rows.
    config: of a row.
    task: the name of the task.
    data: the name of the data set, for the message.
    path: of the row's config, for the message.

  Raises:
    UserError: names the tasks that the row serves, and the rows that serve this one.
  """
  name = config if isinstance(config, str) else config["name"]
  served = served_by(lookup(table, name, path=path))
  if served is None or task in served:
    return
  others = ", ".join(sorted(other for other, row in table.items() if task in (served_by(row) or (task,)))) or "none"
  raise UserError(f"{path} is {name!r}, which serves {' and '.join(served)}, but {data} asks for {task}; remove it, or "
                  f"choose one that serves {task}: {others}.")
