"""A run that is killed again and again ends with the same bytes as one that is left alone."""

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest

CONFIG = pathlib.Path("configs/quickstart.py")
OVERRIDES = [  # an ensemble in two cohorts, with probes, saving often
  "--config.steps=1500",
  "--config.steps_per_dispatch=10",
  "--config.log_every=20",
  "--config.checkpoint.every=20",
  "--config.model.width=16",
  "--config.ensemble.seeds=2",
  "--config.ensemble.chunk=4",
  "--config.probes.test.every=60",
  "--config.probes.train.every=100",
]


def start(workdir):
  command = [sys.executable, "-m", "experiments.train", f"--config={CONFIG}", f"--workdir={workdir}", *OVERRIDES]
  return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def checkpoints(workdir):
  return sorted(str(p) for p in pathlib.Path(workdir).glob("checkpoints/*/step_*") if p.name[5:].isdigit())


def wait_for_progress(process, workdir, before):
  deadline = time.monotonic() + 120
  while checkpoints(workdir) == before and process.poll() is None and time.monotonic() < deadline:
    time.sleep(0.01)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kills_wanted", [
  3, pytest.param(12, marks=pytest.mark.long),
])
def test_kills_change_nothing(tmp_path, kills_wanted):
  """A hundred of them, at chosen moments: python -m experiments.benchmarks.soak."""
  undisturbed = start(tmp_path / "undisturbed")
  out, err = undisturbed.communicate(timeout=240)
  assert undisturbed.returncode == 0, err

  generator, kills, workdir = random.Random(0), {signal.SIGKILL: 0, signal.SIGTERM: 0}, tmp_path / "disturbed"
  codes = []
  while True:
    process = start(workdir)
    if sum(kills.values()) < kills_wanted:
      wait_for_progress(process, workdir, checkpoints(workdir))
      time.sleep(generator.uniform(0, 0.1))
      number = (signal.SIGKILL, signal.SIGTERM)[len(codes) % 2]
      if process.poll() is None:
        process.send_signal(number)
        kills[number] += 1
    _, err = process.communicate(timeout=240)
    codes.append(process.returncode)
    if process.returncode == 0:
      break
    assert process.returncode in (-signal.SIGKILL, 75), err

  assert min(kills.values()) >= kills_wanted // 3, (kills, codes)
  assert codes.count(75) >= kills_wanted // 4  # SIGTERM saves and says so
  read = lambda run, name: (tmp_path / run / name).read_bytes()
  assert read("disturbed", "metrics.jsonl") == read("undisturbed", "metrics.jsonl")
  assert read("disturbed", "results.json") == read("undisturbed", "results.json")
  history = json.loads(read("disturbed", "manifest.json"))["history"]
  assert [entry["event"] for entry in history].count("resume") == len(codes) - 1
  assert os.listdir(tmp_path / "disturbed" / "checkpoints") == os.listdir(tmp_path / "undisturbed" / "checkpoints")
