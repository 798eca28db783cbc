"""Threads and limits that make simulated kernels end: a thread for every warpgroup, and a limit on every wait.

For every warpgroup, JAX's interpreter of Mosaic GPU kernels calls a compiled program of its CPU client, each from a
thread of its own. A wait at a barrier is a callback of such a program, and so is the launch of all of them. XLA may run
the steps of any program on the client's pool of threads, so that each of these callbacks may hold one of them until
another warpgroup arrives. Where all are held, the warpgroup that would arrive never gets one, and everything waits for
ever. The pool has as many threads as the machine has cores, or as the environment variable PJRT_NPROC says, or else
NPROC, at the moment when the client starts. Nothing changes it after that.

JAX 0.10 also compiles that program anew for every warpgroup of every block of the grid, which is most of what a
simulation takes. Here it is compiled once, as JAX 0.11 does.

The kernels for TPUs, simulated, are one program on one core: no callback of it waits for another.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import threading
from typing import Any

import jax
from jax.experimental.pallas import mosaic_gpu as plgpu

from nurture.core import UserError

if hasattr(plgpu, "InterpretGPUParams"):
  from jax.experimental.pallas.mosaic_gpu import InterpretGPUParams
else:
  from jax._src.pallas.mosaic_gpu.interpret.params import InterpretGPUParams
try:
  from jax._src.pallas.mosaic.interpret import thread_map
  from jax._src.pallas.mosaic_gpu.interpret.gpu_callbacks import reset_gpu_interpret_mode_state
  from jax._src.pallas.mosaic_gpu.interpret.shared_memory import Barrier
except ImportError:  # where they have moved, waits have no limit and simulations take longer
  Barrier = reset_gpu_interpret_mode_state = thread_map = None

VARIABLE = "PJRT_NPROC"
THREADS = 16  # of a pool; those that wait for work cost nothing
WAIT_SECONDS = 300.0  # at one barrier: what it waits for takes milliseconds, and at first a compilation of seconds
PROGRAMS = 4  # of warpgroups that are kept: forward and backward are three or four kernels


def interpreter(**fields) -> Any:
  """Returns `MosaicGPU(interpret=...)`: a simulation on any platform in which, as for TMA, beyond an array is 0.

  Call it before JAX's first computation: then it sees to it that the pool of JAX's CPU client gets threads enough. It
  sets PJRT_NPROC, unless the user has or there are as many cores.
  """
  if not _pool_threads() and _asked_for() < THREADS and VARIABLE not in os.environ:
    os.environ[VARIABLE] = str(THREADS)
  return InterpretGPUParams(out_of_bounds_reads="uninitialized", uninitialized_memory="zero", **fields)


def prepare(warpgroups: int) -> None:
  """Sees to it that a simulation of so many warpgroups a block ends. Starts JAX's CPU client.

  Raises:
    UserError: if the client's pool has too few threads for them.
  """
  if Barrier is not None:
    Barrier.__init__ = _start_barrier
    if not hasattr(thread_map, "_run"):  # of JAX 0.11
      thread_map._run_jaxpr = _run
  jax.local_devices(backend="cpu")
  needed = warpgroups + 2  # they, the program that launches them, and one that goes on
  if (threads := _pool_threads() or _asked_for()) < needed:
    raise UserError(
      f"a simulated kernel of {warpgroups} warpgroups needs {needed} threads in the pool of JAX's CPU client, and it "
      f"has {threads}; set the environment variable {VARIABLE}={THREADS}, or call interpreter() before JAX's first "
      "computation."
    )


def reset() -> None:
  """Forgets a simulation that failed, without which JAX's next one would go on with its memory."""
  if reset_gpu_interpret_mode_state is not None:
    reset_gpu_interpret_mode_state()


def _pool_threads() -> int:
  """Returns the size of the CPU client's pool, 0 before it starts or where the system does not tell."""
  count = 0
  for path in pathlib.Path("/proc/self/task").glob("*/comm"):
    with contextlib.suppress(OSError):  # of a thread that has ended meanwhile
      count += path.read_text().startswith("tf_XLAEigen")
  return count


def _asked_for() -> int:
  """Returns the size that the pool gets when the client starts."""
  for name in (VARIABLE, "NPROC"):
    try:
      return int(os.environ.get(name, ""))
    except ValueError:  # XLA, too, passes over what is no number
      continue
  return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Impatient(threading.Condition):
  """A condition whose waits without a limit have one."""

  def wait(self, timeout: float | None = None) -> bool:
    if timeout is not None:
      return super().wait(timeout)
    if not super().wait(WAIT_SECONDS):
      raise TimeoutError(
        f"a warpgroup of a simulated kernel has waited {WAIT_SECONDS:g} seconds at a barrier: the kernel forgets to "
        "arrive there, or the machine is far too busy."
      )
    return True


def _start_barrier(self, *args, **kwargs) -> None:
  _start(self, *args, **kwargs)
  self.cv = _Impatient()


_start = getattr(Barrier, "__init__", None)


def _run(jaxpr, consts, *args) -> None:
  """Runs the program of a warpgroup; in place of JAX 0.10's own, which compiles it each time."""
  with _compiling:  # the others wait for it here
    if jaxpr not in _programs:
      def program(consts, *args):
        jax.core.eval_jaxpr(jaxpr, consts, *args)

      _programs[jaxpr] = jax.jit(program).lower(consts, *args).compile()
      while len(_programs) > PROGRAMS:
        del _programs[next(iter(_programs))]
    compiled = _programs[jaxpr]
  compiled(consts, *args)


_compiling, _programs = threading.Lock(), {}
