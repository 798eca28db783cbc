"""ELR+ on CIFAR-100 with 20 % symmetric noise at full size: two PreAct ResNet-18s, mixup, averaged weights.

  python -m experiments.train --config=configs/elr/elr_plus_cifar100.py --data_dir=DATA --workdir=runs/elr_plus_cifar100

What differs from CIFAR-10 is as in the official code: the mixed labels are multiplied by the memory and scaled to sum 1
(`multiply_labels`, with which the term holds the cross-entropy too), and lambda rises over 40,000 steps to 7.

Liu et al. 2020 (arXiv:2007.00151), appendix G: 250 epochs, learning rate 0.02 divided by 10 after 200, batch 128. Table
2, with 20 % noise: 77.5 %. By the paper's time for 200 epochs of CIFAR-10 about 170 min on a V100. Not measured yet; a
run for a GPU. DATA holds cifar-100-binary/*.bin.

The paper ramps the decay of the average up over the run; here it is 0.997 from the first step.
"""

from configs import base

_EPOCH = 45_000 // 128  # steps; the remainder of each epoch is dropped


def get_config():
  config = base.get_config()
  config.steps = 250 * _EPOCH
  config.batch_size = 128
  config.data.source = {"name": "cifar100"}
  config.data.validation = 5000
  config.data.label_noise = {"name": "symmetric", "rate": 0.2, "include_true": True}  # 19.8 % are wrong
  config.data.augment = {
    "crop": {"name": "pad_crop", "pad": 4},  # pixels
    "flip": {"name": "flip"},
    "mix": {"name": "mixup", "alpha": 1.0, "symmetric": False},
  }
  config.model = {"name": "pair", "model": {"name": "preact_resnet18_elr_plus", "dtype": "bfloat16"}}
  config.references = {"average": {"model": {}, "parameters": "average", "view": "unmixed", "batch_norm": "batch"}}
  config.losses = {
    "elr": {
      "name": "elr_plus", "weight": 1.0, "lam": 7.0, "beta": 0.9, "reference": "average",
      "multiply_labels": True,  # brings the cross-entropy
      "ramp_steps": 40_000,  # of lam
    },
  }
  config.gradients = {"decay": {"name": "add_decayed_weights", "weight_decay": 5e-4}}
  config.optimizer = {
    "name": "sgd", "momentum": 0.9,
    "learning_rate": {
      "name": "piecewise_constant_schedule",
      "init_value": 0.02, "boundaries": (200 * _EPOCH,), "scales": (0.1,),
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
