"""Guidance on the digits: does a convolutional guide train a deep plain MLP, and is it the convolutions that do it?

  python -m experiments.train --config=configs/guidance/digits.py:guides --workdir=runs/digits_guides
  python -m experiments.train --config=configs/guidance/digits.py:unguided --workdir=runs/digits_unguided
  python -m experiments.train --config=configs/guidance/digits.py:guided --workdir=runs/digits_guided
  python -m experiments.train --config=configs/guidance/digits.py:batches --workdir=runs/digits_batches
  python -m experiments.tuned runs/digits_unguided runs/digits_guided --over=lr --pool=guide

The target is an MLP of 24 layers of 128 ReLU units without normalization, on 500 training images, for 500 steps of
Adam; the guide a residual CNN of three blocks, trained (part "guides", three seeds) or not, whose Gram matrices are
computed once. 5 target seeds x 3 guide seeds an arm, each arm at the learning rate that is best on 500 validation
images. The first three take 1, 7 and 45 min on 2 CPU cores beside other jobs; the numbers
stand in RESULTS.md.

Subramaniam et al. 2024 (arXiv:2410.20035) report that an untrained guide makes "untrainable" networks train. The arms
"same architecture", "random MLP" and "input" have no convolutions; "distillation" has the same guide, by its logits.
"""

from configs import base

PARTS = ("guides", "unguided", "guided", "batches")

STEPS = 500
RELEASE = 100  # steps of guidance, where it is released
CNN = {"name": "resnet", "blocks": (1, 1, 1), "width": 16, "kernel_init": "he"}
TARGET = {
  "name": "mlp", "depth": 24, "width": 128, "activation": "relu", "norm": "none", "kernel_init": "lecun",
}
RANDOM_MLP = {"name": "mlp", "depth": 7, "width": 128, "activation": "relu", "norm": "layer", "kernel_init": "he"}


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


# Arm: (references, losses, augmentations, normalization of the target).
TRAINED = reference(run="runs/digits_guides")
GUIDED = {
  "untrained guide": (reference(), losses(1.0), {}, "none"),
  "trained guide": (TRAINED, losses(1.0), {}, "none"),
  "untrained, released": (reference(), losses(1.0, stop=RELEASE), {}, "none"),
  "untrained, align first": (reference(), losses(1.0, stop=RELEASE, start_ce=RELEASE), {}, "none"),
  "untrained, align first on noise": (
    reference(cache=""), losses(1.0, stop=RELEASE, start_ce=RELEASE),
    {"noise": {"name": "noise_input", "stop_step": RELEASE}}, "none",
  ),
  "same architecture": (reference(TARGET), losses(1.0), {}, "none"),
  "random MLP": (reference(RANDOM_MLP), losses(1.0), {}, "none"),
  "distillation, trained": (TRAINED, losses(distillation=1.0), {}, "none"),
  "distillation, untrained": (reference(), losses(distillation=1.0), {}, "none"),
  "layer norm, untrained guide": (reference(), losses(1.0), {}, "layer"),
}
# The input as a guide of one tap, compared with the layers that a guide of seven is compared with.
SPREAD = tuple((0, layer) for layer in (0, 4, 8, 12, 15, 19, 23))
UNGUIDED = {
  "base": ({}, losses(), {}, "none"),
  "input": ({}, losses(1.0, guide="input", layer_map=SPREAD), {}, "none"),
  "layer norm": ({}, losses(), {}, "layer"),
}


def grid(arms, rates):
  """Returns the axes of a grid of arms and learning rates."""
  return {
    "arm": {
      "path": ("references", "losses", "data.augment", "model.norm"),
      "levels": tuple(arms.values()),
      "names": tuple(arms),
    },
    "lr": {"path": "optimizer.learning_rate", "levels": rates},
  }


def get_config(part="guided"):
  if part not in PARTS:
    raise ValueError(f"digits.py has the parts {', '.join(PARTS)}, not {part!r}")
  axes = {
    "guides": {},
    "unguided": grid(UNGUIDED, (3e-4, 1e-3, 2e-3, 4e-3)),
    "guided": grid(GUIDED, (5e-4, 1e-3, 2e-3)) | {
      "guide": {"path": ("references.guide.seed", "references.guide.member"), "levels": ((0, 0), (1, 1), (2, 2))},
    },
    "batches": {
      "batch": {"path": "batch_size", "levels": (32, 500)},
      **grid({name: (UNGUIDED | GUIDED)[name] for name in ("base", "untrained guide")}, (1e-4, 3e-4, 1e-3, 2e-3, 4e-3)),
    },
  }
  config = base.get_config()
  config.steps = STEPS
  config.batch_size = 128  # examples; the value of biased CKA depends on it
  config.data.source = {"name": "digits"}
  config.data.validation = 500
  config.data.subset = 500
  config.model = CNN if part == "guides" else TARGET
  config.references = reference() if part == "guided" else {}
  config.losses = losses()
  config.optimizer = {"name": "adam", "learning_rate": 1e-3}
  config.probes = {
    "train": {"name": "accuracy", "split": "train", "every": 0},
    "validation": {"name": "accuracy", "split": "validation", "every": 0},
    "test": {"name": "accuracy", "split": "test", "every": 0},
  }
  config.evaluation.batch_size = 500
  config.ensemble.seeds = 3 if part in ("guides", "batches") else 5
  config.ensemble.grid = axes[part]
  config.checkpoint.every = 0
  config.checkpoint.keep = 1
  config.report.metrics = ("test/accuracy", "test/loss", "validation/loss")
  return config.lock()
