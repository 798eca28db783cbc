"""Data sets as arrays: one split, one data set, and its batches for evaluation."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from nurture.core import UserError
from nurture.core.task import Task
from nurture.core.types import is_tokens
from nurture.data.checks import as_int32, check_inputs, check_memory
from nurture.data.classes import labelled

_ROWS = 1 << 16  # rows of [n, C] that are held in float64 at a time while moments are summed


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
  """Examples with a common leading axis n.

  Attributes:
    inputs: field -> array that a model reads: uint8 or floating-point images [n, H, W, C] or vectors [n, D], or in a
      field whose name ends in "tokens" integers [n, T]. An array alone is the field "image".
    label: [n, ...] numbers, what its task says (see nurture.data.tasks); may carry noise.
    true_label: like `label`, before label noise.
    id: int32 [n], the example's index in the set as it was read: no split, subset or noise changes it.

  Raises:
    UserError: for ids that are not whole numbers of 32 bits. What else arrays must be, `Dataset` knows.
  """

  inputs: Mapping[str, np.ndarray]
  label: np.ndarray
  true_label: np.ndarray
  id: np.ndarray

  def __post_init__(self):
    if not isinstance(self.inputs, Mapping):
      object.__setattr__(self, "inputs", {"image": self.inputs})
    lengths = {*map(len, self.inputs.values()), len(self.label), len(self.true_label), len(self.id)}
    if len(lengths) != 1:
      raise ValueError(f"the arrays of a split have different lengths: {sorted(lengths)}")
    if self.label.shape != self.true_label.shape:
      raise ValueError(f"label {self.label.shape} and true_label {self.true_label.shape} have different shapes")
    object.__setattr__(self, "id", as_int32(self.id, "ids"))

  @classmethod
  def clean(cls, inputs: np.ndarray | Mapping[str, np.ndarray], label: np.ndarray) -> Split:
    """Returns the split of a set as it was read: no noise, ids 0..n-1."""
    return cls(inputs, label, label, np.arange(len(label), dtype=np.int32))  # type: ignore[arg-type]

  def __len__(self) -> int:
    return len(self.id)

  def take(self, indices: np.ndarray) -> Split:
    """Returns the examples at these positions, in this order."""
    inputs = {field: values[indices] for field, values in self.inputs.items()}
    return Split(inputs, self.label[indices], self.true_label[indices], self.id[indices])

  @property
  def fields(self) -> dict[str, np.ndarray]:
    """The fields of a batch, without "weight", over all n examples."""
    return {**self.inputs, "label": self.label, "true_label": self.true_label, "id": self.id}

  @functools.cached_property
  def moments(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Mean and standard deviation over all but the last axis of each input that is no tokens, [C] float64, as stored.

    Two passes in float64, made on the first use and kept.
    """
    return {field: _moments(values) for field, values in self.inputs.items() if not is_tokens(field)}


def _moments(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  rows = values.reshape(-1, values.shape[-1])
  parts = [rows[i : i + _ROWS] for i in range(0, len(rows), _ROWS)]
  mean = sum(part.sum(axis=0, dtype=np.float64) for part in parts) / len(rows)
  variance = sum(np.square(part - mean).sum(axis=0) for part in parts) / len(rows)
  return mean, np.sqrt(variance)


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
  """A data set with its splits.

  Attributes:
    name: the row of DATASETS that made it (and for TFDS the set, "tfds:mnist").
    train: examples to train on.
    validation: examples taken from the training file; may be empty.
    test: examples of the test file.
    task: what is asked of a network; the labels of all splits are kept in its type.
    num_examples: every id in `train` and `validation` lies in [0, num_examples): the length of the training
      file before any split.
    checksums: file name -> sha256 of what was read.
    generate: (key, n) -> {field: [n, ...]} fresh training examples, in JAX; None for a set that cannot be generated.

  Raises:
    UserError: for labels that the task does not know, inputs that no model reads (see `check_inputs`), inputs of
      different fields or shapes in different splits, an empty training split, and ids outside of [0, num_examples) or
      given twice.
  """

  name: str
  train: Split
  validation: Split
  test: Split
  task: Task
  num_examples: int
  checksums: Mapping[str, str] = dataclasses.field(default_factory=dict)
  generate: Callable[[jax.Array, int], Mapping[str, jax.Array]] | None = None

  def __post_init__(self):
    if not len(self.train):
      raise UserError(f"{self.name} has no training example; give at least one.")
    for part in ("train", "validation", "test"):
      split = self._checked(getattr(self, part), f"the {part} split of {self.name}")
      object.__setattr__(self, part, split)
      if _kinds(split) != _kinds(self.train):
        raise UserError(
          f"{self.name} has inputs {_words(self.train)} to train on, but {_words(split)} in the {part} split; give "
          "both the same size and type."
        )
    ids = np.concatenate([self.train.id, self.validation.id])
    if ids.min() < 0 or ids.max() >= self.num_examples or len(np.unique(ids)) < len(ids):
      raise UserError(
        f"the {len(ids)} ids of {self.name} lie between {ids.min()} and {ids.max()}; give each example its own, from 0 "
        f"to {self.num_examples - 1}, because tables have one row an example."
      )

  def _checked(self, split: Split, where: str) -> Split:
    for field, values in split.inputs.items():
      check_inputs(values, is_tokens(field), where if len(split.inputs) == 1 else f"the field {field!r} of {where}")
    label = self.task.check_labels(split.label, split.inputs, where)
    if split.true_label is split.label:
      return split if label is split.label else dataclasses.replace(split, label=label, true_label=label)
    true_label = self.task.check_labels(split.true_label, split.inputs, where)
    return dataclasses.replace(split, label=label, true_label=true_label)

  @classmethod
  def read(cls, name: str, train: Split, test: Split, task: Task, **others: Any) -> Dataset:
    """Returns a set as it was read: all of the training file in `train`, nothing in `validation`."""
    return cls(name, train, train.take(np.arange(0)), test, task, len(train), **others)

  @property
  def num_classes(self) -> int:
    """K, the classes, or the numbers of a regression."""
    return self.task.num_outputs

  @property
  def class_names(self) -> tuple[str, ...]:
    """K names."""
    return self.task.outputs

  @classmethod
  def from_arrays(
    cls,
    train: tuple[Any, Any],
    test: tuple[Any, Any],
    task: str | Task = "classification",
    name: str = "arrays",
    outputs: tuple[str, ...] = (),
  ) -> Dataset:
    """Returns a set of arrays that are in memory, for `nurture.training.run(..., dataset=...)`.

    Args:
      train: (inputs, labels). Inputs are an array [n, ...] or {field: array}, as in `Split`; labels [n] or [n, D].
      test: likewise.
      task: "classification", whose labels are numbers or text, "regression", or a task of nurture.data.tasks.
      name: of the set, in messages and in the manifest.
      outputs: names of the classes or numbers; () takes the labels' own, or numbers them.

    Raises:
      UserError: for arrays that do not fit the task; see `Dataset`.
    """
    parts = [(_fields(inputs), np.asarray(label)) for inputs, label in (train, test)]
    digest = hashlib.sha256()
    for inputs, label in parts:
      for field, values in {**inputs, "label": label}.items():
        digest.update(f"{field} {values.dtype} {values.shape}\n".encode())
        digest.update(np.ascontiguousarray(values).data if values.dtype != object else repr(values.tolist()).encode())
    (train_inputs, train_label), (test_inputs, test_label) = parts
    if isinstance(task, str):
      columns = train_label.shape[1] if train_label.ndim == 2 else 1
      numbered = outputs or tuple(f"output {i}" for i in range(columns))
      train_label, test_label, made = labelled(task, train_label, test_label, numbered, name)
      task = dataclasses.replace(made, outputs=outputs) if outputs else made  # type: ignore[type-var]
    splits = Split.clean(train_inputs, train_label), Split.clean(test_inputs, test_label)
    return cls.read(name, *splits, task, checksums={name: digest.hexdigest()})

  @functools.cached_property
  def described(self) -> dict[str, Any]:
    """Contents of the set, for the manifest: {"name", "task", "outputs", "splits": {part: {field: {...}}}}."""
    splits = {"train": self.train, "validation": self.validation, "test": self.test}
    return {
      "name": self.name, "task": self.task.name, "outputs": list(self.task.outputs),
      "splits": {
        part: {field: _described(values) for field, values in {**split.inputs, "label": split.label}.items()}
        for part, split in splits.items() if len(split)
      },
    }

  @property
  def input_shapes(self) -> dict[str, tuple[int, ...]]:
    """The shape of one example of each input field: (H, W, C), (D,) or (T,)."""
    return {field: values.shape[1:] for field, values in self.train.inputs.items()}

  def split(self, name: str) -> Split:
    """Returns "train", "validation" or "test".

    Raises:
      UserError: if there is no such split, or it is empty.
    """
    splits = {"train": self.train, "validation": self.validation, "test": self.test}
    known = [k for k, v in splits.items() if len(v)]
    if name not in known:
      what = "is empty" if name in splits else "does not exist"
      hint = " (config.data.validation sets its size)" if name == "validation" else ""
      raise UserError(f"the split {name!r} of {self.name} {what}{hint}; use one of {', '.join(known)}.")
    return splits[name]


def _fields(inputs: Any) -> dict[str, np.ndarray]:
  fields = inputs if isinstance(inputs, Mapping) else {"image": inputs}
  return {field: np.asarray(values) for field, values in fields.items()}


def _described(values: np.ndarray) -> dict[str, Any]:
  return {"shape": list(values.shape), "dtype": str(values.dtype), "range": [float(values.min()), float(values.max())]}


def _kinds(split: Split) -> dict[str, tuple[Any, ...]]:
  return {field: (values.shape[1:], values.dtype) for field, values in split.inputs.items()}


def _words(split: Split) -> str:
  one = lambda values: f"{values.dtype} {list(values.shape[1:])}"
  if list(split.inputs) == ["image"] or list(split.inputs) == ["tokens"]:
    return one(*split.inputs.values())
  return ", ".join(f"{field} {one(values)}" for field, values in split.inputs.items())


def padded_batches(split: Split, batch_size: int) -> list[dict[str, np.ndarray]]:
  """Cuts a split into batches of one shape, in order, for averages that are exact over the set.

  Every batch has "weight" [B] float32. The last one is filled with copies of row 0 that have weight 0 and id -1. A
  consumer that scatters by id must drop negative ids: in JAX a negative index counts from the end, so map it out of
  bounds and use mode="drop".

  Raises:
    UserError: if batch_size is not positive, or a batch takes more memory than there is.
  """
  if batch_size < 1:
    raise UserError(f"the evaluation batch size is {batch_size}; give at least 1.")
  fields = split.fields
  row = sum(v.nbytes // max(len(v), 1) for v in fields.values())
  check_memory(row * batch_size, f"an evaluation batch of {batch_size} examples", "give a smaller one")
  batches = []
  for start in range(0, len(split), batch_size):
    rows = {k: v[start : start + batch_size] for k, v in fields.items()}
    count = len(rows["id"])
    rows["weight"] = np.ones(count, np.float32)
    if count < batch_size:
      padding = {k: np.repeat(v[:1], batch_size - count, axis=0) for k, v in fields.items()}
      padding["id"] = np.full(batch_size - count, -1, np.int32)
      padding["weight"] = np.zeros(batch_size - count, np.float32)
      rows = {k: np.concatenate([v, padding[k]]) for k, v in rows.items()}
    batches.append(rows)
  return batches
