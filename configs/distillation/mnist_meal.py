"""Distillation without labels from an ensemble of three teachers, and what a discriminator adds, after MEAL V2.

  python -m experiments.train --config=configs/distillation/mnist_teachers.py --data_dir=DATA \
    --workdir=runs/mnist_teachers
  python -m experiments.train --config=configs/distillation/mnist_meal.py --data_dir=DATA --workdir=runs/mnist_meal
  python -m experiments.tuned runs/mnist_meal --over=lr --by=validation/accuracy

Shen & Savvides 2020 (arXiv:2009.08453): the target is the mean of the teachers' softmaxes at T = 1, the loss its cross-
entropy, without labels and without weight decay, and a discriminator that tells the student's logits from the mean of
the teachers'. In their code the student minimizes the discriminator's loss too, and so is pushed to be told apart
("published"); "adversarial" has it the other way round. Students 784-32-10 on 10,000 MNIST images, 4 seeds. Takes
38 s on 2 CPU cores; the numbers stand in RESULTS.md.

Differs from the paper: a student from scratch, where theirs starts from weights trained on ImageNet.
"""

from configs import base

TEACHERS = ("teacher0", "teacher1", "teacher2")


def losses(form=""):
  """Returns the losses section: soft targets only, with a discriminator of one form or without."""
  terms = {
    "kd": {
      "name": "distillation", "weight": 1.0, "teachers": TEACHERS,
      "teacher_temperature": 1.0, "student_temperature": 1.0, "scale": "none", "form": "ce",
    },
  }
  if form:
    terms["discriminator"] = {
      "name": "discriminator", "weight": 1.0, "teachers": TEACHERS, "form": form, "learning_rate": 0.01,
    }
  return terms


def get_config():
  config = base.get_config()
  config.steps = 2400
  config.batch_size = 128
  config.data.source = {"name": "mnist"}
  config.data.validation = 5000
  config.data.subset = 10_000
  config.data.normalize = "unit"
  config.model = {"name": "mlp", "depth": 1, "width": 32, "activation": "relu"}
  config.references = {
    f"teacher{i}": {
      "model": {"name": "mlp", "depth": 2, "width": 400, "activation": "relu"},
      "run": "runs/mnist_teachers", "member": i, "seed": 0, "cache": "logits",
    } for i in range(3)
  }
  config.losses = losses()
  config.optimizer = {
    "name": "sgd", "momentum": 0.9,
    "learning_rate": {"name": "cosine_decay_schedule", "init_value": 0.1, "decay_steps": config.get_ref("steps")},
  }
  config.probes = {
    "test": {"name": "accuracy", "split": "test", "every": 0},
    "validation": {"name": "accuracy", "split": "validation", "every": 0},
    "calibration": {"name": "calibration", "split": "test", "every": 0},
  }
  config.evaluation.batch_size = 2000
  config.ensemble.seeds = 4
  config.ensemble.grid = {
    "discriminator": {
      "path": ("losses",),
      "levels": ((losses(),), (losses("published"),), (losses("adversarial"),)),
      "names": ("none", "published", "adversarial"),
    },
    "lr": {"path": "optimizer.learning_rate.init_value", "levels": (0.03, 0.1, 0.3, 1.0)},
  }
  config.log_every = 200
  config.checkpoint.every = 2400
  config.checkpoint.keep = 1
  config.report.metrics = ("test/accuracy", "validation/accuracy", "calibration/ece")
  return config.lock()
