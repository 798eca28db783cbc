"""A trace of a few dispatches with jax.profiler, for Perfetto or XProf."""

from __future__ import annotations

import pathlib
from typing import Any

import jax

Tree = Any

_SKIPPED = 2  # the first dispatch compiles, the second may still fill caches
_TRACED = 3


class Profiler:
  """Traces the third to fifth dispatch of a run; does nothing without a directory."""

  def __init__(self, directory: pathlib.Path | None):
    self.directory = directory
    self._count = 0
    self._tracing = False

  def before(self) -> None:
    """Starts the trace if it is the turn of the next dispatch."""
    if self.directory is not None and self._count == _SKIPPED:
      jax.profiler.start_trace(str(self.directory))
      self._tracing = True
    self._count += 1

  def after(self, result: Tree) -> None:
    """Waits for a dispatch that is traced; ends the trace behind the last one."""
    if self._tracing:
      jax.block_until_ready(result)  # dispatches return before the device is done
    if self._count == _SKIPPED + _TRACED:
      self.close()

  def close(self) -> None:
    """Ends the trace, also that of a run with fewer dispatches."""
    if self._tracing:
      jax.profiler.stop_trace()
      self._tracing = False
