"""Metrics in words."""

import pytest

from nurture.reporting import axis_of, words_of


@pytest.mark.parametrize("metric, title, axis, fraction", [
  ("test/accuracy", "Test accuracy", "fraction of examples", True),
  ("train/loss", "Training loss", "cross-entropy (nats)", False),
  ("train/wrong_memorized", "Training: wrong labels memorized", "fraction of wrong labels", True),
  ("deployed/accuracy", "Deployed: accuracy", "fraction of examples", True),
  ("kernel/effective_rank", "Kernel: effective rank", "effective rank", False),
  ("norm/002_block0.attention", "Norm: layer 2, block0 attention", "norm", False),
  ("weights/dense_10/kernel/std", "Weights: dense 10 kernel std", "dense 10 kernel std", False),
  ("accuracy/accuracy", "Accuracy", "fraction of examples", True),
  ("loss", "Training loss", "training loss", False),
  ("loss/elr", "Training loss, term elr", "loss", False),
  ("gradient_norm", "Gradient norm", "gradient norm", False),
  ("metric", "Metric", "metric", False),
])
def test_a_metric_has_a_title_an_axis_and_a_range(metric, title, axis, fraction):
  words = words_of(metric)
  assert (words.title, words.axis, words.fraction) == (title, axis, fraction)


def test_an_axis_of_a_grid():
  assert (axis_of("lr"), axis_of("weight_decay")) == ("learning rate", "weight decay")
