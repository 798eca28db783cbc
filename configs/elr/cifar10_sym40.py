"""Early-learning regularization on a part of CIFAR-10, 40 % symmetric noise, at a size that a CPU trains.

  python -m experiments.train --config=configs/elr/cifar10_sym40.py --data_dir=DATA --workdir=runs/elr_cifar10

Four losses: cross-entropy, early-learning regularization (Liu et al. 2020, arXiv:2007.00151), the same without memory
(beta = 0), and the divergence from the same running averages (their appendix C). 2,500 examples without augmentation,
so that 40 epochs are enough to memorize many wrong labels. Takes 22 min on 2 CPU cores beside other
jobs. DATA holds cifar-10-batches-bin/*.bin. configs/elr/cifar10_resnet34.py has the published
setting.

New labels are drawn from all ten classes, so 36 % are wrong. Asymmetric noise, as the authors' code draws it:

  "--config.data.label_noise={'name': 'asymmetric', 'rate': 0.4, 'mapping': 'cifar10', 'sequential': True}"

with the paper's lambda = 1 and beta = 0.9 for it in the levels of the grid.
"""

from configs import base


def get_config():
  config = base.get_config()
  config.steps = 1560  # updates; 40 epochs
  config.batch_size = 64  # examples; 128 in the paper
  config.data.source = {"name": "cifar10"}
  config.data.subset = 2500
  config.data.test_subset = 2000
  config.data.label_noise = {"name": "symmetric", "rate": 0.4, "include_true": True}  # 36 % are wrong
  config.model = {"name": "vgg_small"}
  config.losses = {  # a term of weight 0 costs its time and changes nothing
    "ce": {"name": "cross_entropy", "weight": 1.0},
    "elr": {"name": "elr", "weight": 1.0, "lam": 3.0, "beta": 0.7, "form": "clamped"},
    "kl": {"name": "target_divergence", "weight": 0.0, "lam": 1.0, "beta": 0.7},
  }
  config.gradients = {"decay": {"name": "add_decayed_weights", "weight_decay": 1e-3, "mask": "all"}}
  config.optimizer = {"name": "sgd", "momentum": 0.9, "learning_rate": 0.02}
  config.probes = {
    "test": {"name": "accuracy", "split": "test", "every": 156},
    "train": {"name": "memorization", "split": "train", "every": 156},
    "gradient": {"name": "elr_gradient", "term": "elr", "every": 312},
  }
  config.evaluation.batch_size = 500
  config.ensemble.grid = {
    "loss": {
      "path": ("losses.elr.weight", "losses.elr.beta", "losses.kl.weight"),
      "levels": ((0.0, 0.7, 0.0), (1.0, 0.7, 0.0), (1.0, 0.0, 0.0), (0.0, 0.7, 1.0)),
      "names": ("cross-entropy", "ELR", "ELR, beta 0", "KL to targets"),
    },
  }
  config.log_every = 78
  config.checkpoint.every = 312
  config.report.metrics = ("test/accuracy", "train/wrong_memorized", "train/wrong_correct", "train/clean_correct")
  return config.lock()
