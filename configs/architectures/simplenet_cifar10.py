"""SimpleNet with 312,362 parameters on CIFAR-10, at a length that a CPU trains.

  python -m experiments.train --config=configs/architectures/simplenet_cifar10.py --data_dir=DATA \
    --workdir=runs/simplenet_cifar10

Takes 17 min on 2 CPU cores beside other jobs; test accuracy 0.717. The published 91.98 % is of hundreds of epochs.
DATA holds cifar-10-batches-bin/*.bin. On a GPU, the 5.5 million parameter network for 200 epochs (not measured):

  --config.model.name=simplenet_cifar_5m --config.model.dtype=bfloat16 --config.model.dropout=0.1 --config.steps=78000
"""

from configs import base


def get_config():
  config = base.get_config()
  config.steps = 1170  # 3 epochs
  config.batch_size = 128
  config.data.source = {"name": "cifar10"}
  config.data.augment = {
    "crop": {"name": "pad_crop", "pad": 4},  # pixels
    "flip": {"name": "flip"},
  }
  # norms, dropout_placement and init_style choose between the two published codes ("torch", "caffe").
  config.model = {
    "name": "simplenet_cifar_310k", "norms": "torch", "dropout": 0.0, "dropout_placement": "torch",
    "init_style": "torch", "stride_mode": 0, "scale": 1.0, "dtype": "float32",
  }
  config.gradients = {"decay": {"name": "add_decayed_weights", "weight_decay": 5e-4, "mask": "matrices"}}
  config.optimizer = {
    "name": "sgd", "momentum": 0.9, "nesterov": True,
    "learning_rate": {
      "name": "warmup_cosine_decay_schedule",
      "init_value": 0.0, "peak_value": 0.05, "warmup_steps": 100,
      "decay_steps": config.get_ref("steps"), "end_value": 0.0,
    },
  }
  config.probes = {"test": {"name": "accuracy", "split": "test", "every": 390}}
  config.evaluation.batch_size = 500
  config.log_every = 30
  config.checkpoint.every = 390
  return config.lock()
