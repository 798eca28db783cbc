"""Three losses against wrong labels as arms of one sweep: cross-entropy, its generalized form (GCE), and ELR.

  python -m experiments.train --config=configs/elr/digits_arms.py --workdir=runs/elr_digits_arms
  python -m experiments.tuned runs/elr_digits_arms --over=lr --over=lam --over=q --by=validation/accuracy \
    --metric=test/accuracy --metric=train/wrong_memorized

Zhang and Sabuncu 2018 (arXiv:1805.07836) and Liu et al. 2020 (arXiv:2007.00151) on the 8x8 digits with two kinds of
wrong labels. Every arm has the learning rate and its own hyper-parameter that are best on 237 validation examples, with
labels as wrong as those of training. 1,056 networks, 8 seeds each, in 373 s on 2 CPU cores beside other jobs.
Test accuracy ends at 0.90, 0.91 and 0.95 with symmetric, and at 0.82, 0.83 and 0.95 with asymmetric noise.
"""

from configs import base

CE = {"name": "cross_entropy", "weight": 1.0}
GCE = {"name": "generalized_cross_entropy", "weight": 1.0, "q": 0.7}
ELR = {"name": "elr", "weight": 1.0, "lam": 3.0, "beta": 0.7, "form": "clamped"}
NOISE = {
  # The true class may be drawn too, as in the papers: 55 % are wrong.
  "symmetric 60 %": {"name": "symmetric", "rate": 0.6, "include_true": True},
  # Digits that look alike (Patrini et al. 2017, arXiv:1609.03683): 21 % of all labels are wrong.
  "asymmetric 40 %": {"name": "asymmetric", "rate": 0.4, "mapping": {"2": 7, "3": 8, "5": 6, "6": 5, "7": 1}},
}


def get_config():
  config = base.get_config()
  config.steps = 2000
  config.batch_size = 64
  config.data.validation = 237
  config.data.label_noise = NOISE["symmetric 60 %"]
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
    "noise": {"path": "data.label_noise", "levels": tuple(NOISE.values()), "names": tuple(NOISE)},
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
