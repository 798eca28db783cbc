"""VanillaNet on CIFAR-10: trained with activations that fade, merged, and measured in both forms.

  python -m experiments.train --config=configs/architectures/vanillanet_cifar10.py --data_dir=DATA \
    --workdir=runs/vanillanet_cifar10

Takes 196 s on 2 CPU cores; test accuracy 0.539, of the merged network the same, and the two differ by 4e-7 of the
logits. DATA holds cifar-10-batches-bin/*.bin. There is no published VanillaNet for images of this size: width, patch
and recipe are ours.

The probe `deployed` merges the network as it stands. While λ is below 1 that is another function, which its
`difference` shows.
"""

from configs import base


def get_config():
  config = base.get_config()
  config.steps = 2340  # 6 epochs
  config.batch_size = 128
  config.data.source = {"name": "cifar10"}
  config.data.augment = {
    "crop": {"name": "pad_crop", "pad": 4},  # pixels
    "flip": {"name": "flip"},
  }
  config.model = {
    "name": "vanillanet_cifar",
    "dims": (64, 128, 256, 512, 512), "strides": (2, 2, 2, 1),  # stem and blocks; of the blocks' pools
    "stem_patch": 4,  # 2 is four times as many pixels and operations
    "act_num": 3,  # n of the series activation
    "dropout": 0.0, "dtype": "float32",
  }
  # The slope of the activation inside each pair: one value an epoch, as published (100 of 300 epochs there);
  # steps_per_epoch is examples / batch_size and goes with them. {"name": "step_ramp", "steps": 1170} here would move
  # it at every step, which is smoother and not theirs.
  config.scheduled = {
    "lam": {"name": "epoch_ramp", "epochs": 3, "steps_per_epoch": 50_000 / 128, "shape": "linear"},
  }
  config.gradients = {"clip": {"name": "clip_by_global_norm", "max_norm": 1.0}}
  config.optimizer = {
    "name": "lamb", "weight_decay": 0.02, "decay": "matrices",
    "learning_rate": {
      "name": "warmup_cosine_decay_schedule",
      "init_value": 0.0, "peak_value": 0.02, "warmup_steps": 200,
      "decay_steps": config.get_ref("steps"), "end_value": 0.0,
    },
  }
  config.probes = {
    "test": {"name": "accuracy", "split": "test", "every": 390},
    "deployed": {"name": "deployed_accuracy", "split": "test", "every": 390},
  }
  config.evaluation.batch_size = 500
  config.log_every = 30
  config.checkpoint.every = 390
  config.report.metrics = ("test/accuracy", "deployed/accuracy", "deployed/difference")
  return config.lock()
