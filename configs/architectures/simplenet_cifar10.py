"""SimpleNet with 312,362 parameters on CIFAR-10, at a length that a CPU trains.

  python -m experiments.train --config=configs/architectures/simplenet_cifar10.py --data_dir=DATA \
    --workdir=runs/simplenet_cifar10

Takes 17 min on 2 CPU cores beside other jobs; test accuracy 0.717. The published 91.98 % is of hundreds of epochs.
DATA holds cifar-10-batches-bin/*.bin. On a GPU, the 5.5 million parameter network for 200 epochs (not measured):

  --config.model.name=simplenet_cifar_5m --config.model.dtype=bfloat16 --config.model.dropout=0.1 --config.steps=78000
"""

from ml_collections import ConfigDict, FieldReference


def get_config():
  seed, steps = FieldReference(0), FieldReference(1170)  # 3 epochs
  config = ConfigDict({
    "seed": seed,  # of member 0; member i of an ensemble has seed + i
    "steps": steps,  # updates
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
    # norms, dropout_placement and init_style choose between the two published codes ("torch", "caffe").
    "model": {
      "name": "simplenet_cifar_310k", "norms": "torch", "dropout": 0.0, "dropout_placement": "torch",
      "init_style": "torch", "stride_mode": 0, "scale": 1.0, "dtype": "float32",
    },
    "scheduled": {},
    "references": {},
    "targets": {},
    "losses": {"ce": {"name": "cross_entropy", "weight": 1.0}},
    "gradients": {"decay": {"name": "add_decayed_weights", "weight_decay": 5e-4, "mask": "matrices"}},
    "optimizer": {
      "name": "sgd", "momentum": 0.9, "nesterov": True,
      "learning_rate": {
        "name": "warmup_cosine_decay_schedule",
        "init_value": 0.0, "peak_value": 0.05, "warmup_steps": 100, "decay_steps": steps, "end_value": 0.0,
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
