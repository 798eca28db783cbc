"""MNIST with a multi-layer perceptron: the plainest real run.

  python -m experiments.train --config=configs/mnist_mlp.py --data_dir=DATA --workdir=runs/mnist_mlp

Takes 16 s on 2 CPU cores; test accuracy 0.984. DATA holds mnist/*-ubyte.gz. Without the files but with TFDS
prepared or a network: --config.data.source.name=tfds:mnist.
"""

from configs import base


def get_config():
  config = base.get_config()
  config.steps = 4690  # updates; 10 epochs
  config.batch_size = 128
  config.data.source = {"name": "mnist"}
  config.model = {"name": "mlp", "depth": 2, "width": 512, "activation": "relu", "dropout": 0.2, "kernel_init": "he"}
  config.optimizer = {
    "name": "adam",
    "learning_rate": {
      "name": "warmup_cosine_decay_schedule",
      "init_value": 0.0, "peak_value": 1e-3, "warmup_steps": 200, "decay_steps": 4690, "end_value": 0.0,
    },
  }
  config.probes = {
    "test": {"name": "accuracy", "split": "test", "every": 469},
    "train": {"name": "accuracy", "split": "train", "limit": 10_000, "every": 469},
  }
  config.evaluation.batch_size = 2000
  config.log_every = 67
  config.checkpoint.every = 938
  return config.lock()
