"""Checkpoints that come back bit for bit or not at all.

A cohort's folder holds one folder a step, written by orbax under a temporary name and then renamed, so a
kill at any moment leaves whole checkpoints only. Each carries the shape and type of every array and a
sha256 over all of them; what does not match is damaged, and the one before is used.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import pathlib
import re
import shutil
import sys
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from lib.core import UserError, trees

Tree = Any

_NAME = re.compile(r"step_(\d{10})")


class Checkpoints:
  """The checkpoints of one cohort.

  Args:
    directory: made if needed.
    keep: how many of the newest to keep, at least 1.
  """

  def __init__(self, directory: pathlib.Path, keep: int):
    self.directory = directory.absolute()
    self.keep = keep
    self._checkpointer = None

  def steps(self) -> list[int]:
    """Returns the steps that have a whole checkpoint, ascending."""
    names = (_NAME.fullmatch(path.name) for path in self.directory.glob("step_*"))
    return sorted(int(match.group(1)) for match in names if match)

  def save(self, step: int, tree: Tree) -> None:
    """Writes a checkpoint and then removes the oldest ones beyond `keep`.

    Raises:
      UserError: if it cannot be written; the older ones are untouched.
    """
    arrays = _flatten(tree)
    meta = {"step": step, "arrays": _describe(arrays), "sha256": trees.digest(arrays)}
    meta["meta_sha256"] = _sha256(meta)
    import orbax.checkpoint as ocp  # noqa: PLC0415  (half a second, and only runs that train need it)

    # orbax refuses arrays without entries; their shape says all there is to know about them.
    stored = {name: array for name, array in arrays.items() if array.size}
    try:
      self.directory.mkdir(parents=True, exist_ok=True)
      arguments = ocp.args.Composite(arrays=ocp.args.StandardSave(stored), meta=ocp.args.JsonSave(meta))
      with _quiet():
        self._open().save(self._path(step), args=arguments, force=True)
    except (OSError, ValueError) as error:
      self._remove_leftovers()  # on a full disk they would be in the way
      whole = ", ".join(map(str, self.steps())) or "none"
      raise UserError(
        f"the checkpoint of step {step} could not be written to {self.directory} ({_reason(error)}); "
        f"make room or choose another --workdir; checkpoints that are whole: {whole}."
      ) from error
    for old in self.steps()[: -self.keep]:
      shutil.rmtree(self._path(old))

  def restore(self, like: Tree) -> tuple[int, Tree] | None:
    """Returns (step, tree of numpy arrays) of the newest checkpoint that is whole; None if there is none at all.

    Damaged ones are named on stderr and moved aside as "damaged_step_...".

    Args:
      like: a tree of the expected structure, shapes and types; abstract arrays do.

    Raises:
      UserError: if every checkpoint is damaged, or a whole one holds other arrays than expected.
    """
    self._remove_leftovers()
    steps = self.steps()
    for step in reversed(steps):
      try:
        with _quiet():
          arrays = self._read(step, dict(trees.named_leaves(like)))
      except UserError:
        raise
      except Exception as error:  # noqa: BLE001  (whatever reading damaged bytes may raise)
        aside = self._path(step).with_name(f"damaged_{self._path(step).name}")
        shutil.rmtree(aside, ignore_errors=True)
        self._path(step).rename(aside)
        print(f"WARNING: the checkpoint of step {step} is damaged ({_reason(error)}); it was moved to {aside} "
              "and the one before it is used.", file=sys.stderr)
      else:
        leaves = [arrays[name] for name, _ in trees.named_leaves(like)]
        return step, jax.tree.unflatten(jax.tree.structure(like), leaves)
    if steps or any(self.directory.glob("damaged_*")):
      raise UserError(
        f"every checkpoint in {self.directory} is damaged; restore one from a copy, or remove the run directory "
        "to start from the beginning."
      )
    return None

  def read_arrays(self, step: int) -> dict[str, np.ndarray]:
    """Returns every array of a checkpoint by its path, checked against its sha256."""
    return self._read(step, None)

  def _read(self, step: int, expected: dict[str, Any] | None) -> dict[str, np.ndarray]:
    import orbax.checkpoint as ocp  # noqa: PLC0415

    meta = self._open().restore(self._path(step), args=ocp.args.Composite(meta=ocp.args.JsonRestore())).meta
    if meta.pop("meta_sha256") != _sha256(meta):
      raise ValueError("its description does not match its sha256")
    if meta["step"] != step:
      raise ValueError(f"it says that it is of step {meta['step']}")
    if expected is not None:
      self._check_same(step, meta["arrays"], _describe(expected))
    shapes = {name: np.empty(shape, np.dtype(dtype)) for name, (dtype, shape) in meta["arrays"].items()}
    stored = {name: array for name, array in shapes.items() if array.size}
    restored = self._open().restore(
      self._path(step), args=ocp.args.Composite(arrays=ocp.args.StandardRestore(stored))
    ).arrays
    arrays = {name: np.asarray(restored.get(name, empty)) for name, empty in shapes.items()}
    if trees.digest(arrays) != meta["sha256"]:
      raise ValueError("its contents do not match their sha256")
    return arrays

  def _check_same(self, step: int, found: dict[str, Any], expected: dict[str, Any]) -> None:
    for name in sorted({*found, *expected}):
      if found.get(name) != expected.get(name):
        show = lambda entry: f"{entry[0]}{entry[1]}" if entry else "nothing"
        raise UserError(
          f"the checkpoint of step {step} in {self.directory} has {show(found.get(name))} at {name}, where this "
          f"program needs {show(expected.get(name))}; use the code and the kind of machine that wrote it, or another "
          "--workdir."
        )

  def _remove_leftovers(self) -> None:
    """Removes what a kill in the middle of a save left behind."""
    for path in self.directory.glob("step_*"):
      if not _NAME.fullmatch(path.name):
        shutil.rmtree(path, ignore_errors=True)

  def _path(self, step: int) -> pathlib.Path:
    return self.directory / f"step_{step:010d}"

  def _open(self) -> Any:
    import orbax.checkpoint as ocp  # noqa: PLC0415

    if self._checkpointer is None:
      self._checkpointer = ocp.Checkpointer(ocp.CompositeCheckpointHandler())
    return self._checkpointer


def _flatten(tree: Tree) -> dict[str, np.ndarray]:
  return {name: np.asarray(jax.device_get(leaf)) for name, leaf in trees.named_leaves(tree)}


def _describe(arrays: dict[str, Any]) -> dict[str, list]:
  return {name: [str(np.dtype(array.dtype)), list(array.shape)] for name, array in arrays.items()}


def _sha256(meta: dict[str, Any]) -> str:
  return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()


def _reason(error: Exception) -> str:
  """Returns the heart of an error that tensorstore wraps in the path of every layer it came through."""
  if isinstance(error, OSError) and error.strerror:
    return error.strerror
  first = (str(error).strip().splitlines() or [type(error).__name__])[0]
  found = re.search(r": ([^:\[]+) \[os_error_code=", first)
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
