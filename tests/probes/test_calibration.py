"""Calibration and stability within a class: closed forms, invariances, and sets cut into padded pieces."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nurture.core import Outputs, UserError, build
from nurture.probes import PROBES
from nurture.probes.calibration import Calibration
from nurture.probes.stability import Stability

# The "images" are the logits; a reference says them backwards.
ECHO = types.SimpleNamespace(
  inputs=lambda batch: batch["image"],
  apply=lambda variables, x: Outputs(x.astype(jnp.float32), {}),
  references=lambda batch: {"teacher": Outputs(batch["image"][..., ::-1], {})},
)


def pieces_of(label, logits, size):
  """Cuts rows into pieces, the last padded with rows that would spoil any sum."""
  label, logits = np.asarray(label, np.int32), np.asarray(logits, np.float32)
  index = np.arange(-(-len(label) // size) * size)
  real = index < len(label)
  take = lambda rows: rows[np.minimum(index, len(label) - 1)]
  bad = real.reshape(-1, *[1] * (logits.ndim - 1))
  rows = {"image": np.where(bad, take(logits), np.inf), "label": take(label), "weight": real.astype(np.float32)}
  cut = lambda start: {name: jnp.asarray(values[start : start + size]) for name, values in rows.items()}
  return [cut(start) for start in range(0, len(index), size)]


@functools.cache
def compiled(probe):
  return jax.jit(functools.partial(probe, ECHO, {}))


def measure(probe, label, logits, size=None):
  pieces = pieces_of(label, logits, size or len(label))
  sums = [compiled(probe)(piece) for piece in probe.prepare(types.SimpleNamespace(batches=lambda *_: pieces), None)]
  result = probe.finish(functools.reduce(lambda a, b: jax.tree.map(jnp.add, a, b), sums))
  return {name: float(value) for name, value in result.items()}


def logits_of(p):
  return np.log(np.asarray(p, np.float64))


def test_a_calibrated_set_has_no_error():
  # At confidence q of class 0 the share q of the labels is 0, in several bins.
  label, p = [], []
  for tenths in (6, 7, 8, 9):
    label += [0] * tenths + [1] * (10 - tenths)
    p += [[tenths / 10, 1 - tenths / 10]] * 10
  result = measure(Calibration("test"), label, logits_of(p), size=7)
  assert result["ece"] < 1e-6
  np.testing.assert_allclose([result["accuracy"], result["confidence"]], 0.75, rtol=1e-6)


@pytest.mark.parametrize("confidence", [0.55, 0.95])
def test_at_one_confidence_the_error_is_the_gap(confidence):
  label = [0] * 8 + [1] * 2
  result = measure(Calibration("test"), label, logits_of([[confidence, 1 - confidence]] * 10))
  np.testing.assert_allclose(result["ece"], abs(confidence - 0.8), rtol=1e-5)
  p = np.where(np.array(label) == 0, confidence, 1 - confidence)
  np.testing.assert_allclose(result["p_true"], p.mean(), rtol=1e-5)
  np.testing.assert_allclose(result["nll"], -np.log(p).mean(), rtol=1e-5)
  np.testing.assert_allclose(result["brier"], 2 * ((1 - p) ** 2).mean(), rtol=1e-5)


def test_the_error_is_the_definition_on_random_predictions_however_cut():
  draws = np.random.default_rng(0)
  logits = 2 * draws.normal(size=(60, 4))
  label = np.where(draws.random(60) < 0.6, logits.argmax(axis=1), draws.integers(0, 4, 60))
  p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
  confidence, correct = p.max(axis=1), p.argmax(axis=1) == label
  edges = np.linspace(0, 1, 11)
  inside = [(low < confidence) & (confidence <= high) for low, high in zip(edges, edges[1:])]
  expected = sum(abs(correct[b].mean() - confidence[b].mean()) * b.mean() for b in inside if b.any())
  whole, cut = (measure(Calibration("test", bins=10), label, logits, size) for size in (60, 7))
  np.testing.assert_allclose(whole["ece"], expected, rtol=1e-4)
  assert cut == pytest.approx(whole, rel=1e-5)
  one = measure(Calibration("test", bins=1), label, logits)
  np.testing.assert_allclose(one["ece"], abs(one["confidence"] - one["accuracy"]), rtol=1e-4)
  assert one["ece"] < 0.9 * expected  # bins hide what cancels within them


def test_certainty_falls_into_the_last_bin_and_positions_without_label_do_not_count():
  label = np.array([[0, 1, -1], [1, -1, -1]])
  logits = np.full((2, 3, 2), [100.0, 0.0])
  result = measure(Calibration("test"), label, logits)
  np.testing.assert_allclose(result["ece"], 2 / 3, rtol=1e-5)  # two of three are certain and wrong
  np.testing.assert_allclose(result["accuracy"], 1 / 3, rtol=1e-5)


def test_a_confidence_on_an_edge_belongs_to_the_bin_below():
  """By hand, with the bins (0, 1/4], (1/4, 1/2], (1/2, 3/4], (3/4, 1] and n = 8.

  k equal logits of four, the others -inf, have the confidence 1/k exactly, and the first class is predicted.

      bin      examples                             correct   sum of confidences   |difference|
      first    2 at 1/4, wrong                      0         1/2                  1/2
      second   3 at 1/3, correct; 2 at 1/2, wrong   3         1 + 1                1
      last     1 at 1, wrong                        0         1                    1
  """
  logits = lambda k: np.where(np.arange(4) < k, 0.0, -np.inf)
  rows = [(4, 1)] * 2 + [(3, 0)] * 3 + [(2, 1)] * 2 + [(1, 1)]
  for order in (rows, rows[::-1]):
    result = measure(Calibration("test", bins=4), [y for _, y in order], [logits(k) for k, _ in order], size=3)
    np.testing.assert_allclose(result["ece"], 2.5 / 8, rtol=1e-6)
    np.testing.assert_allclose(result["accuracy"], 3 / 8, rtol=1e-6)
    np.testing.assert_allclose(result["confidence"], 3.5 / 8, rtol=1e-6)
    np.testing.assert_allclose(result["p_true"], (2 / 4 + 3 / 3 + 2 / 2) / 8, rtol=1e-6)
    # Brier: sum of squares about the label: 4 terms of 1/4 with 3/4; 2/3 and twice 1/3; 1/2 twice; 1 and 1.
    np.testing.assert_allclose(result["brier"], (2 * 12 / 16 + 3 * 6 / 9 + 2 * 2 / 4 + 2) / 8, rtol=1e-6)


@pytest.mark.parametrize("classes, bins", [(2, 2), (3, 15), (5, 10), (10, 20)])
def test_the_confidence_of_chance_is_an_edge_where_the_classes_divide_the_bins(classes, bins):
  """Half of the examples know nothing and are right, half lie in the middle of the next bin and are wrong."""
  above = 1 / classes + 0.5 / bins
  confident = np.log(np.r_[above, np.full(classes - 1, (1 - above) / (classes - 1))])
  result = measure(Calibration("test", bins=bins), [0, 0, 1, 1], [np.zeros(classes)] * 2 + [confident] * 2)
  np.testing.assert_allclose(result["ece"], (1 - 1 / classes) / 2 + above / 2, rtol=1e-5)


def test_there_is_at_least_one_bin():
  with pytest.raises(UserError, match="bins is 0; give a whole number of at least 1"):
    build(PROBES, {"name": "calibration", "split": "test", "bins": 0})
  assert Calibration("test").bins == 15  # of the paper


def test_one_prediction_a_class_is_stable_at_any_confidence():
  label = np.arange(40) % 4
  for scale in (0.0, 1.0, 5.0, 100.0):
    result = measure(Stability("test"), label, scale * np.eye(4)[(label + 1) % 4], size=7)
    assert result["vector_var"] < 1e-6 and result["scalar_var"] < 1e-6 and result["scalar_std"] < 1e-3


def test_the_most_unstable_network():
  # Half of each class is certain of one class, half of another: mean 1/2, 1/2.
  label, other = np.repeat([0, 1], 20), np.tile([0, 1], 20)
  result = measure(Stability("test"), label, 200.0 * np.eye(2)[other])
  expected = {"vector_var": 0.5, "scalar_std": 0.5, "scalar_var": 0.25, "p_true": 0.5}
  assert result == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("scale, confident", [(0.01, 0), (1.0, 0), (20.0, 0), (1.0, 10)])
def test_the_spread_is_the_definition_in_double_precision(scale, confident):
  draws = np.random.default_rng(0)
  label, logits = draws.integers(0, 5, 200), np.float32(scale * draws.normal(size=(200, 5)))
  logits = logits.astype(np.float64)
  logits[np.arange(200), label] += confident  # a spread of 1e-4 about 1
  p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
  groups = [p[label == c] for c in range(5)]
  expected = {
    "vector_var": np.mean([((g - g.mean(axis=0)) ** 2).sum(axis=1).mean() for g in groups]),
    "scalar_std": np.mean([g[:, c].std() for c, g in enumerate(groups)]),
    "scalar_var": np.mean([g[:, c].var() for c, g in enumerate(groups)]),
    "p_true": p[np.arange(200), label].mean(),
  }
  for size in (200, 33):
    assert measure(Stability("test"), label, logits, size) == pytest.approx(expected, rel=1e-2)


def test_it_is_invariant_to_class_names_and_to_repeated_data_and_lies_in_the_unit_interval():
  draws = np.random.default_rng(0)
  label, logits = draws.integers(0, 4, 60), 3 * draws.normal(size=(60, 4))
  result = measure(Stability("test"), label, logits)
  assert all(0 <= value <= 1 for value in result.values())
  order = np.array([2, 0, 3, 1])
  assert measure(Stability("test"), order[label], logits[:, np.argsort(order)]) == pytest.approx(result, rel=1e-5)
  twice = measure(Stability("test"), np.tile(label, 2), np.tile(logits, (2, 1)))
  assert twice == pytest.approx(result, rel=1e-5)


def test_a_class_without_examples_does_not_count_and_a_reference_can_be_measured():
  label, logits = np.repeat([0, 1], 20), np.random.default_rng(0).normal(size=(40, 4))
  two = measure(Stability("test"), label, logits)
  padded = measure(Stability("test"), label, np.concatenate([logits, np.full((40, 1), -100.0)], axis=1))
  assert two == pytest.approx(padded, rel=1e-5)
  assert measure(Stability("test", of="teacher"), label, logits[:, ::-1]) == pytest.approx(two, rel=1e-5)
  with pytest.raises(UserError, match="'stability' reads the reference 'techer'; did you mean 'teacher'"):
    measure(Stability("test", of="techer"), label, logits)
