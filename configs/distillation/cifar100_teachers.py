"""ResNet-56 teachers on CIFAR-100 with label smoothing of 0, 0.05 and 0.1, for a GPU.

  python -m experiments.train --config=configs/distillation/cifar100_teachers.py --data_dir=DATA \
    --workdir=runs/cifar100_teachers
  python -m experiments.studies.projection runs/cifar100_teachers --member=0 --member=6 --data_dir=DATA

The training of Müller et al. 2019 (arXiv:1906.02629), appendix: batch 128, Nesterov 0.9, 64,000 steps of learning rate
0.1, divided by 10 after 32,000 and 48,000, weight decay 1e-4, gradients clipped at norm 1, cross-entropy times 3,
10,000 training examples held out. DATA holds cifar-100-binary/{train,test}.bin. Their ResNet-56: 0.721 without, 0.727
with smoothing. Not measured here; about 20 min a member on a large GPU is an estimate.
"""

from configs import base


def get_config():
  config = base.get_config()
  config.steps = 64_000
  config.batch_size = 128
  config.data.source = {"name": "cifar100"}
  config.data.validation = 10_000
  config.data.augment = {"crop": {"name": "pad_crop", "pad": 4}, "flip": {"name": "flip"}}
  config.model = {"name": "resnet56", "dtype": "bfloat16"}
  config.targets = {"smoothing": {"name": "label_smoothing", "alpha": 0.0, "convention": "uniform"}}
  config.losses = {"ce": {"name": "cross_entropy", "weight": 3.0}}
  config.gradients = {
    "clip": {"name": "clip_by_global_norm", "max_norm": 1.0},
    "decay": {"name": "add_decayed_weights", "weight_decay": 1e-4, "mask": "matrices"},
  }
  config.optimizer = {
    "name": "sgd", "momentum": 0.9, "nesterov": True,
    "learning_rate": {
      "name": "piecewise_constant_schedule", "init_value": 0.1, "boundaries": (32_000, 48_000), "scales": (0.1, 0.1),
    },
  }
  config.probes = {
    "test": {"name": "accuracy", "split": "test", "every": 4000},
    "calibration": {"name": "calibration", "split": "test", "every": 0},
    "spread_train": {"name": "stability", "split": "train", "every": 0},
    "spread_test": {"name": "stability", "split": "test", "every": 0},
  }
  config.ensemble.seeds = 3
  config.ensemble.grid = {"alpha": {"path": "targets.smoothing.alpha", "levels": (0.0, 0.05, 0.1)}}
  config.log_every = 500
  config.checkpoint.every = 4000
  config.report.metrics = ("test/accuracy", "calibration/ece", "spread_test/vector_var")
  return config.lock()
