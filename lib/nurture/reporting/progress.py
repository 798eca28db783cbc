"""The one progress bar of a run."""

from __future__ import annotations

import os
import sys
from typing import Any

import tqdm

_FORMAT = "{desc} {percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"


class Progress:
  """A bar with the time left and the last loss; nothing at all when stderr is not a terminal.

  Args:
    total: number of steps.
    label: what stands before the bar.
    initial: steps already made, on resume; they do not count towards the speed.
  """

  def __init__(self, total: int, label: str, initial: int = 0):
    self._bar: Any = tqdm.tqdm(
      total=total, desc=label, initial=initial, bar_format=_FORMAT, file=sys.stderr,
      disable=not sys.stderr.isatty(), **({"dynamic_ncols": True} if _width_is_known() else {"ncols": 79, "nrows": 24}),
    )

  def update(self, step: int, loss: float | None = None, total: int | None = None) -> None:
    """Moves the bar to `step`, the number of steps made, and shows the loss (a mean over members, say).

    Args:
      step: as above.
      loss: as above.
      total: the number of steps, where it was not known before.
    """
    if self._bar.disable:
      return
    if total is not None:
      self._bar.total = total
    if loss is not None:
      self._bar.set_postfix_str(f"loss {float(loss):.4g}", refresh=False)
    self._bar.update(step - self._bar.n)

  def close(self) -> None:
    self._bar.close()

  def __enter__(self) -> Progress:
    return self

  def __exit__(self, *exception) -> None:
    self.close()


def _width_is_known() -> bool:
  """Some terminals (of a container, of an editor) say that they are 0 x 0, and tqdm then draws nothing."""
  try:
    return os.get_terminal_size(sys.stderr.fileno()).columns > 0
  except (OSError, ValueError):
    return False
