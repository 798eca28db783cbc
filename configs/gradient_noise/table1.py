"""All six rows of the MNIST table of the gradient-noise paper, 480 networks in one program.

  python -m experiments.train --config=configs/gradient_noise/table1.py --data_dir=DATA --workdir=runs/table1

Neelakantan et al. 2015 (arXiv:1511.06807), table 1: a 20 x 50 ReLU network, plain SGD, with and without
noise of eta = 0.01, each cell the best and the average of 20 seeds at two learning rates. The paper does not
state batch size, steps, bias initialization, kind of clipping or how "best" is selected; here they are 100
examples, 1e5 steps, zero, by the global norm, and last-step test accuracy. The whole table is a run for a GPU and not
measured yet; on 2 CPU cores --config.steps=5000 --config.ensemble.seeds=3 takes 267 s (RESULTS.md has what it gives).

  python -m experiments.studies.gradient_noise_table runs/table1
"""

import math

from configs import base

# Rows of the table as (standard deviation, gain over sqrt(fan-in)) of the initial weights, and the clipping norm.
_SUSSILLO = math.sqrt(2) * math.exp(1.2 / (50 - 2.4))  # random-walk initialization for ReLU, width 50
_ROWS = {
  "1 simple, no clipping": (0.1, 0.0, math.inf),
  "2 simple, clip 100": (0.1, 0.0, 100.0),
  "3 simple, clip 10": (0.1, 0.0, 10.0),
  "4 Sussillo & Abbott, clip 10": (0.0, _SUSSILLO, 10.0),
  "5 He, clip 10": (0.0, math.sqrt(2), 10.0),
  "6 zero, clip 10": (0.0, 0.0, 10.0),
}


def get_config():
  config = base.get_config()
  config.steps = 100_000
  config.batch_size = 100
  config.data.source = {"name": "mnist"}
  config.data.normalize = "unit"
  config.model = {
    "name": "mlp", "depth": 20, "width": 50, "activation": "relu",
    "kernel_init": {"name": "normal", "std": 0.1, "gain": 0.0},
  }
  config.gradients = {
    "clip": {"name": "clip_by_global_norm", "max_norm": 10.0},
    "noise": {"name": "annealed_noise", "eta": 0.01, "gamma": 0.55},
  }
  config.optimizer = {"name": "sgd", "learning_rate": 0.1}
  config.probes = {"test": {"name": "accuracy", "split": "test", "every": 5000}}
  config.evaluation.batch_size = 2000
  config.ensemble.seeds = 20
  config.ensemble.grid = {
    "row": {
      "path": ("model.kernel_init.std", "model.kernel_init.gain", "gradients.clip.max_norm"),
      "levels": tuple(_ROWS.values()),
      "names": tuple(_ROWS),
    },
    "eta": {"path": "gradients.noise.eta", "levels": (0.0, 0.01)},
    "lr": {"path": "optimizer.learning_rate", "levels": (0.1, 0.01)},
  }
  config.log_every = 1000
  config.checkpoint.every = 10_000
  config.report.metrics = ("test/accuracy",)
  return config.lock()
