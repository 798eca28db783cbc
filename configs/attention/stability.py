"""At which learning rates do sigmoid and softmax attention train, by the bias b? One vmapped sweep for sigmoid.

  python -m experiments.train --config=configs/attention/stability.py:text --data_dir=DATA --workdir=runs/stability_text
  python -m experiments.train --config=configs/attention/stability.py:vit --data_dir=DATA --workdir=runs/stability_vit

  python -m experiments.tuned runs/stability_text --over=lr --by=loss --metric=test/loss --metric=test/accuracy

DATA holds tinyshakespeare/input.txt and cifar-10-batches-bin/*.bin. 11 and 12 min on 2 CPU cores beside other jobs. No
member of either diverges; the best test losses are 2.38 and 1.87 with softmax, 2.59 and 1.91 with
sigmoid.

b and the learning rate are numbers, so that all members with sigmoid attention are one program, 5 rates x 4 biases x
seeds; softmax is a second one. The transformers have neither QK-norm nor LayerScale, which both make sigmoid attention
more stable (Ramapuram et al. 2024, arXiv:2409.04431). The loss is that of the last steps; a member that diverged
is marked dead and counted.
"""

import math

from configs import base

PARTS = ("text", "vit")
TOKENS = 64  # n, of both

TEXT = {"name": "decoder", "width": 64, "depth": 2, "heads": 4, "max_length": TOKENS, "positions": "sinusoidal"}
VIT = {"name": "vit", "patch": 4, "width": 64, "depth": 2, "heads": 4, "positions": "sincos2d", "pool": "gap"}
# Arm: (attention, b).
ARMS = {
  "softmax": ("softmax", 0.0),
  "b = 0": ("sigmoid", 0.0),
  "b = -2": ("sigmoid", -2.0),
  "b = -log n": ("sigmoid", -math.log(TOKENS)),
  "b = -10": ("sigmoid", -10.0),
}


def get_config(part="text"):
  if part not in PARTS:
    raise ValueError(f"stability.py has the parts {', '.join(PARTS)}, not {part!r}")
  text = part == "text"
  config = base.get_config()
  config.steps = 300
  config.batch_size = 32
  config.data.source = {"name": "text", "context": TOKENS} if text else {"name": "cifar10"}
  config.data.test_subset = 500
  config.data.normalize = "none" if text else "standardize"
  config.model = (TEXT if text else VIT) | {"attention": "sigmoid", "attention_bias": 0.0}
  config.optimizer = {
    "name": "adamw", "b1": 0.9, "b2": 0.95, "weight_decay": 0.01, "decay": "matrices",
    "learning_rate": {"name": "linear_schedule", "init_value": 0.0, "end_value": 1e-3, "transition_steps": 30},
  }
  config.probes = {"test": {"name": "accuracy", "split": "test", "every": 0}}
  config.evaluation.batch_size = 100
  config.ensemble.seeds = 2
  config.ensemble.grid = {
    "arm": {
      "path": ("model.attention", "model.attention_bias"), "levels": tuple(ARMS.values()), "names": tuple(ARMS),
    },
    "lr": {"path": "optimizer.learning_rate.end_value", "levels": (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)},
  }
  config.log_every = 20
  config.steps_per_dispatch = 20
  config.checkpoint.every = 0
  config.checkpoint.keep = 1
  config.report.metrics = ("loss", "test/loss", "test/accuracy")
  return config.lock()
