"""The random walk of the weights: the formula, how it is measured, and that a network obeys it."""

import subprocess
import sys

import numpy as np
import pytest

from experiments.studies.gradient_noise import escape_step, predicted_std, ratios_before_escape
from nurture import reporting, training
from tests.literal_run import member, write_run
from tests.tiny import tiny_config


def test_the_law_is_the_root_of_a_sum_of_variances():
  steps = np.array([0, 1, 2, 5])
  np.testing.assert_allclose(predicted_std(steps, 0.1, 0.04, 0.0), 0.1 * 0.2 * np.sqrt(steps))  # constant noise
  harmonic = [1.5, 1 + 1 / 2 + 1 / 3 + 1 / 4 + 1 / 5]
  np.testing.assert_allclose(predicted_std(steps, 0.5, 1.0, 1.0)[2:], 0.5 * np.sqrt(harmonic))
  long = np.array([100_000])  # the integral of the sum
  np.testing.assert_allclose(predicted_std(long, 0.1, 0.01, 0.55), 0.1 * np.sqrt(0.01 * 1e5**0.45 / 0.45), rtol=5e-3)


def test_escape_is_the_first_loss_well_below_the_early_level():
  steps = np.arange(0, 1000, 10)
  loss = np.where(steps < 400, 2.3, 1.0)
  assert escape_step(steps, loss) == 400
  assert escape_step(steps, np.full(100, 2.3)) == np.inf
  assert escape_step(steps, 2.3 + 0.05 * np.sin(steps)) == np.inf


def test_ratios_are_of_the_members_asked_for():
  rows = [
    {"member": m, "step": s, "w/std": (1 + m) * 2.0 * s, "loss": 1.0 if s < 30 or m == 0 else 0.1}
    for s in (0, 10, 20, 30, 40) for m in (0, 1)
  ]
  law = lambda steps: 2.0 * np.maximum(steps, 1)
  np.testing.assert_allclose(ratios_before_escape(rows, [0], "w/std", law), [1, 1, 1, 1])
  np.testing.assert_allclose(ratios_before_escape(rows, [1], "w/std", law), [2, 2])  # up to its escape at 30


@pytest.fixture(scope="module")
def walk(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("walk") / "run"
  config = tiny_config(
    steps=60, model__depth=6, model__width=50, model__kernel_init="zeros", gradients__noise__eta=0.02, targets={},
    optimizer={"name": "sgd", "learning_rate": 0.1}, log_every=20, steps_per_dispatch=20, parameters={},
    probes={"weights": {"name": "weight_statistics", "every": 20}}, ensemble__seeds=4,
    ensemble__grid={"eta": {"path": "gradients.noise.eta", "levels": (0.0, 0.02)}},
  )
  training.run(config, workdir, name="walk")
  return workdir


def test_a_zero_network_walks_by_the_law_and_stands_still_without_noise(walk):
  rows = reporting.read_rows(walk / "metrics.jsonl")
  for layer in range(1, 6):
    name = f"weights/dense_{layer:02d}/kernel"
    assert all(row[f"{name}/largest"] == 0 for row in rows if row["member"] < 4)
    steps, measured = reporting.series(rows, f"{name}/std", [4, 5, 6, 7])
    np.testing.assert_array_equal(steps, [0, 20, 40, 60])
    law = predicted_std(steps, 0.1, 0.02, 0.55)[1:]
    # A standard deviation of 2,500 entries has a relative error of 1.4 %, a mean over four of them 0.7 %.
    np.testing.assert_allclose(measured[:, 1:].mean(axis=0), law, rtol=0.03)
    assert np.abs(measured[:, 1:].mean(axis=0) / (law * np.sqrt(2)) - 1).min() > 0.2  # a wrong law would be seen


def test_the_binary_prints_the_ratio_and_draws_the_walk(walk):
  done = subprocess.run(
    [sys.executable, "-m", "experiments.studies.gradient_noise", str(walk)], capture_output=True, text=True, timeout=120
  )
  assert done.returncode == 0, done.stderr
  assert "largest std(w) = 0" in done.stdout and "eta=0.02" in done.stdout
  assert (walk / "plots" / "random_walk.png").stat().st_size > 10_000
  done = subprocess.run(
    [sys.executable, "-m", "experiments.studies.gradient_noise", str(walk), "--layer=dense_99"],
    capture_output=True, text=True,
  )
  assert done.returncode == 2 and done.stderr.startswith("error: --layer=dense_99 is in no metric")


def test_the_table_joins_seeds_learning_rates_and_the_paper(tmp_path):
  write_run(tmp_path, [
    member(seed, {"row": "6 zero, clip 10", "eta": 0.01, "lr": lr}, died_at=died, **{"test/accuracy": value})
    for lr, seed, value, died in ((0.1, 0, 0.5, None), (0.1, 1, 0.7, None), (0.01, 0, 0.1, None), (0.01, 1, None, 3))
  ])
  done = subprocess.run(
    [sys.executable, "-m", "experiments.studies.gradient_noise_table", str(tmp_path)], capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr
  row = [cell.strip() for cell in done.stdout.splitlines()[2].strip("|").split("|")]
  assert row[2:] == ["60 ± 10", "10 (1 dead)", "43 ± 18 (1 dead)", "70.0", "49.7", "94.5"]
