"""Predictors: against plain loops, with labels of any kind, and where exponentials would overflow."""

import math

import jax
import numpy as np
import pytest

from nurture.core import UserError
from nurture.ntk.predictors import (
  hilbert_predict,
  majority_predict,
  one_nn_predict,
  ridgeless_predict,
  smoother_predict,
)

LABELS = {"sign": np.array([-1, 1]), "classes": np.arange(3), "words": np.array(["cat", "dog", "owl"])}


@pytest.fixture(autouse=True)
def double():
  with jax.enable_x64(True):
    yield


@pytest.fixture
def data():
  rng = np.random.default_rng(0)
  return rng.normal(size=(30, 2)), rng.normal(size=(20, 2)), rng.integers(0, 2, 30), rng.integers(0, 3, 30)


@pytest.mark.parametrize("kind", LABELS)
def test_are_what_they_say_for_labels_of_any_kind(kind, data):
  x, new, two, three = data
  y = LABELS[kind][two if kind == "sign" else three]
  distance = np.linalg.norm(new[:, None] - x[None], axis=-1)
  vote = lambda weights: np.array([max(LABELS[kind], key=lambda k: row[y == k].sum()) for row in weights])
  np.testing.assert_array_equal(one_nn_predict(x, y, new), y[distance.argmin(axis=1)])
  np.testing.assert_array_equal(hilbert_predict(x, y, new, 2), vote(distance**-2.0))
  kernel = np.exp(-distance)
  for shift in (0.0, 1e5, -1e5):  # a common factor far outside of float64
    np.testing.assert_array_equal(smoother_predict(-distance + shift, y), vote(kernel))
  values, counts = np.unique(y, return_counts=True)
  np.testing.assert_array_equal(majority_predict(y, 4), np.repeat(values[counts.argmax()], 4))


@pytest.mark.parametrize("scale", [0.0, 5e4])
def test_ridgeless_is_regression_on_the_labels(scale, data):
  x, new, two, _ = data
  y = 2 * two - 1
  log_k = lambda a, b: -np.linalg.norm(a[:, None] - b[None], axis=-1)
  train, test = np.exp(log_k(x, x)), np.exp(log_k(new, x))
  for jitter in (0.0, 0.1):
    expected = np.sign(test @ np.linalg.solve(train + jitter * np.eye(30), y))
    # Neither the scale of the kernel nor what stands on the diagonal matters: that is log_diag.
    ours = ridgeless_predict(log_k(new, x) + scale, log_k(x, x) + scale - 7 * np.eye(30), scale, y, jitter=jitter)
    np.testing.assert_array_equal(ours, expected)
  # Where training points hardly see each other, it is the smoother, though exp(-1e5) is 0.
  far = ridgeless_predict(log_k(new, x) - 1e5, log_k(x, x) - 1e5, 0.0, y)
  np.testing.assert_array_equal(far, smoother_predict(log_k(new, x), y))


def test_signs_count(data):
  x, new, two, _ = data
  y, k = 2 * two - 1, new @ x.T
  np.testing.assert_array_equal(smoother_predict(np.log(np.abs(k)), y, np.sign(k)), np.sign(k @ y))
  gram = x @ x.T
  diagonal = np.sqrt(np.diag(gram))
  cosines, test = gram / np.outer(diagonal, diagonal), k / np.outer(np.linalg.norm(new, axis=1), diagonal)
  ours = ridgeless_predict(np.log(np.abs(test)), np.log(np.abs(cosines)), 0.0, y, jitter=0.1, sign_test=np.sign(test),
                           sign_train=np.sign(cosines))
  np.testing.assert_array_equal(ours, np.sign(test @ np.linalg.solve(cosines + 0.1 * np.eye(30), y)))


def test_a_training_point_gets_its_own_label(data):
  x, _, _, y = data
  np.testing.assert_array_equal(hilbert_predict(x, y, x, 2), y)
  np.testing.assert_array_equal(hilbert_predict(x, y, x, 3071), y)
  np.testing.assert_array_equal(one_nn_predict(x, y, x), y)


def test_bad_input(data):
  x, new, y, _ = data
  log_k = np.zeros((20, 30))
  cases = [
    (lambda: smoother_predict(log_k, y[:-1]), "29 labels, but there are 30"),
    (lambda: smoother_predict(log_k.astype(np.float32), y), "float32"),
    (lambda: smoother_predict(log_k[:0], y), r"\[0, 30\]"),
    (lambda: smoother_predict(log_k * np.nan, y), "nan"),
    (lambda: smoother_predict(log_k - np.inf, y), "-inf only"),
    (lambda: smoother_predict(log_k, y, np.ones((2, 30))), "one sign for each"),
    (lambda: ridgeless_predict(log_k, np.zeros((30, 29)), 0.0, y), r"give \[30, 30\]"),
    (lambda: ridgeless_predict(log_k, np.zeros((30, 30)), 0.0, y, jitter=-1.0), "jitter is -1.0; give a number"),
    (lambda: ridgeless_predict(log_k, np.zeros((30, 30)), 0.0, y, jitter=0.0), "larger jitter"),
    (lambda: ridgeless_predict(log_k, np.zeros((30, 30)), np.zeros(30), y), r"log_diag is \[30\]"),
    (lambda: smoother_predict(log_k, y, np.zeros((20, 30))), "other than -1 and 1"),
    (lambda: smoother_predict(log_k, np.full(30, np.nan)), "y holds nan"),
    (lambda: smoother_predict(log_k, [None, *y[1:]]), "labels of several types"),
    (lambda: hilbert_predict(x, y, new, math.inf), "dimension is inf"),
    (lambda: majority_predict(y, -1), "num_test is -1"),
    (lambda: majority_predict(y, None), "num_test is None"),
    (lambda: one_nn_predict(x, y[:3], new), "3 labels, but there are 30 rows"),
    (lambda: one_nn_predict(x, y, new[:, :1]), "same space"),
    (lambda: one_nn_predict(x[:0], y[:0], new), r"x_train is \[0, 2\]"),
    (lambda: hilbert_predict(x, y, new, 0), "dimension is 0"),
    (lambda: majority_predict(y[:0], 3), "at least one"),
    (lambda: majority_predict(y[:, None], 3), "one label for each"),
  ]
  for call, message in cases:
    with pytest.raises(UserError, match=message):
      call()
  with jax.enable_x64(False), pytest.raises(UserError, match="enable_x64"):
    smoother_predict(log_k, y)
