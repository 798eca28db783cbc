"""Sigmoid and softmax attention in a character language model: loss, size of the attention branches, sums of weights.

  python -m experiments.train --config=configs/attention/text.py --data_dir=DATA --workdir=runs/attention_text

DATA holds tinyshakespeare/input.txt. 17 min on 2 CPU cores beside other jobs. Test loss 1.950 with softmax, 1.958 with
b = -log n, constant or learned, 2.01 with b = 0 and 2.13 with b = -10.

A causal decoder of 2 x 64 with rotary positions on windows of n = 64 characters. The bias b of sigmoid attention is 0,
-log n, -10 (what the official code takes for this text), or learned for each head from -log n on; "hybrid norm" puts a
layer norm behind the branch. The branch is what attention gives to its output projection; its root mean square and the
sums of a query's weights ("attention_mass", 1 under softmax) are measured every 20 steps.

Ramapuram et al. 2024 (arXiv:2409.04431): sigmoid attention is as good as softmax where large attention norms early in
training are avoided.
"""

from configs import base

# Arm: (attention, b, hybrid norm).
ARMS = {
  "softmax": ("softmax", "-log_n", False),
  "sigmoid, b = 0": ("sigmoid", 0.0, False),
  "sigmoid, b = 0, hybrid norm": ("sigmoid", 0.0, True),
  "sigmoid, b = -log n": ("sigmoid", "-log_n", False),
  "sigmoid, b learned": ("sigmoid", "learned", False),
  "sigmoid, b = -10": ("sigmoid", -10.0, False),
}


def get_config():
  config = base.get_config()
  config.steps = 600
  config.batch_size = 32  # windows
  config.data.source = {"name": "text", "context": 64}
  config.data.test_subset = 500
  config.data.normalize = "none"
  config.model = {
    "name": "decoder", "width": 64, "depth": 2, "heads": 4, "max_length": 64, "positions": "rope",
    "attention": "softmax",  # or "sigmoid"
    "attention_bias": "-log_n",  # of sigmoid attention; a number, "-log_n" or "learned"
    "attention_implementation": "auto",
    "hybrid_norm": False,
  }
  config.gradients = {"clip": {"name": "clip_by_global_norm", "max_norm": 1.0}}
  config.optimizer = {
    "name": "adamw", "b1": 0.9, "b2": 0.95, "weight_decay": 0.01, "decay": "matrices",
    "learning_rate": {"name": "linear_schedule", "init_value": 0.0, "end_value": 3e-3, "transition_steps": 100},
  }
  config.probes = {
    "norm": {"name": "tap_norms", "kind": "attention", "split": "train", "limit": 64, "every": 20},
    "mass": {"name": "tap_norms", "kind": "attention_mass", "split": "train", "limit": 64, "every": 20},
    "test": {"name": "accuracy", "split": "test", "every": 100},
  }
  config.evaluation.batch_size = 100
  config.ensemble.seeds = 3
  config.ensemble.grid = {
    "attention": {
      "path": ("model.attention", "model.attention_bias", "model.hybrid_norm"),
      "levels": tuple(ARMS.values()),
      "names": tuple(ARMS),
    },
  }
  config.log_every = 20
  config.steps_per_dispatch = 20
  config.checkpoint.every = 300
  config.checkpoint.keep = 1
  config.report.metrics = (
    "loss", "test/loss", "norm/002_block0.attention", "mass/001_block0.attention_mass", "norm/010_block1.attention",
    "mass/009_block1.attention_mass",
  )
  return config.lock()
