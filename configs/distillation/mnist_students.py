"""Does label smoothing of the teacher hurt its students? Students 784-32-10 of six teachers at five temperatures.

  python -m experiments.train --config=configs/distillation/mnist_teachers.py --data_dir=DATA \
    --workdir=runs/mnist_teachers
  python -m experiments.train --config=configs/distillation/mnist_students.py --data_dir=DATA \
    --workdir=runs/mnist_students
  python -m experiments.studies.distillation_table runs/mnist_students

Müller et al. 2019 (arXiv:1906.02629) find that smoothed teachers teach worse, Shen et al. 2021 (arXiv:2104.00676) that
they do not, and Chandrasegaran et al. 2022 (arXiv:2206.14532) that both are right: it depends on the temperature. Here
with their loss T^2 KL of both softened, no hard labels, and the learning rate chosen on the validation split for each
kind of teacher and each T. Takes 155 s on 2 CPU cores with three rates.

Only the teacher softened, as Müller et al. do, with --workdir=runs/mnist_students_mueller:

  --config.losses.kd.scale=none --config.ensemble.grid.T.levels='((1.,1.),(2.,1.),(4.,1.),(8.,1.),(16.,1.))'

The weights of hard and soft part are those of the two loss terms. Teachers see what students see; the inputs never
change, so their logits are computed once (cache).
"""

from configs import base


def get_config():
  temperatures = (1.0, 2.0, 4.0, 8.0, 16.0)
  config = base.get_config()
  config.steps = 2400
  config.batch_size = 128
  config.data.source = {"name": "mnist"}
  config.data.validation = 5000
  config.data.subset = 10_000
  config.data.normalize = "unit"
  config.model = {"name": "mlp", "depth": 1, "width": 32, "activation": "relu"}
  config.references = {
    "teacher": {
      "model": {"name": "mlp", "depth": 2, "width": 400, "activation": "relu"},
      "run": "runs/mnist_teachers", "member": 0, "seed": 0, "cache": "logits",
    },
  }
  config.losses = {
    "kd": {
      "name": "distillation", "weight": 1.0, "teachers": ("teacher",),
      "teacher_temperature": 1.0, "student_temperature": 1.0, "scale": "t_squared", "form": "kl",
    },
    "ce": {"name": "cross_entropy", "weight": 0.0},  # the hard part
  }
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
  config.ensemble.seeds = 2
  config.ensemble.grid = {
    "teacher": {
      "path": "references.teacher.member",
      "levels": (0, 1, 2, 3, 4, 5),
      "names": tuple(f"alpha {alpha}, teacher {i}" for alpha in (0, 0.1) for i in range(3)),
    },
    "T": {
      "path": ("losses.kd.teacher_temperature", "losses.kd.student_temperature"),
      "levels": tuple((t, t) for t in temperatures),
      "names": temperatures,
    },
    "lr": {"path": "optimizer.learning_rate.init_value", "levels": (0.01, 0.03, 0.1, 0.3, 1.0)},
  }
  config.log_every = 200
  config.checkpoint.every = 2400
  config.checkpoint.keep = 1
  config.report.metrics = ("test/accuracy", "validation/accuracy", "calibration/ece")
  return config.lock()
