"""Memorization of wrong labels, and two ways to slow it down, in one compiled program.

  python -m experiments.train --config=configs/quickstart.py --workdir=runs/quickstart

Scikit-learn's 8x8 digits (1,437 to train on, 360 to test), 40 % of the training labels replaced by a random
wrong one. An MLP of two hidden layers first learns the digits and then the wrong labels by heart. 8 seeds
each of plain training, of label smoothing, and of gradient noise: 24 networks.
"""

from ml_collections import ConfigDict, FieldReference


def get_config():
  seed = FieldReference(0)
  config = ConfigDict({
    "seed": seed,  # of member 0; member i of an ensemble has seed + i
    "steps": 3000,  # updates
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
    "model": {
      "name": "mlp", "depth": 2, "width": 256, "activation": "relu", "norm": "none", "dropout": 0.0, "kernel_init": "he",
    },
    "scheduled": {},
    "references": {},
    "targets": {"smoothing": {"name": "label_smoothing", "alpha": 0.0, "convention": "uniform"}},
    "losses": {"ce": {"name": "cross_entropy", "weight": 1.0}},
    "gradients": {"noise": {"name": "annealed_noise", "eta": 0.0, "gamma": 0.55}},
    "optimizer": {"name": "sgd", "learning_rate": 0.1, "momentum": 0.9},
    "parameters": {},
    "probes": {
      "test": {"name": "accuracy", "split": "test", "every": 100},
      "train": {"name": "memorization", "split": "train", "every": 100},
    },
    "evaluation": {"batch_size": 1437, "parameters": ""},
    "ensemble": {
      "seeds": 8,
      "grid": {
        "method": {
          "path": ("targets.smoothing.alpha", "gradients.noise.eta"),
          "values": ((0.0, 0.0), (0.5, 0.0), (0.0, 0.01)),
          "names": ("plain", "label smoothing 0.5", "gradient noise 0.01"),
        },
      },
      "chunk": 0,  # members trained at once; 0 as many as fit
      "map": "vmap",
    },
    "log_every": 100,  # steps
    "steps_per_dispatch": 0,  # 0 leaves it to backend and model
    "checkpoint": {"every": 1000, "keep": 2},
    "report": {"metrics": ("test/accuracy", "train/wrong_memorized", "train/wrong_correct", "loss")},
  })
  return config.lock()
