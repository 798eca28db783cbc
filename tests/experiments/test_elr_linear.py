"""The linear model: against plain gradient descent on the parameters, the paper's phases, and the binary."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.studies.elr_linear import draw, early_phase, simulate, summarize
from nurture.core import UserError
from nurture.reporting import read_json

SETTINGS = {"delta": 0.4, "sigma": 0.1, "eta": 0.5, "beta": 0.7}


def naive(x, label, theta, lam, beta, eta, steps):
  """Gradient descent on θ itself, with the loss as the paper writes it; yields θ before each step."""

  def loss(theta, t):
    p = jax.nn.softmax(jnp.stack([x @ theta, jnp.zeros(len(x))], axis=-1))
    t = beta * t + (1 - beta) * jax.lax.stop_gradient(p)
    ce = jnp.mean(jnp.log1p(jnp.exp(-label * (x @ theta))))
    return ce + lam * jnp.mean(jnp.log(1 - jnp.sum(p * t, axis=-1))), t

  gradient = jax.jit(jax.grad(loss, has_aux=True))
  t = jnp.zeros((len(x), 2))
  for _ in range(steps):
    slope, t = gradient(theta, t)
    yield np.asarray(theta), np.asarray(slope)
    theta = theta - eta * slope


def test_margins_tell_what_gradient_descent_on_the_parameters_does():
  n, p, steps, lam = 12, 10, 20, 3.0
  ours = simulate(n, p, steps=steps, lams=(0.0, lam), seeds=1, **SETTINGS)
  with jax.enable_x64(True):
    data = draw(jax.random.key(0), n, p, SETTINGS["delta"], SETTINGS["sigma"])
    # Any inputs and start with these products do: rotations that keep v are not seen by the margins.
    v = np.asarray(data["toward_v"])
    x, theta = whole(np.asarray(data["gram"]), v, np.asarray(data["margins"]), float(data["start"]))
    label, truth = np.asarray(data["label"]), np.asarray(data["truth"])
    for method, strength in enumerate((0.0, lam)):
      path = list(naive(x, label, theta, strength, SETTINGS["beta"], SETTINGS["eta"], steps))
      along = np.array([theta[0] for theta, _ in path])
      np.testing.assert_allclose(ours["along_v"][0, method, :-1], along, atol=1e-9)
      cosine = np.array([-slope[0] / np.linalg.norm(slope) for _, slope in path])
      np.testing.assert_allclose(ours["alignment"][0, method, :-1], cosine, atol=1e-8)
      memorized = np.array([((x @ theta) * label > 0)[label != truth].mean() for theta, _ in path])
      np.testing.assert_allclose(ours["wrong_memorized"][0, method, :-1], memorized)
      accuracy = [jax.scipy.special.ndtr(t[0] / (SETTINGS["sigma"] * np.linalg.norm(t))) for t, _ in path]
      np.testing.assert_allclose(ours["test_accuracy"][0, method, :-1], accuracy, atol=1e-7)


def whole(gram, toward_v, margins, start):
  """Returns inputs X whose first column is X v, and θ of length 2, with the given Gram matrix, margins and <θ, v>."""
  rest = gram - np.outer(toward_v, toward_v)
  values, vectors = np.linalg.eigh(rest)
  columns = vectors * np.sqrt(np.maximum(values, 0))
  x = np.concatenate([toward_v[:, None], columns], axis=1)
  tail = np.linalg.pinv(columns, rcond=1e-6) @ (margins - start * toward_v)
  unseen = 4.0 - start**2 - tail @ tail  # what of |θ|² no example sees goes to one more dimension
  assert unseen > -1e-9
  return np.pad(x, ((0, 0), (0, 1))), np.concatenate([[start], tail, [np.sqrt(max(unseen, 0))]])


@pytest.fixture(scope="module")
def phases():
  return simulate(400, 360, steps=3000, lams=(0.0, 3.0), seeds=2, **SETTINGS)


def test_cross_entropy_learns_the_truth_and_then_memorizes(phases):
  memorized, true_class, test = (phases[k][:, 0] for k in ("wrong_memorized", "wrong_correct", "test_accuracy"))
  np.testing.assert_allclose(memorized + true_class, 1)  # two classes
  assert np.all(true_class[:, 20] > 0.99) and np.all(memorized[:, -1] > 0.9)
  assert np.all(test[:, 20] > 0.999) and np.all(test[:, -1] < 0.95)
  for seed in range(2):
    end = early_phase(phases["along_v"][seed, 0])
    assert np.all(phases["alignment"][seed, 0, :end] > 1 / 6)  # proposition 3


def test_the_regularizer_prevents_memorization(phases):
  assert np.all(phases["wrong_memorized"][:, 1, 20:] == 0)
  assert np.all(phases["test_accuracy"][:, 1, 20:] > 0.999)
  growth = np.diff(phases["along_v"][:, 1, 1000::500])
  # The loss has no lower bound, and 1 - <p, t> never rounds to 0, which would stop the growth.
  assert np.all(growth > 0.5 * growth[:, :1])


def test_accuracy_on_wrong_labels_is_nearly_one_at_the_first_step_past_the_threshold_if_noise_is_small():
  """Theorem 4 and proposition 5."""
  measured = simulate(400, 360, steps=60, lams=(0.0,), seeds=2, **SETTINGS | {"sigma": 0.01, "eta": 0.05})
  rows = summarize(measured, 0)
  assert np.all(np.array(rows["at T"]) > 0.999) and np.all(np.array(rows["T"]) > 1)
  assert np.all(np.array(rows["least alignment before T"]) > 1 / 6)
  assert np.mean(rows["κ² clean, change to T"]) < -0.05 < 0.05 < np.mean(rows["κ² wrong, change to T"])
  with pytest.raises(UserError, match="give more --steps"):
    early_phase(np.linspace(0, 0.09, 10))


def test_the_slope_in_the_margins_is_the_tanh_of_half_the_margin():
  """Not of the margin, as the paper has it: the two differ by far more than rounding."""
  slope = jax.grad(lambda m: jnp.log1p(jnp.exp(-m)))(0.7)
  np.testing.assert_allclose(slope, (np.tanh(0.35) - 1) / 2, rtol=1e-6)
  assert abs(slope - (np.tanh(0.7) - 1) / 2) > 0.1


def test_the_binary_writes_a_run_directory(tmp_path):
  binary = [sys.executable, "-m", "experiments.studies.elr_linear"]
  command = [*binary, f"--workdir={tmp_path}", "--n=60", "--p=55", "--steps=40"]
  done = subprocess.run(command, capture_output=True, text=True, timeout=120)
  assert done.returncode == 0, done.stderr
  assert "memorized at the end" in done.stdout and "ELR" in done.stdout
  assert (tmp_path / "plots" / "elr_linear.png").stat().st_size > 10_000
  assert read_json(tmp_path / "results.json")["groups"]["ELR"]["memorized at the end"]["n"] == 4
  assert read_json(tmp_path / "manifest.json")["history"][-1]["reason"] == "finished"
  done = subprocess.run([*command, "--sigma=0"], capture_output=True, text=True, timeout=120)
  assert done.returncode == 2 and done.stderr.startswith("error: --sigma=0.0 is not possible")
