"""ELR+ on CIFAR-10 with 40 % symmetric noise at full size: two PreAct ResNet-18s, mixup, averaged weights.

  python -m experiments.train --config=configs/elr/elr_plus_cifar10.py --data_dir=DATA --workdir=runs/elr_plus

Liu et al. 2020 (arXiv:2007.00151), appendix G: 200 epochs, learning rate 0.02 divided by 10 after 150, batch 128. Table
5, with 40 % noise, two networks with mixup and averaged weights: 93.68 %; without the average 93.51 %. The paper's took
138 min on a V100. Not measured yet; a run for a GPU. DATA holds cifar-10-batches-bin/*.bin.

The paper ramps the decay of the average up over the run; here it is 0.997 from the first step.
"""

from configs import base

_EPOCH = 45_000 // 128  # steps; the remainder of each epoch is dropped


def get_config():
  config = base.get_config()
  config.steps = 200 * _EPOCH
  config.batch_size = 128
  config.data.source = {"name": "cifar10"}
  config.data.validation = 5000
  config.data.label_noise = {"name": "symmetric", "rate": 0.4, "include_true": True}  # 36 % are wrong
  config.data.augment = {
    "crop": {"name": "pad_crop", "pad": 4},  # pixels
    "flip": {"name": "flip"},
    "mix": {"name": "mixup", "alpha": 1.0, "symmetric": False},
  }
  config.model = {"name": "pair", "model": {"name": "preact_resnet18_elr_plus", "dtype": "bfloat16"}}
  config.references = {"average": {"model": {}, "parameters": "average", "view": "unmixed", "batch_norm": "batch"}}
  config.losses = {
    "ce": {"name": "cross_entropy", "weight": 1.0, "of": "members"},
    "elr": {"name": "elr_plus", "weight": 1.0, "lam": 3.0, "beta": 0.7, "reference": "average"},
  }
  config.gradients = {"decay": {"name": "add_decayed_weights", "weight_decay": 5e-4}}
  config.optimizer = {
    "name": "sgd", "momentum": 0.9,
    "learning_rate": {
      "name": "piecewise_constant_schedule",
      "init_value": 0.02, "boundaries": (150 * _EPOCH,), "scales": (0.1,),
    },
  }
  config.parameters = {"average": {"name": "ema", "decay": 0.997}}
  config.probes = {
    "validation": {"name": "accuracy", "split": "validation", "every": 5 * _EPOCH},
    "test": {"name": "accuracy", "split": "test", "every": 5 * _EPOCH},
    "train": {"name": "memorization", "split": "train", "limit": 10_000, "every": 5 * _EPOCH},
  }
  config.log_every = 100
  config.checkpoint.every = 5 * _EPOCH
  config.report.metrics = ("test/accuracy", "train/wrong_memorized")
  return config.lock()
