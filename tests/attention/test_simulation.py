"""Simulated kernels end: they have threads enough or are refused, and no wait is without a limit."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.pallas import mosaic_gpu as plgpu

from nurture.attention import sigmoid_attention, simulation
from nurture.attention.mosaic_gpu import MosaicGPU
from nurture.core import UserError


def test_the_pool_has_the_threads_that_the_environment_says_when_jax_starts():
  """Set in conftest.py, after Python has started. Fails where XLA calls its threads by another name."""
  jax.local_devices(backend="cpu")
  assert simulation._pool_threads() == int(os.environ["PJRT_NPROC"]) == simulation._asked_for()


@pytest.mark.parametrize("variables, started, expected", [
  ({}, False, "16"),
  ({"NPROC": "3"}, False, "16"),
  ({"NPROC": "64"}, False, None),
  ({"PJRT_NPROC": "4"}, False, "4"),  # the user's own word
  ({}, True, None),  # too late
])
def test_threads_are_asked_for_before_jax_starts(variables, started, expected, monkeypatch):
  monkeypatch.setattr(simulation, "_pool_threads", lambda: 2 if started else 0)
  monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
  for name in ("PJRT_NPROC", "NPROC"):
    monkeypatch.delenv(name, raising=False)
  for name, value in variables.items():
    monkeypatch.setenv(name, value)
  simulation.interpreter()
  assert os.environ.get("PJRT_NPROC") == expected


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_a_simulation_without_threads_enough_is_refused(threads, monkeypatch):
  monkeypatch.setattr(simulation, "_pool_threads", lambda: threads)
  x = jnp.zeros((1, 1, 1, 64), jnp.bfloat16)
  with pytest.raises(UserError, match=f"needs 5 threads .* has {threads}; set .* PJRT_NPROC=16, or"):
    sigmoid_attention(x, x, x, implementation=MosaicGPU(interpret=simulation.interpreter()))


def test_a_wait_that_nobody_ends_is_an_error(monkeypatch):
  monkeypatch.setattr(simulation, "WAIT_SECONDS", 0.5)
  simulation.prepare(2)

  def wait(out, barrier):
    plgpu.barrier_wait(barrier)
    out[...] = jnp.zeros((8,), jnp.float32)

  kernel = plgpu.kernel(
    wait, out_type=jax.ShapeDtypeStruct((8,), jnp.float32), num_threads=2, thread_name="warpgroup",
    scratch_types=[plgpu.Barrier()], interpret=simulation.interpreter(),
  )
  with pytest.raises(Exception, match="has waited 0.5 seconds at a barrier: the kernel forgets to arrive there"):
    jax.block_until_ready(kernel())
  simulation.reset()
  monkeypatch.undo()
  x = jnp.ones((1, 1, 1, 64), jnp.bfloat16)
  kernel = MosaicGPU(interpret=simulation.interpreter())
  assert jnp.all(sigmoid_attention(x, x, x, implementation=kernel, bias=0.0) > 0.9)  # the next one is as it should be


def stress(*flags):
  command = [sys.executable, "-m", "experiments.benchmarks.stress_simulation", "--busy=0", "--times=1", *flags]
  return subprocess.run(command, capture_output=True, text=True, timeout=280)


def test_the_stress_test_tells_of_what_does_not_end():
  done = stress("--limit=1")  # less than a simulation takes
  assert done.returncode == 2 and "1 of 1: stopped by the limit" in done.stdout
  assert "most recent call first" in done.stderr and "1 of 1 simulations did not end well" in done.stderr


@pytest.mark.long
def test_the_stress_test_ends():
  done = stress()
  assert done.returncode == 0 and "1 of 1: ended" in done.stdout, done.stderr
