"""The run directory of a study that is no training run, from its start to its end or its crash."""

from __future__ import annotations

import contextlib
import pathlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nurture.core import UserError
from nurture.reporting.files import Path, exists, missing_directories, remove_file, take_back
from nurture.reporting.json_files import write_json
from nurture.reporting.manifest import collect, recorded, start


class Study:
  """A running study.

  Attributes:
    workdir: its run directory.
    done: how many of its parts (steps, networks, data sets) are done, which the manifest keeps at the end; to be
      counted by the study.
  """

  def __init__(self, workdir: pathlib.Path):
    self.workdir, self.done, self._began = workdir, 0, time.monotonic()

  @property
  def seconds(self) -> float:
    """Seconds since the start."""
    return time.monotonic() - self._began

  def picture(self, name: str) -> pathlib.Path:
    """Returns where the picture of this name belongs."""
    return self.workdir / "plots" / f"{name}.png"

  def write(self, results: Mapping[str, Any]) -> pathlib.Path:
    """Writes results.json and returns its path."""
    write_json(self.workdir / "results.json", results)
    return self.workdir / "results.json"


@contextlib.contextmanager
def study(workdir: Path, settings: Mapping[str, Any], seeds: Sequence[int] = ()) -> Iterator[Study]:
  """Writes config.json and manifest.json; the manifest's history gets the end of the block, a crash included.

  results.json of an earlier start is removed, because it is what makes a study a finished one. A first start that ends
  in a UserError before it has written anything of its own leaves nothing behind.

  Args:
    workdir: the run directory; made if needed.
    settings: what config.json keeps.
    seeds: for the manifest, as is the command line.

  Raises:
    UserError: if the directory is that of a training run, or cannot be written.
  """
  workdir = pathlib.Path(workdir)
  if exists(workdir / "metrics.jsonl"):
    raise UserError(f"{workdir} is the directory of a training run; give another --workdir.")
  fresh, missing = not exists(workdir / "config.json"), missing_directories(workdir)
  try:
    write_json(workdir / "config.json", settings)
    remove_file(workdir / "results.json")
    start(workdir, collect(settings, {}, list(seeds), sys.argv[1:]))
    running = Study(workdir)
    with recorded(workdir, lambda: running.done):
      yield running
  except UserError:
    if fresh:
      take_back(workdir, ("manifest.json", "config.json"), missing)
    raise
