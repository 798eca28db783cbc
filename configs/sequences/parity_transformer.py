"""Parity of strings of 2 to 24 bits: which networks solve it, at which learning rate?

  python -m experiments.train --config=configs/sequences/parity_transformer.py --workdir=runs/parity_transformer
  python -m experiments.tuned runs/parity_transformer --over=lr --solved=0.99

The label is asked at the last bit only, and every string is new. Parity is all or nothing: a network is at chance, 0.5,
and then within a few steps at 1, so results.json is to be read member by member, for the share of seeds that solve it.
A recurrent network needs one bit of state, a transformer attention over all earlier bits.

About 10 min on 2 CPU cores by its first steps; not measured yet.
"""

from configs import base


def get_config():
  transformer = {"name": "decoder", "width": 64, "depth": 2, "heads": 4, "max_length": 24, "positions": "sinusoidal"}
  rnn = {"name": "rnn", "width": 64, "kernel_init": "lecun", "recurrent_init": "orthogonal"}
  config = base.get_config()
  config.steps = 1500
  config.batch_size = 64
  config.data.source = {
    "name": "parity", "min_length": 2, "max_length": 24, "num_examples": 1064, "test_examples": 1000,
    "seed": config.get_ref("seed"),
  }
  config.data.validation = 1000
  config.data.normalize = "none"
  config.data.augment = {"fresh": {"name": "regenerate"}}  # new strings at every step
  config.model = transformer
  config.gradients = {"clip": {"name": "clip_by_global_norm", "max_norm": 1.0}}
  config.optimizer = {"name": "adam", "learning_rate": 1e-3}
  config.probes = {
    "validation": {"name": "accuracy", "split": "validation", "every": 0},
    "test": {"name": "accuracy", "split": "test", "every": 100},
  }
  config.ensemble.seeds = 4
  config.ensemble.grid = {
    "model": {
      "path": ("model",), "levels": ((transformer,), (rnn,)), "names": ("transformer", "rnn"),
    },
    "lr": {"path": "optimizer.learning_rate", "levels": (3e-4, 1e-3, 3e-3)},
  }
  config.checkpoint.keep = 1
  return config.lock()
