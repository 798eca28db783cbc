"""Checks of memory: a program that cannot fit is refused before it asks for any, in one sentence."""

from __future__ import annotations

import contextlib
import math
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
from jax.extend.core import jaxprs_in_params

from nurture.core.errors import UserError

_UNKNOWN = 8 * 2**30  # where the system does not say
# A container may have less than its machine. What it uses does not count: that has the cache of its files in it.
_OF_CONTAINER = (pathlib.Path("/sys/fs/cgroup/memory.max"), pathlib.Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def free_bytes() -> int:
  """Returns the free memory of the first device; of the machine, where the device is its processor."""
  stats = jax.local_devices()[0].memory_stats()
  if stats and "bytes_limit" in stats:
    return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
  return host_bytes()


def host_bytes() -> int:
  """Returns the free memory of the machine, or of the container."""
  table = pathlib.Path("/proc/meminfo")
  lines = table.read_text().splitlines() if table.exists() else []
  free = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), _UNKNOWN)
  for limit in _OF_CONTAINER:
    with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
      free = min(free, int(limit.read_text()))
  return free


def check(needs: Mapping[str, int], free: int, what: str, remedy: str = "make that smaller") -> None:
  """Refuses what is larger than the memory.

  Args:
    needs: section of the config -> bytes that it takes at least.
    free: bytes that there are.
    what: needs them.
    remedy: what to do about it.

  Raises:
    UserError: if they are more; names the largest section.
  """
  total = sum(needs.values())
  if total > free:
    largest = max(needs, key=needs.__getitem__)
    raise UserError(f"{what} needs at least {in_words(total)} of memory, {in_words(needs[largest])} of it for "
                    f"{largest}, and {in_words(free)} are free; {remedy}.")


def largest_array(jaxpr: Any) -> int:
  """Returns the bytes of the largest array that a jaxpr computes, nested ones included."""
  return max((_num_bytes(v.aval) for equation in _equations(jaxpr) for v in equation.outvars), default=0)


def _equations(jaxpr: Any) -> Iterator[Any]:
  for equation in jaxpr.eqns:
    yield equation
    for inner in jaxprs_in_params(equation.params):
      yield from _equations(inner)


def _num_bytes(aval: Any) -> int:
  return math.prod(getattr(aval, "shape", ())) * getattr(getattr(aval, "dtype", None), "itemsize", 0)


def in_words(size: int) -> str:
  """Returns a number of bytes as "1.5 GiB"."""
  for unit, power in (("EiB", 60), ("PiB", 50), ("TiB", 40), ("GiB", 30)):
    if size >= 2**power:
      return f"{size / 2**power:.3g} {unit}"
  return f"{size / 2**20:.3g} MiB"
