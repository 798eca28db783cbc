"""Guidance of a transformer by a recurrent network on parity: how many seeds solve it?

  python -m experiments.train --config=configs/guidance/parity.py:guides --workdir=runs/parity_guides
  python -m experiments.train --config=configs/guidance/parity.py:guided --workdir=runs/parity_guided
  python -m experiments.tuned runs/parity_guided --over=lr --solved=0.99

Strings of 2 to 24 bits, new ones at every step; the label is asked at the last bit. The target is a causal transformer
of two blocks; the guide a recurrent network, trained on the task (part "guides") or not, compared with every branch of
the transformer. Parity is all or nothing: a network is at 0.5, or has solved it. About 25 min on 2 CPU
cores beside other jobs, a pause of the run not counted.

Subramaniam et al. 2024 (arXiv:2410.20035) report 71.98 % for the transformer and 78.49 % with a trained guide.
"""

from configs import base

PARTS = ("guides", "guided")

GUIDE = {"name": "rnn", "width": 64, "kernel_init": "lecun", "recurrent_init": "orthogonal"}
CE = {"name": "cross_entropy", "weight": 1.0}
LOSSES = {"ce": CE, "guide": {
  "name": "guidance", "weight": 1.0, "reference": "guide", "taps": "add", "guide_taps": "tanh",
  "layer_map": ((0, 0), (0, 1), (0, 2), (0, 3)),
}}


def reference(run=""):
  """Returns the references section: the RNN, initialized from a seed or the member of a run."""
  return {"guide": {"model": GUIDE, "run": run, "member": 0, "seed": 0}}


# Arm: (references, losses).
ARMS = {
  "no guide": ({}, {"ce": CE}),
  "untrained guide": (reference(), LOSSES),
  "trained guide": (reference("runs/parity_guides"), LOSSES),
}


def get_config(part="guided"):
  if part not in PARTS:
    raise ValueError(f"parity.py has the parts {', '.join(PARTS)}, not {part!r}")
  transformer = {"name": "decoder", "width": 64, "depth": 2, "heads": 4, "max_length": 24, "positions": "sinusoidal"}
  grid = {
    "arm": {"path": ("references", "losses"), "levels": tuple(ARMS.values()), "names": tuple(ARMS)},
    "lr": {"path": "optimizer.learning_rate", "levels": (3e-4, 1e-3, 3e-3)},
  }
  config = base.get_config()
  config.steps = 1500
  config.batch_size = 64
  config.data.source = {
    "name": "parity", "min_length": 2, "max_length": 24, "num_examples": 1064, "test_examples": 1000,
    "seed": config.get_ref("seed"),
  }
  config.data.validation = 1000
  config.data.normalize = "none"
  config.data.augment = {"fresh": {"name": "regenerate"}}  # new strings at every step
  config.model = GUIDE if part == "guides" else transformer
  config.gradients = {"clip": {"name": "clip_by_global_norm", "max_norm": 1.0}}
  config.optimizer = {"name": "adam", "learning_rate": 3e-3 if part == "guides" else 1e-3}
  config.probes = {
    "validation": {"name": "accuracy", "split": "validation", "every": 0},
    "test": {"name": "accuracy", "split": "test", "every": 100},
  }
  config.ensemble.seeds = 1 if part == "guides" else 5
  config.ensemble.grid = {} if part == "guides" else grid
  config.checkpoint.keep = 1
  return config.lock()
