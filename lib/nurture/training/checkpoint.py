"""Checkpoints that come back bit for bit or not at all.

A cohort's folder holds one folder a step:

    step_0000000300/arrays/...     written by orbax
    step_0000000300/record.json    whose it is, what it counts on, and a sha256 of every file of the folder

It is written under another name and renamed when it is whole, so a kill at any moment leaves whole checkpoints only. A
checkpoint is *damaged* if a file of it is missing or does not match its sha256, and for no other reason: only then is
the one before it used. Whatever else keeps a checkpoint from being read (no memory, too many open files, a missing
library) is said, and nothing is touched.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import pathlib
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from nurture import reporting
from nurture.core import UserError, trees
from nurture.reporting.files import open_file, sync_directory

Tree = Any

_NAME = re.compile(r"step_(\d{10})")
_LEFTOVER = re.compile(r"(writing|removing)_step_\d{10}")  # what a kill in the middle of a save leaves behind
_DAMAGED = re.compile(r"damaged_step_\d{10}")


class Restored(NamedTuple):
  """A checkpoint as it was saved.

  Attributes:
    step: number of steps taken.
    tree: of numpy arrays.
    metrics: what metrics.jsonl held then, see `nurture.reporting.MetricsWriter.position`.
  """

  step: int
  tree: Tree
  metrics: dict[str, Any]


class _DamagedError(Exception):
  """Files of a checkpoint are missing or not those that were written; the message says which."""


class Checkpoints:
  """The checkpoints of one cohort.

  Args:
    directory: made if needed.
    keep: how many of the newest to keep, at least 1.
    owner: whose states these are, as plain JSON; a checkpoint of another owner is refused.
  """

  def __init__(self, directory: pathlib.Path, keep: int, owner: Mapping[str, Any]):
    self.directory = directory.absolute()
    self.keep = keep
    self.owner = dict(owner)
    self._checkpointer = None

  def steps(self) -> list[int]:
    """Returns the steps that have a checkpoint, ascending."""
    names = (_NAME.fullmatch(name) for name in self._names())
    return sorted(int(match.group(1)) for match in names if match)

  def save(self, step: int, tree: Tree, metrics: Mapping[str, Any]) -> None:
    """Writes a checkpoint and then removes the oldest ones beyond `keep`. One that is there is never replaced.

    Args:
      step: number of steps taken.
      tree: of arrays.
      metrics: what metrics.jsonl holds, see `nurture.reporting.MetricsWriter.position`.

    Raises:
      UserError: if it cannot be written; the older ones are untouched.
    """
    arrays = {name: np.asarray(jax.device_get(leaf)) for name, leaf in trees.named_leaves(tree)}
    described = {"step": step, "owner": self.owner, "metrics": dict(metrics), "arrays": _describe(arrays)}
    writing, final, whole = self.directory / f"writing_{self._path(step).name}", self._path(step), "none"
    try:
      _discard(writing)
      writing.mkdir(parents=True)
      self._write_arrays(writing / "arrays", arrays)
      files = sorted(path for path in writing.rglob("*") if path.is_file())
      record = described | {"files": {os.fspath(path.relative_to(writing)): _sha256_of_file(path) for path in files}}
      reporting.write_json(writing / "record.json", {"record": record, "sha256": _sha256(record)})
      writing.rename(final)
      sync_directory(self.directory)  # before older ones go
    except (OSError, ValueError, RuntimeError, ImportError, MemoryError, UserError) as error:
      _discard(writing)  # on a full disk it would be in the way
      with contextlib.suppress(UserError):
        whole = ", ".join(map(str, self.steps())) or "none"
      raise UserError(
        f"the checkpoint of step {step} could not be written to {self.directory} ({_reason(error)}); "
        f"make room or choose another --workdir; checkpoints that are whole: {whole}."
      ) from error
    for older in self.steps()[: -self.keep]:
      self._remove(older)

  def clear(self) -> None:
    """Removes every checkpoint, damaged ones too, and nothing else that may lie beside them.

    Raises:
      UserError: if one cannot be removed.
    """
    for step in self.steps():
      self._remove(step)
    for name in self._names():
      if _DAMAGED.fullmatch(name):
        _discard(self.directory / name)

  def restore(self, like: Tree) -> Restored | None:
    """Returns the newest checkpoint that is whole; None if there is none at all.

    Damaged ones that are newer are named on stderr and moved aside as "damaged_step_...", once an older one was read.

    Args:
      like: a tree of the expected structure, shapes and types; abstract arrays do.

    Raises:
      UserError: if every checkpoint is damaged, or the newest that is not cannot be read, belongs to another
        cohort or run, or holds other arrays than expected. Nothing has been touched then.
    """
    for name in self._names():
      if _LEFTOVER.fullmatch(name):
        _discard(self.directory / name)
    steps, damaged = self.steps(), {}
    expected = dict(trees.named_leaves(like))
    for step in reversed(steps):
      try:
        record = self._record(step)
      except _DamagedError as error:
        damaged[step] = str(error)
        continue
      self._check_same(step, record["arrays"], _describe(expected))
      arrays = self._arrays(step, record)
      for other, reason in damaged.items():
        aside = self._set_aside(other, "damaged")
        print(f"WARNING: the checkpoint of step {other} is damaged ({reason}); it was moved to {aside} "
              f"and the one of step {step} is used.", file=sys.stderr)
      tree = jax.tree.unflatten(jax.tree.structure(like), [arrays[name] for name in expected])
      return Restored(step, tree, record["metrics"])
    if damaged or any(map(_DAMAGED.fullmatch, self._names())):
      reasons = "; ".join(f"step {step}: {reason}" for step, reason in damaged.items())
      raise UserError(
        f"every checkpoint in {self.directory} is damaged{f' ({reasons})' if reasons else ''}; restore one from a "
        "copy, or remove this folder, those of later cohorts and results.json to train them again."
      )
    return None

  def read(self, step: int | None = None) -> dict[str, np.ndarray]:
    """Returns every array of a checkpoint by its path; nothing is moved or removed.

    Args:
      step: one of `steps()`; None takes the newest.

    Raises:
      UserError: if there is none, or it is damaged, cannot be read or belongs to somebody else.
    """
    steps = self.steps()
    if not steps:
      raise UserError(f"{self.directory} has no checkpoint; restore it from a copy, or train that run again.")
    step = steps[-1] if step is None else step
    try:
      record = self._record(step)
    except _DamagedError as error:
      raise UserError(
        f"the checkpoint of step {step} in {self.directory} is damaged ({error}); run the command of that run "
        "again, which goes on from an older one, or restore it from a copy."
      ) from error
    return self._arrays(step, record)

  def digest(self, step: int) -> str:
    """Returns a sha256 that tells this checkpoint from every other."""
    return _sha256(self._record(step))

  def _record(self, step: int) -> dict[str, Any]:
    """Returns the record of a checkpoint whose files are all as they were written."""
    folder = self._path(step)
    try:
      with _as_damage("record.json"):
        with open_file(folder / "record.json") as f:
          stored = json.load(f)
        record = stored["record"]
        if stored["sha256"] != _sha256(record):
          raise _DamagedError("record.json does not match its sha256")
      if record["step"] != step:
        raise _DamagedError(f"it is of step {record['step']}")
      for name, expected in record["files"].items():
        with _as_damage(name):
          if _sha256_of_file(folder / name) != expected:
            raise _DamagedError(f"{name} does not match its sha256")
    except OSError as error:
      raise self._unreadable(step, error) from error
    if record["owner"] != self.owner:
      raise UserError(
        f"the checkpoint of step {step} in {self.directory} belongs to {_name(record['owner'])}, and this is "
        f"{_name(self.owner)}; put it back to where it came from, restore the right one from a copy, or, if it is "
        "this run's, use as many devices of the kind that it was begun on."
      )
    return record

  def _arrays(self, step: int, record: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Reads the arrays of a checkpoint that is whole."""
    shapes = {name: np.empty(shape, np.dtype(dtype)) for name, (dtype, shape) in record["arrays"].items()}
    stored = {name: array for name, array in shapes.items() if array.size}
    try:
      with _quiet():
        ocp = _orbax()
        restored = self._open().restore(self._path(step) / "arrays", args=ocp.args.StandardRestore(stored))
        return {name: np.asarray(restored.get(name, empty)) for name, empty in shapes.items()}
    except Exception as error:  # noqa: BLE001  (the files are whole, so it is not the run's fault)
      raise self._unreadable(step, error) from error

  def _write_arrays(self, path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    # orbax refuses arrays without entries; their shape says all there is to know about them.
    stored = {name: array for name, array in arrays.items() if array.size}
    with _quiet():
      self._open().save(path, args=_orbax().args.StandardSave(stored))

  def _check_same(self, step: int, found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    for name in sorted({*found, *expected}):
      if found.get(name) != expected.get(name):
        show = lambda entry: f"{entry[0]}{entry[1]}" if entry else "nothing"
        raise UserError(
          f"the checkpoint of step {step} in {self.directory} has {show(found.get(name))} at {name}, where this "
          f"program needs {show(expected.get(name))}; use the code and the kind of machine that wrote it, or another "
          "--workdir."
        )

  def _unreadable(self, step: int, error: Exception) -> UserError:
    return UserError(
      f"the checkpoint of step {step} in {self.directory} cannot be read ({_reason(error)}); nothing was changed: mend "
      "that and run the same command again."
    )

  def _names(self) -> list[str]:
    try:
      return sorted(os.listdir(self.directory))
    except FileNotFoundError:
      for path in (self.directory, *self.directory.parents):
        if path.is_symlink() and not path.exists():  # to a disk that is not there today
          raise UserError(f"{path} is a link to something that is not there; restore that, or remove the link to start "
                          "from the beginning.") from None
      return []
    except OSError as error:  # no reason to start from the beginning
      raise UserError(f"{self.directory} cannot be read ({error.strerror}); mend that and run the same command "
                      "again.") from error

  def _remove(self, step: int) -> None:
    """Removes a checkpoint so that a kill in between leaves no part of it under its name."""
    _discard(self._set_aside(step, "removing"))

  def _set_aside(self, step: int, why: str) -> pathlib.Path:
    path = self._path(step)
    aside = path.with_name(f"{why}_{path.name}")
    _discard(aside)
    try:
      return path.rename(aside)
    except OSError as error:
      raise UserError(f"{path} cannot be moved to {aside} ({error.strerror}); mend that and run the same command "
                      "again.") from error

  def _path(self, step: int) -> pathlib.Path:
    return self.directory / f"step_{step:010d}"

  def _open(self) -> Any:
    if self._checkpointer is None:
      ocp = _orbax()
      self._checkpointer = ocp.Checkpointer(ocp.StandardCheckpointHandler())
    return self._checkpointer


def _orbax() -> Any:
  import orbax.checkpoint as ocp  # noqa: PLC0415  (half a second, and only runs that train need it)

  return ocp


def _discard(path: pathlib.Path) -> None:
  """Removes a folder, or whatever has its name; of a link the link alone. What cannot be removed stays."""
  with contextlib.suppress(OSError):
    path.unlink() if path.is_symlink() or path.is_file() else shutil.rmtree(path, ignore_errors=True)


def _describe(arrays: Mapping[str, Any]) -> dict[str, list]:
  return {name: [str(np.dtype(array.dtype)), list(array.shape)] for name, array in arrays.items()}


def _sha256(record: Mapping[str, Any]) -> str:
  return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _sha256_of_file(path: pathlib.Path) -> str:
  with open_file(path) as f:
    return hashlib.file_digest(f, "sha256").hexdigest()


@contextlib.contextmanager
def _as_damage(name: str) -> Iterator[None]:
  """Turns what only another structure of the folder, or another text, can raise into _DamagedError."""
  try:
    yield
  except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
    raise _DamagedError(f"{name} is missing") from error
  except (ValueError, KeyError, TypeError, RecursionError) as error:
    raise _DamagedError(f"{name} holds something else") from error


def _name(owner: Mapping[str, Any]) -> str:
  seeds = owner.get("seeds") or ["?"]
  of = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]} to {seeds[-1]}"
  return f"cohort {owner.get('cohort')} ({of}) of the run with config {str(owner.get('config'))[:8]}"


def _reason(error: Exception) -> str:
  """Returns the heart of an error that tensorstore wraps in the path of every layer it came through."""
  if isinstance(error, OSError) and error.strerror:
    return error.strerror
  if isinstance(error, MemoryError):
    return "out of memory"
  first = (str(error).strip().splitlines() or [type(error).__name__])[0]
  found = re.search(r": ([^:\[]+) \[os_error_code=", first) or re.search(r"cannot be written \(([^)]+)\)", first)
  return found.group(1) if found else first[:120]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """Keeps what orbax's threads say of a failure off the terminal; the failure itself is raised and told in one line."""
  logger, hook = logging.getLogger("absl"), sys.unraisablehook
  level = logger.level
  logger.setLevel(logging.CRITICAL)
  sys.unraisablehook = lambda unraisable: None
  try:
    yield
  finally:
    logger.setLevel(level)
    sys.unraisablehook = hook
