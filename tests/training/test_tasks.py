"""Tasks in training: results that are known beforehand, and mistakes that are one sentence."""

import numpy as np
import pytest

from nurture import training
from nurture.core import UserError
from nurture.data.files import Digits
from nurture.training import member_variables
from tests.tiny import tiny_config

INK = {
  "data__source": {"name": "digits", "label": "ink"}, "data__label_noise": {}, "data__normalize": "standardize",
  "data__normalize_labels": "standardize", "data__subset": 0, "data__test_subset": 0,
  "model": {"name": "mlp", "depth": 0}, "targets": {}, "gradients": {},
  "losses": {"error": {"name": "mse", "weight": 1.0}}, "optimizer": {"name": "adam", "learning_rate": 0.01},
  "probes": {"test": {"name": "regression_error", "split": "test", "every": 0}}, "report__metrics": ("test/rmse",),
}
NAMES = INK | {
  "data__source": {"name": "digits", "label": "name"}, "data__normalize_labels": "none",
  "model": {
    "name": "two_towers", "width": 8, "first": {"field": "image", "name": "mlp", "depth": 1, "width": 16},
    "second": {"field": "tokens", "name": "gru", "width": 8, "vocabulary": 27, "pool": "last"},
  },
  "losses": {"contrast": {"name": "contrastive", "weight": 1.0}},
  "probes": {"test": {"name": "recall", "split": "test", "limit": 100, "k": (1,), "every": 0}},
  "report__metrics": ("test/at_1",),
}
RUN = {"steps": 300, "batch_size": 200, "log_every": 100, "steps_per_dispatch": 100, "checkpoint__every": 0}


def test_a_linear_network_nears_the_solution_of_least_squares(tmp_path):
  config = tiny_config(**INK | RUN)
  metrics = training.run(config, tmp_path / "run")["members"][0]["metrics"]
  data = Digits(label="ink").load()
  mean, std = data.train.moments["image"]
  flat = lambda split: np.c_[(split.inputs["image"].reshape(len(split), -1) - mean) / std, np.ones(len(split))]
  solution = np.linalg.lstsq(flat(data.train), data.train.label, rcond=None)[0]
  exact = np.sqrt(np.mean((flat(data.test) @ solution - data.test.label) ** 2))
  spread = data.test.label.std()
  assert exact < 1e-6 * spread and metrics["test/rmse"] < 0.05 * spread
  assert metrics["test/r2"] == pytest.approx(1 - (metrics["test/rmse"] / spread) ** 2, abs=1e-4)


@pytest.mark.long
def test_names_are_found_above_chance(tmp_path):
  metrics = training.run(tiny_config(**NAMES | RUN | {"steps": 60, "batch_size": 64}), tmp_path / "run")
  metrics = metrics["members"][0]["metrics"]
  assert metrics["test/at_1"] > 0.5 and metrics["test/reverse_at_1"] > 0.5
  assert set(member_variables(tmp_path / "run", 0)["params"]) == {"first", "second", "log_scale"}


@pytest.mark.parametrize("base, changes, words", [
  (INK, {"losses": {"ce": {"name": "cross_entropy", "weight": 1.0}}},
   "config.losses.ce is 'cross_entropy', which serves .*, but digits asks for regression; remove .*: guidance, huber"),
  (INK, {"targets": {"soft": {"name": "label_smoothing", "alpha": 0.1, "convention": "uniform"}}},
   "config.targets.soft is 'label_smoothing', which serves .* serves regression: none"),
  (INK, {"probes": {"test": {"name": "accuracy", "split": "test", "every": 0}}},
   "config.probes.test is 'accuracy', which serves .*regression_error"),
  ({}, {"losses": {"error": {"name": "huber", "weight": 1.0}}},
   "config.losses.error is 'huber', which serves regression, but digits asks for classification"),
  (INK, {"probes": {"k": {"name": "sharpness", "matrix": "gauss_newton", "every": 0, "limit": 9}}},
   "'sharpness' takes the Gauss-Newton matrix of the cross-entropy of classes, and the task is regression; set its"),
  (NAMES, {"model": {"name": "mlp", "depth": 1, "width": 4}}, "config.model"),
  (NAMES, {"model__first__field": "picture"}, "config.model.first.field is 'picture'; .*known: image, tokens"),
  (NAMES, {"model__second__pool": "none"}, "config.model.second gives one vector a position, .*second.pool, or choose"),
  ({}, {"model": NAMES["model"]}, "config.model 'two_towers' reads two fields, and the data have one; choose another"),
])
def test_what_does_not_serve_the_task_is_one_sentence(base, changes, words, tmp_path):
  with pytest.raises(UserError, match=words) as error:
    training.run(tiny_config(**base | changes), tmp_path / "run")
  assert "\n" not in str(error.value)
