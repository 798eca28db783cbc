"""The metrics of a run, one JSON object a line, without gap or duplicate however often the run is killed."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from nurture.reporting.files import Path, exists, json_form, read_file, replace_file, unwritable
from nurture.reporting.run_directory import stream_rows


class Sink(Protocol):
  """Where metrics are shown besides their file, which is what counts."""

  def restart(self, cohort: int, step: int, rows: Iterable[Mapping[str, Any]]) -> None:
    """Is told, before the first row, where the run goes on.

    Args:
      cohort: with which it goes on; later ones start again.
      step: at which it goes on; -1 is the start of the cohort.
      rows: that the run has so far, to be read again where some of them were never shown.
    """

  def add(self, row: Mapping[str, Any]) -> None:
    """Takes one row, as JSON has it."""

  def flush(self) -> None:
    """Shows what it has taken."""

  def close(self, failed: bool) -> None:
    """Ends; `failed` says that the run did not come to its end."""


class MetricsWriter:
  """Appends rows such as {"step": 100, "cohort": 0, "member": 3, "loss": 0.51} to a file.

  Cohorts are trained one after another into the same file, each from step 0. A row holds no wall-clock
  time, so two runs of one config write the same bytes. Rows wait in memory until `flush`.

  Args:
    path: the file, usually metrics.jsonl in the run's directory. Rows that it has stay. A last line that a kill left
      half written is dropped when the first rows are put behind it; until then nothing is changed.
    sinks: which show the rows too, such as `TensorBoard` and `Wandb`.

  Raises:
    UserError: if the file cannot be read or written.
  """

  def __init__(self, path: Path, sinks: Sequence[Sink] = ()):
    self._path = pathlib.Path(path)
    self._lines: list[str] = []
    self._sinks = tuple(sinks)
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
      for sink in self._sinks:
        sink.add(row)

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
    for sink in self._sinks:
      sink.flush()

  def holds(self, position: Mapping[str, Any]) -> bool:
    """Tells if the file begins with the rows of an earlier `position`."""
    start = self._data()[: position["bytes"]]
    return len(start) == position["bytes"] and hashlib.sha256(start).hexdigest() == position["sha256"]

  def resume(self, position: Mapping[str, Any], cohort: int, step: int) -> None:
    """Drops all rows behind an earlier `position`, which a resumed run will write again.

    Args:
      position: that the file `holds`.
      cohort: with which the run goes on, for the sinks.
      step: at which it goes on; -1 is the start of the cohort.
    """
    self._lines.clear()
    self._cut(self._data(), position["bytes"])
    for sink in self._sinks:
      sink.restart(cohort, step, stream_rows(self._path) if self._bytes else ())

  def close(self, failed: bool = False) -> None:
    """Flushes and closes the sinks; `failed` says that the run did not come to its end."""
    if self._lines:
      self.flush()
    for sink in self._sinks:
      sink.close(failed)

  def __enter__(self) -> MetricsWriter:
    return self

  def __exit__(self, kind: Any, *exception: Any) -> None:
    self.close(failed=kind is not None)

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
