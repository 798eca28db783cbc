"""The benchmark of merging, on a small network."""

import subprocess
import sys

import pytest

from nurture.reporting import read_json


def benchmark(*arguments):
  return subprocess.run(
    [sys.executable, "-m", "experiments.benchmarks.deploy", *arguments], capture_output=True, text=True, timeout=240
  )


@pytest.mark.long  # starts a program that compiles a network in two forms
def test_compares_two_forms_that_are_one_function(tmp_path):
  done = benchmark("--model=vanillanet_cifar", "--side=32", "--classes=10", "--batch=2", "--rounds=2", "--act_num=1",
                   f"--out={tmp_path}")
  assert done.returncode == 0, done.stderr
  assert "speed-up" in done.stdout and "medians of 2 paired rounds" in done.stdout
  (row,) = read_json(tmp_path / "results.json")["rows"]
  assert row["batch"] == 2
  assert min(row["training_ms"], row["deployed_ms"], row["speedup"]) > 0
  assert row["difference"] < 1e-5
  assert min(row["bound_by_multiply_adds"], row["bound_by_bytes"]) > 1  # the training form is the larger


@pytest.mark.parametrize("argument, sentence", [
  ("--model=lenet5", "--model=lenet5 has no deployed form"), ("--batch=0", "--batch=0 are no batch sizes"),
])
def test_mistakes_are_one_sentence(tmp_path, argument, sentence):
  done = benchmark(argument, f"--out={tmp_path}")
  assert done.returncode == 2
  assert done.stderr.startswith(f"error: {sentence}") and len(done.stderr.splitlines()) == 1
