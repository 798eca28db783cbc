"""Scalars for TensorBoard, through its own writer and without loading TensorFlow."""

from __future__ import annotations

import pathlib
import sys
import types
from collections.abc import Mapping
from typing import Any

from nurture.core import UserError
from nurture.reporting.files import Path, unwritable

_INDICES = ("step", "cohort", "member")


class TensorBoard:
  """Writes rows of metrics as events, one directory a cohort and one tag a metric and member.

  Raises:
    UserError: if the package tensorboard is not installed.
  """

  def __init__(self, directory: Path):
    # TensorBoard loads TensorFlow for its file system unless it finds this module.
    sys.modules.setdefault("tensorboard.compat.notf", types.ModuleType("tensorboard.compat.notf"))
    try:
      from tensorboard.compat.proto import event_pb2, summary_pb2  # noqa: PLC0415
      from tensorboard.summary.writer.event_file_writer import EventFileWriter  # noqa: PLC0415
    except ImportError as error:
      raise UserError(
        f"TensorBoard events need a package that is not installed ({error}); "
        "run `pip install tensorboard`, or leave the TensorBoard directory out."
      ) from error
    self._open, self._events, self._summaries = EventFileWriter, event_pb2, summary_pb2
    self._directory = pathlib.Path(directory)
    self._writers: dict[int, Any] = {}

  def add(self, row: Mapping[str, Any]) -> None:
    """Adds the scalars of one row; arrays, strings and nulls are left to the metrics file."""
    member = f"/member_{row['member']}" if "member" in row else ""
    values = [
      self._summaries.Summary.Value(tag=f"{name}{member}", simple_value=value)
      for name, value in row.items()
      if name not in _INDICES and isinstance(value, (int, float))
    ]
    event = self._events.Event(step=row["step"], summary=self._summaries.Summary(value=values))
    self._writer(row.get("cohort", 0)).add_event(event)

  def restart(self, cohort: int, step: int) -> None:
    """Tells TensorBoard to forget what this cohort showed from `step` on."""
    log = self._events.SessionLog(status=self._events.SessionLog.START)
    self._writer(cohort).add_event(self._events.Event(step=step, session_log=log))

  def flush(self) -> None:
    for writer in self._writers.values():
      writer.flush()

  def close(self) -> None:
    for writer in self._writers.values():
      writer.close()
    self._writers.clear()

  def _writer(self, cohort: int) -> Any:
    if cohort not in self._writers:
      directory = self._directory / f"cohort_{cohort}"
      try:
        self._writers[cohort] = self._open(str(directory))
      except OSError as error:
        raise unwritable(directory, error) from error
    return self._writers[cohort]
