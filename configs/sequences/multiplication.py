"""Products of two 4-bit numbers by a GRU, from 128 examples again and again or from new ones at every step.

  python -m experiments.train --config=configs/sequences/multiplication.py --workdir=runs/multiplication

There are 256 products, and 128 draws meet about 101 of them (256 (1 - (255/256)^128)). A network that is shown only
those knows them by heart and has no reason to multiply the others rightly; one that is shown all of them still has to
find the carries. test/accuracy is of single bits, 0.67 for the best guess that reads nothing; test/sequence_accuracy is
of whole products, 0.12 for the answer 0. The probe "train" is of the 128 examples, which the second arm never
sees as such.

Takes 61 s on 2 CPU cores and ends, on the test set, at 0.60 of the products (fixed) and 0.97 (infinite).
"""

from ml_collections import ConfigDict, FieldReference


def get_config():
  seed = FieldReference(0)
  config = ConfigDict({
    "seed": seed,  # of member 0; member i of an ensemble has seed + i
    "steps": 2000,  # updates
    "batch_size": 64,  # examples
    "data": {
      "source": {
        "name": "multiplication", "min_length": 4, "max_length": 4, "num_examples": 128, "test_examples": 1000,
        "seed": seed,
      },
      "seed": seed,  # of label noise, split and subsets, which all members share
      "validation": 0,  # examples taken from the training file
      "subset": 0,  # training examples; 0 keeps all
      "test_subset": 0,  # test examples; 0 keeps all
      "label_noise": {},
      "noisy_validation": True,
      "normalize": "none",
      "augment": {},  # {"name": "regenerate"} makes new examples at every step
    },
    "model": {"name": "gru", "depth": 1, "width": 128},
    "scheduled": {},
    "references": {},
    "targets": {},
    "losses": {"ce": {"name": "cross_entropy", "weight": 1.0}},
    "gradients": {"clip": {"name": "clip_by_global_norm", "max_norm": 1.0}},
    "optimizer": {"name": "adam", "learning_rate": 3e-3},
    "parameters": {},
    "probes": {
      "test": {"name": "accuracy", "split": "test", "every": 100},
      "train": {"name": "accuracy", "split": "train", "every": 100},
    },
    "evaluation": {"batch_size": 1000, "parameters": ""},
    "ensemble": {
      "seeds": 3,
      "grid": {
        "data": {
          "path": ("data.augment",),
          "levels": (({},), ({"fresh": {"name": "regenerate"}},)),
          "names": ("fixed", "infinite"),
        },
      },
      "chunk": 0,  # members trained at once; 0 as many as fit
      "map": "vmap",
    },
    "log_every": 50,  # steps
    "steps_per_dispatch": 0,  # 0 leaves it to backend and model
    "checkpoint": {"every": 500, "keep": 1},
    "report": {"metrics": ("train/sequence_accuracy", "test/sequence_accuracy", "test/accuracy", "loss")},
  })
  return config.lock()
