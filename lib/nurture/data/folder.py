"""Files below a data directory: found under the names that tools give them, opened, and their checksums kept."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import hashlib
import os
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from nurture.core import UserError

AGAIN = "the file is cut short or damaged, so download it again"
_GZIP = b"\x1f\x8b"  # begins neither an IDX file, nor a CIFAR record, nor a UTF-8 text
_SHOWN = 200  # characters of a path in a message


@dataclasses.dataclass(frozen=True)
class Folder:
  """Files below a data directory; remembers the sha256 of each file it reads.

  Attributes:
    data_dir: the directory that --data_dir names.
    layout: what it must hold, for the message about a missing file.
    archive: the file in which they are published together, for the same message.
    checksums: file name relative to data_dir (absolute for a file elsewhere) -> sha256 of the file on disk.
  """

  data_dir: str | os.PathLike
  layout: str
  archive: str = ""
  checksums: dict[str, str] = dataclasses.field(default_factory=dict)

  @property
  def root(self) -> Path:
    return data_root(self.data_dir)

  def find(self, name: str) -> Path:
    """Returns the file of this name; else with ".gz" added or removed, or ".idx" for "-idx", as archives have it.

    Raises:
      UserError: if there is none, or it cannot be looked for.
    """
    root = self.root
    plain = name.removesuffix(".gz")
    names = [name, plain if name != plain else f"{name}.gz"]
    for candidate in (*names, *(n.replace("-idx", ".idx") for n in names)):
      if is_file(root / candidate):
        return root / candidate
    path = root / name
    hint = f"pass --data_dir=DIR for a folder DIR that holds {self.layout}"
    if path.parent != root and is_file(root / path.name):
      hint = f"move {path.name} from {shown(root)} into the folder {path.parent.name} there"
    if self.archive and is_file(root / self.archive):
      hint = f"unpack {self.archive} in {shown(root)}, as `tar xzf {self.archive}` does"
    raise UserError(f"{shown(path)} {'is a folder' if path.is_dir() else 'does not exist'}; {hint}.")

  def where(self, name: str) -> str:
    """Returns the path of this file as a message shows it; raises as `find`."""
    return shown(self.find(name))

  @contextlib.contextmanager
  def open(self, name: str) -> Iterator[tuple[Path, BinaryIO]]:
    """Opens a file for reading: (its path, its bytes), decompressed if it begins as a gzip file, whatever its name.

    Raises:
      UserError: if it is missing, cannot be read, or is no whole gzip file.
    """
    path = self.find(name)
    try:
      with path.open("rb") as file:
        packed = file.read(len(_GZIP)) == _GZIP
        file.seek(0)
        unpacked = gzip.GzipFile(fileobj=file) if packed else file
        yield path, cast(BinaryIO, unpacked)
        file.seek(0)
        key = path.relative_to(self.root) if path.is_relative_to(self.root) else path
        self.checksums[str(key)] = hashlib.file_digest(file, "sha256").hexdigest()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
      raise UserError(f"{shown(path)} is no whole gzip file ({error}); {AGAIN}.") from error
    except OSError as error:
      raise UserError(f"{shown(path)} cannot be read ({reason(error)}); mend that, the file may be whole.") from error


def data_root(data_dir: str | os.PathLike) -> Path:
  """Returns the absolute path of the directory that --data_dir names.

  Raises:
    UserError: if there can be no such path.
  """
  try:
    return Path(data_dir or ".").expanduser().resolve()
  except (OSError, RuntimeError, ValueError) as error:  # no home, a loop of links, a NUL
    raise UserError(f"--data_dir={shown(data_dir)} is no path ({error}); give a folder.") from error


def is_file(path: Path) -> bool:
  """Returns whether a path leads to a file; raises UserError if that cannot be found out."""
  try:
    return stat.S_ISREG(os.stat(path).st_mode)
  except (FileNotFoundError, NotADirectoryError):
    return False
  except (OSError, ValueError) as error:  # a name that is too long, a folder that may not be searched, a NUL
    raise UserError(f"{shown(path)} cannot be looked up ({reason(error)}); check it and its permissions.") from error


def reason(error: Exception) -> str:
  """Returns what went wrong, on one line and without the path that an OSError repeats."""
  return " ".join(str(getattr(error, "strerror", None) or error).split())[:_SHOWN]


def shown(path: str | os.PathLike) -> str:
  """Returns a path as a message shows it: on one line, and without the middle of a very long one."""
  text = str(path)
  text = text if text.isprintable() else repr(text)
  return text if len(text) <= _SHOWN else f"{text[: _SHOWN // 2]}...{text[-_SHOWN // 2 :]}"
