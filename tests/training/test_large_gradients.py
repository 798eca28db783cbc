"""Gradients whose squares leave float32: what trains with them, and what an optimizer cannot hold."""

import numpy as np
import pytest

from nurture import training
from nurture.reporting import read_rows
from tests.tiny import tiny_config


def train(workdir, weight, optimizer):
  losses = {"ce": {"name": "cross_entropy", "weight": weight}}
  return training.run(tiny_config(losses=losses, optimizer=optimizer, gradients={}), workdir)


def test_a_loss_times_1e25_trains_at_a_learning_rate_divided_by_it(tmp_path):
  results = [
    train(tmp_path / str(weight), weight, {"name": "sgd", "learning_rate": 0.1 / weight}) for weight in (1.0, 1e25)
  ]
  assert results[1]["members"][0]["died_at"] is None
  rows = [
    [row for row in read_rows(tmp_path / str(weight) / "metrics.jsonl") if "gradient_norm" in row]
    for weight in (1.0, 1e25)
  ]
  for name in ("loss", "gradient_norm"):
    plain, large = ([row[name] for row in of] for of in rows)
    assert plain
    np.testing.assert_allclose(np.array(large) / 1e25, plain, rtol=1e-3, err_msg=name)


def test_an_optimizer_whose_squares_overflow_stops_the_run_and_is_named(tmp_path):
  with pytest.raises(training.Diverged, match=r"the state optimizer/.*nu/.* is not finite at step \d+; "):
    train(tmp_path / "run", 1e25, {"name": "adam", "learning_rate": 0.1})
