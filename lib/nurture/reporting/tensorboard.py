"""Scalars for TensorBoard, in its own file format and without loading TensorFlow."""

from __future__ import annotations

import pathlib
import re
import sys
import time
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nurture.core import UserError
from nurture.reporting.files import Path, unwritable
from nurture.reporting.results import name_of
from nurture.reporting.schema import is_number

_INDICES = ("step", "cohort", "member")
_LETTERS = 100  # of a folder's name


class TensorBoard:
  """Writes rows of metrics as events: one folder a member, "lam=3.0/seed 0", so that each is a run of its own there.

  The folder of a member also holds its place in the grid, for the page of hyper-parameters. Events wait in memory until
  `flush`; no file is kept open, so that thousands of members are no more than a few.

  Args:
    directory: of all folders.
    members: all of the run, as manifest.json has them.

  Raises:
    UserError: if the package tensorboard is not installed.
  """

  def __init__(self, directory: Path, members: Sequence[Mapping[str, Any]]):
    # TensorBoard loads TensorFlow for its file system unless it finds this module.
    sys.modules.setdefault("tensorboard.compat.notf", types.ModuleType("tensorboard.compat.notf"))
    try:
      from tensorboard.compat.proto import event_pb2, summary_pb2  # noqa: PLC0415
      from tensorboard.plugins.hparams.summary_v2 import hparams_pb  # noqa: PLC0415
      from tensorboard.summary.writer.record_writer import RecordWriter  # noqa: PLC0415
    except ImportError as error:
      raise UserError(
        f"TensorBoard events need a package that is not installed ({error}); "
        'run `pip install "nurture[tensorboard]"`, or leave --tensorboard out.'
      ) from error
    self._events, self._summaries, self._hparams, self._records = event_pb2, summary_pb2, hparams_pb, RecordWriter
    self._members = {member["member"]: member for member in members}
    self._folders = _folders(pathlib.Path(directory), members)
    self._files: dict[int, pathlib.Path] = {}  # one a member and start: a file may end in half an event after a kill
    self._waiting: dict[int, list[bytes]] = {}
    self._begin_at: dict[int, int] = {}  # the step from which on TensorBoard is to forget what it has of a member

  def restart(self, cohort: int, step: int, rows: Iterable[Mapping[str, Any]]) -> None:
    """Tells TensorBoard to forget what comes after a step of a cohort, and adds the rows of members without events.

    Args:
      cohort: with which the run goes on; later ones start again.
      step: at which it goes on; -1 is the start of the cohort.
      rows: that the run has so far.
    """
    known = {member for member, folder in self._folders.items() if any(folder.glob("*tfevents*"))}
    self._begin_at = {m: step + 1 if self._members[m]["cohort"] == cohort else 0 for m in known}
    if len(known) < len(self._folders):
      for row in rows:
        if row["member"] not in known:
          self.add(row)

  def add(self, row: Mapping[str, Any]) -> None:
    """Adds the scalars of one row; arrays, strings and nulls are left to the metrics file."""
    values = [
      self._summaries.Summary.Value(tag=name, simple_value=value)
      for name, value in row.items() if name not in _INDICES and is_number(value)
    ]
    self._put(row["member"], step=row["step"], summary=self._summaries.Summary(value=values))

  def flush(self) -> None:
    for member, events in self._waiting.items():
      file = self._files[member]
      begun = file.with_name("begun") if not file.exists() else file  # a kill leaves no file that has but some rows
      try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(begun, "ab" if begun is file else "wb") as f:
          writer = self._records(f)
          for event in events:
            writer.write(event)
        begun.rename(file)
      except OSError as error:
        raise unwritable(file.parent, error) from error
    self._waiting.clear()

  def close(self, failed: bool) -> None:
    del failed
    self.flush()

  def _put(self, member: int, **event: Any) -> None:
    waiting = self._waiting.setdefault(member, [])
    of = lambda **fields: self._events.Event(wall_time=time.time(), **fields).SerializeToString()
    if member not in self._files:
      self._files[member] = self._folders[member] / f"events.out.tfevents.{time.time_ns()}"  # read in this order
      place = {**self._members[member]["values"], "seed": self._members[member]["seed"]}
      # Only with a version does TensorBoard take a START for the word of the run on what to forget.
      waiting += [of(file_version="brain.Event:2"), of(summary=self._hparams(place))]
      if member in self._begin_at:
        log = self._events.SessionLog(status=self._events.SessionLog.START)
        waiting.append(of(step=self._begin_at[member], session_log=log))
    waiting.append(of(**event))


def _folders(directory: pathlib.Path, members: Sequence[Mapping[str, Any]]) -> dict[int, pathlib.Path]:
  """Returns the folder of each member; a group whose folder would be another one's gets a number behind its name."""
  folders: dict[int, pathlib.Path] = {}
  names: dict[str, str] = {}
  for member in members:
    group, _, seed = name_of(member).rpartition("/")
    if group not in names:
      name = re.sub(r"[^\w .,=+()-]", "_", group)[:_LETTERS].strip(" .")
      while name.casefold() in (other.casefold() for other in names.values()):  # some disks do not tell a from A
        name += f" ({member['member']})"
      names[group] = name
    folders[member["member"]] = directory / names[group] / seed
  return folders
