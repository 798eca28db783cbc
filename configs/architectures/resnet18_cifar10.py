"""ResNet-18 with the stem for small images on CIFAR-10, at a length that a CPU trains.

  python -m experiments.train --config=configs/architectures/resnet18_cifar10.py --data_dir=DATA \
    --workdir=runs/resnet18_cifar10

Takes 11 min on 2 CPU cores beside other jobs; test accuracy 0.474, measured on 2,000 test images. DATA holds
cifar-10-batches-bin/*.bin. On a GPU, 100 epochs on all of the test images (not measured):

  --config.model.dtype=bfloat16 --config.steps=39000 --config.batch_size=128 --config.data.test_subset=0
"""

from configs import base


def get_config():
  config = base.get_config()
  config.steps = 400  # half an epoch
  config.batch_size = 64
  config.data.source = {"name": "cifar10"}
  config.data.test_subset = 2000
  config.data.augment = {
    "crop": {"name": "pad_crop", "pad": 4},  # pixels
    "flip": {"name": "flip"},
  }
  # shortcut=False is the plain deep network; residual_scale multiplies the branches.
  config.model = {"name": "resnet18_cifar", "shortcut": True, "residual_scale": 1.0, "remat": False, "dtype": "float32"}
  # config.scheduled = {"drop_path": rate or schedule} drops branches, the last block's at this rate, others at less.
  config.gradients = {"decay": {"name": "add_decayed_weights", "weight_decay": 5e-4, "mask": "matrices"}}
  config.optimizer = {
    "name": "sgd", "momentum": 0.9, "nesterov": True,
    "learning_rate": {
      "name": "warmup_cosine_decay_schedule",
      "init_value": 0.0, "peak_value": 0.1, "warmup_steps": 50,
      "decay_steps": config.get_ref("steps"), "end_value": 0.0,
    },
  }
  config.probes = {"test": {"name": "accuracy", "split": "test", "every": 400}}
  config.evaluation.batch_size = 500
  config.log_every = 30
  config.checkpoint.every = 100
  return config.lock()
