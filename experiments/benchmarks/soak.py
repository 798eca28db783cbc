"""Kills a training run again and again, at chosen moments, and compares it with one that was left alone.

  python -m experiments.benchmarks.soak --signals=100

An ensemble of two cohorts gets SIGKILL, SIGTERM and Ctrl-C while it starts, while it writes a checkpoint, while it
writes metrics and at its end. After every signal the same command goes on. A run that ends must have the bytes of the
undisturbed one; then the next run begins. Printed are the counts by signal and moment: how many signals were sent,
after how many the process ended with a code that is none of the signal's (Ctrl-C inside an import), after how many the
next command refused to go on, and how many stood before an end with other bytes.
"""

import collections
import contextlib
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence

from absl import flags

from nurture import reporting, terminal

_SIGNALS = flags.DEFINE_integer("signals", 100, "Signals to send in all.", lower_bound=1, **terminal.SHARED)
_EACH = flags.DEFINE_integer(
  "each", 10, "Signals to send to one run before it may end.", lower_bound=1, **terminal.SHARED,
)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the moments.", **terminal.SHARED)
_LIMIT = flags.DEFINE_float("limit", 300.0, "Seconds that one process may take.", lower_bound=1.0, **terminal.SHARED)

CONFIG = "configs/quickstart.py"
OVERRIDES = (
  "--config.steps=1200", "--config.steps_per_dispatch=10", "--config.log_every=20", "--config.checkpoint.every=20",
  "--config.model.width=16", "--config.ensemble.seeds=2", "--config.ensemble.chunk=4", "--config.probes.test.every=60",
  "--config.probes.train.every=100",
)
LAST = "checkpoints/cohort_001/step_0000001200"
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
MOMENTS = ("start", "checkpoint", "metrics", "end")
# What a process says when it dies of the signal, or stops because of it.
CODES = {signal.SIGKILL: {-signal.SIGKILL}, signal.SIGTERM: {-signal.SIGTERM, 75}, signal.SIGINT: {-signal.SIGINT, 130}}
COMPARED = ("config.json", "metrics.jsonl", "results.json")


def start(workdir: pathlib.Path) -> subprocess.Popen:
  """Starts the training command."""
  command = [sys.executable, "-m", "experiments.train", f"--config={CONFIG}", f"--workdir={workdir}", *OVERRIDES]
  return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def wait_for(
  process: subprocess.Popen, workdir: pathlib.Path, moment: str, draw: random.Random, startup: float
) -> None:
  """Returns at a moment of a run, or when its process has ended."""
  metrics = workdir / "metrics.jsonl"
  size = lambda: metrics.stat().st_size if metrics.exists() else 0
  before, left_behind = size(), _unfinished(workdir)
  happened: dict[str, Callable[[], bool]] = {
    "start": lambda: True,
    "checkpoint": lambda: bool(_unfinished(workdir) - left_behind),
    "metrics": lambda: size() != before,
    "end": lambda: (workdir / LAST).exists(),
  }
  deadline = time.monotonic() + _LIMIT.value
  while not happened[moment]() and process.poll() is None and time.monotonic() < deadline:
    time.sleep(0.001)
  time.sleep(draw.uniform(0, {"start": startup, "end": 0.1}.get(moment, 0.02)))


def _unfinished(workdir: pathlib.Path) -> set[int]:
  """Returns the inodes of the checkpoints that are being written, or were when a kill came."""
  inodes = set()
  for path in workdir.glob("checkpoints/*/writing_step_*"):
    with contextlib.suppress(FileNotFoundError):  # it has been renamed
      inodes.add(path.stat().st_ino)
  return inodes


def main(argv: Sequence[str]) -> None:
  del argv
  signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored behind an &, and so would the runs
  began, root, draw = time.monotonic(), pathlib.Path(tempfile.mkdtemp()), random.Random(_SEED.value)
  counts = {name: collections.Counter() for name in ("sent", "odd", "refused", "different")}
  process = start(root / "undisturbed")
  while not (root / "undisturbed/metrics.jsonl").exists() and process.poll() is None:
    time.sleep(0.01)
  startup = time.monotonic() - began
  _, said = process.communicate(timeout=_LIMIT.value)
  if process.returncode:
    raise RuntimeError(f"the undisturbed run failed: {said}")
  contents = lambda run: {name: (root / run / name).read_bytes() for name in COMPARED}
  expected, runs, processes = contents("undisturbed"), 0, 1
  with reporting.Progress(_SIGNALS.value, "signals") as progress:
    while counts["sent"].total() < _SIGNALS.value:
      runs += 1
      plan = [(draw.choice(SIGNALS), draw.choice(MOMENTS[:3])) for _ in range(_EACH.value - 1)]
      plan = [*plan, (draw.choice(SIGNALS), "end")][: _SIGNALS.value - counts["sent"].total()]
      sent = _disturb(root / "run", plan, draw, startup, counts, progress)
      processes += len(plan) + 1
      if sent is None or contents("run") != expected or not (root / "run" / LAST).exists():
        counts["different"].update(plan if sent is None else sent)
        print(f"run {runs} ended otherwise than the undisturbed one after {sent or plan}", file=sys.stderr)
      shutil.rmtree(root / "run", ignore_errors=True)
  rows = [
    [number.name, moment, *(counts[name][number, moment] for name in counts)]
    for number in SIGNALS for moment in MOMENTS
  ]
  rows.append(["all", "", *(counts[name].total() for name in counts)])
  headers = ["signal", "moment", "sent", "another exit code", "could not go on", "other bytes"]
  print(reporting.markdown_table(headers, rows))
  print(f"\n{runs} runs, {processes} processes, {time.monotonic() - began:.0f} s; start-up took {startup:.1f} s.")
  shutil.rmtree(root)
  if counts["refused"].total() or counts["different"].total():
    sys.exit(1)


def _disturb(
  workdir: pathlib.Path, plan: Sequence[tuple[signal.Signals, str]], draw: random.Random, startup: float,
  counts: dict[str, collections.Counter], progress: reporting.Progress,
) -> list[tuple[signal.Signals, str]] | None:
  """Trains one run to its end through the signals of a plan; returns those sent, or None if it could not go on."""
  sent = []
  for number, moment in [*plan, (None, None)]:
    process, before = start(workdir), len(sent)
    if number is not None:
      wait_for(process, workdir, moment, draw, startup)
      if process.poll() is None:
        os.kill(process.pid, number)
        sent.append((number, moment))
        counts["sent"][number, moment] += 1
        progress.update(counts["sent"].total())
    _, said = process.communicate(timeout=_LIMIT.value)
    asked = len(sent) > before
    if asked and process.returncode not in {0, *CODES[number]}:
      # Ctrl-C in the middle of an import, say: the next start tells whether anything was lost.
      counts["odd"][number, moment] += 1
    elif process.returncode and not asked:
      last = sent[-1] if sent else ("no signal", "start")
      counts["refused"][last] += 1
      print(f"after {last} the command ended with code {process.returncode}: {said}", file=sys.stderr)
      return None
  return sent


if __name__ == "__main__":
  terminal.run(main)
