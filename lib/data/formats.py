"""Bytes of a file to arrays, with every count checked: IDX, the CIFAR binary records, lists of names."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import os
import zlib
from pathlib import Path

import numpy as np

from lib.core import UserError

_AGAIN = "the file is cut short or damaged, so download it again"


@dataclasses.dataclass(frozen=True)
class Folder:
  """Files below a data directory; remembers the sha256 of each file it reads.

  Attributes:
    data_dir: the directory that --data_dir names.
    layout: what it must hold, for the message about a missing file.
    checksums: file name relative to data_dir -> sha256 of the file on disk.
  """

  data_dir: str | os.PathLike
  layout: str
  checksums: dict[str, str] = dataclasses.field(default_factory=dict)

  @property
  def root(self) -> Path:
    return Path(self.data_dir or ".").expanduser().resolve()

  def read(self, name: str) -> bytes:
    """Returns the contents; a name that ends in .gz is decompressed, or read as it is from a file without .gz.

    Raises:
      UserError: if the file is missing, cannot be read, or is no whole gzip file.
    """
    path = self.root / name
    if not path.is_file() and path.suffix == ".gz" and path.with_suffix("").is_file():
      path = path.with_suffix("")
    if not path.is_file():
      raise UserError(f"{path} does not exist; pass --data_dir=DIR for a folder DIR that holds {self.layout}.")
    try:
      data = path.read_bytes()
    except OSError as error:
      raise UserError(f"{path} cannot be read ({error.strerror}); check its permissions.") from error
    self.checksums[str(path.relative_to(self.root))] = hashlib.sha256(data).hexdigest()
    if path.suffix != ".gz":
      return data
    try:
      return gzip.decompress(data)
    except (EOFError, OSError, zlib.error) as error:
      raise UserError(f"{path} ({len(data)} bytes) is no whole gzip file ({error}); {_AGAIN}.") from error

  def names(self, name: str, count: int) -> tuple[str, ...]:
    """Returns the non-empty lines of a text file, of which there must be `count`."""
    names = tuple(line.strip() for line in self.read(name).decode().splitlines() if line.strip())
    if len(names) != count:
      raise UserError(f"{self.root / name} holds {len(names)} names, but {count} are expected; {_AGAIN}.")
    return names


def read_idx(folder: Folder, name: str, rank: int, count: int) -> np.ndarray:
  """Returns the uint8 array of an IDX file, [count, ...] of the given rank.

  The format: two zero bytes, a type code (0x08 for uint8), the rank, one big-endian uint32 per axis, the values.

  Raises:
    UserError: if the header, the number of bytes or the number of examples is another one.
  """
  data, path = folder.read(name), folder.root / name
  header = 4 + 4 * rank
  magic = bytes((0, 0, 0x08, rank))
  if data[:4] != magic or len(data) < header:
    raise UserError(
      f"{path} begins with the bytes {data[:4].hex() or '(none)'}, but an IDX file of uint8 values with {rank} axes "
      f"begins with {magic.hex()} and has {header} bytes of header; download it again."
    )
  shape = tuple(int(v) for v in np.frombuffer(data, ">u4", count=rank, offset=4))
  expected = int(np.prod(shape, dtype=np.int64))
  if len(data) - header != expected:
    raise UserError(f"{path} holds {len(data) - header} values, but its header promises {expected}; {_AGAIN}.")
  if shape[0] != count:
    raise UserError(f"{path} holds {shape[0]} examples, but {count} are expected; download the whole set again.")
  return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def read_records(folder: Folder, name: str, label_bytes: int, count: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns (images [count, 32, 32, 3], labels [count, label_bytes]), uint8, of a CIFAR binary file.

  A record is its label bytes and 3072 pixels: the red, then the green, then the blue plane, row by row.

  Raises:
    UserError: if the file is not exactly `count` records long.
  """
  data, path = folder.read(name), folder.root / name
  size = label_bytes + 3 * 32 * 32
  if len(data) != count * size:
    raise UserError(
      f"{path} holds {len(data)} bytes ({len(data) / size:g} examples of {size} bytes), "
      f"but {count * size} ({count} examples) are expected; {_AGAIN}."
    )
  records = np.frombuffer(data, np.uint8).reshape(count, size)
  planes = records[:, label_bytes:].reshape(count, 3, 32, 32)
  return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), records[:, :label_bytes]


def check_labels(labels: np.ndarray, num_classes: int, path: Path) -> np.ndarray:
  """Returns the labels as int32; raises UserError if one is not below num_classes."""
  wrong = np.flatnonzero(labels >= num_classes)
  if len(wrong):
    raise UserError(
      f"{path} gives example {wrong[0]} the label {labels[wrong[0]]}, but labels go from 0 to {num_classes - 1}; "
      "download the file again."
    )
  return labels.astype(np.int32)
