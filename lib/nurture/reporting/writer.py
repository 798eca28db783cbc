"""The metrics of a run, one JSON object a line, without gap or duplicate however often the run is killed."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from nurture.reporting.files import Path, exists, json_form, read_file, replace_file, unwritable
from nurture.reporting.tensorboard import TensorBoard


class MetricsWriter:
  """Appends rows such as {"step": 100, "cohort": 0, "member": 3, "loss": 0.51} to a file.

  Cohorts are trained one after another into the same file, each from step 0. A row holds no wall-clock
  time, so two runs of one config write the same bytes. Rows wait in memory until `flush`.

  Args:
    path: the file, usually metrics.jsonl in the run's directory. Rows that it has stay. A last line that a kill left
      half written is dropped when the first rows are put behind it; until then nothing is changed.
    tensorboard_dir: also writes the scalars as TensorBoard events under this directory.

  Raises:
    UserError: if the file cannot be read or written, or TensorBoard is asked for and not installed.
  """

  def __init__(self, path: Path, tensorboard_dir: Path | None = None):
    self._path = pathlib.Path(path)
    self._lines: list[str] = []
    self._board = TensorBoard(tensorboard_dir) if tensorboard_dir is not None else None
    data = self._data()
    self._count(data[: data.rfind(b"\n") + 1])

  @property
  def position(self) -> dict[str, Any]:
    """Fingerprint of the file for a checkpoint that counts on it: {"bytes", "sha256"} of all rows flushed so far."""
    return {"bytes": self._bytes, "sha256": self._sha256.hexdigest()}

  def write(self, rows: Iterable[Mapping[str, Any]]) -> None:
    """Takes rows of numbers, strings and short arrays; nan and infinity become null."""
    for row in rows:
      row = json_form(row)
      self._lines.append(json.dumps(row, allow_nan=False) + "\n")
      if self._board:
        self._board.add(row)

  def flush(self) -> None:
    """Puts all rows so far on the disk; when it returns, they outlive a kill."""
    data = "".join(self._lines).encode()
    try:
      self._path.parent.mkdir(parents=True, exist_ok=True)
      with open(self._path, "ab") as f:
        if f.tell() > self._bytes:  # half a line, of a kill or of a flush that found the disk full
          f.truncate(self._bytes)
        f.write(data)
        f.flush()
        os.fsync(f.fileno())
    except OSError as error:
      raise unwritable(self._path, error) from error
    self._lines.clear()
    self._sha256.update(data)
    self._bytes += len(data)
    if self._board:
      self._board.flush()

  def holds(self, position: Mapping[str, Any]) -> bool:
    """Tells if the file begins with the rows of an earlier `position`."""
    start = self._data()[: position["bytes"]]
    return len(start) == position["bytes"] and hashlib.sha256(start).hexdigest() == position["sha256"]

  def resume(self, position: Mapping[str, Any], cohort: int, step: int) -> None:
    """Drops all rows behind an earlier `position`, which a resumed run will write again.

    Args:
      position: that the file `holds`.
      cohort: with which the run goes on, for TensorBoard.
      step: at which it goes on; -1 is the start of the cohort.
    """
    self._lines.clear()
    self._cut(self._data(), position["bytes"])
    if self._board:
      self._board.restart(cohort, step + 1)

  def close(self) -> None:
    if self._lines:
      self.flush()
    if self._board:
      self._board.close()

  def __enter__(self) -> MetricsWriter:
    return self

  def __exit__(self, *exception) -> None:
    self.close()

  def _data(self) -> bytes:
    return read_file(self._path) if exists(self._path) else b""

  def _cut(self, data: bytes, length: int) -> None:
    if length < len(data):
      replace_file(self._path, data[:length])
    self._count(data[:length])

  def _count(self, data: bytes) -> None:
    self._bytes, self._sha256 = len(data), hashlib.sha256(data)


# The `position` of a file without rows.
NO_ROWS = {"bytes": 0, "sha256": hashlib.sha256().hexdigest()}
