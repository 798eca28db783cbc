"""All transforms at once, and each left out in turn: gradient noise, smoothing, ELR, a guide and a teacher.

  python -m experiments.train --config=configs/composition/everything.py --workdir=runs/everything

Digits with 40 % wrong labels and the network of the quickstart. The guide is an untrained convolutional network, whose
Gram matrices are computed once; the teacher is the network itself with averaged weights (Tarvainen & Valpola 2017,
arXiv:1703.01780), whose predictions it is distilled from. Nothing here knows of anything else here. Takes 110 s on 2
CPU cores; RESULTS.md has the accuracies.
"""

from configs import base

# gradients.noise.eta, targets.smoothing.alpha, and the weights of elr, guide and teacher.
FULL = (0.001, 0.2, 1.0, 0.3, 1.0)
NAMES = ("gradient noise", "smoothing", "ELR", "guide", "teacher")


def without(i):
  """Returns the levels with one transform left out."""
  return tuple(0.0 if i == j else level for j, level in enumerate(FULL))


def get_config():
  config = base.get_config()
  config.steps = 1500
  config.batch_size = 64
  config.data.source = {"name": "digits"}
  config.data.label_noise = {"name": "symmetric", "rate": 0.4, "include_true": False}  # 40 % are wrong
  config.data.normalize = "unit"
  config.model = {"name": "mlp", "depth": 2, "width": 256, "activation": "relu", "kernel_init": "he"}
  config.references = {
    "guide": {"model": {"name": "resnet", "blocks": (1, 1, 1), "width": 16, "kernel_init": "he"}, "cache": "pre"},
    "teacher": {"model": {}, "parameters": "average"},  # the network itself, with averaged weights
  }
  config.targets = {"smoothing": {"name": "label_smoothing", "alpha": FULL[1], "convention": "uniform"}}
  config.losses = {
    "ce": {"name": "cross_entropy", "weight": 1.0},
    "elr": {"name": "elr", "weight": FULL[2], "lam": 3.0, "beta": 0.7, "form": "clamped"},
    "guide": {"name": "guidance", "weight": FULL[3], "reference": "guide", "taps": "pre", "layer_map": "uniform"},
    "kd": {
      "name": "distillation", "weight": FULL[4], "teachers": ("teacher",), "teacher_temperature": 1.0,
      "student_temperature": 1.0, "form": "kl", "scale": "none",
    },
  }
  config.gradients = {"noise": {"name": "annealed_noise", "eta": FULL[0], "gamma": 0.55}}
  config.optimizer = {"name": "sgd", "learning_rate": 0.05, "momentum": 0.9}
  config.parameters = {"average": {"name": "ema", "decay": 0.99}}
  config.probes = {
    "test": {"name": "accuracy", "split": "test", "every": 50},
    "train": {"name": "memorization", "split": "train", "every": 50},
    "calibration": {"name": "calibration", "split": "test", "every": 0},
  }
  config.evaluation.batch_size = 1437
  config.ensemble.seeds = 5
  config.ensemble.grid = {
    "transforms": {
      "path": (
        "gradients.noise.eta", "targets.smoothing.alpha", "losses.elr.weight", "losses.guide.weight",
        "losses.kd.weight",
      ),
      "levels": (FULL, *(without(i) for i in range(5)), (0.0,) * 5),
      "names": ("all", *(f"without {name}" for name in NAMES), "none"),
    },
  }
  config.report.metrics = ("test/accuracy", "train/wrong_memorized")
  return config.lock()
