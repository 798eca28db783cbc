"""What gradient noise, early-learning regularization and guidance do to a network's kernel and to its sharpness.

  python -m experiments.train --config=configs/ntk/dynamics.py --workdir=runs/ntk_dynamics
  python -m experiments.train --config=configs/ntk/dynamics.py:edge --workdir=runs/ntk_edge

Digits with 40 % wrong labels and the MLP of the quickstart, 3 seeds an arm: plain, annealed gradient noise,
early-learning regularization, guidance by an untrained convolutional network. Measured on 200 training examples: the
spectrum of the neural tangent kernel, its alignment with the given and with the true labels, and the sharpness of the
loss that is trained; on 480, the gradient noise scale. The alignment with the true labels goes from 0.67 to 0.72
(plain), 0.71 (gradient noise), 0.81 (ELR) and 0.71 (guidance), the effective rank from 6.5 to 48, 70, 55 and 47.
Takes 33 s on 2 CPU cores, 50 s with nothing compiled.

The part "edge" is full-batch gradient descent on 500 of them, a tanh MLP and squared error at three learning rates:
the sharpness ends at 39.7, 28.7 and 20.8, where 2 / lr is 40, 28.6 and 20 (Cohen et al. 2021, arXiv:2103.00065). Takes
10 s.
"""

from configs import base

PARTS = ("arms", "edge")

ARMS = {  # strengths of noise, ELR and guidance
  "plain": (0.0, 0.0, 0.0),
  "gradient noise": (0.003, 0.0, 0.0),
  "ELR": (0.0, 1.0, 0.0),
  "guidance": (0.0, 0.0, 1.0),
}
KERNEL = {"name": "tangent_kernel", "split": "train", "limit": 200, "top": 10, "reduce": "trace"}
SHARPNESS = {"name": "sharpness", "split": "train", "top": 1, "steps": 15, "matrix": "hessian"}


def get_config(part="arms"):
  if part not in PARTS:
    raise ValueError(f"dynamics.py has the parts {', '.join(PARTS)}, not {part!r}")
  edge = part == "edge"
  arms = {
    "model": {"name": "mlp", "depth": 2, "width": 256, "activation": "relu", "kernel_init": "he"},
    "references": {
      "guide": {"model": {"name": "resnet", "blocks": (1, 1, 1), "width": 16, "kernel_init": "he"}, "cache": "pre"},
    },
    "losses": {  # a term of weight 0 costs its time and changes nothing
      "ce": {"name": "cross_entropy", "weight": 1.0},
      "elr": {"name": "elr", "weight": 0.0, "lam": 3.0, "beta": 0.7, "form": "clamped"},
      "guide": {"name": "guidance", "weight": 0.0, "reference": "guide", "taps": "pre", "layer_map": "uniform"},
    },
    "gradients": {"noise": {"name": "annealed_noise", "eta": 0.0, "gamma": 0.55}},
    "optimizer": {"name": "sgd", "learning_rate": 0.05, "momentum": 0.9},
    "probes": {
      "test": {"name": "accuracy", "split": "test", "every": 100},
      "train": {"name": "memorization", "split": "train", "every": 100},
      "kernel": {**KERNEL, "every": 100},
      "curvature": {**SHARPNESS, "limit": 200, "every": 100},
      "batches": {"name": "noise_scale", "split": "train", "limit": 500, "batch": 40, "every": 100},
    },
    "grid": {
      "arm": {
        "path": ("gradients.noise.eta", "losses.elr.weight", "losses.guide.weight"),
        "levels": tuple(ARMS.values()),
        "names": tuple(ARMS),
      },
    },
    "report": ("test/accuracy", "kernel/alignment", "kernel/true_alignment", "kernel/effective_rank"),
  }
  full_batch = {
    "model": {"name": "mlp", "depth": 2, "width": 64, "activation": "tanh", "kernel_init": "lecun"},
    "references": {},
    "losses": {"mse": {"name": "mse", "weight": 5.0, "on": "logits"}},  # half the squared error, for 10 classes
    "gradients": {},
    "optimizer": {"name": "sgd", "learning_rate": 0.05, "momentum": 0.0},
    "probes": {
      "test": {"name": "accuracy", "split": "test", "every": 50},
      "kernel": {**KERNEL, "every": 500},
      "curvature": {**SHARPNESS, "limit": 0, "every": 50},
    },
    "grid": {"lr": {"path": "optimizer.learning_rate", "levels": (0.05, 0.07, 0.1)}},
    "report": ("test/accuracy", "curvature/largest", "kernel/alignment"),
  }
  chosen = full_batch if edge else arms
  config = base.get_config()
  config.steps = 3000 if edge else 1000
  config.batch_size = 500 if edge else 64
  config.data.source = {"name": "digits"}
  config.data.subset = 500 if edge else 0
  config.data.label_noise = {"name": "symmetric", "rate": 0.4, "include_true": False}  # 40 % are wrong
  config.data.normalize = "unit"
  config.model = chosen["model"]
  config.references = chosen["references"]
  config.losses = chosen["losses"]
  config.gradients = chosen["gradients"]
  config.optimizer = chosen["optimizer"]
  config.probes = chosen["probes"]
  config.evaluation.batch_size = 500
  config.ensemble.seeds = 1 if edge else 3
  config.ensemble.grid = chosen["grid"]
  config.checkpoint.every = 0 if edge else 100
  config.checkpoint.keep = 10  # all, for what is measured against the start afterwards
  config.report.metrics = chosen["report"]
  return config.lock()
