"""Processes that run tests: forked from a server that has imported jax and never started it.

Imports take five seconds, most tests take less. A fork of a process in which XLA has run would inherit its locks
without its threads and could wait for ever.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import multiprocessing
import os
import pathlib
import resource
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

PRELOADED = (
  "numpy", "jax", "jax.numpy", "scipy.stats", "flax.linen", "optax", "ml_collections", "orbax.checkpoint", "pytest",
  "matplotlib.pyplot", "tqdm", "sklearn.datasets", "coverage",
)
_MEMORY = 6 * 2**30  # bytes; a changed size must not take the machine
_FILE = 2**30


@dataclasses.dataclass(frozen=True)
class Outcome:
  """How a process ended.

  Attributes:
    kind: "passed", "failed", "timeout", or "empty" if no test was run.
    seconds: of its wall clock.
  """

  kind: str
  seconds: float


class Workers:
  """Runs tests in processes of their own, one after another.

  Args:
    root: the copy of the project in which they run.
  """

  def __init__(self, root: pathlib.Path):
    self.root = root
    os.environ |= {"JAX_PLATFORMS": "cpu", "MPLBACKEND": "Agg", "OPENBLAS_NUM_THREADS": "1"}
    os.environ["PYTHONPATH"] = str(root / "lib")  # processes that tests start must not take the package installed
    self._context = multiprocessing.get_context("forkserver")
    self._context.set_forkserver_preload(list(PRELOADED))

  def run(self, files: Sequence[str], order: Mapping[str, int] | None, cpu_seconds: float) -> Outcome:
    """Runs the tests that `order` names, by it, and stops at the first that fails.

    Args:
      files: the test files that hold them.
      order: {node id: rank}; None runs all tests.
      cpu_seconds: limit on the time of the processor, which a busy machine does not change. A process that waits for
        ever ends after ten times as long.
    """
    return self._start(_test, (str(self.root), list(files), order, cpu_seconds), 60 + 10 * cpu_seconds)

  def map_tests(self, files: Sequence[str], destination: pathlib.Path) -> Outcome:
    """Runs all tests; writes which lines of lib/nurture/ each reaches, and its seconds of the processor, to JSON."""
    return self._start(_map, (str(self.root), list(files), str(destination)), 3600)

  def _start(self, target: Any, arguments: tuple, limit: float) -> Outcome:
    began = time.monotonic()
    process = self._context.Process(target=target, args=arguments)
    process.start()
    process.join(limit)
    code = process.exitcode
    with contextlib.suppress(ProcessLookupError):
      os.killpg(process.pid, signal.SIGKILL)  # it leads a group of its own; what it started ends with it
    process.join()
    kinds = {None: "timeout", -signal.SIGXCPU: "timeout", -signal.SIGKILL: "timeout", 0: "passed", 5: "empty"}
    return Outcome(kinds.get(code, "failed"), time.monotonic() - began)


def _test(root: str, files: list[str], order: Mapping[str, int] | None, cpu_seconds: float) -> None:
  used = time.process_time()  # in the server, before the fork
  limit = int(used + cpu_seconds) + 1
  resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
  resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
  resource.setrlimit(resource.RLIMIT_FSIZE, (_FILE, _FILE))
  _pytest(root, files, ["-x"], [] if order is None else [_Select(order)])


def _map(root: str, files: list[str], destination: str) -> None:
  import coverage  # noqa: PLC0415  (only this process needs it)

  measured = coverage.Coverage(data_file=None, config_file=False, source=[str(pathlib.Path(root) / "lib")])
  measured.start()
  reach = _Reach(measured)
  code = _pytest(root, files, [], [reach], leave=False)
  measured.stop()
  pathlib.Path(destination).write_text(json.dumps(reach.result(root)))
  os._exit(code)


def _pytest(root: str, files: list[str], options: list[str], plugins: list[Any], leave: bool = True) -> int:
  os.setsid()
  os.chdir(root)
  sys.path[:0] = [root, os.path.join(root, "lib")]
  sys.dont_write_bytecode = True  # a file that changes twice within a second would keep its old bytecode
  log = os.open(os.path.join(root, "tests.log"), os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
  os.dup2(log, 1)
  os.dup2(log, 2)
  import pytest  # noqa: PLC0415

  code = int(pytest.main(["-q", "-p", "no:cacheprovider", "-p", "no:xdist", *options, *files], plugins=plugins))
  sys.stdout.flush()
  if leave:
    os._exit(code)  # XLA's threads need no goodbye
  return code


class _Select:
  """Keeps the tests that are named, in the order given.

  A change may stand in the name of a case, which is then missing: all cases of its test run in its place.
  """

  def __init__(self, order: Mapping[str, int]):
    self.order = order

  def pytest_collection_modifyitems(self, items: list) -> None:
    function = lambda test: test.split("[")[0]
    found = {item.nodeid for item in items}
    renamed = {function(test): rank for test, rank in self.order.items() if test not in found}
    rank = lambda item: self.order.get(item.nodeid, renamed.get(function(item.nodeid), -1))
    items[:] = sorted((item for item in items if rank(item) >= 0), key=rank)


class _Reach:
  """Notes the lines that each test reaches.

  What was traced once is not traced again in the same process, so JAX's caches are emptied before each test. What a
  fixture of a wider scope reaches counts for every test that asks for it.
  """

  def __init__(self, measured: Any):
    self.measured = measured
    self.contexts: dict[str, list[str]] = {}  # of each test
    self.seconds: dict[str, float] = {}  # of the processor, all threads together
    self.began = 0.0

  def pytest_runtest_protocol(self, item: Any) -> None:
    import jax  # noqa: PLC0415

    jax.clear_caches()
    definitions = item._fixtureinfo.name2fixturedefs
    wide = [_fixture_context(found[-1]) for found in definitions.values() if found[-1].scope != "function"]
    self.contexts[item.nodeid] = [item.nodeid, *wide]
    self.measured.switch_context(item.nodeid)

  def pytest_runtest_logstart(self) -> None:
    self.began = time.process_time()

  def pytest_runtest_logfinish(self, nodeid: str) -> None:
    self.seconds[nodeid] = time.process_time() - self.began
    self.measured.switch_context("")

  def pytest_fixture_setup(self, fixturedef: Any, request: Any) -> None:
    if fixturedef.scope != "function":
      self.measured.switch_context(_fixture_context(fixturedef))

  def pytest_runtest_call(self, item: Any) -> None:
    self.measured.switch_context(item.nodeid)

  def result(self, root: str) -> dict[str, Any]:
    """Returns {node id: {"seconds", "lines": {file: [line]}}}."""
    found = self.measured.get_data()
    lines: dict[str, dict[str, list[int]]] = {}
    for path in found.measured_files():
      file = str(pathlib.Path(path).relative_to(root))
      for line, contexts in found.contexts_by_lineno(path).items():
        for context in contexts:
          lines.setdefault(context, {}).setdefault(file, []).append(line)
    tests = {}
    for test, contexts in self.contexts.items():
      reached: dict[str, set[int]] = {}
      for context in contexts:
        for file, numbers in lines.get(context, {}).items():
          reached.setdefault(file, set()).update(numbers)
      tests[test] = {"seconds": self.seconds.get(test, 0.0), "lines": {f: sorted(n) for f, n in reached.items()}}
    return tests


def _fixture_context(definition: Any) -> str:
  return f"fixture {definition.baseid} {definition.argname}"
