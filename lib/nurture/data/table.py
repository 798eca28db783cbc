"""Tables of one's own in files of comma-separated values."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
from typing import Annotated, Literal

import numpy as np

from nurture.core import UserError
from nurture.core.build import suggest
from nurture.core.hints import Range
from nurture.data.arrays import Dataset, Split
from nurture.data.classes import held_out, labelled
from nurture.data.folder import Folder, shown
from nurture.data.formats import read_text

_EMPTY = ("", "NA", "N/A", "nan", "NaN", "null", "None", "?")


@dataclasses.dataclass(frozen=True)
class Csv:
  """A table of one's own, an example a row, with the names of the columns in the first row.

  Inputs are vectors [n, D] float32, in the order of the columns; a column of `one_hot` becomes as many of them as
  training has values there.

  Attributes:
    train: file of the training examples, below the data directory, or absolute; perhaps packed by gzip.
    label: column, or several of a regression.
    test: file of the test examples, with the same columns; "" holds a share of the training file out.
    task: "classification", where labels are numbers or text, or "regression".
    columns: the inputs; () takes all others.
    one_hot: columns of text among them, which have a number for each value.
    delimiter: between the columns.
    test_share: of the examples, of each class its share; held out by a fixed draw where there is no test file.

  Raises:
    UserError: (in load) for missing columns, rows of another length, and what is no number or is missing; names file,
      row and column.
  """

  train: str
  label: str | tuple[str, ...]
  test: str = ""
  task: Literal["classification", "regression"] = "classification"
  columns: tuple[str, ...] = ()
  one_hot: tuple[str, ...] = ()
  delimiter: str = ","
  test_share: Annotated[float, Range(above=0, below=1)] = 0.2

  def load(self, data_dir: str | os.PathLike) -> Dataset:
    """Returns the set."""
    folder = Folder(data_dir, shown(self.train))
    labels = (self.label,) if isinstance(self.label, str) else tuple(self.label)
    if len(self.delimiter) != 1:
      raise UserError(f"config.data.source.delimiter is {self.delimiter!r}; give one character.")
    if self.task == "classification" and len(labels) != 1:
      raise UserError(f"config.data.source.label names {len(labels)} columns, and a class is one; name it, or set task "
                      "to 'regression'.")
    train = Table.read(folder, self.train, self.delimiter)
    columns = self.columns or tuple(name for name in train.names if name not in labels)
    for name in (*labels, *columns, *self.one_hot):
      train.check(name)
    if both := [name for name in labels if name in columns]:
      raise UserError(f"config.data.source has {both[0]!r} in its columns and as its label; name it once.")
    values = {name: tuple(sorted(set(train.text(name)))) for name in self.one_hot}
    tables = [train, Table.read(folder, self.test, self.delimiter)] if self.test else [train]
    parts = [(table.vectors(columns, values), self._label(table, labels)) for table in tables]
    if len(parts) == 1:
      [(inputs, label)] = parts
      testing = held_out(label, self.test_share, self.task)
      parts = [(inputs[~testing], label[~testing]), (inputs[testing], label[testing])]
    (train_inputs, train_label), (test_inputs, test_label) = parts
    train_label, test_label, task = labelled(self.task, train_label, test_label, labels, folder.where(self.train))
    splits = Split.clean(train_inputs, train_label), Split.clean(test_inputs, test_label)
    return Dataset.read("csv", *splits, task, checksums=folder.checksums)

  def _label(self, table: Table, labels: tuple[str, ...]) -> np.ndarray:
    if self.task == "regression":
      return np.stack([table.numbers(name) for name in labels], axis=1)
    texts = table.text(labels[0])
    try:
      return np.array([int(text) for text in texts])
    except ValueError:
      return np.array(texts)


@dataclasses.dataclass(frozen=True)
class Table:
  """Columns of text by their names.

  Attributes:
    file: the path, as messages show it.
    names: of the columns.
    rows: a list of n rows, with a text for each column.
    lines: the line of the file at which each row ends.
  """

  file: str
  names: tuple[str, ...]
  rows: list[list[str]]
  lines: list[int]

  @classmethod
  def read(cls, folder: Folder, name: str, delimiter: str) -> Table:
    """Reads a file; raises UserError for one without names and rows, and for rows of another length."""
    reader = csv.reader(io.StringIO(read_text(folder, name), newline=""), delimiter=delimiter, strict=True)
    file, rows, lines = folder.where(name), [], []
    try:
      for row in reader:
        if row:  # an empty line is no example
          rows.append([cell.strip() for cell in row])
          lines.append(reader.line_num)
    except csv.Error as error:
      raise UserError(f"{file} cannot be read in line {reader.line_num} ({error}); mend it.") from error
    if len(rows) < 2:
      raise UserError(f"{file} has {len(rows)} rows; give the names of the columns, and an example a row.")
    names, rows, lines = tuple(rows[0]), rows[1:], lines[1:]
    if len(set(names)) < len(names):
      twice = next(name for i, name in enumerate(names) if name in names[:i])
      raise UserError(f"{file} has two columns called {twice!r}; rename one.")
    for line, row in zip(lines, rows):
      if len(row) != len(names):
        raise UserError(f"{file} has {len(row)} values in line {line}, and {len(names)} columns; mend it, or set "
                        "config.data.source.delimiter.")
    return cls(file, names, rows, lines)

  def check(self, name: str) -> None:
    """Raises UserError if there is no such column."""
    if name not in self.names:
      raise UserError(f"{self.file} has no column {name!r}; {suggest(name, self.names)}.")

  def text(self, name: str) -> list[str]:
    """Returns a column; raises UserError where a value is missing."""
    self.check(name)
    at = self.names.index(name)
    found = [row[at] for row in self.rows]
    for line, cell in zip(self.lines, found):
      if cell in _EMPTY:
        raise UserError(f"{self.file} has no value of {name!r} in line {line} ({cell or 'empty'}); fill it in, or "
                        "leave the row out.")
    return found

  def numbers(self, name: str) -> np.ndarray:
    """Returns a column as [n] float64; raises UserError for what is no finite number."""
    values = np.empty(len(self.rows))
    for i, (line, cell) in enumerate(zip(self.lines, self.text(name))):
      try:
        values[i] = float(cell)
      except ValueError:
        raise UserError(f"{self.file} has {cell!r} for {name!r} in line {line}, which is no number; mend it, name the "
                        "column in config.data.source.one_hot, or leave it out by ….columns.") from None
      if not abs(values[i]) <= np.finfo(np.float32).max:  # NaN, too
        raise UserError(f"{self.file} has {cell!r} for {name!r} in line {line}, which is no finite number of 32 bits; "
                        "mend it, or leave the row out.")
    return values

  def vectors(self, columns: tuple[str, ...], values: dict[str, tuple[str, ...]]) -> np.ndarray:
    """Returns columns as [n, D] float32, those of `values` one-hot.

    Raises:
      UserError: for a value that training does not have.
    """
    parts = []
    for name in columns:
      if name not in values:
        parts.append(self.numbers(name)[:, None])
        continue
      found = self.text(name)
      for line, cell in zip(self.lines, found):
        if cell not in values[name]:
          raise UserError(f"{self.file} has {cell!r} for {name!r} in line {line}, which no training example has; "
                          "leave the row out.")
      parts.append(np.array(found)[:, None] == np.array(values[name])[None])
    return np.concatenate(parts, axis=1).astype(np.float32)
