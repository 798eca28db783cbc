"""Stress test of the simulated GPU kernel: does one call end, many times, beside processes that keep the cores busy.

  python -m experiments.benchmarks.stress_simulation [--times=50] [--busy=2] [--limit=600] [--threads=0]

Every time is a process of its own: forward and backward of one call with windows, segments, slopes, lengths and shared
heads, with race detection, compared with the plain form in float32. A process that does not end within the limit prints
the stacks of all its threads and is ended. Printed are how many ended, gave a wrong result, failed, and were stopped by
the limit, and how long those took that ended; the exit code is 0 if all ended with the right result.

--threads sets the size of the thread pool of JAX's CPU client (its variable PJRT_NPROC) in these processes; 0 leaves it
to the simulation, as for every user. See `nurture.attention.simulation`.
"""

import faulthandler
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from nurture import reporting, terminal
from nurture.attention import alibi_slopes, sigmoid_attention
from nurture.attention.mosaic_gpu import MosaicGPU
from nurture.attention.simulation import interpreter
from nurture.core import UserError

_TIMES = flags.DEFINE_integer(
  "times", 50, "Processes that simulate the call, one after another.", lower_bound=1, **terminal.SHARED,
)
_BUSY = flags.DEFINE_integer("busy", 2, "Processes that keep a core busy meanwhile.", lower_bound=0, **terminal.SHARED)
_LIMIT = flags.DEFINE_float("limit", 600, "Seconds that a process may take.", lower_bound=1, **terminal.SHARED)
_THREADS = flags.DEFINE_integer(
  "threads", 0, "Of each pool of JAX's CPU client; 0: the simulation's.", lower_bound=0, **terminal.SHARED,
)
_ONCE = flags.DEFINE_bool("once", False, "Simulates the call once, in this process.", **terminal.SHARED)

# Ends with its parent, however that ends.
SPIN = """
import os
parent = os.getppid()
while os.getppid() == parent:
  sum(range(10**6))
"""
ENDINGS = {0: "ended", 1: "stopped by the limit", 2: "refused", 3: "wrong result"}  # by exit code; others are failures
TOLERANCE = 4e-3  # relative, of bfloat16


def simulate() -> float:
  """Simulates the call; returns the largest relative error of its output and gradients."""
  kernel = MosaicGPU(stages=2, interpret=interpreter(detect_races=True))  # before JAX's first computation
  draws = np.random.default_rng(0)
  arrays = [draws.normal(size=(2, n, heads, 64)) for n, heads in ((22, 2), (26, 1), (26, 1))]
  arrays = [jnp.asarray(x, jnp.bfloat16) for x in arrays]
  weights = draws.integers(-8, 9, arrays[0].shape) / 8.0
  options = {
    "bias": jnp.array([-2.0, 0.5]), "is_causal": True, "local_window_size": (9, 0), "alibi_slopes": alibi_slopes(2),
    "q_segment_ids": np.sort(draws.integers(0, 3, (2, 22))), "kv_segment_ids": np.sort(draws.integers(0, 3, (2, 26))),
    "key_value_seq_lengths": np.array([26, 20]), "scale": 0.3,
  }

  def results(implementation, arrays):
    def loss(arrays):
      out = sigmoid_attention(*arrays, **options, implementation=implementation)
      return jnp.sum(weights * out.astype(jnp.float32)), out

    gradients, out = jax.jit(jax.grad(loss, has_aux=True))(arrays)
    return [np.asarray(x, np.float32) for x in (out, *gradients)]

  expected = results("xla", [x.astype(jnp.float32) for x in arrays])
  return max(np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in zip(results(kernel, arrays), expected))


def once() -> None:
  """Is what a process does; ends with a key of ENDINGS."""
  faulthandler.dump_traceback_later(_LIMIT.value, exit=True)  # needs no lock that a stuck thread may hold
  error = simulate()
  faulthandler.cancel_dump_traceback_later()
  print(f"largest relative error {error:.1e}")
  sys.exit(0 if error <= TOLERANCE else 3)


def main(argv: Sequence[str]) -> None:
  del argv
  if _ONCE.value:
    once()
  command = [sys.executable, "-m", "experiments.benchmarks.stress_simulation", "--once", f"--limit={_LIMIT.value}"]
  environment = dict(os.environ, JAX_PLATFORMS="cpu")
  if _THREADS.value:
    environment["PJRT_NPROC"] = str(_THREADS.value)
  endings, seconds = Counter(), []
  busy = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(_BUSY.value)]
  try:
    for i in range(_TIMES.value):
      began = time.perf_counter()
      # The limit counts from the start of Python; what hangs before that is ended here.
      try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_LIMIT.value + 60)
        ending, told = ENDINGS.get(done.returncode, f"failed with code {done.returncode}"), done.stderr
      except subprocess.TimeoutExpired as expired:
        ending, told = ENDINGS[1], (expired.stderr or b"").decode(errors="replace")
      endings[ending] += 1
      took = time.perf_counter() - began
      print(f"{i + 1:3d} of {_TIMES.value}: {ending} after {took:.1f} s", flush=True)
      if ending == ENDINGS[0]:
        seconds.append(took)
      else:
        print(told.strip(), file=sys.stderr, flush=True)
  finally:
    for process in busy:
      process.kill()
  rows = [[ending, str(count)] for ending, count in endings.most_common()]
  print(reporting.markdown_table([f"of {_TIMES.value}, beside {_BUSY.value} busy processes", "processes"], rows))
  if seconds:
    print(f"\nSeconds of those that ended: {min(seconds):.1f} to {max(seconds):.1f}, "
          f"median {statistics.median(seconds):.1f}.")
  if len(seconds) < _TIMES.value:
    raise UserError(f"{_TIMES.value - len(seconds)} of {_TIMES.value} simulations did not end well; what they printed "
                    "stands above.")


if __name__ == "__main__":
  terminal.run(main)
