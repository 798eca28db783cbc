"""One bar on a terminal, nothing elsewhere."""

import io
import sys

from nurture.reporting import Progress


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


def test_nothing_when_stderr_is_not_a_terminal(monkeypatch):
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
