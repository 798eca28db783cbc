"""CIFAR-10 with a small convolutional network, at a size that a CPU trains in ten minutes.

  python -m experiments.train --config=configs/cifar10_cnn.py --data_dir=DATA --workdir=runs/cifar10_cnn

Takes 315 s on 2 CPU cores; test accuracy 0.740. DATA holds cifar-10-batches-bin/*.bin. Without the files but with
TFDS prepared or a network: --config.data.source.name=tfds:cifar10.
"""

from ml_collections import ConfigDict, FieldReference


def get_config():
  seed = FieldReference(0)
  config = ConfigDict({
    "seed": seed,  # of member 0; member i of an ensemble has seed + i
    "steps": 1560,  # updates; 4 epochs
    "batch_size": 128,  # examples
    "data": {
      "source": {"name": "cifar10"},
      "seed": seed,  # of label noise, split and subsets, which all members share
      "validation": 0,  # examples taken from the training file
      "subset": 0,  # training examples; 0 keeps all
      "test_subset": 0,  # test examples; 0 keeps all
      "label_noise": {},
      "noisy_validation": True,
      "normalize": "standardize",
      "augment": {
        "crop": {"name": "pad_crop", "pad": 4},  # pixels
        "flip": {"name": "flip"},
      },
    },
    "model": {"name": "vgg_small"},
    "scheduled": {},
    "references": {},
    "targets": {},
    "losses": {"ce": {"name": "cross_entropy", "weight": 1.0}},
    "gradients": {"decay": {"name": "add_decayed_weights", "weight_decay": 5e-4, "mask": "matrices"}},
    "optimizer": {
      "name": "sgd", "momentum": 0.9, "nesterov": True,
      "learning_rate": {
        "name": "warmup_cosine_decay_schedule",
        "init_value": 0.0, "peak_value": 0.1, "warmup_steps": 200, "decay_steps": 1560, "end_value": 0.0,
      },
    },
    "parameters": {},
    "probes": {"test": {"name": "accuracy", "split": "test", "every": 390}},
    "evaluation": {"batch_size": 500, "parameters": ""},
    "ensemble": {"seeds": 1, "grid": {}, "chunk": 0, "map": "vmap"},
    "log_every": 30,  # steps
    "steps_per_dispatch": 0,  # 0 leaves it to backend and model: one on CPU, where convolutions in loops are slow
    "checkpoint": {"every": 390, "keep": 2},
    "report": {"metrics": ("test/accuracy", "loss")},
  })
  return config.lock()
