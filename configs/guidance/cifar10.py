"""Guidance on 5,000 images of CIFAR-10: a deep fully connected network and convolutional guides, at the size of a CPU.

  python -m experiments.train --config=configs/guidance/cifar10.py:guides --workdir=runs/cifar10_guides
  python -m experiments.train --config=configs/guidance/cifar10.py:unguided --workdir=runs/cifar10_unguided
  python -m experiments.train --config=configs/guidance/cifar10.py:guided --workdir=runs/cifar10_guided
  python -m experiments.tuned runs/cifar10_unguided runs/cifar10_guided --over=lr --pool=guide --by=validation/accuracy

Each with --data_dir=DATA, which holds cifar-10-batches-bin/*.bin.

The target has 12 layers of 256 ReLU units with batch normalization, as the paper's deep FCN has in its 48; 500 steps of
Adam. The guide is a residual CNN of three blocks, trained (part "guides", three seeds) or not, whose Gram matrices are
computed once. 5 target seeds x 3 guide seeds an arm, each arm at the learning rate that is best on 5,000 validation
images. The three take 5 min, 5 min and, by the clock and with pauses, an hour on 2 CPU cores beside other jobs.

Subramaniam et al. 2024 (arXiv:2410.20035), ImageNet, top-5: deep FCN 1.65 %, trained guide 7.50 %, untrained 13.10 %.
The full size is configs/guidance/full_size.py, for a GPU.
"""

from configs import base

PARTS = ("guides", "unguided", "guided")

STEPS = 500
RELEASE = 150  # steps of guidance, where it is released
CNN = {"name": "resnet", "blocks": (1, 1, 1), "width": 16, "kernel_init": "he"}
TARGET = {"name": "mlp", "depth": 12, "width": 256, "activation": "relu", "norm": "batch", "kernel_init": "lecun"}
RANDOM_MLP = {"name": "mlp", "depth": 7, "width": 256, "activation": "relu", "norm": "layer", "kernel_init": "he"}


def reference(model=CNN, run="", cache="pre"):
  """Returns the references section: a guide, initialized from its seed or a member of a run."""
  return {"guide": {"model": model, "run": run, "member": 0, "seed": 0, "batch_norm": "running", "cache": cache}}


def losses(guidance=0.0, stop=STEPS, start_ce=0, distillation=0.0, guide="guide", layer_map="uniform"):
  """Returns the losses section: cross-entropy, guidance until a step, distillation from the guide's logits."""
  terms = {"ce": {"name": "cross_entropy", "weight": 1.0, "start_step": start_ce}}
  if guidance:
    terms["guide"] = {
      "name": "guidance", "weight": guidance, "reference": guide, "measure": "linear_cka", "taps": "pre",
      "guide_taps": "pre", "layer_map": layer_map, "reduction": "sum", "stop_step": stop,
    }
  if distillation:
    terms["kd"] = {
      "name": "distillation", "weight": distillation, "teachers": ("guide",), "teacher_temperature": 4.0,
      "student_temperature": 4.0, "form": "kl", "scale": "t_squared",
    }
  return terms


# Arm: (references, losses).
TRAINED = reference(run="runs/cifar10_guides")
GUIDED = {
  "untrained guide": (reference(), losses(1.0)),
  "trained guide": (TRAINED, losses(1.0)),
  "untrained, released": (reference(), losses(1.0, stop=RELEASE)),
  "untrained, align first": (reference(), losses(1.0, stop=RELEASE, start_ce=RELEASE)),
  "same architecture": (reference(TARGET), losses(1.0)),
  "random MLP": (reference(RANDOM_MLP), losses(1.0)),
  "distillation, trained": (TRAINED, losses(distillation=1.0)),
  "distillation, untrained": (reference(), losses(distillation=1.0)),
}
# The input as a guide of one tap, compared with the layers that a guide of seven is compared with.
SPREAD = tuple((0, layer) for layer in (0, 2, 4, 6, 7, 9, 11))
UNGUIDED = {"base": ({}, losses()), "input": ({}, losses(1.0, guide="input", layer_map=SPREAD))}


def grid(arms, rates):
  """Returns the axes of a grid of arms and learning rates."""
  return {
    "arm": {"path": ("references", "losses"), "levels": tuple(arms.values()), "names": tuple(arms)},
    "lr": {"path": "optimizer.learning_rate", "levels": rates},
  }


def get_config(part="guided"):
  if part not in PARTS:
    raise ValueError(f"cifar10.py has the parts {', '.join(PARTS)}, not {part!r}")
  rates = (1e-3, 3e-3)
  axes = {
    "guides": {},
    "unguided": grid(UNGUIDED, (3e-4, *rates, 1e-2)),
    "guided": grid(GUIDED, rates) | {
      "guide": {"path": ("references.guide.seed", "references.guide.member"), "levels": ((0, 0), (1, 1), (2, 2))},
    },
  }
  config = base.get_config()
  config.steps = STEPS
  config.batch_size = 128  # examples; the value of biased CKA depends on it
  config.data.source = {"name": "cifar10"}
  config.data.validation = 5000
  config.data.subset = 5000
  config.model = CNN if part == "guides" else TARGET
  config.references = reference() if part == "guided" else {}
  config.losses = losses()
  config.optimizer = {"name": "adam", "learning_rate": 1e-3}
  config.probes = {
    "train": {"name": "accuracy", "split": "train", "limit": 2000, "every": 0},
    "validation": {"name": "accuracy", "split": "validation", "every": 0},
    "test": {"name": "accuracy", "split": "test", "every": 0},
  }
  config.ensemble.seeds = 3 if part == "guides" else 5
  config.ensemble.grid = axes[part]
  config.checkpoint.every = 0
  config.checkpoint.keep = 1
  config.report.metrics = ("test/accuracy", "test/loss", "validation/loss")
  return config.lock()
