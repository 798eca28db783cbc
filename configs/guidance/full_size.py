"""Deep networks and their residual guides on CIFAR-10, at the paper's size: runs for a GPU.

  python -m experiments.train --config=configs/guidance/full_size.py:resnet18 --workdir=runs/resnet18_guide
  python -m experiments.train --config=configs/guidance/full_size.py:fcn --workdir=runs/full_size_fcn
  python -m experiments.train --config=configs/guidance/full_size.py:resnet50 --workdir=runs/resnet50_guide
  python -m experiments.train --config=configs/guidance/full_size.py:convnet --workdir=runs/full_size_convnet
  python -m experiments.tuned runs/full_size_fcn runs/full_size_convnet --over=lr --by=validation/accuracy

Each with --data_dir=DATA, which holds cifar-10-batches-bin/*.bin. Part "fcn": 48 hidden layers of 512 units (the first
has 1024) with batch normalization and dropout 0.1, Adam, 30 epochs, guided by ResNet-18. Part "convnet": ResNet-50 with
every shortcut removed, batch normalization kept, Adam, 15 epochs, guided by ResNet-50. The guide runs in every step,
on the same augmented images, so that nothing is cached. Not measured yet; by the arithmetic of the guides (0.3 and 1
TFLOP a step and member) about 20 min and 25 min on one H200.

As in the official code, what is compared comes out of the convolutions and dense layers, before any normalization, and
out of the last average pool: 21 taps of ResNet-18 with 48 of the FCN, and 54 of ResNet-50 with 50 of the ConvNet, where
four of the guide's are lost because a later one meets the same target ("last_wins").

Subramaniam et al. 2024 (arXiv:2410.20035), ImageNet, top-5: deep FCN 1.65 +- 1.21, with a trained guide 7.50 +- 1.51,
untrained 13.10 +- 0.72 %; without shortcuts 70.02 +- 1.52, trained 78.91 +- 2.16 %, no gain from an untrained guide.
"""

from configs import base

GUIDE_STEPS = 5250  # 30 epochs of 45,000 images
RESNET18 = {"name": "resnet18_cifar", "dtype": "bfloat16"}
RESNET50 = {"name": "resnet50_cifar", "dtype": "bfloat16"}
FCN = {
  "name": "mlp", "depth": 48, "width": 512, "first_width": 1024, "activation": "relu", "norm": "batch", "dropout": 0.1,
  "dtype": "bfloat16",
}
CONVNET = {"name": "convnet50_cifar", "dtype": "bfloat16"}
CE = {"name": "cross_entropy", "weight": 1.0}

GUIDES = {"resnet18": RESNET18, "resnet50": RESNET50}
# Part: (model, seeds, steps, its guide, run of the guide, taps of both).
CONVOLUTIONS = ("conv", "global_avg_pool")
TARGETS = {
  "fcn": (FCN, 4, 5250, RESNET18, "runs/resnet18_guide", ("dense", CONVOLUTIONS)),
  "convnet": (CONVNET, 2, 2625, RESNET50, "runs/resnet50_guide", (CONVOLUTIONS, CONVOLUTIONS)),
}
PARTS = (*GUIDES, *TARGETS)


def arms(steps, guide, run, taps):
  """Returns {arm: (references, losses)}."""
  def reference(run="", batch_norm="running"):
    return {"guide": {"model": guide, "run": run, "member": 0, "seed": 0, "batch_norm": batch_norm}}

  def guidance(stop=steps):
    return {"ce": CE, "guide": {
      "name": "guidance", "weight": 1.0, "reference": "guide", "taps": taps[0], "guide_taps": taps[1],
      "layer_map": "last_wins", "reduction": "sum", "stop_step": stop,
    }}

  return {
    "base": ({}, {"ce": CE}),
    "untrained guide": (reference(), guidance()),
    "untrained guide, batch statistics": (reference(batch_norm="batch"), guidance()),
    "trained guide": (reference(run), guidance()),
    "untrained, released at 300": (reference(), guidance(300)),
  }


def get_config(part="fcn"):
  if part not in PARTS:
    raise ValueError(f"full_size.py has the parts {', '.join(PARTS)}, not {part!r}")
  guides = part in GUIDES
  if guides:
    model, seeds, steps, grid = GUIDES[part], 1, GUIDE_STEPS, {}
  else:
    model, seeds, steps, *guide = TARGETS[part]
    levels = arms(steps, *guide)
    grid = {
      "arm": {"path": ("references", "losses"), "levels": tuple(levels.values()), "names": tuple(levels)},
      "lr": {"path": "optimizer.learning_rate", "levels": (1e-4, 3e-4, 1e-3)},
    }
  sgd = {
    "name": "sgd", "momentum": 0.9, "nesterov": True,
    "learning_rate": {
      "name": "warmup_cosine_decay_schedule",
      "init_value": 0.0, "peak_value": 0.1, "warmup_steps": 500, "decay_steps": GUIDE_STEPS, "end_value": 0.0,
    },
  }
  config = base.get_config()
  config.steps = steps
  config.batch_size = 256
  config.data.source = {"name": "cifar10"}
  config.data.validation = 5000
  config.data.augment = {
    "crop": {"name": "pad_crop", "pad": 4},  # pixels
    "flip": {"name": "flip"},
  }
  config.model = model
  config.gradients = {
    "decay": {"name": "add_decayed_weights", "weight_decay": 5e-4 if guides else 0.0, "mask": "matrices"},
  }
  config.optimizer = sgd if guides else {"name": "adam", "learning_rate": 3e-4}
  config.probes = {
    "validation": {"name": "accuracy", "split": "validation", "every": 500},
    "test": {"name": "accuracy", "split": "test", "every": 500},
  }
  config.ensemble.seeds = seeds
  config.ensemble.grid = grid
  config.checkpoint.every = 1000
  config.checkpoint.keep = 1
  config.report.metrics = ("test/accuracy", "test/loss", "validation/accuracy")
  return config.lock()
