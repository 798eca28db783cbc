"""Copying 20 symbols with a tanh RNN: the initialization of the recurrent weights decides whether it is learned.

  python -m experiments.train --config=configs/sequences/copy_rnn.py --workdir=runs/copy_rnn

Three layers of 128 units read 20 random digits and a delimiter, and then repeat the digits from blank inputs; every
string is new. Nothing but U, the map from a state to the next one, differs between the arms: orthogonal, or
uniform on +- 1 / sqrt(128), PyTorch's default for recurrent layers. Accuracy is of digits, 0.1 by chance.

Takes 165 s on 2 CPU cores beside another job and ends, on the test set, at 0.101 (uniform) and 1.0 (orthogonal).
"""

from configs import base


def get_config():
  config = base.get_config()
  config.steps = 1500
  config.batch_size = 64
  config.data.source = {
    "name": "copy", "min_length": 20, "max_length": 20, "num_symbols": 10, "end": False, "num_examples": 64,
    "test_examples": 500, "seed": config.get_ref("seed"),
  }
  config.data.normalize = "none"
  config.data.augment = {"fresh": {"name": "regenerate"}}  # new strings at every step
  config.model = {
    "name": "rnn", "depth": 3, "width": 128, "kernel_init": "lecun", "recurrent_init": "orthogonal",
    "bias_init": "zeros",
  }
  config.optimizer = {"name": "adam", "learning_rate": 1e-3}
  config.probes = {"test": {"name": "accuracy", "split": "test", "every": 100}}
  config.evaluation.batch_size = 500
  config.ensemble.seeds = 3
  config.ensemble.grid = {
    "init": {
      "path": ("model.recurrent_init",),
      "levels": (("torch_default",), ("orthogonal",)),
      "names": ("uniform", "orthogonal"),
    },
  }
  config.checkpoint.keep = 1
  config.report.metrics = ("test/accuracy", "test/sequence_accuracy", "loss")
  return config.lock()
