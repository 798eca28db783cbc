"""ResNet-20 students of ResNet-56 teachers on CIFAR-100, teachers smoothed or not, at five temperatures, for a GPU.

  python -m experiments.train --config=configs/distillation/cifar100_teachers.py --data_dir=DATA \
    --workdir=runs/cifar100_teachers
  python -m experiments.train --config=configs/distillation/cifar100_students.py --data_dir=DATA \
    --workdir=runs/cifar100_students
  python -m experiments.studies.distillation_table runs/cifar100_students

The question of mnist_students.py at the size where it was asked: T^2 KL with both softened (Chandrasegaran et al. 2022,
arXiv:2206.14532), no hard labels; on ImageNet they find students of a smoothed teacher 0.2 points better at T = 1 and
2.5 worse at T = 2. Teachers see the crop that the student sees. A student as large as its teacher:
--config.model.name=resnet56. DATA holds cifar-100-binary/{train,test}.bin. Not measured here; 45 students at about
15 min each on a large GPU is an estimate.
"""

from configs import base


def get_config():
  temperatures = (1.0, 2.0, 3.0, 8.0, 64.0)
  config = base.get_config()
  config.steps = 64_000
  config.batch_size = 128
  config.data.source = {"name": "cifar100"}
  config.data.validation = 10_000
  config.data.augment = {"crop": {"name": "pad_crop", "pad": 4}, "flip": {"name": "flip"}}
  config.model = {"name": "resnet20", "dtype": "bfloat16"}
  config.references = {
    "teacher": {
      "model": {"name": "resnet56", "dtype": "bfloat16"}, "run": "runs/cifar100_teachers", "member": 0, "seed": 0,
    },
  }
  config.losses = {
    "kd": {
      "name": "distillation", "weight": 1.0, "teachers": ("teacher",),
      "teacher_temperature": 1.0, "student_temperature": 1.0, "scale": "t_squared", "form": "kl",
    },
    "ce": {"name": "cross_entropy", "weight": 0.0},  # the hard part
  }
  config.gradients = {"decay": {"name": "add_decayed_weights", "weight_decay": 1e-4, "mask": "matrices"}}
  config.optimizer = {
    "name": "sgd", "momentum": 0.9, "nesterov": True,
    "learning_rate": {
      "name": "piecewise_constant_schedule", "init_value": 0.1, "boundaries": (32_000, 48_000), "scales": (0.1, 0.1),
    },
  }
  config.probes = {
    "test": {"name": "accuracy", "split": "test", "every": 4000},
    "validation": {"name": "accuracy", "split": "validation", "every": 4000},
  }
  config.ensemble.grid = {
    "teacher": {
      "path": "references.teacher.member",
      "levels": tuple(range(9)),
      "names": tuple(f"alpha {alpha}, teacher {i}" for alpha in (0, 0.05, 0.1) for i in range(3)),
    },
    "T": {
      "path": ("losses.kd.teacher_temperature", "losses.kd.student_temperature"),
      "levels": tuple((t, t) for t in temperatures),
      "names": temperatures,
    },
  }
  config.log_every = 500
  config.checkpoint.every = 4000
  config.checkpoint.keep = 1
  config.report.metrics = ("test/accuracy", "validation/accuracy")
  return config.lock()
