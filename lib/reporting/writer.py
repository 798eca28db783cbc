"""The metrics of a run, one JSON object a line, without gap or duplicate however often the run is killed."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from lib.reporting.files import Path, exists, plain, read_file, replace_file, unwritable
from lib.reporting.run_directory import complete_lines
from lib.reporting.tensorboard import TensorBoard


class MetricsWriter:
  """Appends rows such as {"step": 100, "cohort": 0, "member": 3, "loss": 0.51} to a file.

  Cohorts are trained one after another into the same file, each from step 0. A row holds no wall-clock
  time, so two runs of one config write the same bytes. Rows wait in memory until `flush`.

  Args:
    path: the file, usually metrics.jsonl in the run's directory.
    tensorboard_dir: also writes the scalars as TensorBoard events under this directory.

  Raises:
    UserError: if the file cannot be read or written or holds anything but rows, or TensorBoard is asked for and not
      installed.
  """

  def __init__(self, path: Path, tensorboard_dir: Path | None = None):
    self._path = pathlib.Path(path)
    self._lines: list[str] = []
    self._board = TensorBoard(tensorboard_dir) if tensorboard_dir is not None else None
    self._rewrite(lambda row: True)

  def write(self, rows: Iterable[Mapping[str, Any]]) -> None:
    """Takes rows of numbers, strings and short arrays; nan and infinity become null."""
    for row in rows:
      row = plain(row)
      self._lines.append(json.dumps(row, allow_nan=False) + "\n")
      if self._board:
        self._board.add(row)

  def flush(self) -> None:
    """Puts all rows so far on the disk; when it returns, they outlive a kill."""
    try:
      self._path.parent.mkdir(parents=True, exist_ok=True)
      with open(self._path, "ab") as f:
        f.write("".join(self._lines).encode())
        f.flush()
        os.fsync(f.fileno())
    except OSError as error:
      raise unwritable(self._path, error) from error
    self._lines.clear()
    if self._board:
      self._board.flush()

  def truncate_after(self, cohort: int, step: int) -> None:
    """Drops what a resumed run will write again: this cohort's rows beyond `step`, and all later cohorts'.

    Rows of earlier cohorts stay. Call it before the first `write`; step -1 drops the whole cohort.
    """
    self._lines.clear()
    self._rewrite(lambda row: (row["cohort"], row["step"]) <= (cohort, step))
    if self._board:
      self._board.restart(cohort, step + 1)

  def close(self) -> None:
    self.flush()
    if self._board:
      self._board.close()

  def __enter__(self) -> MetricsWriter:
    return self

  def __exit__(self, *exception) -> None:
    self.close()

  def _rewrite(self, keep) -> None:
    if not exists(self._path):
      return
    before = read_file(self._path)
    after = b"".join(line + b"\n" for line, row in complete_lines(self._path, before) if keep(row))
    if after != before:
      replace_file(self._path, after)
