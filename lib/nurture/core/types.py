"""Records that pass between the packages: batches, what a model returns, and what transforms and probes read."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nurture.core.task import Task

Array = jax.Array

# A batch is a plain dict, so that a data set may add fields without a new type:
#   image  [B, H, W, C] or [B, D], tokens [B, T], or other fields that the model reads; names that end in "tokens" hold
#          tokens
#   label  what the task says (see nurture.data.tasks): [B] int32 (class), [B, T] int32 (next token; -1 where no
#          prediction is asked), [B, D] float32 (numbers)
#   true_label  like label          the label before label noise; equal to it where there is none
#   id     [B] int32                stable index in the data set as it was read, before any split
#   weight [B] float32              0 for padding, 1 otherwise
Batch = dict[str, Array]


class Outputs(NamedTuple):
  """What every model returns.

  Attributes:
    logits: the predictions, [B, K] (or [B, T, K] for a sequence model): logits of classes, or numbers.
    taps: intermediate arrays by name, each [B, ...], named so that sorted order is call order
      ("003_conv"). A tap that nobody reads costs nothing under jit. Those of a reference with a cache are
      `nurture.similarity.Gram` matrices [B, B].
  """

  logits: Array
  taps: dict[str, Any]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Context:
  """Everything that a target transform or a loss term may read in one step; none of it is written to.

  Attributes:
    step: [] int32, number of updates already made.
    key: a key of this step and of the reader alone (each transform gets its own stream).
    batch: the batch after augmentation and normalization.
    targets: what the task compares predictions with, [B, K] (or [B, T, K]) class probabilities or numbers; while
      targets are being made, those so far.
    outputs: the model's `Outputs` in training mode. They are not there yet while targets are made: None.
    references: `Outputs` of each network that config.references names, by its label; nothing flows back into it.
    progress: [] float32 in [0, 1], the share of the run that is done.
  """

  step: Array
  key: Array
  batch: Batch
  targets: Array
  outputs: Outputs
  references: Mapping[str, Outputs]
  progress: Array


@dataclasses.dataclass(frozen=True)
class DataSpec:
  """What is known about the data before any array is touched; sizes of states follow from it.

  Attributes:
    task: what is asked of the network.
    num_examples: every `id` lies in [0, num_examples).
    batch_size: B of a training batch.
    inputs: field of a batch that the model reads -> the shape of one example.
  """

  task: Task
  num_examples: int
  batch_size: int
  inputs: Mapping[str, tuple[int, ...]]

  @property
  def num_classes(self) -> int:
    """K, the classes, or the numbers of a regression: the width of the network's last layer."""
    return self.task.num_outputs

  @property
  def input_shape(self) -> Any:
    """The shape of one model input, without the batch: a tuple, or {field: tuple} of several."""
    return model_input(self.inputs, self.inputs)

  def example(self, rows: int = 1) -> Any:
    """Returns a model input of zeros."""
    kind = lambda field: jnp.int32 if is_tokens(field) else jnp.float32
    return model_input({f: jnp.zeros((rows, *shape), kind(f)) for f, shape in self.inputs.items()}, self.inputs)


def is_tokens(field: str) -> bool:
  """Tells if a field of a batch holds tokens, by its name: "tokens", "source_tokens"; any other holds numbers."""
  return field == "tokens" or field.endswith("_tokens")


def model_input(batch: Mapping[str, Any], fields: Iterable[str]) -> Any:
  """Returns what a model reads of a batch: the array of a single field, or {field: array} of several."""
  read = {field: batch[field] for field in fields}
  return read if len(read) > 1 else next(iter(read.values()))


class Network(NamedTuple):
  """The trained network as a probe sees it: pure functions of the variables, and what stands behind them.

  Attributes:
    model: the linen module, for what only some models can do.
    inputs: batch -> model input, normalized as in training, without augmentation: an array, or {field: array}.
    apply: (variables, input) -> `Outputs` in evaluation mode.
    loss: (variables, batch) -> [] float32, the experiment's weighted loss, with the terms' current
      states and the model in evaluation mode. Differentiable, so gradients and curvature need no more.
    terms: (variables, batch) -> {label: [] float32}, the weighted terms that add up to the loss.
    references: batch -> {label: `Outputs`} of the networks that config.references names.
    loss_states: {label: state} of the loss terms as they stand.
    initial: () -> the variables before the first step, computed again from the seed.
    task: what is asked of the network.
  """

  model: Any
  inputs: Callable[[Batch], Any]
  apply: Callable[[Any, Any], Outputs]
  loss: Callable[[Any, Batch], Array]
  terms: Callable[[Any, Batch], dict[str, Array]] = lambda variables, batch: {}
  references: Callable[[Batch], Mapping[str, Outputs]] = lambda batch: {}
  loss_states: Mapping[str, Any] = types.MappingProxyType({})
  initial: Callable[[], Any] = dict
  task: Task | None = None
