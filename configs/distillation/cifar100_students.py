"""ResNet-20 students of ResNet-56 teachers on CIFAR-100, teachers smoothed or not, at five temperatures, for a GPU.

  python -m experiments.train --config=configs/distillation/cifar100_teachers.py --data_dir=DATA \
    --workdir=runs/cifar100_teachers
  python -m experiments.train --config=configs/distillation/cifar100_students.py --data_dir=DATA \
    --workdir=runs/cifar100_students
  python -m experiments.distillation_table runs/cifar100_students

The question of mnist_students.py at the size where it was asked: T^2 KL with both softened (Chandrasegaran et al. 2022,
arXiv:2206.14532), no hard labels; on ImageNet they find students of a smoothed teacher 0.2 points better at T = 1 and
2.5 worse at T = 2. Teachers see the crop that the student sees. A student as large as its teacher:
--config.model.name=resnet56. DATA holds cifar-100-binary/{train,test}.bin. Not measured here; 45 students at about
15 min each on a large GPU is an estimate.
"""

from ml_collections import ConfigDict, FieldReference


def get_config():
  seed = FieldReference(0)
  temperatures = (1.0, 2.0, 3.0, 8.0, 64.0)
  config = ConfigDict({
    "seed": seed,  # of member 0; member i of an ensemble has seed + i
    "steps": 64_000,  # updates
    "batch_size": 128,  # examples
    "data": {  # that of the teachers
      "source": {"name": "cifar100"},
      "seed": seed,  # of label noise, split and subsets, which all members share
      "validation": 10_000,  # examples taken from the training file
      "subset": 0,  # training examples; 0 keeps all
      "test_subset": 0,  # test examples; 0 keeps all
      "label_noise": {},
      "noisy_validation": True,
      "normalize": "standardize",
      "augment": {"crop": {"name": "pad_crop", "pad": 4}, "flip": {"name": "flip"}},
    },
    "model": {"name": "resnet20", "dtype": "bfloat16"},
    "scheduled": {},
    "references": {
      "teacher": {
        "model": {"name": "resnet56", "dtype": "bfloat16"}, "run": "runs/cifar100_teachers", "member": 0, "seed": 0,
      },
    },
    "targets": {},
    "losses": {
      "kd": {
        "name": "distillation", "weight": 1.0, "teachers": ("teacher",),
        "teacher_temperature": 1.0, "student_temperature": 1.0, "scale": "t_squared", "form": "kl",
      },
      "ce": {"name": "cross_entropy", "weight": 0.0},  # the hard part
    },
    "gradients": {"decay": {"name": "add_decayed_weights", "weight_decay": 1e-4, "mask": "matrices"}},
    "optimizer": {
      "name": "sgd", "momentum": 0.9, "nesterov": True,
      "learning_rate": {
        "name": "piecewise_constant_schedule", "init_value": 0.1, "boundaries": (32_000, 48_000), "scales": (0.1, 0.1),
      },
    },
    "parameters": {},
    "probes": {
      "test": {"name": "accuracy", "split": "test", "every": 4000},
      "validation": {"name": "accuracy", "split": "validation", "every": 4000},
    },
    "evaluation": {"batch_size": 1000, "parameters": ""},
    "ensemble": {
      "seeds": 1,
      "grid": {
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
      },
      "chunk": 0,  # members trained at once; 0 as many as fit
      "map": "vmap",
    },
    "log_every": 500,  # steps
    "steps_per_dispatch": 0,  # 0 leaves it to backend and model
    "checkpoint": {"every": 4000, "keep": 1},
    "report": {"metrics": ("test/accuracy", "validation/accuracy")},
  })
  return config.lock()
