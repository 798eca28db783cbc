"""Classes of labels that come as names or as numbers, and test examples taken from a set that has none of its own."""

from __future__ import annotations

import numpy as np

from nurture.core import Task, UserError
from nurture.data.tasks import Classification, Regression


def encoded(train: np.ndarray, test: np.ndarray, where: str) -> tuple[np.ndarray, np.ndarray, Classification]:
  """Returns labels [n] of both parts as class numbers, with the task whose names they have.

  Names are sorted; whole numbers keep their value, so that classes 0 ... K - 1 are what they were. Numbers that are no
  such classes (1 ... K, or with gaps) are taken for names and sorted by size.

  Raises:
    UserError: for fractions, for a test label that training does not have, and for fewer than two classes.
  """
  for part, label in (("train", train), ("test", test)):
    if label.dtype.kind == "f" and (label != np.floor(label)).any():  # NaN, too
      first = np.flatnonzero(label != np.floor(label))[0]
      raise UserError(f"the {part} labels of {where} hold {label[first]} in example {first}; give classes, or set "
                      "config.data.source.task to 'regression'.")
  names = np.unique(train)
  if train.dtype.kind in "biuf":
    names = names.astype(np.int64)
    if names.min() >= 0 and names.max() < 2 * len(names):  # a class that training happens to lack keeps its place
      names = np.arange(max(names.max(), test.max() if test.size else 0) + 1)
  unknown = np.flatnonzero(~np.isin(test, names))
  if len(unknown):
    raise UserError(f"the test labels of {where} hold {test[unknown[0]]!s} in example {unknown[0]}, which no training "
                    "example has; add some, or leave it out.")
  task = Classification(tuple(str(name) for name in names))
  return np.searchsorted(names, train).astype(np.int32), np.searchsorted(names, test).astype(np.int32), task


def labelled(
  task: str, train: np.ndarray, test: np.ndarray, outputs: tuple[str, ...], where: str
) -> tuple[np.ndarray, np.ndarray, Task]:
  """Returns the labels of both parts and their task, "classification" or "regression"; `outputs` name its numbers."""
  if task == "classification":
    return encoded(train, test, where)
  return train, test, Regression(outputs)


def held_out(label: np.ndarray, share: float, task: str) -> np.ndarray:
  """Returns which of n examples are for testing, [n] bool: a fixed draw, in which each class has its share.

  Args:
    label: [n, ...].
    share: of the examples, above 0 and below 1; of each class at least one is left to train on.
    task: "classification" or "regression".
  """
  rng = np.random.default_rng(0)
  chosen = np.zeros(len(label), bool)
  groups = [np.arange(len(label))]
  if task == "classification":
    groups = [np.flatnonzero(label == name) for name in np.unique(label)]
  for group in groups:
    chosen[rng.permutation(group)[: min(round(share * len(group)), len(group) - 1)]] = True
  return chosen
