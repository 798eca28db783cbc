"""The plain 50-layer network without shortcuts and its ResNet-50 guides on CIFAR-10: a run for a GPU.

  python -m experiments.train --config=configs/guidance/convnet50.py:guides --workdir=runs/resnet50_guides
  python -m experiments.train --config=configs/guidance/convnet50.py:guided --workdir=runs/convnet50
  python -m experiments.tuned runs/convnet50 --over=lr --by=validation/accuracy

Each with --data_dir=DATA, which holds cifar-10-batches-bin/*.bin. ResNet-50 with every shortcut removed, batch
normalization kept; Adam, batch 256, 15 epochs; the guide runs in every step, on the same augmented images. As in the
official code, layers are compared before their normalization. Not measured yet; about 25 min on one H200 by the
arithmetic (1 TFLOP a step and member).

Subramaniam et al. 2024 (arXiv:2410.20035), ImageNet, top-5: base 70.02 +- 1.52, trained guide 78.91 +- 2.16 %, no
gain from an untrained one.
"""

from ml_collections import ConfigDict, FieldReference

PARTS = ("guides", "guided")

STEPS, GUIDE_STEPS = 2625, 5250  # 15 and 30 epochs of 45,000 images
RESNET = {"name": "resnet50_cifar", "dtype": "bfloat16"}
CE = {"name": "cross_entropy", "weight": 1.0}


def guidance(stop=STEPS):
  """Returns the losses of a guided arm."""
  return {"ce": CE, "guide": {
    "name": "guidance", "weight": 1.0, "reference": "guide", "taps": "conv", "guide_taps": "conv",
    "layer_map": "uniform", "reduction": "sum", "stop_step": stop,
  }}


def reference(run="", batch_norm="running"):
  """Returns the references section."""
  return {"guide": {"model": RESNET, "run": run, "member": 0, "seed": 0, "batch_norm": batch_norm}}


# Arm: (references, losses).
ARMS = {
  "base": ({}, {"ce": CE}),
  "untrained guide": (reference(), guidance()),
  "untrained guide, batch statistics": (reference(batch_norm="batch"), guidance()),
  "trained guide": (reference("runs/resnet50_guides"), guidance()),
  "untrained, released at 300": (reference(), guidance(300)),
}


def get_config(part="guided"):
  if part not in PARTS:
    raise ValueError(f"convnet50.py has the parts {', '.join(PARTS)}, not {part!r}")
  seed, guides = FieldReference(0), part == "guides"
  grid = {
    "arm": {"path": ("references", "losses"), "levels": tuple(ARMS.values()), "names": tuple(ARMS)},
    "lr": {"path": "optimizer.learning_rate", "levels": (1e-4, 3e-4, 1e-3)},
  }
  target = {"name": "convnet50_cifar", "dtype": "bfloat16"}
  sgd = {
    "name": "sgd", "momentum": 0.9, "nesterov": True,
    "learning_rate": {
      "name": "warmup_cosine_decay_schedule",
      "init_value": 0.0, "peak_value": 0.1, "warmup_steps": 500, "decay_steps": GUIDE_STEPS, "end_value": 0.0,
    },
  }
  config = ConfigDict({
    "seed": seed,  # of member 0; member i of an ensemble has seed + i
    "steps": GUIDE_STEPS if guides else STEPS,  # updates
    "batch_size": 256,  # examples
    "data": {
      "source": {"name": "cifar10"},
      "seed": seed,  # of label noise, split and subsets, which all members share
      "validation": 5000,  # examples taken from the training file
      "subset": 0,  # training examples; 0 keeps all
      "test_subset": 0,  # test examples; 0 keeps all
      "label_noise": {},
      "noisy_validation": True,
      "normalize": "standardize",
      "augment": {
        "crop": {"name": "pad_crop", "pad": 4},  # pixels
        "flip": {"name": "flip"},
      },
    },
    "model": RESNET if guides else target,
    "scheduled": {},
    "references": {},
    "targets": {},
    "losses": {"ce": CE},
    "gradients": {
      "decay": {"name": "add_decayed_weights", "weight_decay": 5e-4 if guides else 0.0, "mask": "matrices"},
    },
    "optimizer": sgd if guides else {"name": "adam", "learning_rate": 3e-4},
    "parameters": {},
    "probes": {
      "validation": {"name": "accuracy", "split": "validation", "every": 500},
      "test": {"name": "accuracy", "split": "test", "every": 500},
    },
    "evaluation": {"batch_size": 1000, "parameters": ""},
    "ensemble": {"seeds": 1 if guides else 2, "grid": {} if guides else grid, "chunk": 0, "map": "vmap"},
    "log_every": 50,  # steps
    "steps_per_dispatch": 0,  # 0 leaves it to backend and model
    "checkpoint": {"every": 1000, "keep": 1},
    "report": {"metrics": ("test/accuracy", "test/loss", "validation/accuracy")},
  })
  return config.lock()
