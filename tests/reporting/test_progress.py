"""One bar on a terminal, a line a minute elsewhere."""

import io
import sys

from nurture.reporting import Progress
from nurture.reporting.progress import in_words


class Terminal(io.StringIO):
  def isatty(self):
    return True


def shown(monkeypatch, stderr, initial=0):
  """Returns what a hundred steps write to stderr; set inside the test, since pytest sets its own before."""
  monkeypatch.setattr("tqdm.tqdm.monitor_interval", 0)  # no thread that outlives the test
  monkeypatch.setattr(sys, "stderr", stderr)
  with Progress(100, "mnist_mlp", initial=initial) as bar:
    for step in range(initial, 101, 10):
      bar.update(step, loss=2.5 / (step + 1))
  return stderr.getvalue()


def test_nothing_within_a_minute_when_stderr_is_not_a_terminal(monkeypatch):
  assert shown(monkeypatch, io.StringIO()) == ""


def test_a_terminal_sees_label_count_and_last_loss(monkeypatch):
  last = shown(monkeypatch, Terminal()).rstrip().split("\r")[-1]
  assert last.startswith("mnist_mlp 100%") and "100/100" in last and "loss 0.02475" in last
  assert len(last) < 80


def test_a_resumed_run_starts_where_it_was(monkeypatch):
  first = next(text for text in shown(monkeypatch, Terminal(), initial=60).split("\r") if text)
  assert " 60%" in first and "60/100" in first


def test_the_number_of_steps_may_come_later(monkeypatch):
  stderr = Terminal()
  monkeypatch.setattr("tqdm.tqdm.monitor_interval", 0)
  monkeypatch.setattr(sys, "stderr", stderr)
  with Progress(1, "blocks") as bar:
    bar.update(6, total=6)
  last = stderr.getvalue().rstrip().split("\r")[-1]
  assert "100%" in last and "6/6" in last


def lines(monkeypatch, seconds_a_step, steps, total=100, **more):
  """Returns the lines of a run whose steps take so many seconds of a clock that is not the machine's."""
  stderr, now = io.StringIO(), [1000.0]
  monkeypatch.setattr(sys, "stderr", stderr)
  with Progress(total, "digits", clock=lambda: now[0], **more) as progress:
    for step in steps:
      now[0] += seconds_a_step
      progress.update(step, loss=0.5, metrics={"test/accuracy": 0.87654, "loss": 0.5})
  return stderr.getvalue().splitlines()


def test_a_file_gets_a_line_a_minute_with_cohort_step_metrics_and_the_time_left(monkeypatch):
  found = lines(monkeypatch, 25, range(1, 13), total=20, cohorts=2)
  assert found == [
    "digits: cohort 1 of 2, step 3 of 10, test/accuracy 0.8765, loss 0.5; 15 % done, about 7 min left",
    "digits: cohort 1 of 2, step 6 of 10, test/accuracy 0.8765, loss 0.5; 30 % done, about 6 min left",
    "digits: cohort 1 of 2, step 9 of 10, test/accuracy 0.8765, loss 0.5; 45 % done, about 5 min left",
    "digits: cohort 2 of 2, step 2 of 10, test/accuracy 0.8765, loss 0.5; 60 % done, about 3 min left",
  ]


def test_a_resumed_run_tells_the_time_left_by_the_steps_that_it_made_itself(monkeypatch):
  found = lines(monkeypatch, 40, range(90, 94))
  assert [line.split("; ")[1] for line in found] == ["91 % done, about 6 min left", "93 % done, about 5 min left"]


def test_a_first_step_that_takes_minutes_promises_nothing(monkeypatch):
  assert lines(monkeypatch, 300, [50]) == ["digits: step 50 of 100, test/accuracy 0.8765, loss 0.5; 50 % done"]


def test_a_terminal_gets_no_lines(monkeypatch):
  stderr, now = Terminal(), [0.0]
  monkeypatch.setattr("tqdm.tqdm.monitor_interval", 0)
  monkeypatch.setattr(sys, "stderr", stderr)
  with Progress(10, "digits", clock=lambda: now[0]) as bar:
    for now[0] in (100.0, 200.0):
      bar.update(5, metrics={"loss": 1.0})
  assert "done" not in stderr.getvalue()


def test_seconds_in_words():
  assert [in_words(s) for s in (0, 99, 100, 5999, 6000, 90000)] == [
    "0 s", "99 s", "2 min", "1 h 40 min", "1 h 40 min", "25 h 0 min",
  ]
