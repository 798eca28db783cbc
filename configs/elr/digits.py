"""Early-learning regularization against the memorization of wrong labels: 128 networks in one compiled program.

  python -m experiments.train --config=configs/elr/digits.py --workdir=runs/elr_digits
  python -m experiments.tuned runs/elr_digits --over=lam --by=validation/accuracy --metric=test/accuracy \
    --metric=train/wrong_memorized

Scikit-learn's 8x8 digits with 40 % wrong labels and an MLP, as in configs/quickstart.py. Four losses, 8 seeds each:
cross-entropy, early-learning regularization (Liu et al. 2020, arXiv:2007.00151), the same without memory (beta = 0),
and the divergence from the same running averages (their appendix C), the last three at the strength that is best on 237
validation examples with labels as wrong as those of training. Takes 130 s on 2 CPU cores; the numbers stand in
RESULTS.md.
"""

from configs import base


def get_config():
  config = base.get_config()
  config.steps = 2000
  config.batch_size = 64
  config.data.source = {"name": "digits"}
  config.data.validation = 237
  config.data.label_noise = {"name": "symmetric", "rate": 0.4, "include_true": False}  # 40 % are wrong
  config.data.normalize = "unit"
  config.model = {"name": "mlp", "depth": 2, "width": 256, "activation": "relu", "kernel_init": "he"}
  config.losses = {  # a term of weight 0 costs its time and changes nothing
    "ce": {"name": "cross_entropy", "weight": 1.0},
    "elr": {"name": "elr", "weight": 1.0, "lam": 7.0, "beta": 0.7, "form": "clamped"},
    "kl": {"name": "target_divergence", "weight": 0.0, "lam": 7.0, "beta": 0.7},
    "events": {"name": "forgetting_events", "weight": 1.0},  # is 0
  }
  config.optimizer = {"name": "sgd", "learning_rate": 0.05, "momentum": 0.9}
  config.probes = {
    "validation": {"name": "accuracy", "split": "validation", "every": 0},
    "test": {"name": "accuracy", "split": "test", "every": 50},
    "train": {"name": "memorization", "split": "train", "every": 50},
    "gradient": {"name": "elr_gradient", "term": "elr", "every": 50},
    "forgetting": {"name": "forgetting", "term": "events", "every": 50},
  }
  config.evaluation.batch_size = 1437
  config.ensemble.seeds = 8
  config.ensemble.grid = {
    "loss": {
      "path": ("losses.elr.weight", "losses.elr.beta", "losses.kl.weight"),
      "levels": ((0.0, 0.7, 0.0), (1.0, 0.7, 0.0), (1.0, 0.0, 0.0), (0.0, 0.7, 1.0)),
      "names": ("cross-entropy", "ELR", "ELR, beta 0", "KL to targets"),
    },
    "lam": {
      "path": ("losses.elr.lam", "losses.kl.lam"),
      "levels": tuple((lam, lam) for lam in (1.0, 3.0, 7.0, 20.0)),
      "names": ("1", "3", "7", "20"),
    },
  }
  config.report.metrics = (
    "test/accuracy", "train/wrong_memorized", "gradient/wrong_regularizer", "forgetting/clean_events",
  )
  return config.lock()
