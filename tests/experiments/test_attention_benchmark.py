"""The benchmark of attention, on one small shape, and its arithmetic."""

import subprocess
import sys

import pytest

from experiments.benchmarks.attention import Shape
from nurture.reporting import read_json


def benchmark(*arguments):
  return subprocess.run(
    [sys.executable, "-m", "experiments.benchmarks.attention", *arguments], capture_output=True, text=True, timeout=240
  )


def test_operations_are_those_of_the_matrix_products():
  whole = Shape(batch=2, length=8, heads=3, features=4, causal=False)
  weights = 2 * 3 * 8 * 8  # each is a sum of 4 products, and is multiplied with 4 values
  assert whole.flops == weights * 4 * 2 * 2
  assert Shape(2, 8, 3, 4, True).flops == whole.flops / 2


@pytest.mark.long  # starts a program that compiles a dozen programs
def test_measures_every_implementation_that_runs_here(tmp_path):
  done = benchmark("--features=16", "--lengths=32", "--batch=2", "--heads=2", "--causal=true", "--rounds=2",
                   "--seconds=0.001", f"--out={tmp_path}")
  assert done.returncode == 0, done.stderr
  checks = [line.split("|") for line in done.stdout.splitlines() if "| xla_chunked " in line]
  assert len(checks) == 3 and all(float(error) < 1e-5 for row in checks for error in row[3:7])
  (result,) = read_json(tmp_path / "results.json")["results"]
  assert result["shape"] == {"batch": 2, "length": 32, "heads": 2, "features": 16, "causal": True}
  names = {"sigmoid, xla_chunked", "sigmoid, xla", "softmax, jax.nn, xla"}
  assert names <= {entry["name"] for entry in result["seconds"]}
  for entry in result["seconds"]:
    assert len(entry["seconds"]) == 2 and min(entry["seconds"]) > 0
  assert "medians of 2 rounds" in done.stdout and (tmp_path / "rates.png").exists()


@pytest.mark.parametrize("argument", ["--features=a", "--lengths=1.5", "--causal=perhaps"])
def test_mistakes_are_one_sentence(tmp_path, argument):
  done = benchmark(argument, f"--out={tmp_path}")
  assert done.returncode == 2
  assert done.stderr.startswith("error: --features and --lengths take whole numbers")
  assert len(done.stderr.splitlines()) == 1
