"""Gradient noise trains a network that starts at zero, and its weights walk randomly until then.

  python -m experiments.train --config=configs/gradient_noise/zero_init.py --data_dir=DATA --workdir=runs/zero_init
  python -m experiments.gradient_noise runs/zero_init

The 20 x 50 ReLU network of Neelakantan et al. 2015 (arXiv:1511.06807), section 4.1, with every weight zero. No
gradient reaches a weight: without noise only the output bias learns, and the net says the most frequent
class for ever (accuracy 0.1135). With noise the weights walk, std(w_t) = lr sqrt(sum_{s<t} eta / (1+s)^gamma),
until the signal passes the layers and training takes off. The paper's eta of 0.01 needs about 2e4 steps for
that; 0.1 needs about 500. Takes 19 s on 2 CPU cores: test accuracy 0.112 without noise and 0.58 +- 0.04 with it, and
std(w) within 3 % of the law before training takes off. Without MNIST's files: --config.data.source.name=digits.
"""

from ml_collections import ConfigDict, FieldReference


def get_config():
  seed = FieldReference(0)
  config = ConfigDict({
    "seed": seed,  # of member 0; member i of an ensemble has seed + i
    "steps": 2000,  # updates
    "batch_size": 32,  # examples; not stated in the paper
    "data": {
      "source": {"name": "mnist"},
      "seed": seed,  # of label noise, split and subsets, which all members share
      "validation": 0,  # examples taken from the training file
      "subset": 0,  # training examples; 0 keeps all
      "test_subset": 0,  # test examples; 0 keeps all
      "label_noise": {},
      "noisy_validation": True,
      "normalize": "unit",
      "augment": {},
    },
    "model": {"name": "mlp", "depth": 20, "width": 50, "activation": "relu", "kernel_init": "zeros"},
    "scheduled": {},
    "references": {},
    "targets": {},
    "losses": {"ce": {"name": "cross_entropy", "weight": 1.0}},
    "gradients": {  # noise after clipping, as in the paper: the other order would clip the noise away
      "clip": {"name": "clip_by_global_norm", "max_norm": 10.0},
      "noise": {"name": "annealed_noise", "eta": 0.1, "gamma": 0.55},
    },
    "optimizer": {"name": "sgd", "learning_rate": 0.1},
    "parameters": {},
    "probes": {
      "test": {"name": "accuracy", "split": "test", "every": 200},
      "weights": {"name": "weight_statistics", "every": 20},
    },
    "evaluation": {"batch_size": 2000, "parameters": ""},
    "ensemble": {
      "seeds": 8,
      "grid": {"eta": {"path": "gradients.noise.eta", "levels": (0.0, 0.1)}},
      "chunk": 0,  # members trained at once; 0 as many as fit
      "map": "vmap",
    },
    "log_every": 20,  # steps
    "steps_per_dispatch": 0,  # 0 leaves it to backend and model
    "checkpoint": {"every": 1000, "keep": 2},
    "report": {"metrics": ("test/accuracy", "loss")},
  })
  return config.lock()
