"""How large the attention branches of a sigmoid transformer are in its first 500 steps, by the bias b.

  python -m experiments.train --config=configs/architectures/attention_norms.py --data_dir=DATA \
    --workdir=runs/attention_norms

Takes 8 min on 2 CPU cores beside other jobs, all arms together; test accuracy 0.340 (b = 0), 0.402 (-log n), 0.367
(-10). DATA holds cifar-10-batches-bin/*.bin.

The branch is sigmoid(Q K^T / sqrt(H) + b) V, before its output projection; its root mean square stands in metrics.jsonl
for every block, and so does that of the sum of a query's weights ("attention_mass"), which is 1 under softmax. b is a
number, so the arms train in one program.
"""

from configs import base


def get_config():
  config = base.get_config()
  config.steps = 500
  config.batch_size = 64
  config.data.source = {"name": "cifar10"}
  config.data.test_subset = 1000
  config.model = {
    "name": "vit", "patch": 4, "width": 64, "depth": 4, "heads": 4, "positions": "sincos2d", "pool": "gap",
    "attention": "sigmoid", "attention_bias": 0.0, "qk_norm": False, "layer_scale": 0.0, "dtype": "float32",
  }
  config.gradients = {"clip": {"name": "clip_by_global_norm", "max_norm": 1.0}}
  config.optimizer = {
    "name": "adamw", "b1": 0.9, "b2": 0.99, "weight_decay": 0.05, "decay": "matrices",
    "learning_rate": {"name": "linear_schedule", "init_value": 0.0, "end_value": 1e-3, "transition_steps": 100},
  }
  config.probes = {
    "norm": {"name": "tap_norms", "kind": "attention", "split": "train", "limit": 200, "every": 20},
    "mass": {"name": "tap_norms", "kind": "attention_mass", "split": "train", "limit": 200, "every": 20},
    "test": {"name": "accuracy", "split": "test", "every": 100},
  }
  config.evaluation.batch_size = 200
  config.ensemble.seeds = 3
  config.ensemble.grid = {
    "bias": {
      "path": ("model.attention_bias",),
      "levels": ((0.0,), (-4.158883,), (-10.0,)),
      "names": ("b = 0", "b = -log 64", "b = -10"),
    },
  }
  config.log_every = 20
  config.steps_per_dispatch = 20
  config.checkpoint.keep = 1
  config.report.metrics = (
    "norm/002_block0.attention", "norm/026_block3.attention", "mass/001_block0.attention_mass",
    "mass/025_block3.attention_mass", "loss", "test/accuracy",
  )
  return config.lock()
