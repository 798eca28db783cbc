"""All transforms at once, and each left out in turn: gradient noise, smoothing, ELR, a guide and a teacher.

  python -m experiments.train --config=configs/composition/everything.py --workdir=runs/everything

Digits with 40 % wrong labels and the network of the quickstart. The guide is an untrained convolutional network, whose
Gram matrices are computed once; the teacher is the network itself with averaged weights (Tarvainen & Valpola 2017,
arXiv:1703.01780), whose predictions it is distilled from. Nothing here knows of anything else here. Takes 110 s on 2
CPU cores; RESULTS.md has the accuracies.
"""

from ml_collections import ConfigDict, FieldReference

# gradients.noise.eta, targets.smoothing.alpha, and the weights of elr, guide and teacher.
FULL = (0.001, 0.2, 1.0, 0.3, 1.0)
NAMES = ("gradient noise", "smoothing", "ELR", "guide", "teacher")


def without(i):
  """Returns the levels with one transform left out."""
  return tuple(0.0 if i == j else level for j, level in enumerate(FULL))


def get_config():
  seed = FieldReference(0)
  config = ConfigDict({
    "seed": seed,  # of member 0; member i of an ensemble has seed + i
    "steps": 1500,  # updates
    "batch_size": 64,  # examples
    "data": {
      "source": {"name": "digits"},
      "seed": seed,  # of label noise, split and subsets, which all members share
      "validation": 0,  # examples taken from the training file
      "subset": 0,  # training examples; 0 keeps all
      "test_subset": 0,  # test examples; 0 keeps all
      "label_noise": {"name": "symmetric", "rate": 0.4, "include_true": False},  # 40 % are wrong
      "noisy_validation": True,
      "normalize": "unit",
      "augment": {},
    },
    "model": {"name": "mlp", "depth": 2, "width": 256, "activation": "relu", "kernel_init": "he"},
    "scheduled": {},
    "references": {
      "guide": {"model": {"name": "resnet", "blocks": (1, 1, 1), "width": 16, "kernel_init": "he"}, "cache": "pre"},
      "teacher": {"model": {}, "parameters": "average"},  # the network itself, with averaged weights
    },
    "targets": {"smoothing": {"name": "label_smoothing", "alpha": FULL[1], "convention": "uniform"}},
    "losses": {
      "ce": {"name": "cross_entropy", "weight": 1.0},
      "elr": {"name": "elr", "weight": FULL[2], "lam": 3.0, "beta": 0.7, "form": "clamped"},
      "guide": {"name": "guidance", "weight": FULL[3], "reference": "guide", "taps": "pre", "layer_map": "uniform"},
      "kd": {
        "name": "distillation", "weight": FULL[4], "teachers": ("teacher",), "teacher_temperature": 1.0,
        "student_temperature": 1.0, "form": "kl", "scale": "none",
      },
    },
    "gradients": {"noise": {"name": "annealed_noise", "eta": FULL[0], "gamma": 0.55}},
    "optimizer": {"name": "sgd", "learning_rate": 0.05, "momentum": 0.9},
    "parameters": {"average": {"name": "ema", "decay": 0.99}},
    "probes": {
      "test": {"name": "accuracy", "split": "test", "every": 50},
      "train": {"name": "memorization", "split": "train", "every": 50},
      "calibration": {"name": "calibration", "split": "test", "every": 0},
    },
    "evaluation": {"batch_size": 1437, "parameters": ""},
    "ensemble": {
      "seeds": 5,
      "grid": {
        "transforms": {
          "path": (
            "gradients.noise.eta", "targets.smoothing.alpha", "losses.elr.weight", "losses.guide.weight",
            "losses.kd.weight",
          ),
          "levels": (FULL, *(without(i) for i in range(5)), (0.0,) * 5),
          "names": ("all", *(f"without {name}" for name in NAMES), "none"),
        },
      },
      "chunk": 0,  # members trained at once; 0 as many as fit
      "map": "vmap",
    },
    "log_every": 50,  # steps
    "steps_per_dispatch": 0,  # 0 leaves it to backend and model
    "checkpoint": {"every": 500, "keep": 2},
    "report": {"metrics": ("test/accuracy", "train/wrong_memorized")},
  })
  return config.lock()
