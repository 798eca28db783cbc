"""Reading and writing the files of a run directory: whole or not at all, durably, and as plain JSON."""

from __future__ import annotations

import contextlib
import errno
import io
import math
import os
import pathlib
import stat
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from nurture.core import UserError

Path = str | os.PathLike


def replace_file(path: Path, data: bytes | str) -> None:
  """Puts `data` in place of a file, so that a reader or a power cut meets the old contents or the new.

  Raises:
    UserError: if the file cannot be written.
  """
  path, data = pathlib.Path(path), data.encode() if isinstance(data, str) else data
  temporary = temporary_of(path)
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary.unlink(missing_ok=True)  # of a killed process; never written into, it may be a link to a file elsewhere
    with open(temporary, "xb") as f:
      f.write(data)
      f.flush()
      os.fsync(f.fileno())
    os.replace(temporary, path)
    sync_directory(path.parent)  # without it the rename itself may be lost
  except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
    with contextlib.suppress(OSError, ValueError):
      temporary.unlink()
    raise unwritable(path, error) from error


def temporary_of(path: pathlib.Path) -> pathlib.Path:
  """Returns the name under which `replace_file` writes before it renames; a kill may leave it behind."""
  return path.with_name(f".{path.name}.tmp")


def read_file(path: Path) -> bytes:
  """Returns the contents of a file.

  Raises:
    UserError: if there is no such file, or it cannot be read.
  """
  with _reading(path), open_file(path) as f:
    return f.read()


def read_lines(path: Path) -> Iterator[bytes]:
  """Yields the lines of a file, each with its end; raises as `read_file`."""
  with _reading(path), open_file(path) as f:
    yield from f


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
  try:
    yield
  except FileNotFoundError:
    raise UserError(f"{path} does not exist; give the directory of a run, which holds it.") from None
  except (OSError, ValueError) as error:
    raise _unreadable(path, error) from error


def open_file(path: Path) -> io.BufferedReader:
  """Opens a file for reading; raises OSError for a pipe or a device, whose reader might wait for ever."""
  f = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115
  if not stat.S_ISREG(os.fstat(f.fileno()).st_mode):
    f.close()
    raise OSError(errno.EINVAL, "Not a regular file", os.fspath(path))
  return f


def remove_file(path: Path) -> None:
  """Removes a file, if there is one.

  Raises:
    UserError: if it cannot be removed.
  """
  try:
    pathlib.Path(path).unlink(missing_ok=True)
  except OSError as error:
    raise unwritable(path, error) from error


def missing_directories(path: Path) -> list[pathlib.Path]:
  """Returns what a directory lacks of its path, innermost first: what `take_back` may remove later."""
  path = pathlib.Path(path)
  return [directory for directory in (path, *path.parents) if not exists(directory)]


def take_back(directory: Path, names: Sequence[str], made: Sequence[pathlib.Path]) -> None:
  """Removes what a start that was refused has written; a directory that holds anything else stays as it is.

  Args:
    directory: of the run.
    names: of the files, in the order in which they go.
    made: directories that the start has made, innermost first.
  """
  directory = pathlib.Path(directory)
  with contextlib.suppress(OSError):
    if set(os.listdir(directory)) <= set(names):
      for name in names:
        (directory / name).unlink(missing_ok=True)
      for path in made:
        path.rmdir()


def exists(path: Path) -> bool:
  """Returns whether there is a file or directory of this name.

  Raises:
    UserError: if that cannot be known: a directory above it cannot be searched, or a name is too long.
  """
  return _status(path) is not None


def is_directory(path: Path) -> bool:
  """Returns whether there is a directory of this name; raises as `exists`."""
  status = _status(path)
  return status is not None and stat.S_ISDIR(status.st_mode)


def _status(path: Path) -> os.stat_result | None:
  try:
    return os.stat(path)
  except (FileNotFoundError, NotADirectoryError):
    return None
  except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
    raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> UserError:
  reason = getattr(error, "strerror", None) or str(error)
  return UserError(f"{path} cannot be read ({reason}); mend its permissions or give another path.")


def unwritable(path: Path, error: Exception) -> UserError:
  """Returns the error for a file that cannot be written."""
  reason = getattr(error, "strerror", None) or str(error)
  return UserError(f"{path} cannot be written ({reason}); free space or give another directory, then run again.")


def json_form(value: Any) -> Any:
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
    return {str(k): json_form(v) for k, v in value.items()}
  if isinstance(value, (tuple, list)):
    return [json_form(v) for v in value]
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


def sync_directory(path: pathlib.Path) -> None:
  """Puts on the disk what was renamed in a directory."""
  if os.name == "posix":
    descriptor = os.open(path, os.O_RDONLY)
    try:
      os.fsync(descriptor)
    finally:
      os.close(descriptor)
