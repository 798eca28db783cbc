"""The progress of a run: one bar on a terminal, a line a minute elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import tqdm

_FORMAT = "{desc} {percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
_SECONDS = 60.0  # between two lines


class Progress:
  """A bar with the time left and the last loss; a line a minute when stderr is no terminal, such as a batch job's file:

      quickstart: cohort 1 of 2, step 500 of 1500, loss 0.5123, test/accuracy 0.871; 17 % done, about 4 min left

  Args:
    total: number of steps, of all cohorts together.
    label: what stands before the bar.
    initial: steps already made, on resume; they do not count towards the speed.
    cohorts: of as many steps each, which are made one after another.
    clock: () -> seconds.
  """

  def __init__(
    self, total: int, label: str, initial: int = 0, cohorts: int = 1, clock: Callable[[], float] = time.monotonic
  ):
    self._label, self._total, self._cohorts, self._clock = label, total, cohorts, clock
    self._said = clock()  # when the last line was written
    self._first: tuple[int, float] | None = None  # step and time from which speed is measured
    self._lines = not sys.stderr.isatty()
    self._bar: Any = tqdm.tqdm(
      total=total, desc=label, initial=initial, bar_format=_FORMAT, file=sys.stderr,
      disable=self._lines, **({"dynamic_ncols": True} if _width_is_known() else {"ncols": 79, "nrows": 24}),
    )

  def update(
    self, step: int, loss: float | None = None, total: int | None = None, metrics: Mapping[str, float] | None = None
  ) -> None:
    """Shows that `step` steps are made.

    Args:
      step: as above, those of earlier cohorts included.
      loss: the last one (a mean over members, say), for the bar.
      total: the number of steps, where it was not known before.
      metrics: the last of each, for a line.
    """
    if total is not None:
      self._total = self._bar.total = total
    if self._lines:
      self._say(step, metrics or {})
      return
    if loss is not None:
      self._bar.set_postfix_str(f"loss {float(loss):.4g}", refresh=False)
    self._bar.update(step - self._bar.n)

  def _say(self, step: int, metrics: Mapping[str, float]) -> None:
    """Writes a line, if it is time for one."""
    now = self._clock()
    first, self._first = self._first, self._first or (step, now)
    if now - self._said < _SECONDS:
      return
    self._said = now
    each = self._total // self._cohorts
    cohort = max(step - 1, 0) // each if self._cohorts > 1 else 0
    words = [f"cohort {cohort + 1} of {self._cohorts}"] * (self._cohorts > 1)
    words += [f"step {step - cohort * each} of {each}", *(f"{name} {value:.4g}" for name, value in metrics.items())]
    left = ""
    if first is not None and step > first[0]:
      left = f", about {in_words((now - first[1]) / (step - first[0]) * (self._total - step))} left"
    line = f"{self._label}: {', '.join(words)}; {100 * step // self._total} % done{left}"
    print(line, file=sys.stderr, flush=True)

  def close(self) -> None:
    self._bar.close()

  def __enter__(self) -> Progress:
    return self

  def __exit__(self, *exception) -> None:
    self.close()


def in_words(seconds: float) -> str:
  """Returns "40 s", "12 min" or "3 h 20 min"."""
  if seconds < 100:
    return f"{seconds:.0f} s"
  minutes = round(seconds / 60)
  return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def _width_is_known() -> bool:
  """Some terminals (of a container, of an editor) say that they are 0 x 0, and tqdm then draws nothing."""
  try:
    return os.get_terminal_size(sys.stderr.fileno()).columns > 0
  except (OSError, ValueError):
    return False
