"""Teachers with and without label smoothing: 784-400-400-10 on 10,000 digits, for students to learn from.

  python -m experiments.train --config=configs/distillation/mnist_teachers.py --data_dir=DATA \
    --workdir=runs/mnist_teachers
  python -m experiments.studies.projection runs/mnist_teachers --member=0 --member=3 --classes=0,1,2 --data_dir=DATA

alpha is 0 or 0.1 (y <- (1 - alpha) y + alpha / K), 3 seeds each. Measured are what smoothing is said to change: the
calibration (Müller et al. 2019, arXiv:1906.02629), the spread of predictions within a class on training and test
examples (1 - S of Shen et al. 2021, arXiv:2104.00676) and the information that a logit difference has of its example.
Takes 32 s on 2 CPU cores.
"""

from configs import base


def get_config():
  config = base.get_config()
  config.steps = 1200
  config.batch_size = 128
  config.data.source = {"name": "mnist"}
  config.data.validation = 5000
  config.data.subset = 10_000
  config.data.normalize = "unit"
  config.model = {"name": "mlp", "depth": 2, "width": 400, "activation": "relu"}
  config.targets = {"smoothing": {"name": "label_smoothing", "alpha": 0.0, "convention": "uniform"}}
  config.optimizer = {
    "name": "sgd", "momentum": 0.9,
    "learning_rate": {"name": "cosine_decay_schedule", "init_value": 0.1, "decay_steps": config.get_ref("steps")},
  }
  config.probes = {
    "test": {"name": "accuracy", "split": "test", "every": 200},
    "calibration": {"name": "calibration", "split": "test", "every": 200},
    "spread_train": {"name": "stability", "split": "train", "every": 0},
    "spread_test": {"name": "stability", "split": "test", "every": 0},
    "information": {"name": "mutual_information", "split": "train", "classes": (3, 5), "shift": 2, "every": 200},
  }
  config.evaluation.batch_size = 2000
  config.ensemble.seeds = 3
  config.ensemble.grid = {"alpha": {"path": "targets.smoothing.alpha", "levels": (0.0, 0.1)}}
  config.log_every = 100
  config.checkpoint.every = 600
  config.report.metrics = (
    "test/accuracy", "calibration/ece", "spread_train/vector_var", "spread_test/vector_var",
    "information/information",
  )
  return config.lock()
