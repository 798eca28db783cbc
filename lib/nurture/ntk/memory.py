"""Sizes of blocks of rows, from what a sample's Jacobian takes and what memory there is."""

from __future__ import annotations

import math

from nurture.core import UserError
from nurture.core.memory import free_bytes
from nurture.ntk.contraction import WORK

_USED = 0.8  # of the free memory, which others may want too
_COPIES = 4  # of a block's result: the sum, a layer's part, both mirrored


def usable_bytes() -> int:
  """Returns four fifths of the free memory of the first device; of the machine, where the device is its processor."""
  return int(_USED * free_bytes())


def row_bytes(sample: int, layer: int) -> int:
  """Returns what a row of a block takes: two blocks' factors and the products of a layer, or a backward pass.

  Args:
    sample: bytes of the factors of one sample.
    layer: bytes of one sample's largest layer, patches unfolded.
  """
  # Products order each side's inputs and cotangents anew; a backward pass holds three times what it leaves behind.
  return max(2 * sample + 4 * layer, 5 * sample)


def needed_bytes(block: int, row: int, entry: int, kernel: int, copies: int = _COPIES) -> int:
  """Returns what a kernel by blocks takes: kernel + block · row + copies of a block's result + work.

  Args:
    block: rows of a block.
    row: of `row_bytes`.
    entry: bytes of one pair of samples in the result.
    kernel: bytes of the result.
    copies: of a block's result that exist at once.
  """
  return kernel + block * row + copies * block**2 * entry + WORK


def choose_block(
  block: int | None, rows: int, row: int, entry: int, kernel: int, memory: int, multiple: int
) -> int:
  """Returns the rows of a block, at most `rows`.

  Args:
    block: as asked for; None takes the fewest blocks that fit.
    rows: of the longer side of the kernel.
    row: as for `needed_bytes`.
    entry: likewise.
    kernel: likewise.
    memory: in bytes.
    multiple: the number of devices, which must divide a block.

  Raises:
    UserError: if it does not fit, with the block that does.
  """
  room = memory - needed_bytes(0, row, entry, kernel)
  # The largest block with block · row + copies · block² · entry <= room.
  fits = (math.isqrt(row**2 + 4 * _COPIES * entry * room) - row) // (2 * _COPIES * entry) if room > 0 else 0
  fits = min(rows, fits) // multiple * multiple
  if fits < 1:
    least = needed_bytes(multiple, row, entry, 0)
    raise UserError(f"the kernel takes {_gigabytes(kernel)} and blocks of {multiple} rows with what they need "
                    f"{_gigabytes(least)}, but there are {_gigabytes(memory)}; take fewer samples, "
                    'reduce="pseudo", or ntk_matvec and ntk_sketch, which form no kernel.')
  if block is None:
    count = -(-rows // fits)
    return min(fits, -(-rows // (count * multiple)) * multiple)
  if min(block, rows) // multiple * multiple > fits:
    needed = needed_bytes(min(block, rows), row, entry, kernel)
    raise UserError(f"block={block} needs {_gigabytes(needed)}, but there are {_gigabytes(memory)}; block={fits} fits.")
  if block < multiple:
    raise UserError(f"block={block} cannot be spread over the {multiple} devices of the mesh; block={multiple} can.")
  return min(block, rows) // multiple * multiple


def _gigabytes(count: int) -> str:
  return f"{count / 1e9:.3g} GB"
