"""A run that is killed again and again ends with the same bytes as one that is left alone."""

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

QUICKSTART = [  # an ensemble in two cohorts, with probes, saving often
  "--config=configs/quickstart.py",
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
OFTEN = [
  "--config.steps=600",
  "--config.steps_per_dispatch=10",
  "--config.log_every=20",
  "--config.checkpoint.every=20",
  "--config.ensemble.seeds=1",
  "--config.probes.test.every=60",
]
# Configs of data of one's own, which name files below --data_dir.
IMAGES = """
from configs import base


def get_config():
  config = base.get_config()
  config.data.source = {"name": "image_folder", "path": "blobs", "size": 6, "channels": 1}
  config.batch_size = 8
  return config.lock()
"""
TABLE = """
from configs import base


def get_config():
  config = base.get_config()
  config.data.source = {"name": "csv", "train": "t.csv", "label": "y", "task": "regression", "one_hot": ("kind",)}
  config.data.normalize_labels = "standardize"
  config.batch_size = 8
  config.losses = {"error": {"name": "mse", "weight": 1.0}}
  config.optimizer = {"name": "adam", "learning_rate": 0.001}
  config.probes = {"test": {"name": "regression_error", "split": "test", "every": 100}}
  config.report.metrics = ("test/rmse",)
  return config.lock()
"""


def write_own_data(root):
  """Writes a folder of images whose class is where their blob is, and a table of a linear function."""
  rng = np.random.default_rng(0)
  for name, rows in (("above", slice(0, 4)), ("below", slice(4, 8))):
    (root / "blobs" / name).mkdir(parents=True)
    for i in range(20):
      pixels = rng.integers(0, 50, (8, 8), np.uint8)
      pixels[rows] += 100
      Image.fromarray(pixels).save(root / "blobs" / name / f"{i}.png")
  lines = [f"{x},{'ab'[i % 2]},{3 * x + i % 2}" for i, x in enumerate(rng.normal(size=60).round(3))]
  (root / "t.csv").write_text("x,kind,y\n" + "\n".join(lines) + "\n")


def start(workdir, arguments):
  command = [sys.executable, "-m", "experiments.train", f"--workdir={workdir}", *arguments]
  return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def checkpoints(workdir):
  return sorted(str(p) for p in pathlib.Path(workdir).glob("checkpoints/*/step_*") if p.name[5:].isdigit())


def wait_for_progress(process, workdir, before):
  deadline = time.monotonic() + 120
  while checkpoints(workdir) == before and process.poll() is None and time.monotonic() < deadline:
    time.sleep(0.01)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kills_wanted", [3, 12])
def test_kills_change_nothing(tmp_path, kills_wanted):
  """A hundred of them, at chosen moments: python -m experiments.benchmarks.soak."""
  kills, codes = check_kills(tmp_path, QUICKSTART, kills_wanted)
  assert min(kills.values()) >= kills_wanted // 3, (kills, codes)
  assert codes.count(75) >= kills_wanted // 4  # SIGTERM saves and says so


@pytest.mark.timeout(900)
@pytest.mark.parametrize("arguments, text", [
  pytest.param(["--config=configs/tasks/ink.py"], "", marks=pytest.mark.long, id="numbers"),
  pytest.param(["--config=configs/tasks/names.py"], "", marks=pytest.mark.long, id="pairs"),
  pytest.param([], IMAGES, marks=pytest.mark.long, id="images"),
  pytest.param([], TABLE, id="table"),
])
def test_kills_change_nothing_of_other_tasks_and_own_data(tmp_path, arguments, text):
  write_own_data(tmp_path)
  if text:
    (tmp_path / "own.py").write_text(text)
    arguments = [f"--config={tmp_path}/own.py", f"--data_dir={tmp_path}"]
  check_kills(tmp_path, [*arguments, *OFTEN], 2)


def check_kills(tmp_path, arguments, kills_wanted):
  """Runs a config undisturbed and under kills, compares the bytes; returns the kills by signal, and the exit codes."""
  undisturbed = start(tmp_path / "undisturbed", arguments)
  out, err = undisturbed.communicate(timeout=240)
  assert undisturbed.returncode == 0, err

  generator, kills, workdir = random.Random(0), {signal.SIGKILL: 0, signal.SIGTERM: 0}, tmp_path / "disturbed"
  codes = []
  while True:
    process = start(workdir, arguments)
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

  assert sum(kills.values())  # or the run was over too soon
  read = lambda run, name: (tmp_path / run / name).read_bytes()
  assert read("disturbed", "metrics.jsonl") == read("undisturbed", "metrics.jsonl")
  assert read("disturbed", "results.json") == read("undisturbed", "results.json")
  history = json.loads(read("disturbed", "manifest.json"))["history"]
  assert [entry["event"] for entry in history].count("resume") == len(codes) - 1
  assert os.listdir(tmp_path / "disturbed" / "checkpoints") == os.listdir(tmp_path / "undisturbed" / "checkpoints")
  return kills, codes
