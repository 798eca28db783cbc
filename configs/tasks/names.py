"""Pairs: images of digits find their names, and names find images.

  python -m experiments.train --config=configs/tasks/names.py --workdir=runs/names

An MLP reads the image, a GRU the letters, and both learn from the contrast with the other examples of the batch
(Radford et al. 2021, arXiv:2103.00020). What has one name belongs together, so chance is 1/10 at 1. 3 seeds;
30 s on 2 CPU cores beside other jobs.
"""

from configs import base


def get_config():
  config = base.get_config()
  config.steps = 600
  config.batch_size = 64
  config.data.source = {"name": "digits", "label": "name"}
  config.model = {
    "name": "two_towers", "width": 16, "temperature": 0.1,
    "first": {"field": "image", "name": "mlp", "depth": 2, "width": 128},
    "second": {"field": "tokens", "name": "gru", "width": 32, "vocabulary": 27, "pool": "last"},
  }
  config.losses = {"contrast": {"name": "contrastive", "weight": 1.0}}
  config.optimizer = {"name": "adam", "learning_rate": 0.003}
  config.probes = {"test": {"name": "recall", "split": "test", "limit": 360, "k": (1,), "every": 100}}
  config.ensemble.seeds = 3
  config.report.metrics = ("test/at_1", "test/reverse_at_1", "loss")
  return config.lock()
