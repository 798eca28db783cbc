"""Products of two 4-bit numbers by a GRU, from 128 examples again and again or from new ones at every step.

  python -m experiments.train --config=configs/sequences/multiplication.py --workdir=runs/multiplication

There are 256 products, and 128 draws meet about 101 of them (256 (1 - (255/256)^128)). A network that is shown only
those knows them by heart and has no reason to multiply the others rightly; one that is shown all of them still has to
find the carries. test/accuracy is of single bits, 0.67 for the best guess that reads nothing; test/sequence_accuracy is
of whole products, 0.12 for the answer 0. The probe "train" is of the 128 examples, which the second arm never
sees as such.

Takes 61 s on 2 CPU cores and ends, on the test set, at 0.60 of the products (fixed) and 0.97 (infinite).
"""

from configs import base


def get_config():
  config = base.get_config()
  config.steps = 2000
  config.batch_size = 64
  config.data.source = {
    "name": "multiplication", "min_length": 4, "max_length": 4, "num_examples": 128, "test_examples": 1000,
    "seed": config.get_ref("seed"),
  }
  config.data.normalize = "none"
  # config.data.augment = {"fresh": {"name": "regenerate"}} makes new examples at every step.
  config.model = {"name": "gru", "depth": 1, "width": 128}
  config.gradients = {"clip": {"name": "clip_by_global_norm", "max_norm": 1.0}}
  config.optimizer = {"name": "adam", "learning_rate": 3e-3}
  config.probes = {
    "test": {"name": "accuracy", "split": "test", "every": 100},
    "train": {"name": "accuracy", "split": "train", "every": 100},
  }
  config.ensemble.seeds = 3
  config.ensemble.grid = {
    "data": {
      "path": ("data.augment",),
      "levels": (({},), ({"fresh": {"name": "regenerate"}},)),
      "names": ("fixed", "infinite"),
    },
  }
  config.checkpoint.keep = 1
  config.report.metrics = ("train/sequence_accuracy", "test/sequence_accuracy", "test/accuracy", "loss")
  return config.lock()
