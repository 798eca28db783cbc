"""Data sets as arrays: one split, one data set, and its batches for evaluation."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping

import jax
import numpy as np

from nurture.core import UserError
from nurture.data.checks import as_int32, check_inputs, check_labels, check_memory

_ROWS = 1 << 16  # rows of [n, C] that are held in float64 at a time while moments are summed


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
  """Examples with a common leading axis n.

  Attributes:
    inputs: uint8 [n, H, W, C] images, float32 [n, D] vectors, or uint8/int32 [n, T] tokens.
    label: int32 [n], or [n, T] for sequences (such as the next token; -1 where nothing is asked); may carry noise.
    true_label: like `label`, before label noise.
    id: int32 [n], the example's index in the set as it was read: no split, subset or noise changes it.

  Raises:
    UserError: for labels or ids that are not whole numbers of 32 bits. What else they must be, `Dataset` knows.
  """

  inputs: np.ndarray
  label: np.ndarray
  true_label: np.ndarray
  id: np.ndarray

  def __post_init__(self):
    lengths = {len(self.inputs), len(self.label), len(self.true_label), len(self.id)}
    if len(lengths) != 1:
      raise ValueError(f"the arrays of a split have different lengths: {sorted(lengths)}")
    if self.label.shape != self.true_label.shape:
      raise ValueError(f"label {self.label.shape} and true_label {self.true_label.shape} have different shapes")
    label = as_int32(self.label, "labels")
    whole = {"label": label, "id": as_int32(self.id, "ids")}
    whole["true_label"] = label if self.true_label is self.label else as_int32(self.true_label, "true labels")
    for name, values in whole.items():
      object.__setattr__(self, name, values)

  @classmethod
  def clean(cls, inputs: np.ndarray, label: np.ndarray) -> Split:
    """Returns the split of a set as it was read: no noise, ids 0..n-1."""
    label = as_int32(label, "labels")
    return cls(inputs, label, label, np.arange(len(label), dtype=np.int32))

  def __len__(self) -> int:
    return len(self.id)

  def take(self, indices: np.ndarray) -> Split:
    """Returns the examples at these positions, in this order."""
    return Split(self.inputs[indices], self.label[indices], self.true_label[indices], self.id[indices])

  def fields(self, input_name: str) -> dict[str, np.ndarray]:
    """Returns the fields of a batch, without "weight", over all n examples."""
    return {input_name: self.inputs, "label": self.label, "true_label": self.true_label, "id": self.id}

  @functools.cached_property
  def moments(self) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation over all but the last axis of the inputs, [C] float64 each, in stored units.

    Two passes in float64, made on the first use and kept.
    """
    rows = self.inputs.reshape(-1, self.inputs.shape[-1])
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
    num_classes: K.
    class_names: K names.
    num_examples: every id in `train` and `validation` lies in [0, num_examples): the length of the training
      file before any split.
    input_name: "image" or "tokens", the field of a batch that the model reads.
    checksums: file name -> sha256 of what was read.
    generate: (key, n) -> {field: [n, ...]} fresh training examples, in JAX; None for a set that cannot be generated.

  Raises:
    UserError: for labels that are no classes, inputs that no model reads (see `check_inputs`), inputs of different
      shapes in different splits, fewer than two classes, an empty training split, and ids outside of
      [0, num_examples) or given twice.
  """

  name: str
  train: Split
  validation: Split
  test: Split
  num_classes: int
  class_names: tuple[str, ...]
  num_examples: int
  input_name: str = "image"
  checksums: Mapping[str, str] = dataclasses.field(default_factory=dict)
  generate: Callable[[jax.Array, int], Mapping[str, jax.Array]] | None = None

  def __post_init__(self):
    if len(self.class_names) != self.num_classes:
      raise ValueError(f"{self.name} has {self.num_classes} classes, but {len(self.class_names)} names of classes")
    if self.num_classes < 2:
      raise UserError(f"the classes of {self.name} are {list(self.class_names)}; give at least two to tell apart.")
    splits = {"train": self.train, "validation": self.validation, "test": self.test}
    if not len(self.train):
      raise UserError(f"{self.name} has no training example; give at least one.")
    for part, split in splits.items():
      self._check(split, f"the {part} split of {self.name}")
      if (split.inputs.shape[1:], split.inputs.dtype) != (self.train.inputs.shape[1:], self.train.inputs.dtype):
        raise UserError(
          f"{self.name} has inputs {_kind(self.train)} to train on, but {_kind(split)} in the {part} split; give both "
          "the same size and type."
        )
    ids = np.concatenate([self.train.id, self.validation.id])
    if ids.min() < 0 or ids.max() >= self.num_examples or len(np.unique(ids)) < len(ids):
      raise UserError(
        f"the {len(ids)} ids of {self.name} lie between {ids.min()} and {ids.max()}; give each example its own, from 0 "
        f"to {self.num_examples - 1}, because tables have one row an example."
      )

  def _check(self, split: Split, where: str) -> None:
    tokens = self.input_name == "tokens"
    check_inputs(split.inputs, tokens, where)
    if split.label.ndim > 1 and not (tokens and split.label.shape == split.inputs.shape):
      raise UserError(f"{where} has labels {split.label.shape} for inputs {split.inputs.shape}; give one an example.")
    for labels in (split.label,) if split.label is split.true_label else (split.label, split.true_label):
      check_labels(
        labels, self.num_classes, where, "mend the label, or leave the example out", unasked=split.label.ndim > 1
      )

  @classmethod
  def read(cls, name: str, train: Split, test: Split, class_names: tuple[str, ...], **others) -> Dataset:
    """Returns a set as it was read: all of the training file in `train`, nothing in `validation`."""
    empty = train.take(np.arange(0))
    return cls(name, train, empty, test, len(class_names), class_names, len(train), **others)

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


def _kind(split: Split) -> str:
  return f"{split.inputs.dtype} {list(split.inputs.shape[1:])}"


def padded_batches(split: Split, batch_size: int, input_name: str) -> list[dict[str, np.ndarray]]:
  """Cuts a split into batches of one shape, in order, for averages that are exact over the set.

  Every batch has "weight" [B] float32. The last one is filled with copies of row 0 that have weight 0 and id -1. A
  consumer that scatters by id must drop negative ids: in JAX a negative index counts from the end, so map it out of
  bounds and use mode="drop".

  Raises:
    UserError: if batch_size is not positive, or a batch takes more memory than there is.
  """
  if batch_size < 1:
    raise UserError(f"the evaluation batch size is {batch_size}; give at least 1.")
  fields = split.fields(input_name)
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
