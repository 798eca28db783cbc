"""MNIST with a multi-layer perceptron: the plainest real run.

  python -m experiments.train --config=configs/mnist_mlp.py --data_dir=DATA --workdir=runs/mnist_mlp

Takes 16 s on 2 CPU cores; test accuracy 0.984. DATA holds mnist/*-ubyte.gz. Without the files but with TFDS
prepared or a network: --config.data.source.name=tfds:mnist.
"""

from ml_collections import ConfigDict, FieldReference


def get_config():
  seed = FieldReference(0)
  config = ConfigDict({
    "seed": seed,  # of member 0; member i of an ensemble has seed + i
    "steps": 4690,  # updates; 10 epochs
    "batch_size": 128,  # examples
    "data": {
      "source": {"name": "mnist"},
      "seed": seed,  # of label noise, split and subsets, which all members share
      "validation": 0,  # examples taken from the training file
      "subset": 0,  # training examples; 0 keeps all
      "test_subset": 0,  # test examples; 0 keeps all
      "label_noise": {},
      "noisy_validation": True,
      "normalize": "standardize",
      "augment": {},
    },
    "model": {"name": "mlp", "depth": 2, "width": 512, "activation": "relu", "dropout": 0.2, "kernel_init": "he"},
    "scheduled": {},
    "references": {},
    "targets": {},
    "losses": {"ce": {"name": "cross_entropy", "weight": 1.0}},
    "gradients": {},
    "optimizer": {
      "name": "adam",
      "learning_rate": {
        "name": "warmup_cosine_decay_schedule",
        "init_value": 0.0, "peak_value": 1e-3, "warmup_steps": 200, "decay_steps": 4690, "end_value": 0.0,
      },
    },
    "parameters": {},
    "probes": {
      "test": {"name": "accuracy", "split": "test", "every": 469},
      "train": {"name": "accuracy", "split": "train", "limit": 10_000, "every": 469},
    },
    "evaluation": {"batch_size": 2000, "parameters": ""},
    "ensemble": {"seeds": 1, "grid": {}, "chunk": 0, "map": "vmap"},
    "log_every": 67,  # steps
    "steps_per_dispatch": 0,  # 0 leaves it to backend and model
    "checkpoint": {"every": 938, "keep": 2},
    "report": {"metrics": ("test/accuracy", "loss")},
  })
  return config.lock()
