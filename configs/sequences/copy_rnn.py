"""Copying 20 symbols with a tanh RNN: the initialization of the recurrent weights decides whether it is learned.

  python -m experiments.train --config=configs/sequences/copy_rnn.py --workdir=runs/copy_rnn

Three layers of 128 units read 20 random digits and a delimiter, and then repeat the digits from blank inputs; every
string is new. Nothing but U, the map from a state to the next one, differs between the arms: orthogonal, or
uniform on +- 1 / sqrt(128), PyTorch's default for recurrent layers. Accuracy is of digits, 0.1 by chance.

Takes 165 s on 2 CPU cores beside another job and ends, on the test set, at 0.101 (uniform) and 1.0 (orthogonal).
"""

from ml_collections import ConfigDict, FieldReference


def get_config():
  seed = FieldReference(0)
  config = ConfigDict({
    "seed": seed,  # of member 0; member i of an ensemble has seed + i
    "steps": 1500,  # updates
    "batch_size": 64,  # examples
    "data": {
      "source": {
        "name": "copy", "min_length": 20, "max_length": 20, "num_symbols": 10, "end": False, "num_examples": 64,
        "test_examples": 500, "seed": seed,
      },
      "seed": seed,  # of label noise, split and subsets, which all members share
      "validation": 0,  # examples taken from the training file
      "subset": 0,  # training examples; 0 keeps all
      "test_subset": 0,  # test examples; 0 keeps all
      "label_noise": {},
      "noisy_validation": True,
      "normalize": "none",
      "augment": {"fresh": {"name": "regenerate"}},  # new strings at every step
    },
    "model": {
      "name": "rnn", "depth": 3, "width": 128, "kernel_init": "lecun", "recurrent_init": "orthogonal",
      "bias_init": "zeros",
    },
    "scheduled": {},
    "references": {},
    "targets": {},
    "losses": {"ce": {"name": "cross_entropy", "weight": 1.0}},
    "gradients": {},
    "optimizer": {"name": "adam", "learning_rate": 1e-3},
    "parameters": {},
    "probes": {"test": {"name": "accuracy", "split": "test", "every": 100}},
    "evaluation": {"batch_size": 500, "parameters": ""},
    "ensemble": {
      "seeds": 3,
      "grid": {
        "init": {
          "path": ("model.recurrent_init",),
          "levels": (("torch_default",), ("orthogonal",)),
          "names": ("uniform", "orthogonal"),
        },
      },
      "chunk": 0,  # members trained at once; 0 as many as fit
      "map": "vmap",
    },
    "log_every": 50,  # steps
    "steps_per_dispatch": 0,  # 0 leaves it to backend and model
    "checkpoint": {"every": 500, "keep": 1},
    "report": {"metrics": ("test/accuracy", "test/sequence_accuracy", "loss")},
  })
  return config.lock()
