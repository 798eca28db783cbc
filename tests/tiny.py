"""The smallest experiment that has every section of a real one, for tests of what stands around it."""

from nurture import data
from nurture.training import Experiment
from nurture.training.config import put


def read(config, data_dir="data"):
  """Returns the experiment of a config."""
  return Experiment.of(config, data.Reader(data_dir))


def tiny_config(**changes):
  """Returns a config of a few hundred parameters on the embedded digits; changes are {"a.b.c": value}, "." as "__"."""
  config = {
    "seed": 0,
    "steps": 12,
    "batch_size": 8,
    "data": {
      "source": {"name": "digits"}, "seed": 0, "validation": 0, "subset": 64, "test_subset": 40,
      "label_noise": {"name": "symmetric", "rate": 0.25, "include_true": False}, "noisy_validation": True,
      "normalize": "unit", "normalize_labels": "none", "augment": {},
    },
    "model": {
      "name": "mlp", "depth": 1, "width": 8, "activation": "relu", "norm": "none", "dropout": 0.0, "kernel_init": "he",
    },
    "scheduled": {},
    "references": {},
    "targets": {"smoothing": {"name": "label_smoothing", "alpha": 0.1, "convention": "uniform"}},
    "losses": {"ce": {"name": "cross_entropy", "weight": 1.0}},
    "gradients": {
      "clip": {"name": "clip_by_global_norm", "max_norm": 10.0},
      "noise": {"name": "annealed_noise", "eta": 0.01, "gamma": 0.55},
    },
    "optimizer": {"name": "sgd", "learning_rate": 0.1, "momentum": 0.9},
    "parameters": {"average": {"name": "ema", "decay": 0.9}},
    "probes": {
      "test": {"name": "accuracy", "split": "test", "every": 6},
      "memory": {"name": "memorization", "split": "train", "every": 6},
      "weights": {"name": "weight_statistics", "every": 0},
    },
    "evaluation": {"batch_size": 16, "parameters": ""},
    "ensemble": {"seeds": 1, "grid": {}, "chunk": 0, "map": "vmap"},
    "log_every": 3,
    "steps_per_dispatch": 3,
    "checkpoint": {"every": 3, "keep": 2},
    "report": {"metrics": ("test/accuracy", "loss")},
  }
  for name in ("init", "stopping"):  # which a config may leave out
    if name in changes:
      config[name] = changes.pop(name)
  if "checkpoint__best" in changes:
    config["checkpoint"]["best"] = changes.pop("checkpoint__best")
  return put(config, {path.replace("__", "."): value for path, value in changes.items()})
