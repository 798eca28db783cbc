"""Three losses against wrong labels as arms of one sweep: cross-entropy, its generalized form, and ELR.

  python -m experiments.train --config=configs/elr/arms.py --workdir=runs/elr_arms

Digits.
"""

from configs import base

CE = {"name": "cross_entropy", "weight": 1.0}
GCE = {"name": "generalized_cross_entropy", "weight": 1.0, "q": 0.7}
ELR = {"name": "elr", "weight": 1.0, "lam": 3.0, "beta": 0.7, "form": "clamped"}
# Digits that look alike (Patrini et al. 2017): 20 % of all labels are wrong.
ALIKE = {"2": 7, "3": 8, "5": 6, "6": 5, "7": 1}


def get_config():
  config = base.get_config()
  config.steps = 2000
  config.batch_size = 64
  config.data.validation = 237
  config.data.label_noise = {"name": "symmetric", "rate": 0.6, "include_true": True}
  config.data.normalize = "unit"
  config.model = {"name": "mlp", "depth": 2, "width": 128, "activation": "relu", "kernel_init": "he"}
  config.losses = {"ce": CE}
  config.optimizer = {"name": "sgd", "learning_rate": 0.03, "momentum": 0.9}
  config.probes = {
    "validation": {"name": "accuracy", "split": "validation", "every": 0},
    "test": {"name": "accuracy", "split": "test", "every": 100},
    "train": {"name": "memorization", "split": "train", "every": 100},
  }
  config.evaluation.batch_size = 1200
  config.ensemble.seeds = 8
  config.ensemble.grid = {
    "noise": {
      "path": "data.label_noise", "names": ("symmetric 60 %", "asymmetric 40 %"),
      "levels": (
        {"name": "symmetric", "rate": 0.6, "include_true": True},
        {"name": "asymmetric", "rate": 0.4, "mapping": ALIKE},
      ),
    },
    "method": {"arms": {
      "cross-entropy": {},
      "GCE": {
        "set": {"losses": {"gce": GCE}},
        "grid": {"q": {"path": "losses.gce.q", "levels": (0.1, 0.3, 0.5, 0.7, 0.9, 1.0)}},
      },
      "ELR": {
        "set": {"losses": {"ce": CE, "elr": ELR}},
        "grid": {"lam": {"path": "losses.elr.lam", "levels": (1.0, 3.0, 7.0, 20.0)}},
      },
    }},
    "lr": {"path": "optimizer.learning_rate", "levels": (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)},
  }
  config.log_every = 100
  config.report.metrics = ("test/accuracy", "train/wrong_memorized")
  return config.lock()
