"""The information of a logit difference about its example: limits, a Gaussian channel, and the probe."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nurture.core import Outputs, UserError
from nurture.probes import ProbeSpec
from nurture.probes.mutual_information import MutualInformation, mutual_information
from nurture.testing import class_spec

# The "images" are the logits.
ECHO = types.SimpleNamespace(
  inputs=lambda batch: batch["image"], apply=lambda variables, x: Outputs(x.astype(jnp.float32), {})
)
information = jax.jit(mutual_information)


def spec_of(label, image, size):
  """The examples in pieces, the last one padded."""
  index = np.arange(-(-len(label) // size) * size)
  real = index < len(label)
  take = lambda rows: np.asarray(rows)[np.minimum(index, len(label) - 1)]
  rows = {"image": np.float32(take(image)), "label": take(np.int32(label)), "weight": np.float32(real)}
  cut = lambda start: {name: jnp.asarray(values[start : start + size]) for name, values in rows.items()}
  pieces = [cut(start) for start in range(0, len(index), size)]
  data = class_spec(num_examples=60, num_classes=3, input_shape=np.shape(image)[1:], batch_size=7)
  return ProbeSpec(data, lambda split, limit: pieces)


def estimate(means, std, samples=4):
  draws = np.random.default_rng(0).normal(size=(len(means), samples))
  return float(information(jnp.asarray(means[:, None] + std * draws, jnp.float32)))


def test_information_of_separate_examples_is_log_n_and_of_equal_ones_zero():
  assert estimate(100.0 * np.arange(50), 1.0) == pytest.approx(np.log(50), rel=1e-5)
  assert float(information(jnp.ones((50, 4)))) == pytest.approx(0, abs=1e-5)
  assert float(information(jnp.arange(50.0)[:, None] * jnp.ones((1, 4)))) == pytest.approx(np.log(50), rel=1e-5)
  assert abs(estimate(np.zeros(50), 1.0, samples=64)) < 0.05


def test_two_tight_clusters_hold_one_bit_and_a_little_that_few_draws_invent():
  clusters = np.repeat([0.0, 1000.0], 50)
  many, few = estimate(clusters, 1.0, samples=64), estimate(clusters, 1.0, samples=4)
  assert np.log(2) < many < np.log(2) + 0.05 < few < np.log(2) + 0.5


def test_information_is_that_of_a_gaussian_channel_and_has_no_unit():
  signal = 3.0 * np.random.default_rng(1).normal(size=400)
  value = estimate(signal, 1.0, samples=32)
  assert value == pytest.approx(0.5 * np.log(1 + signal.var()), rel=0.05)  # Shannon: 1/2 log(1 + signal / noise)
  assert estimate(-7 * signal + 3, 7.0, samples=32) == pytest.approx(value, rel=0.02)


def test_the_probe_measures_the_two_classes_under_its_chance():
  label = np.arange(60) % 3
  logits = np.stack([10.0 * np.arange(60), 0 * label, np.full(60, np.nan)], axis=1)  # class 2 must not be looked at
  probe = MutualInformation("train", classes=(0, 1), shift=0, noise=0.1, samples=3)
  pieces = {size: probe.prepare(spec_of(label, logits, size), jax.random.key(0)) for size in (7, 60)}
  assert all(len(pieces[size]) == 1 and len(pieces[size][0]["batch"]["label"]) == 40 for size in pieces)
  results = [probe.finish(probe(ECHO, {}, pieces[size][0])) for size in pieces]
  assert float(results[0]["information"]) == pytest.approx(np.log(40), rel=1e-5) == float(results[0]["log_n"])
  assert results[0] == results[1]
  collapsed = [{**pieces[7][0], "batch": {**pieces[7][0]["batch"], "image": jnp.zeros((40, 3))}}]
  assert abs(float(probe(ECHO, {}, collapsed[0])["information"])) < 0.6


def test_shifts_move_the_image():
  # One pixel that a shift of 1 moves off the place where it is seen, 8 times in 9; it alone tells the examples apart.
  images = np.zeros((20, 3, 3, 1), np.float32)
  images[:, 1, 1, 0] = np.arange(20)
  net = types.SimpleNamespace(
    inputs=lambda batch: batch["image"],
    apply=lambda variables, x: Outputs(x[:, 1, 1] * jnp.array([[5.0, 0.0]]), {}),
  )
  seen = []
  spying = types.SimpleNamespace(inputs=net.inputs, apply=lambda v, x: seen.append(x.shape) or net.apply(v, x))
  probe = MutualInformation("train", shift=1, samples=64)
  [piece] = probe.prepare(spec_of(np.arange(20) % 2, images, 20), jax.random.key(0))
  value = float(probe(spying, {}, piece)["information"])
  assert seen[0] == (20, 3, 3, 1) and abs(value) < 0.5 < np.log(20)
  np.testing.assert_array_equal(piece["batch"]["image"], images)


def test_mistakes_of_mutual_information_name_the_fix():
  with pytest.raises(ValueError, match="leaves nothing to chance"):
    MutualInformation(shift=0)
  with pytest.raises(ValueError, match="two different"):
    MutualInformation(classes=(1, 1))
  vectors = spec_of([0, 1, 0], np.zeros((3, 3)), 3)
  with pytest.raises(UserError, match="set its shift to 0"):
    MutualInformation(shift=2).prepare(vectors, jax.random.key(0))
  with pytest.raises(UserError, match="no example of class 2"):
    MutualInformation(classes=(0, 2), shift=0, noise=1.0).prepare(vectors, jax.random.key(0))
