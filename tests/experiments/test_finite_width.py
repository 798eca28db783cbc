"""Finite networks against their kernels: the limit itself, the slopes, and the binary."""

import subprocess
import sys

import jax
import numpy as np
import pytest

from experiments.studies.finite_width import MEASURES, NETS, limit, make_task, measure, panels, slopes, study
from nurture.core import UserError
from nurture.ntk.empirical import ntk
from nurture.reporting import read_json


@pytest.fixture(scope="module")
def task():
  return make_task(5)


def test_digits_have_mean_square_one_and_targets_say_odd(task):
  for x in (task.x, task.x_test):
    np.testing.assert_allclose(np.mean(np.square(x), axis=(1, 2, 3)), 1, rtol=1e-6)
  assert task.y.shape == (5, 1) and set(np.ravel(task.y)) == {-1.0, 1.0}
  with pytest.raises(UserError, match="--n=361 is more than the 360 test digits"):
    make_task(361)


@pytest.mark.parametrize("name, width", [("ReLU, 3 hidden layers", 1024), ("ReLU, 2 convolutions", 128)])
def test_a_wide_network_has_the_kernel_of_infinite_width(task, name, width):
  net = NETS[name].clone(width=width)
  kernel = limit(net, task).kernel
  params = net.init(jax.random.key(1), task.x)
  empirical = np.asarray(ntk(net.apply, params, task.x))
  assert np.linalg.norm(empirical - kernel) < 6 / width**0.5 * np.linalg.norm(kernel)
  assert np.linalg.norm(2 * empirical - kernel) > 0.5 * np.linalg.norm(kernel)  # so a factor would be seen


def test_a_wide_network_trains_as_kernel_regression_does(task):
  net = NETS["erf, 3 hidden layers"]
  narrow, wide = (measure(net.clone(width=width), task, limit(net, task), 0, 30) for width in (16, 1024))
  for name in MEASURES:
    assert wide[name] < narrow[name] / 3
  assert wide["drift under training"] < 0.05 and wide["outputs after training"] < 0.12
  untrained = measure(net.clone(width=16), task, limit(net, task), 0, 0)
  assert untrained["at initialization"] == narrow["at initialization"]
  assert np.isnan(untrained["drift under training"])


def test_slopes_are_those_of_power_laws():
  widths = [32, 64, 128, 256]
  distances = np.array([[3.0], [5.0]]) * np.power(widths, np.array([[-0.5], [-1.0]]))
  np.testing.assert_allclose(slopes(widths, distances), [-0.5, -1.0])
  distances[:, 3] = np.nan
  np.testing.assert_allclose(slopes(widths, distances), [-0.5, -1.0])
  assert np.isnan(slopes(widths[:1], distances[:, :1])).all()


def test_networks_that_cost_too_much_are_left_out(task):
  steps = []
  values = study(NETS["ReLU, 2 convolutions"], task, [8, 512], 1, 10, lambda: steps.append(0))
  assert np.isfinite(values["at initialization"]).tolist() == [[True, False]]
  assert np.isnan(values["drift under training"]).all() and len(steps) == 2
  drawn = panels({"net": values | {name: values["at initialization"] for name in MEASURES[1:]}}, [8, 512])
  ratios = [np.divide(*next(iter(panel.theory.values()))[1][::-1]) for panel in drawn]
  np.testing.assert_allclose(ratios, [1 / 8, 1 / 64, 1 / 8])


@pytest.mark.long  # starts two programs
def test_the_binary_writes_a_run_directory(tmp_path):
  command = [sys.executable, "-m", "experiments.studies.finite_width", f"--workdir={tmp_path}", "--widths=4,8", "--n=3"]
  done = subprocess.run([*command, "--seeds=2", "--steps=2"], capture_output=True, text=True, timeout=240)
  assert done.returncode == 0, done.stderr
  assert "erf, 3 hidden layers" in done.stdout
  assert (tmp_path / "plots" / "finite_width.png").stat().st_size > 10_000
  results = read_json(tmp_path / "results.json")
  assert results["slopes"]["erf, 3 hidden layers"]["drift under training"]["n"] == 2
  assert np.shape(results["distances"]["ReLU, 2 convolutions"]["at initialization"]) == (2, 2)
  done = subprocess.run([*command[:4], "--widths=4,x"], capture_output=True, text=True, timeout=120)
  assert done.returncode == 2 and done.stderr.startswith("error: --widths=4,x is not possible")
