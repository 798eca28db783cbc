"""The study of depth: its data, its table of kernels, what it finds in small, and the binary."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.studies.wide_and_deep import DIRICHLET, activations, chosen, compare, draw, grid_of, interpolate, rows
from nurture.core import UserError
from nurture.ntk.deep import deep_log_kernel, log_kernel_of_cosines
from nurture.ntk.sphere import log_cosines
from nurture.reporting import read_json


@pytest.mark.parametrize("d", DIRICHLET)
def test_data_lie_on_the_sphere_and_no_rule_beats_bayes(d):
  data = draw(d, 4000, 0)
  np.testing.assert_allclose(np.linalg.norm(data.x_train, axis=1), 1)
  assert np.all(data.x_train >= 0) and abs(np.mean(data.y_train == 1) - 0.6) < 0.03
  # What n neighbours say of a point is at best Bayes' accuracy; a class's mean direction is a rule, too.
  means = np.stack([data.x_train[data.y_train == y].mean(axis=0) for y in (-1, 1)])
  linear = 2 * np.argmin(((data.x_test[:, None] - means[None]) ** 2).sum(-1), axis=1) - 1
  bayes = np.mean(data.bayes == data.y_test)
  assert max(np.mean(linear == data.y_test), np.mean(data.y_test == 1)) < bayes + 0.01
  assert bayes > {2: 0.7, 3: 0.93, 5: 0.86, 9: 0.86}[d]
  assert not np.array_equal(data.x_train, draw(d, 4000, 1).x_train)


def test_the_table_is_the_kernel():
  with jax.enable_x64(True):
    data = draw(3, 40, 0)
    log_c = np.asarray(log_cosines(jnp.asarray(data.x_test), jnp.asarray(data.x_train)).log)
    grid = grid_of([log_c])
    dual = activations(3)["optimal"]
    for kind in ("nngp", "ntk"):
      table, diagonal = log_kernel_of_cosines(grid.points(), dual, 100, kind)
      expected, expected_diagonal = deep_log_kernel(data.x_test, data.x_train, dual, 100, kind)
      np.testing.assert_allclose(interpolate(table, jnp.asarray(grid.place(log_c))), expected, atol=1e-4)
      assert diagonal == expected_diagonal


@pytest.fixture(scope="module")
def measured():
  return compare(3, 150, (1, 40, 10**6), 2)


def test_the_three_limits(measured):
  limit = lambda kind, name: measured["smoother"][kind][name][10**6]
  for kind in ("nngp", "ntk"):
    assert limit(kind, "pure h2") == measured["baselines"]["1-NN"]
    assert limit(kind, "ReLU") == measured["baselines"]["majority"]
  np.testing.assert_allclose(limit("nngp", "optimal"), measured["baselines"]["Hilbert"], atol=0.02)
  # So deep a kernel matrix is nearly its diagonal, and regression the smoother.
  solved, smoothed = (measured[method]["nngp"]["optimal"] for method in ("regression", "smoother"))
  np.testing.assert_allclose(solved[40], smoothed[40], atol=0.01)
  assert set(solved) == {40} and not measured["regression"]["ntk"]


def test_the_table_of_results(measured):
  lines = rows(3, measured, (1, 40, 10**6))
  assert len(lines) == 10 + 1 and all(len(line) == 6 for line in lines)
  assert ["R^3", "erf, NTK", "alpha 0.8882"] in [line[:3] for line in lines]
  assert lines[-1][3] == "–"  # no regression with one layer


def test_the_binary_writes_a_run_directory(tmp_path):
  command = [sys.executable, "-m", "experiments.studies.wide_and_deep", f"--workdir={tmp_path}", "--n=30", "--seeds=2",
             "--depths=1,30", "--dimensions=2"]
  done = subprocess.run(command, capture_output=True, text=True, timeout=240)
  assert done.returncode == 0, done.stderr
  assert "optimal, NTK" in done.stdout
  assert (tmp_path / "plots" / "wide_and_deep.png").stat().st_size > 10_000
  assert len(read_json(tmp_path / "results.json")["accuracy"]["R^2"]["smoother"]["ntk"]["optimal"]["30"]) == 2
  assert read_json(tmp_path / "manifest.json")["history"][-1]["reason"] == "finished"


def test_flags_that_make_no_sense():
  assert chosen(["9", "2"], ["100", "1"]) == ([2, 9], [1, 100])
  for dimensions, depths, message in (
    (["4"], ["1"], "--dimensions has 4"), (["2"], ["0"], "at least 1"), (["2"], ["ten"], "--depths=ten"),
    ([], ["1"], "whole numbers"),
  ):
    with pytest.raises(UserError, match=message):
      chosen(dimensions, depths)
