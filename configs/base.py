"""The config from which every other one starts: all sections, with what they mean.

  python -m experiments.train --config=configs/base.py --workdir=runs/base

An experiment takes it and says what differs:

    from configs import base


    def get_config():
      config = base.get_config()
      config.steps = 4690
      config.model = {"name": "mlp", "depth": 3, "width": 512}
      return config.lock()

It is locked, so that a misspelled field fails; `lock` does that for what a config adds. As it stands, the base trains a
small network on scikit-learn's 8x8 digits. Takes 5 s on 2 CPU cores; test accuracy 0.975.
"""

from ml_collections import ConfigDict, FieldReference


def get_config():
  seed = FieldReference(0)
  config = ConfigDict({
    "seed": seed,  # of member 0; member i of an ensemble has seed + i
    "steps": 1000,  # updates
    "batch_size": 128,  # examples
    "data": {
      "source": {"name": "digits"},
      "seed": seed,  # of label noise, split and subsets, which all members share
      "validation": 0,  # examples taken from the training file
      "subset": 0,  # training examples; 0 keeps all
      "test_subset": 0,  # test examples; 0 keeps all
      "label_noise": {},  # of the training labels, such as {"name": "symmetric", "rate": 0.4, "include_true": False}
      "noisy_validation": True,  # whether the validation labels are as wrong as those of training
      "normalize": "standardize",  # of inputs; "unit" and "none" are the others
      "normalize_labels": "none",  # of numbers; "standardize" is the other
      "augment": {},  # label -> what changes a batch, in this order
    },
    "model": {"name": "mlp", "depth": 2, "width": 256, "activation": "relu", "kernel_init": "he"},
    "scheduled": {},  # argument of the model -> schedule that moves it
    "references": {},  # label -> network that transforms compare with: a teacher, a guide, an average
    "targets": {},  # label -> what changes the targets, in this order
    "losses": {"ce": {"name": "cross_entropy", "weight": 1.0}},  # label -> term; the loss is their weighted sum
    "gradients": {},  # label -> what changes the gradient, in this order, before the optimizer
    "optimizer": {"name": "sgd", "learning_rate": 0.05, "momentum": 0.9},
    "parameters": {},  # label -> what follows or changes the parameters behind the update, in this order
    # Label -> measurement; "every" counts steps, 0 measures at the end only.
    "probes": {"test": {"name": "accuracy", "split": "test", "every": 100}},
    "evaluation": {
      "batch_size": 1000,  # examples
      "parameters": "",  # label of a parameter transform whose parameters are evaluated; "" for the raw ones
    },
    "ensemble": {
      "seeds": 1,  # members at each point of the grid
      "grid": {},  # axis -> {"path": config path or paths, "levels": ..., "names": ...}
      "chunk": 0,  # members trained at once; 0 takes as many as fit, on CPU one if the model has convolutions
      "map": "vmap",  # or "map": one after another, bit for bit as alone
    },
    "log_every": 50,  # steps
    "steps_per_dispatch": 0,  # steps in one call of the device; 0 takes many, on CPU one if the model has convolutions
    "init": {},  # another run to begin with, such as {"run": "runs/pretrained"}; {} begins with the seeds
    "stopping": {},  # when a member has trained long enough, such as
                     # {"metric": "validation/loss", "mode": "min", "patience": 5}; {} takes all steps
    "checkpoint": {
      "every": 500,  # steps, 0 for the end only
      "keep": 2,  # the newest
      "best": {},  # and the best state by a metric, such as {"metric": "validation/accuracy", "mode": "max"}
    },
    "report": {"metrics": ("test/accuracy", "loss")},  # what the table and the curves show
  })
  return config.lock()
