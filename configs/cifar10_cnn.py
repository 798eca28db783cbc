"""CIFAR-10 with a small convolutional network, at a size that a CPU trains in ten minutes.

  python -m experiments.train --config=configs/cifar10_cnn.py --data_dir=DATA --workdir=runs/cifar10_cnn

Takes 315 s on 2 CPU cores; test accuracy 0.740. DATA holds cifar-10-batches-bin/*.bin. Without the files but with
TFDS prepared or a network: --config.data.source.name=tfds:cifar10.
"""

from configs import base


def get_config():
  config = base.get_config()
  config.steps = 1560  # updates; 4 epochs
  config.batch_size = 128
  config.data.source = {"name": "cifar10"}
  config.data.augment = {
    "crop": {"name": "pad_crop", "pad": 4},  # pixels
    "flip": {"name": "flip"},
  }
  config.model = {"name": "vgg_small"}
  config.gradients = {"decay": {"name": "add_decayed_weights", "weight_decay": 5e-4, "mask": "matrices"}}
  config.optimizer = {
    "name": "sgd", "momentum": 0.9, "nesterov": True,
    "learning_rate": {
      "name": "warmup_cosine_decay_schedule",
      "init_value": 0.0, "peak_value": 0.1, "warmup_steps": 200, "decay_steps": 1560, "end_value": 0.0,
    },
  }
  config.probes = {"test": {"name": "accuracy", "split": "test", "every": 390}}
  config.evaluation.batch_size = 500
  config.log_every = 30
  config.checkpoint.every = 390
  return config.lock()
