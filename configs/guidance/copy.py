"""Guidance of an RNN that does not learn to copy, and the initialization that makes it learn without a guide.

  python -m experiments.train --config=configs/guidance/copy.py:guides --workdir=runs/copy_guides
  python -m experiments.train --config=configs/guidance/copy.py:guided --workdir=runs/copy_guided
  python -m experiments.tuned runs/copy_guided --over=lr --solved=0.99

The RNN of configs/sequences/copy_rnn.py, three layers of 128 tanh units, with PyTorch's uniform recurrent weights; the
guide is a transformer, trained on the task (part "guides") or not. The arm "orthogonal" has no guide and another
initialization: without it, what a guide does cannot be told from what a better start does. Accuracy is of digits, 0.1
by chance; a network has solved the task if it reaches 0.99. Part "guided": 27 min on 2 CPU cores beside other jobs.
0.999 from orthogonal weights, 0.10 by both guides and without one.

Subramaniam et al. 2024 (arXiv:2410.20035) report 14.35 % for the RNN, which is chance with their counting, 23.27 % with
a trained guide and 42.56 % with an untrained one.
"""

from configs import base

PARTS = ("guides", "guided")

GUIDE = {"name": "decoder", "width": 128, "depth": 2, "heads": 4, "max_length": 41, "positions": "sinusoidal"}
CE = {"name": "cross_entropy", "weight": 1.0}
LOSSES = {"ce": CE, "guide": {
  "name": "guidance", "weight": 1.0, "reference": "guide", "taps": "tanh", "guide_taps": "add", "layer_map": "uniform",
}}


def reference(run=""):
  """Returns the references section: the transformer, initialized from a seed or the member of a run."""
  return {"guide": {"model": GUIDE, "run": run, "member": 0, "seed": 0}}


# Arm: (initialization of the recurrent weights, references, losses).
ARMS = {
  "uniform": ("torch_default", {}, {"ce": CE}),
  "orthogonal": ("orthogonal", {}, {"ce": CE}),
  "uniform, untrained guide": ("torch_default", reference(), LOSSES),
  "uniform, trained guide": ("torch_default", reference("runs/copy_guides"), LOSSES),
}


def get_config(part="guided"):
  if part not in PARTS:
    raise ValueError(f"copy.py has the parts {', '.join(PARTS)}, not {part!r}")
  rnn = {
    "name": "rnn", "depth": 3, "width": 128, "kernel_init": "lecun", "recurrent_init": "torch_default",
    "bias_init": "zeros",
  }
  grid = {
    "arm": {
      "path": ("model.recurrent_init", "references", "losses"), "levels": tuple(ARMS.values()), "names": tuple(ARMS),
    },
    "lr": {"path": "optimizer.learning_rate", "levels": (1e-3, 3e-3)},
  }
  config = base.get_config()
  config.steps = 1000
  config.batch_size = 64
  config.data.source = {
    "name": "copy", "min_length": 20, "max_length": 20, "num_symbols": 10, "end": False, "num_examples": 564,
    "test_examples": 500, "seed": config.get_ref("seed"),
  }
  config.data.validation = 500
  config.data.normalize = "none"
  config.data.augment = {"fresh": {"name": "regenerate"}}  # new strings at every step
  config.model = GUIDE if part == "guides" else rnn
  config.gradients = {"clip": {"name": "clip_by_global_norm", "max_norm": 1.0}}
  config.optimizer = {"name": "adam", "learning_rate": 1e-3}
  config.probes = {
    "validation": {"name": "accuracy", "split": "validation", "every": 0},
    "test": {"name": "accuracy", "split": "test", "every": 100},
  }
  config.evaluation.batch_size = 500
  config.ensemble.seeds = 1 if part == "guides" else 5
  config.ensemble.grid = {} if part == "guides" else grid
  config.checkpoint.keep = 1
  config.report.metrics = ("test/accuracy", "test/sequence_accuracy")
  return config.lock()
