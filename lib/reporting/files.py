"""How every file of a run directory is written: whole or not at all, durably, and as plain JSON."""

from __future__ import annotations

import contextlib
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from lib.core import UserError

Path = str | os.PathLike


def replace_file(path: Path, data: bytes | str) -> None:
  """Puts `data` in place of a file, so that a reader or a power cut meets the old contents or the new.

  Raises:
    UserError: if the file cannot be written.
  """
  path = pathlib.Path(path)
  temporary = temporary_of(path)
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary.unlink(missing_ok=True)  # of a kill; a link is removed and never followed
    with open(temporary, "xb") as f:
      f.write(data.encode() if isinstance(data, str) else data)
      f.flush()
      os.fsync(f.fileno())
    os.replace(temporary, path)
    _sync_directory(path.parent)  # without it the rename itself may be lost
  except OSError as error:
    with contextlib.suppress(OSError):
      temporary.unlink(missing_ok=True)  # on a full disk it would be in the way
    raise unwritable(path, error) from error


def temporary_of(path: pathlib.Path) -> pathlib.Path:
  """Returns the name under which `replace_file` writes before it renames; a kill may leave it behind."""
  return path.with_name(f".{path.name}.tmp")


def unwritable(path: Path, error: OSError) -> UserError:
  """Returns the error for a file that cannot be written."""
  reason = error.strerror or str(error)
  return UserError(f"{path} cannot be written ({reason}); free space or give another directory, then run again.")


def plain(value: Any) -> Any:
  """Returns a value as JSON can hold it: arrays as lists, numpy numbers as Python's, nan and infinity as None.

  Numbers of at most 32 bits become the shortest decimal that reads back as the same float32, so 0.1 stays
  "0.1" and not "0.10000000149011612". Key order is kept.

  Raises:
    TypeError: for anything else, so that nothing is silently written as its repr.
  """
  if value is None or isinstance(value, (bool, str, int)):
    return value
  if isinstance(value, (float, np.floating)) or _is_array(value):
    return _numbers(np.asarray(value))
  if isinstance(value, (np.bool_, np.integer)):
    return value.item()
  if isinstance(value, os.PathLike):
    return os.fspath(value)
  if isinstance(value, Mapping) or hasattr(value, "items"):  # a ConfigDict has items and is no Mapping
    return {str(k): plain(v) for k, v in value.items()}
  if isinstance(value, (tuple, list)):
    return [plain(v) for v in value]
  raise TypeError(f"{value!r} ({type(value).__name__}) has no form in JSON")


def _is_array(value: Any) -> bool:
  return hasattr(value, "dtype") and hasattr(value, "shape")


def _numbers(array: np.ndarray) -> Any:
  if array.ndim:
    return [_numbers(row) for row in array]
  if array.dtype == np.bool_ or np.issubdtype(array.dtype, np.integer):
    return array.item()
  if array.dtype == np.float64:
    number = float(array)
  else:  # str of a float32 is its shortest decimal; bfloat16 and float16 are exact in float32
    number = float(str(array.astype(np.float32)[()]))
  return number if math.isfinite(number) else None


def _sync_directory(path: pathlib.Path) -> None:
  if os.name == "posix":
    descriptor = os.open(path, os.O_RDONLY)
    try:
      os.fsync(descriptor)
    finally:
      os.close(descriptor)
