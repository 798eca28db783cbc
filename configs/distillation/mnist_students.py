"""Does label smoothing of the teacher hurt its students? Students 784-32-10 of six teachers at five temperatures.

  python -m experiments.train --config=configs/distillation/mnist_teachers.py --data_dir=DATA \
    --workdir=runs/mnist_teachers
  python -m experiments.train --config=configs/distillation/mnist_students.py --data_dir=DATA \
    --workdir=runs/mnist_students
  python -m experiments.distillation_table runs/mnist_students

Müller et al. 2019 (arXiv:1906.02629) find that smoothed teachers teach worse, Shen et al. 2021 (arXiv:2104.00676) that
they do not, and Chandrasegaran et al. 2022 (arXiv:2206.14532) that both are right: it depends on the temperature. Here
with their loss T^2 KL of both softened, no hard labels, and the learning rate chosen on the validation split for each
kind of teacher and each T. Takes 155 s on 2 CPU cores with three rates.

Only the teacher softened, as Müller et al. do, with --workdir=runs/mnist_students_mueller:

  --config.losses.kd.scale=none --config.ensemble.grid.T.levels='((1.,1.),(2.,1.),(4.,1.),(8.,1.),(16.,1.))'

The weights of hard and soft part are those of the two loss terms. Teachers see what students see; the inputs never
change, so their logits are computed once (cache).
"""

from ml_collections import ConfigDict, FieldReference


def get_config():
  seed, steps = FieldReference(0), FieldReference(2400)
  temperatures = (1.0, 2.0, 4.0, 8.0, 16.0)
  config = ConfigDict({
    "seed": seed,  # of member 0; member i of an ensemble has seed + i
    "steps": steps,  # updates
    "batch_size": 128,  # examples
    "data": {  # that of the teachers
      "source": {"name": "mnist"},
      "seed": seed,  # of label noise, split and subsets, which all members share
      "validation": 5000,  # examples taken from the training file
      "subset": 10_000,  # training examples; 0 keeps all
      "test_subset": 0,  # test examples; 0 keeps all
      "label_noise": {},
      "noisy_validation": True,
      "normalize": "unit",
      "augment": {},
    },
    "model": {"name": "mlp", "depth": 1, "width": 32, "activation": "relu"},
    "scheduled": {},
    "references": {
      "teacher": {
        "model": {"name": "mlp", "depth": 2, "width": 400, "activation": "relu"},
        "run": "runs/mnist_teachers", "member": 0, "seed": 0, "cache": "logits",
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
    "gradients": {},
    "optimizer": {
      "name": "sgd", "momentum": 0.9,
      "learning_rate": {"name": "cosine_decay_schedule", "init_value": 0.1, "decay_steps": steps},
    },
    "parameters": {},
    "probes": {
      "test": {"name": "accuracy", "split": "test", "every": 0},
      "validation": {"name": "accuracy", "split": "validation", "every": 0},
      "calibration": {"name": "calibration", "split": "test", "every": 0},
    },
    "evaluation": {"batch_size": 2000, "parameters": ""},
    "ensemble": {
      "seeds": 2,
      "grid": {
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
      },
      "chunk": 0,  # members trained at once; 0 as many as fit
      "map": "vmap",
    },
    "log_every": 200,  # steps
    "steps_per_dispatch": 0,  # 0 leaves it to backend and model
    "checkpoint": {"every": 2400, "keep": 1},
    "report": {"metrics": ("test/accuracy", "validation/accuracy", "calibration/ece")},
  })
  return config.lock()
