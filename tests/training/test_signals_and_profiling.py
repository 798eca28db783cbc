"""The loop's two watchers: what a signal leaves behind, and which dispatches are traced."""

import os
import signal
import threading

import jax
import pytest

from nurture.training.profiling import Profiler
from nurture.training.signals import Preempted, StopSignal


@pytest.fixture(autouse=True)
def handlers():
  """A second signal is noted by these instead of ending the tests."""
  heard = []
  before = {number: signal.signal(number, lambda number, frame: heard.append(number))
            for number in (signal.SIGTERM, signal.SIGINT)}
  yield heard
  for number, handler in before.items():
    signal.signal(number, handler)


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_the_first_signal_is_noted_and_the_second_acts_as_usual(number, exit_code, handlers):
  usual = signal.getsignal(number)
  with StopSignal() as stop:
    assert stop.received is None and signal.getsignal(number) != usual
    os.kill(os.getpid(), number)
    assert stop.received is number and not handlers
    os.kill(os.getpid(), number)
    assert handlers == [number]
  assert signal.getsignal(number) is usual
  error = Preempted(stop.received, 12)
  assert error.exit_code == exit_code
  assert str(error) == f"stopped by {number.name} after step 12; run the same command again to go on."


def test_after_an_error_signals_act_as_before(handlers):
  usual = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
  with pytest.raises(ZeroDivisionError), StopSignal():
    raise ZeroDivisionError
  assert usual == {number: signal.getsignal(number) for number in usual}


def test_outside_the_main_thread_nothing_is_caught_and_nothing_fails():
  found, usual = [], signal.getsignal(signal.SIGTERM)

  def work():
    with StopSignal() as stop:
      found.append(stop.received)

  thread = threading.Thread(target=work)
  thread.start()
  thread.join()
  assert found == [None] and signal.getsignal(signal.SIGTERM) is usual


@pytest.fixture
def traces(monkeypatch):
  events = []
  monkeypatch.setattr(jax.profiler, "start_trace", lambda directory: events.append(f"start {directory}"))
  monkeypatch.setattr(jax.profiler, "stop_trace", lambda: events.append("stop"))
  monkeypatch.setattr(jax, "block_until_ready", lambda result: events.append(f"wait {result}"))
  return events


@pytest.mark.parametrize(("dispatches", "traced"), [
  (2, ""), (3, "0 1 start 2 wait stop"), (4, "0 1 start 2 wait 3 wait stop"),
  (8, "0 1 start 2 wait 3 wait 4 wait stop 5 6 7"),
])
def test_the_third_to_the_fifth_dispatch_are_traced(dispatches, traced, traces, tmp_path):
  profiler = Profiler(tmp_path)
  for i in range(dispatches):
    profiler.before()
    traces.append(str(i))
    profiler.after(i)
  profiler.close()
  profiler.close()  # a second time does nothing
  expected = traced or " ".join(map(str, range(dispatches)))
  assert [event.split()[0] for event in traces] == expected.split()
  assert f"start {tmp_path}" in traces or not traced


def test_without_a_directory_nothing_is_traced(traces):
  profiler = Profiler(None)
  for i in range(8):
    profiler.before()
    profiler.after(i)
  profiler.close()
  assert not traces
