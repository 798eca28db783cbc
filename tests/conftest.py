"""Rules for every test: two CPU devices, no silent rank promotion, no network; warnings are errors (pyproject.toml)."""

import contextlib
import ctypes
import gc
import os
import pathlib
import resource
import socket
import sys

# Must be set before jax starts its backend. Most of what tests wait for is LLVM: programs that run once, for a moment.
os.environ["XLA_FLAGS"] = " ".join((
  os.environ.get("XLA_FLAGS", ""), "--xla_force_host_platform_device_count=2", "--xla_backend_optimization_level=0",
))
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("PJRT_NPROC", "16")  # threads for what waits for another: see lib/nurture/attention/simulation.py
os.environ.setdefault("MPLBACKEND", "Agg")
# Many tests compile the same small programs, here and in processes that they start.
os.environ.setdefault("NURTURE_COMPILATION_CACHE", str(pathlib.Path(__file__).parents[1] / ".pytest_cache/compiled"))

import jax
import pytest

from nurture import terminal

_LARGE = 2**30  # bytes; a module adds up to one half of it
_peaks = pytest.StashKey[list[int]]()  # bytes; of every worker that has ended
_SLOW_LIST = pathlib.Path(__file__).parent / "slow.txt"
_SLOW = 0.35  # seconds; a function whose cases take longer on average stands in that list
_seconds: dict[str, float] = {}  # of every test that ran

jax.config.update("jax_numpy_rank_promotion", "raise")
terminal.enable_compilation_cache()


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
  """A test that reaches for the network fails at once instead of hanging; local sockets still work."""
  connect = socket.socket.connect

  def refuse(self, address):
    local = not isinstance(address, tuple) or address[0] in ("127.0.0.1", "::1", "localhost")
    if not local:
      raise OSError(f"a test tried to reach {address}; tests use no network")
    return connect(self, address)

  monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(autouse=True, scope="module")
def memory_is_given_back():
  """Frees compiled programs behind a module once a process has grown: kept, they make it several gigabytes large."""
  yield
  if _resident() > _LARGE:
    jax.clear_caches()
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # only glibc keeps what was freed, and has this to say so
      ctypes.CDLL("libc.so.6").malloc_trim(0)


def _resident() -> int:
  """Returns the bytes of memory that this process holds; more than any limit where the system does not say."""
  try:
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
  except OSError:
    return 2**62


def pytest_addoption(parser):
  """Adds the option that writes the list of what `make test-fast` leaves out."""
  parser.addoption("--write-slow", action="store_true", help=f"write what takes longer than {_SLOW} s "
                   f"of the tests that run into tests/{_SLOW_LIST.name}")


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items):
  """Marks as slow what the list names."""
  names = set(_SLOW_LIST.read_text().splitlines())
  for item in items:
    if _function(item.nodeid) in names:
      item.add_marker(pytest.mark.slow)


def pytest_runtest_logreport(report):
  """Adds up the seconds of every test: of its fixtures, its call and what comes behind it."""
  _seconds[report.nodeid] = _seconds.get(report.nodeid, 0.0) + report.duration


def _function(test: str) -> str:
  """Returns a test's name without the brackets of its case."""
  return test.split("[")[0]


def _write_slow() -> None:
  """Writes the list; functions of which nothing ran keep their place in it."""
  cases: dict[str, list[float]] = {}
  for test, taken in _seconds.items():
    cases.setdefault(_function(test), []).append(taken)
  slow = {name for name, taken in cases.items() if sum(taken) > _SLOW * len(taken)}
  kept = set(_SLOW_LIST.read_text().splitlines()) - set(cases)
  _SLOW_LIST.write_text("".join(f"{name}\n" for name in sorted(slow | kept)))


def pytest_sessionfinish(session):
  """Hands the peak of this process to the one that reports, where this is a worker of pytest-xdist."""
  if hasattr(session.config, "workeroutput"):
    session.config.workeroutput["peak"] = _peak()
  elif session.config.option.write_slow:
    _write_slow()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
  """Keeps the peak of a worker that has ended; one that was killed has none."""
  node.config.stash.setdefault(_peaks, []).append(getattr(node, "workeroutput", {}).get("peak", 0))


def pytest_terminal_summary(terminalreporter, config):
  """Prints the most memory that one process of the tests held."""
  peak = max(config.stash.get(_peaks, [_peak()]))
  terminalreporter.write_line(f"peak memory of one process: {peak / 2**30:.2f} GiB")


def _peak() -> int:
  """Returns the most bytes of memory that this process has held at once."""
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1024 if sys.platform == "linux" else 1)


@pytest.fixture
def key():
  return jax.random.key(0)
