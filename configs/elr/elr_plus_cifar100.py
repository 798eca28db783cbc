"""ELR+ on CIFAR-100 with 20 % symmetric noise at full size: two PreAct ResNet-18s, mixup, averaged weights.

  python -m experiments.train --config=configs/elr/elr_plus_cifar100.py --data_dir=DATA --workdir=runs/elr_plus_cifar100

What differs from CIFAR-10 is as in the official code: the mixed labels are multiplied by the memory and scaled to sum 1
(`multiply_labels`, with which the term holds the cross-entropy too), and lambda rises over 40,000 steps to 7.

Liu et al. 2020 (arXiv:2007.00151), appendix G: 250 epochs, learning rate 0.02 divided by 10 after 200, batch 128. Table
2, with 20 % noise: 77.5 %. By the paper's time for 200 epochs of CIFAR-10 about 170 min on a V100. Not measured yet; a
run for a GPU. DATA holds cifar-100-binary/*.bin.

The paper ramps the decay of the average up over the run; here it is 0.997 from the first step.
"""

from ml_collections import ConfigDict, FieldReference

_EPOCH = 45_000 // 128  # steps; the remainder of each epoch is dropped


def get_config():
  seed = FieldReference(0)
  config = ConfigDict({
    "seed": seed,  # of member 0; member i of an ensemble has seed + i
    "steps": 250 * _EPOCH,  # updates
    "batch_size": 128,  # examples
    "data": {
      "source": {"name": "cifar100"},
      "seed": seed,  # of label noise, split and subsets, which all members share
      "validation": 5000,  # examples taken from the training file
      "subset": 0,  # training examples; 0 keeps all
      "test_subset": 0,  # test examples; 0 keeps all
      "label_noise": {"name": "symmetric", "rate": 0.2, "include_true": True},  # 19.8 % are wrong
      "noisy_validation": True,
      "normalize": "standardize",
      "augment": {
        "crop": {"name": "pad_crop", "pad": 4},  # pixels
        "flip": {"name": "flip"},
        "mix": {"name": "mixup", "alpha": 1.0, "symmetric": False},
      },
    },
    "model": {"name": "pair", "model": {"name": "preact_resnet18_elr_plus", "dtype": "bfloat16"}},
    "scheduled": {},
    "references": {"average": {"model": {}, "parameters": "average", "view": "unmixed", "batch_norm": "batch"}},
    "targets": {"mix": {"name": "mixup"}},
    "losses": {
      "elr": {
        "name": "elr_plus", "weight": 1.0, "lam": 7.0, "beta": 0.9, "reference": "average",
        "multiply_labels": True,  # brings the cross-entropy
        "ramp_steps": 40_000,  # of lam
      },
    },
    "gradients": {"decay": {"name": "add_decayed_weights", "weight_decay": 5e-4}},
    "optimizer": {
      "name": "sgd", "momentum": 0.9,
      "learning_rate": {
        "name": "piecewise_constant_schedule",
        "init_value": 0.02, "boundaries": (200 * _EPOCH,), "scales": (0.1,),
      },
    },
    "parameters": {"average": {"name": "ema", "decay": 0.997}},
    "probes": {
      "validation": {"name": "accuracy", "split": "validation", "every": 5 * _EPOCH},
      "test": {"name": "accuracy", "split": "test", "every": 5 * _EPOCH},
      "train": {"name": "memorization", "split": "train", "limit": 10_000, "every": 5 * _EPOCH},
    },
    "evaluation": {"batch_size": 1000, "parameters": ""},
    "ensemble": {"seeds": 1, "grid": {}, "chunk": 0, "map": "vmap"},
    "log_every": 100,  # steps
    "steps_per_dispatch": 0,  # 0 leaves it to backend and model
    "checkpoint": {"every": 5 * _EPOCH, "keep": 2},
    "report": {"metrics": ("test/accuracy", "train/wrong_memorized")},
  })
  return config.lock()
