"""Parity of strings of 2 to 24 bits: which networks solve it, at which learning rate?

  python -m experiments.train --config=configs/sequences/parity_transformer.py --workdir=runs/parity_transformer
  python -m experiments.tuned runs/parity_transformer --over=lr --solved=0.99

The label is asked at the last bit only, and every string is new. Parity is all or nothing: a network is at chance, 0.5,
and then within a few steps at 1, so results.json is to be read member by member, for the share of seeds that solve it.
A recurrent network needs one bit of state, a transformer attention over all earlier bits.

About 10 min on 2 CPU cores by its first steps; not measured yet.
"""

from ml_collections import ConfigDict, FieldReference


def get_config():
  seed = FieldReference(0)
  transformer = {"name": "decoder", "width": 64, "depth": 2, "heads": 4, "max_length": 24, "positions": "sinusoidal"}
  rnn = {"name": "rnn", "width": 64, "kernel_init": "lecun", "recurrent_init": "orthogonal"}
  config = ConfigDict({
    "seed": seed,  # of member 0; member i of an ensemble has seed + i
    "steps": 1500,  # updates
    "batch_size": 64,  # examples
    "data": {
      "source": {
        "name": "parity", "min_length": 2, "max_length": 24, "num_examples": 1064, "test_examples": 1000, "seed": seed,
      },
      "seed": seed,  # of label noise, split and subsets, which all members share
      "validation": 1000,  # examples taken from the training file
      "subset": 0,  # training examples; 0 keeps all
      "test_subset": 0,  # test examples; 0 keeps all
      "label_noise": {},
      "noisy_validation": True,
      "normalize": "none",
      "augment": {"fresh": {"name": "regenerate"}},  # new strings at every step
    },
    "model": transformer,
    "scheduled": {},
    "references": {},
    "targets": {},
    "losses": {"ce": {"name": "cross_entropy", "weight": 1.0}},
    "gradients": {"clip": {"name": "clip_by_global_norm", "max_norm": 1.0}},
    "optimizer": {"name": "adam", "learning_rate": 1e-3},
    "parameters": {},
    "probes": {
      "validation": {"name": "accuracy", "split": "validation", "every": 0},
      "test": {"name": "accuracy", "split": "test", "every": 100},
    },
    "evaluation": {"batch_size": 1000, "parameters": ""},
    "ensemble": {
      "seeds": 4,
      "grid": {
        "model": {
          "path": ("model",), "levels": ((transformer,), (rnn,)), "names": ("transformer", "rnn"),
        },
        "lr": {"path": "optimizer.learning_rate", "levels": (3e-4, 1e-3, 3e-3)},
      },
      "chunk": 0,  # members trained at once; 0 as many as fit
      "map": "vmap",
    },
    "log_every": 50,  # steps
    "steps_per_dispatch": 0,  # 0 leaves it to backend and model
    "checkpoint": {"every": 500, "keep": 1},
    "report": {"metrics": ("test/accuracy", "loss")},
  })
  return config.lock()
