"""ELR+, two networks with mixup that teach each other by their averages, beside ELR with one, on the digits.

  python -m experiments.train --config=configs/elr/digits_plus.py --workdir=runs/elr_digits_plus
  python -m experiments.tuned runs/elr_digits_plus --over=lam --by=validation/accuracy --metric=test/accuracy \
    --metric=train/wrong_memorized

40 % wrong labels and the network of the quickstart, 5 seeds. Two networks are evaluated by the mean of their logits;
the arm "two networks" tells what that alone is worth, as in table 5 of Liu et al. 2020 (arXiv:2007.00151). lambda is
chosen on 237 validation examples with labels as wrong as those of training. Takes 289 s on 2 CPU cores, with a pause;
the numbers stand in RESULTS.md.
"""

from configs import base

MLP = {"name": "mlp", "depth": 2, "width": 256, "activation": "relu", "kernel_init": "he"}
PAIR = {"name": "pair", "model": MLP}
MIXED = {"mix": {"name": "mixup", "alpha": 1.0, "symmetric": False}}
AVERAGE = {"average": {"model": {}, "parameters": "average", "view": ""}}
UNMIXED = {"average": AVERAGE["average"] | {"view": "unmixed"}}
ELR = {"name": "elr", "weight": 1.0, "lam": 3.0, "beta": 0.7, "form": "clamped"}
PLUS = {"name": "elr_plus", "weight": 1.0, "lam": 3.0, "beta": 0.7, "reference": "average"}


def losses(of="logits", elr=None):
  """Returns the losses section."""
  return {
    "ce": {"name": "cross_entropy", "weight": 1.0, "of": of},
    "elr": elr or ELR | {"weight": 0.0},
  }


# Arm: (model, augmentations, references, losses).
ARMS = {
  "cross-entropy": (MLP, {}, {}, losses()),
  "cross-entropy, mixup": (MLP, MIXED, {}, losses()),
  "two networks, mixup": (PAIR, MIXED, {}, losses("members")),
  "ELR": (MLP, {}, {}, losses(elr=ELR)),
  "ELR, mixup": (MLP, MIXED, {}, losses(elr=ELR)),
  "ELR+ without mixup": (PAIR, {}, AVERAGE, losses("members", PLUS)),
  "ELR+": (PAIR, MIXED, UNMIXED, losses("members", PLUS)),
}


def get_config():
  config = base.get_config()
  config.steps = 2000
  config.batch_size = 64
  config.data.source = {"name": "digits"}
  config.data.validation = 237
  config.data.label_noise = {"name": "symmetric", "rate": 0.4, "include_true": False}  # 40 % are wrong
  config.data.normalize = "unit"
  config.model = MLP
  config.losses = losses()
  config.optimizer = {"name": "sgd", "learning_rate": 0.05, "momentum": 0.9}
  config.parameters = {"average": {"name": "ema", "decay": 0.997}}
  config.probes = {
    "validation": {"name": "accuracy", "split": "validation", "every": 0},
    "test": {"name": "accuracy", "split": "test", "every": 100},
    "train": {"name": "memorization", "split": "train", "every": 100},
  }
  config.evaluation.batch_size = 1200
  config.ensemble.seeds = 5
  config.ensemble.grid = {
    "arm": {
      "path": ("model", "data.augment", "references", "losses"),
      "levels": tuple(ARMS.values()),
      "names": tuple(ARMS),
    },
    "lam": {"path": "losses.elr.lam", "levels": (1.0, 3.0, 7.0)},
  }
  config.log_every = 100
  config.report.metrics = ("test/accuracy", "train/wrong_memorized")
  return config.lock()
