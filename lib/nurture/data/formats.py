"""Readers of file formats, with every count checked: IDX, the CIFAR binary records, texts and lists of names.

A header is read and judged before anything else is, and no more is read or decompressed than it announces.
"""

from __future__ import annotations

import math
from typing import BinaryIO

import numpy as np

from nurture.core import UserError
from nurture.data.folder import AGAIN, Folder, shown

_LARGEST = 1 << 30  # bytes of one file's values: twenty times MNIST, which a gzip of a megabyte can claim to hold
_PIECE = 1 << 20  # bytes that are read at a time, and of what is too much
_NAMES = 1 << 20  # bytes of a list of names


def read_idx(folder: Folder, name: str, rank: int, count: int) -> np.ndarray:
  """Returns the uint8 array of an IDX file, [count, ...] of the given rank.

  The format: two zero bytes, a type code (0x08 for uint8), the rank, one big-endian uint32 per axis, the values.

  Raises:
    UserError: if the header, the number of bytes or the number of examples is another one.
  """
  header = 4 + 4 * rank
  magic = bytes((0, 0, 0x08, rank))
  with folder.open(name) as (path, stream):
    file, head = shown(path), bytes(_take(stream, header))
    if head[:4] != magic or len(head) < header:
      packed = "is no whole gzip file: it " if path.suffix == ".gz" and head[:4] != magic else ""
      raise UserError(
        f"{file} {packed}begins with the bytes {head[:4].hex() or '(none)'}, but an IDX file of uint8 values with "
        f"{rank} axes begins with {magic.hex()} and has {header} bytes of header; download it again."
      )
    shape = tuple(int(v) for v in np.frombuffer(head, ">u4", count=rank, offset=4))
    if shape[0] != count:
      raise UserError(f"{file} holds {shape[0]} examples, but {count} are expected; download the whole set again.")
    expected = math.prod(shape)
    if not 0 < expected <= _LARGEST:
      _take(stream, _PIECE)  # a gzip file that is damaged says so here, and its header means nothing
      raise UserError(
        f"{file} promises {' x '.join(map(str, shape))} = {expected} values, but there have to be some, and at most "
        f"{_LARGEST}; {AGAIN}."
      )
    values, held = _exactly(stream, expected)
    if len(values) != expected:
      raise UserError(f"{file} holds {held} values, but its header promises {expected}; {AGAIN}.")
  return np.frombuffer(values, np.uint8).reshape(shape)


def read_records(folder: Folder, name: str, label_bytes: int, count: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns (images [count, 32, 32, 3], labels [count, label_bytes]), uint8, of a CIFAR binary file.

  A record is its label bytes and 3072 pixels: the red, then the green, then the blue plane, row by row.

  Raises:
    UserError: if the file is not exactly `count` records long.
  """
  size = label_bytes + 3 * 32 * 32
  with folder.open(name) as (path, stream):
    data, held = _exactly(stream, count * size)
    if len(data) != count * size:
      raise UserError(
        f"{shown(path)} holds {held} bytes ({len(data) / size:g} examples of {size} bytes), "
        f"but {count * size} ({count} examples) are expected; {AGAIN}."
      )
  records = np.frombuffer(data, np.uint8).reshape(count, size)
  planes = records[:, label_bytes:].reshape(count, 3, 32, 32)
  return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), records[:, :label_bytes]


def read_text(folder: Folder, name: str, limit: int = _LARGEST) -> str:
  """Returns a UTF-8 text, without the byte-order mark that may stand before it.

  Raises:
    UserError: if it is in another encoding, or has more than `limit` bytes.
  """
  with folder.open(name) as (path, stream):
    data, file = _take(stream, limit + 1), shown(path)
    if len(data) > limit:
      raise UserError(f"{file} is longer than {limit} bytes; give a shorter text.")
  try:
    text = data.decode("utf-8-sig")
  except UnicodeDecodeError as error:
    raise UserError(f"{file} is not UTF-8 ({error}); convert it, as `iconv -f LATIN1 -t UTF-8` does.") from error
  if "\0" in text:  # UTF-16 without a mark is valid UTF-8, where every second character is this one
    raise UserError(f"{file} holds the character NUL, so it is not UTF-8 or no text; convert it.")
  return text


def read_names(folder: Folder, name: str, count: int) -> tuple[str, ...]:
  """Returns the non-empty lines of a text file, of which there must be `count`."""
  names = tuple(line.strip() for line in read_text(folder, name, _NAMES).splitlines() if line.strip())
  if len(names) != count:
    raise UserError(f"{folder.where(name)} holds {len(names)} names, but {count} are expected; {AGAIN}.")
  return names


def _take(stream: BinaryIO, size: int) -> bytearray:
  """Returns the next `size` bytes, or what there is; only what there is takes memory."""
  data = bytearray()
  while piece := stream.read(min(_PIECE, size - len(data))):
    data += piece
  return data


def _exactly(stream: BinaryIO, size: int) -> tuple[bytearray, str]:
  """Returns all bytes, of which there should be `size`, and in words how many there are; stops early if too many."""
  data = _take(stream, size)
  more = _take(stream, _PIECE)  # also reads the checksum behind the last byte of a gzip file
  held = len(data) + len(more)
  return (data + more if more else data), f"{held}{' or more' if len(more) == _PIECE else ''}"
