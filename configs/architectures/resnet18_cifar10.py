"""ResNet-18 with the stem for small images on CIFAR-10, at a length that a CPU trains.

  python -m experiments.train --config=configs/architectures/resnet18_cifar10.py --data_dir=DATA \
    --workdir=runs/resnet18_cifar10

Takes 11 min on 2 CPU cores beside other jobs; test accuracy 0.474, measured on 2,000 test images. DATA holds
cifar-10-batches-bin/*.bin. On a GPU, 100 epochs on all of the test images (not measured):

  --config.model.dtype=bfloat16 --config.steps=39000 --config.batch_size=128 --config.data.test_subset=0
"""

from ml_collections import ConfigDict, FieldReference


def get_config():
  seed, steps = FieldReference(0), FieldReference(400)  # half an epoch
  config = ConfigDict({
    "seed": seed,  # of member 0; member i of an ensemble has seed + i
    "steps": steps,  # updates
    "batch_size": 64,  # examples
    "data": {
      "source": {"name": "cifar10"},
      "seed": seed,  # of label noise, split and subsets, which all members share
      "validation": 0,  # examples taken from the training file
      "subset": 0,  # training examples; 0 keeps all
      "test_subset": 2000,  # test examples; 0 keeps all
      "label_noise": {},
      "noisy_validation": True,
      "normalize": "standardize",
      "augment": {
        "crop": {"name": "pad_crop", "pad": 4},  # pixels
        "flip": {"name": "flip"},
      },
    },
    # shortcut=False is the plain deep network; residual_scale multiplies the branches.
    "model": {"name": "resnet18_cifar", "shortcut": True, "residual_scale": 1.0, "remat": False, "dtype": "float32"},
    "scheduled": {},  # {"drop_path": rate or schedule} drops branches, the last block's at this rate, others at less
    "references": {},
    "targets": {},
    "losses": {"ce": {"name": "cross_entropy", "weight": 1.0}},
    "gradients": {"decay": {"name": "add_decayed_weights", "weight_decay": 5e-4, "mask": "matrices"}},
    "optimizer": {
      "name": "sgd", "momentum": 0.9, "nesterov": True,
      "learning_rate": {
        "name": "warmup_cosine_decay_schedule",
        "init_value": 0.0, "peak_value": 0.1, "warmup_steps": 50, "decay_steps": steps, "end_value": 0.0,
      },
    },
    "parameters": {},
    "probes": {"test": {"name": "accuracy", "split": "test", "every": 400}},
    "evaluation": {"batch_size": 500, "parameters": ""},
    "ensemble": {"seeds": 1, "grid": {}, "chunk": 0, "map": "vmap"},
    "log_every": 30,  # steps
    "steps_per_dispatch": 0,  # 0 leaves it to backend and model: one on CPU, where convolutions in loops are slow
    "checkpoint": {"every": 100, "keep": 2},
    "report": {"metrics": ("test/accuracy", "loss")},
  })
  return config.lock()
