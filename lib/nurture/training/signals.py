"""The two early ends of a run: a signal from outside, and a network that diverged.

SIGTERM and Ctrl-C become a flag that the loop looks at between two dispatches.
"""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any

from nurture.core import UserError

# EX_TEMPFAIL of sysexits.h: nothing is wrong, run the same command again. 128 + SIGINT, as shells have it.
EXIT_CODES = {signal.SIGTERM: 75, signal.SIGINT: 130}


class Preempted(Exception):
  """The run was asked to stop and has saved its state.

  Attributes:
    exit_code: for the process: 75 after SIGTERM, 130 after Ctrl-C.
  """

  def __init__(self, received: signal.Signals, step: int):
    super().__init__(f"stopped by {received.name} after step {step}; run the same command again to go on.")
    self.exit_code = EXIT_CODES[received]


class Diverged(UserError):
  """The only network of a run diverged; the message names the step and the first tensor that is not finite."""


class StopSignal:
  """Notes the first SIGTERM or SIGINT while it is entered; a second one acts as usual."""

  def __init__(self):
    self.received: signal.Signals | None = None
    self._previous: dict[int, Any] = {}

  def __enter__(self) -> StopSignal:
    for number in EXIT_CODES:
      try:
        self._previous[number] = signal.signal(number, self._note)
      except ValueError:  # not in the main thread, where nothing can be caught
        break
    return self

  def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
    for number, handler in self._previous.items():
      signal.signal(number, handler)
    self._previous.clear()

  def _note(self, number: int, frame: FrameType | None) -> None:
    self.received = signal.Signals(number)
    signal.signal(number, self._previous[number])
