"""Regression with a closed form: the ink of a digit, the mean of its pixels, is a linear function of the image.

  python -m experiments.train --config=configs/tasks/ink.py --workdir=runs/ink

A linear network should meet it as exactly as least squares does; an MLP comes near. Squared error and
Huber's loss, 3 seeds; 41 s on 2 CPU cores beside other jobs.
"""

from configs import base


def get_config():
  config = base.get_config()
  config.steps = 1500
  config.data.source = {"name": "digits", "label": "ink"}
  config.data.normalize_labels = "standardize"
  config.model = {"name": "mlp", "depth": 0, "width": 64, "activation": "relu", "kernel_init": "he"}
  config.losses = {"error": {"name": "mse", "weight": 1.0}}
  config.optimizer = {"name": "adam", "learning_rate": {
    "name": "cosine_decay_schedule", "init_value": 0.01, "decay_steps": config.get_ref("steps"),
  }}
  config.probes = {"test": {"name": "regression_error", "split": "test", "every": 100}}
  config.ensemble.seeds = 3
  config.ensemble.grid = {
    "network": {"path": "model.depth", "levels": (0, 2), "names": ("linear", "MLP")},
    "loss": {
      "path": "losses.error", "names": ("squared", "Huber"),
      "levels": ({"name": "mse", "weight": 1.0}, {"name": "huber", "delta": 0.5, "weight": 1.0}),
    },
  }
  config.report.metrics = ("test/rmse", "test/r2", "loss")
  return config.lock()
