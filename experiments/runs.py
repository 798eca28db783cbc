"""Lists the runs below directories: how far each has come, what it trains, when it changed last, how large it is.

  python -m experiments.runs [DIR...] [--state=finished]

DIR is runs where none is given. What is no run is passed over; a run that is damaged is listed with
what is wrong. Nothing is changed. A run whose process is gone can be continued by its own command,
which manifest.json has. States: finished, running, stopped (by a signal, an error or a member that
diverged), killed (or running on another machine, which cannot be seen), unreadable.
"""

import dataclasses
import os
import pathlib
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from absl import flags

from nurture import reporting, terminal
from nurture.core import UserError
from nurture.core.build import suggest
from nurture.reporting import schema
from nurture.reporting.files import open_file
from nurture.reporting.json_files import Malformed, parse
from nurture.reporting.run_directory import HISTORY
from nurture.reporting.schema import Optional

STATES = ("finished", "running", "stopped", "killed", "unreadable")
_STATE = flags.DEFINE_string("state", None, "Shows only runs of this state.")

_WIDTH = 100  # columns
_OF_A_RUN = {"config.json", "manifest.json", "metrics.jsonl", "results.json", "checkpoints", "lock"}
_NOT_ENTERED = {"checkpoints", "plots", "profile", "tensorboard"}
_MANIFEST = {"argv": Optional([schema.TEXT]), "members": Optional([schema.ANY]), **HISTORY}


@dataclasses.dataclass(frozen=True)
class Found:
  """A run.

  Attributes:
    directory: its own.
    state: one of STATES.
    words: how far it has come, or why it cannot be read.
    about: what it trains, in words.
    members: how many, None for a study.
    changed: when, in seconds since 1970.
    size: bytes.
  """

  directory: pathlib.Path
  state: str
  words: str
  about: str
  members: int | None
  changed: float
  size: int


def main(argv: Sequence[str]) -> None:
  if _STATE.value not in (None, *STATES):
    raise UserError(f"--state={_STATE.value} is no state of a run; {suggest(_STATE.value, STATES)}.")
  roots = [pathlib.Path(argument) for argument in argv[1:] or ["runs"]]
  for root in roots:
    if not reporting.is_directory(root):
      there = [path.name for path in pathlib.Path().iterdir() if path.is_dir() and not path.name.startswith(".")]
      raise UserError(f"{root} does not exist; {suggest(str(root), there)}; give a directory of runs.")
  runs = [look_at(directory) for directory in runs_below(roots)]
  runs = [run for run in runs if _STATE.value in (None, run.state)]
  print(listing(runs, time.time()))


def runs_below(roots: Sequence[pathlib.Path]) -> Iterator[pathlib.Path]:
  """Yields the run directories at and below directories, each once, in the order of their names; follows links."""
  seen, waiting = set(), list(reversed(roots))
  while waiting:
    directory = waiting.pop()
    place = os.path.realpath(directory)
    if place in seen:
      continue
    seen.add(place)
    try:
      names = sorted(os.listdir(directory))
    except OSError:
      continue  # somebody's own
    own = _OF_A_RUN & set(names)
    if len(own) > 1 and own & {"manifest.json", "metrics.jsonl"}:
      yield directory
    waiting += [
      directory / name for name in reversed(names)
      if not name.startswith(".") and name not in _NOT_ENTERED and os.path.isdir(directory / name)
    ]


def look_at(directory: pathlib.Path) -> Found:
  """Returns what the files of a run say; damage makes it unreadable and is told in a sentence."""
  changed, size = _extent(directory)
  config, about, members = {}, "", None
  try:
    config = reporting.read_config(directory)
    manifest = reporting.read_json(directory / "manifest.json", _MANIFEST)
    about = description(config, manifest.get("argv", []))
    if "members" not in manifest:
      state, words = _state_of_study(directory, manifest)
    else:
      members = len(reporting.read_manifest(directory)["members"])
      state, words = _state(directory, manifest, reporting.read_config(directory, {"steps": schema.COUNT})["steps"])
  except UserError as error:
    state, words = "unreadable", str(error)
  return Found(directory, state, words, about, members, changed, size)


def listing(runs: Sequence[Found], now: float) -> str:
  """Returns a line for each run and what it trains below it, and how many there are of each state."""
  if not runs:
    return "no runs."
  cells = [
    [str(run.directory), run.state, "" if run.members is None else _count(run.members, "member"),
     _ago(now - run.changed), _bytes(run.size)]
    for run in runs
  ]
  widths = [max(len(row[i]) for row in cells) for i in range(5)]
  lines = []
  for run, row in zip(runs, cells):
    lines.append("  ".join(cell.ljust(width) for cell, width in zip(row[:3], widths))
                 + f"  {row[3].rjust(widths[3])}  {row[4].rjust(widths[4])}")
    lines += [
      textwrap.fill(text, _WIDTH, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False)
      for text in (run.words, run.about) if text
    ]
  counts = {state: sum(run.state == state for run in runs) for state in STATES}
  states = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
  return "\n".join([*lines, "", f"{_count(len(runs), 'run')}: {states}."])


def description(config: Mapping[str, Any], argv: Sequence[str]) -> str:
  """Returns what a config trains, in words: "elr/digits: mlp on digits with symmetric noise 0.4; ce + elr; sgd".

  Args:
    config: of config.json, of which nothing is known.
    argv: the command line of the run.
  """
  name = _config_name(argv)
  data, model = _dict(config.get("data")), _row(config.get("model"))
  if not model:  # a study: its settings
    settings = [f"{key}={value}" for key, value in config.items() if isinstance(value, (int, float, str))]
    return ": ".join(filter(None, (name, " ".join(settings[:8]))))
  noise = _dict(data.get("label_noise")) or data.get("label_noise")
  amount = f" {noise['rate']}" if isinstance(noise, Mapping) and isinstance(noise.get("rate"), (int, float)) else ""
  words = f"{model} on {_row(data.get('source')) or 'its data'}"
  words += f" with {_row(noise)} noise{amount}" if noise else ""
  losses = " + ".join(filter(None, map(_row, _dict(config.get("losses")).values())))
  links = [_row(part) for section in ("targets", "gradients", "parameters") for part in _parts(config, section)]
  augmented = [_row(part) for part in _parts(data, "augment")]
  axes = _dict(_dict(config.get("ensemble")).get("grid"))
  parts = [words, losses, ", ".join(filter(None, [*augmented, *links])), _row(config.get("optimizer"))]
  parts.append(f"sweep of {', '.join(axes)}" if axes else "")
  return ": ".join(filter(None, (name, "; ".join(filter(None, parts)))))


def _state(directory: pathlib.Path, manifest: Mapping[str, Any], steps: int) -> tuple[str, str]:
  if reporting.exists(directory / "results.json"):
    members = reporting.read_results(directory)["members"]
    dead = sum(member["died_at"] is not None for member in members)
    return "finished", f"{dead} of {len(members)} members diverged" if dead else ""
  members = reporting.read_manifest(directory)["members"]
  cohorts = 1 + max(member["cohort"] for member in members)
  row = _last_row(directory / "metrics.jsonl")
  at = f"step {row['step']} of {steps}" if row else f"step 0 of {steps}"
  at = f"cohort {1 + row['cohort']} of {cohorts}, {at}" if row and cohorts > 1 else at
  state, why = _of_history(directory, manifest)
  return state, f"{why} at {at}" if why else f"at {at}"


def _state_of_study(directory: pathlib.Path, manifest: Mapping[str, Any]) -> tuple[str, str]:
  if reporting.exists(directory / "results.json"):
    return "finished", ""
  return _of_history(directory, manifest)


def _of_history(directory: pathlib.Path, manifest: Mapping[str, Any]) -> tuple[str, str]:
  """Returns the state of what has no results, and why it stopped."""
  last = (manifest.get("history") or [{}])[-1]
  locked = _is_locked(directory / "lock")
  if locked:
    return "running", ""
  if last.get("event") == "stop":
    why = str(last.get("reason", ""))
    return "stopped", "ended, but its results.json is missing," if why == "finished" else why
  return "killed", "killed, or running on another machine," if locked is False else "running or killed,"


def _is_locked(path: pathlib.Path) -> bool | None:
  """Tells if a process of this machine trains there; None where that cannot be seen without taking the lock."""
  try:
    inode, table = os.stat(path).st_ino, pathlib.Path("/proc/locks").read_text()
  except FileNotFoundError:
    return False if os.path.exists("/proc/locks") else None
  except OSError:
    return None
  return any(":FLOCK" in line.replace(" ", "") and f":{inode} " in line for line in table.splitlines())


def _last_row(path: pathlib.Path) -> dict[str, Any] | None:
  """Returns the indices of the last whole line of metrics.jsonl, read from its end; None where there is none.

  Raises:
    UserError: for a line that is no row.
  """
  if not reporting.exists(path):
    return None
  try:
    with open_file(path) as file:
      end, length = file.seek(0, os.SEEK_END), 1 << 16
      while True:
        file.seek(max(end - length, 0))
        lines = file.read().split(b"\n")[:-1]  # behind the last end of a line there is half a row, or nothing
        if len(lines) > 1 or length >= end:
          break
        length *= 8
  except OSError as error:
    raise UserError(f"{path} cannot be read ({error.strerror}); mend its permissions.") from error
  if not lines:
    return None
  try:
    row = parse(lines[-1])
    if found := schema.mismatch(row, {"step": schema.COUNT, "cohort": schema.COUNT}):
      raise Malformed(f"is no row of metrics ({found})")
  except Malformed as error:
    raise UserError(f"the last line of {path} {error}; restore the file from a copy.") from None
  return row


def _extent(directory: pathlib.Path) -> tuple[float, int]:
  """Returns when a run was changed last, and its bytes."""
  changed, size = 0.0, 0
  for place, _, names in os.walk(directory):
    for name in names:
      try:
        status = os.lstat(os.path.join(place, name))
      except OSError:  # it has just been removed
        continue
      changed, size = max(changed, status.st_mtime), size + status.st_size
  return changed, size


def _config_name(argv: Sequence[str]) -> str:
  """Returns "elr/digits" for --config=configs/elr/digits.py."""
  for i, word in enumerate(argv):
    if word.startswith("--config=") or word == "--config" and i + 1 < len(argv):
      path, _, part = (word.partition("=")[2] or argv[i + 1]).partition(":")
      return path.removeprefix("configs/").removesuffix(".py") + (f":{part}" if part else "")
  return ""


def _row(part: Any) -> str:
  """Returns the name of the row of a part, which may be the name itself."""
  name = part.get("name") if isinstance(part, Mapping) else part
  dataset = part.get("dataset") if isinstance(part, Mapping) else None
  return " ".join(filter(None, (word if isinstance(word, str) else "" for word in (name, dataset))))


def _parts(config: Mapping[str, Any], section: str) -> list[Any]:
  return list(_dict(config.get(section)).values())


def _dict(value: Any) -> Mapping[str, Any]:
  return value if isinstance(value, Mapping) else {}


def _count(number: int, word: str) -> str:
  return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _ago(seconds: float) -> str:
  for length, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
    if seconds >= length:
      return f"{_count(int(seconds // length), unit)} ago"
  return "just now"


def _bytes(size: int) -> str:
  for length, unit in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
    if size >= length:
      return f"{size / length:.3g} {unit}" if size < 1000 * length else f"{size / length:.0f} {unit}"
  return f"{size} B"


if __name__ == "__main__":
  terminal.run(main, takes_arguments=True)
