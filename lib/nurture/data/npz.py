"""Arrays of one's own in a file that NumPy wrote."""

from __future__ import annotations

import dataclasses
import io
import os
import zipfile
from typing import Literal

import numpy as np

from nurture.core import Task, UserError
from nurture.data.arrays import Dataset, Split
from nurture.data.checks import check_memory
from nurture.data.classes import labelled
from nurture.data.folder import Folder, reason, shown
from nurture.data.tasks import Classification, Pairs, PerPosition

_KERAS = {"x_train": "train_image", "y_train": "train_label", "x_test": "test_image", "y_test": "test_label"}


@dataclasses.dataclass(frozen=True)
class Npz:
  """Arrays of one's own, in a file of `numpy.savez` or `numpy.savez_compressed`:

      train_image  [n, H, W, C], [n, H, W] or [n, D]       test_image
      train_label  [n], [n, D] or [n, T]                   test_label
      class_names  [K] of text, where classes have names

  Any other field, such as train_tokens and test_tokens, is read too; a network gets all fields but the label. The names
  of Keras, x_train, y_train, x_test and y_test, mean the same.

  Attributes:
    file: below the data directory, or absolute.
    task: what the labels are; see nurture.data.tasks. Classes may be numbers or text.

  Raises:
    UserError: (in load) for a file that is missing or damaged or lacks an array, and for what `Dataset` refuses.
  """

  file: str
  task: Literal["classification", "regression", "per_position", "pairs"] = "classification"

  def load(self, data_dir: str | os.PathLike) -> Dataset:
    """Returns the set."""
    folder = Folder(data_dir, shown(self.file))
    with folder.open(self.file) as (path, stream):
      where = shown(path)
      arrays = _read(stream.read(), where)
    parts = {part: _part(arrays, part, where) for part in ("train", "test")}
    (train_inputs, train_label), (test_inputs, test_label) = parts["train"], parts["test"]
    train_label, test_label, task = self._task(arrays, train_label, test_label, where)
    train, test = Split.clean(train_inputs, train_label), Split.clean(test_inputs, test_label)
    return Dataset.read(path.stem, train, test, task, checksums=folder.checksums)

  def _task(
    self, arrays: dict[str, np.ndarray], train: np.ndarray, test: np.ndarray, where: str
  ) -> tuple[np.ndarray, np.ndarray, Task]:
    names = tuple(str(name) for name in arrays.get("class_names", ()))
    if self.task == "pairs":
      return train, test, Pairs()
    if self.task == "per_position":
      count = 1 + max(int(part.max(initial=0)) for part in (train, test))
      return train, test, PerPosition(names or tuple(map(str, range(count))))
    columns = train.shape[1] if train.ndim == 2 else 1
    outputs = names or tuple(f"output {i}" for i in range(columns))
    train, test, task = labelled(self.task, train, test, outputs, where)
    return train, test, Classification(names) if names and isinstance(task, Classification) else task


def _read(data: bytes, where: str) -> dict[str, np.ndarray]:
  try:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
      size = sum(info.file_size for info in archive.infolist())
    check_memory(size, f"{where}, unpacked,", "give fewer examples")
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
      return {_KERAS.get(name, name): arrays[name] for name in arrays.files}
  except (zipfile.BadZipFile, EOFError, OSError) as error:
    raise UserError(f"{where} is no whole file of numpy.savez ({reason(error)}); write it again.") from error
  except ValueError as error:  # objects, which only code could unpack
    raise UserError(f"{where} cannot be read ({reason(error)}); write arrays of numbers or text.") from error


def _part(arrays: dict[str, np.ndarray], part: str, where: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
  """Returns (inputs by field, labels) of "train" or "test"."""
  fields = {name.removeprefix(f"{part}_"): values for name, values in arrays.items() if name.startswith(f"{part}_")}
  label = fields.pop("label", None)
  if label is None or not fields:
    missing = f"{part}_label" if label is None else f"{part}_image"
    known = ", ".join(sorted(arrays)) or "nothing"
    raise UserError(f"{where} has no {missing} (it holds {known}); add it, or name the arrays so.")
  image = fields.get("image")
  if image is not None and image.ndim == 3:  # grey images without an axis of channels
    fields["image"] = image[..., None]
  return fields, label
