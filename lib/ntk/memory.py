"""How large a block of rows may be, from what a sample's Jacobian takes and what there is."""

from __future__ import annotations

import pathlib

import jax

from lib.core import UserError
from lib.ntk.contraction import WORK

_OVERHEAD = 4  # a backward pass holds about three times what it leaves behind, and products order some of it anew


def available_bytes() -> int:
  """Returns the free memory of the first device; of the machine, where the device is its processor."""
  stats = jax.local_devices()[0].memory_stats()
  if stats and "bytes_limit" in stats:
    return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
  lines = pathlib.Path("/proc/meminfo").read_text().splitlines() if pathlib.Path("/proc/meminfo").exists() else []
  free = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
  return free[0] if free else 8 * 2**30


def needed_bytes(block: int, sample: int, kernel: int) -> int:
  """Returns what a kernel by blocks takes: kernel + 2 block · 4 sample + work.

  Args:
    block: rows of a block.
    sample: bytes of the factors of one sample.
    kernel: bytes of the result.
  """
  return kernel + 2 * block * _OVERHEAD * sample + WORK


def choose_block(block: int | None, rows: int, sample: int, kernel: int, memory: int | None, multiple: int) -> int:
  """Returns the rows of a block, at most `rows`.

  Args:
    block: as asked for; None takes the fewest blocks that fit.
    rows: of the longer side of the kernel.
    sample, kernel: as for `needed_bytes`.
    memory: in bytes; None takes what is free.
    multiple: the number of devices, which must divide a block.

  Raises:
    UserError: if it does not fit, with the block that does.
  """
  memory = available_bytes() if memory is None else memory
  fits = (memory - needed_bytes(0, sample, kernel)) // max(1, 2 * _OVERHEAD * sample)
  fits = min(rows, fits) // multiple * multiple
  if fits < 1:
    raise UserError(f"the kernel takes {_gigabytes(kernel)} and blocks of {multiple} rows with what they need "
                    f"{_gigabytes(needed_bytes(multiple, sample, 0))}, but there are {_gigabytes(memory)}; take fewer "
                    'samples, reduce="pseudo", or ntk_matvec and ntk_sketch, which form no kernel.')
  if block is None:
    count = -(-rows // fits)
    return min(fits, -(-rows // (count * multiple)) * multiple)
  if min(block, rows) // multiple * multiple > fits:
    raise UserError(f"block={block} needs {_gigabytes(needed_bytes(min(block, rows), sample, kernel))}, but there are "
                    f"{_gigabytes(memory)}; block={fits} fits.")
  if block < multiple:
    raise UserError(f"block={block} cannot be spread over the {multiple} devices of the mesh; block={multiple} can.")
  return min(block, rows) // multiple * multiple


def _gigabytes(count: int) -> str:
  return f"{count / 1e9:.3g} GB"
