"""The time that each training transform adds to a step, against plain cross-entropy.

  python -m experiments.benchmarks.transforms [--depth=24] [--width=128] [--batch=128] [--rounds=9] [--out=DIR]

The MLP of the guidance study on 500 digits (configs/guidance/digits.py), Adam, one network. Every round times each
contender once, in turn, so ratios are of neighbours in time; reported are medians over rounds after a warm-up. The
guide and teacher are a residual CNN with seven activations, run in every step ("online") or looked up.
"""

import pathlib
import statistics
import time
from collections.abc import Sequence

import jax
from absl import flags

from nurture import data, reporting, terminal
from nurture.training.config import put
from nurture.training.experiment import Experiment, hyper_parameters
from nurture.training.programs import Programs

_DEPTH = flags.DEFINE_integer("depth", 24, "Hidden layers.", lower_bound=1, **terminal.SHARED)
_WIDTH = flags.DEFINE_integer("width", 128, "Units of a hidden layer.", lower_bound=1)
_BATCH = flags.DEFINE_integer("batch", 128, "Examples in a batch.", lower_bound=4, upper_bound=500, **terminal.SHARED)
_ROUNDS = flags.DEFINE_integer("rounds", 9, "Times that every contender is measured.", lower_bound=1, **terminal.SHARED)
_SECONDS = flags.DEFINE_float("seconds", 0.7, "Length of one measurement, about.", lower_bound=0.01, **terminal.SHARED)
_OUT = flags.DEFINE_string(
  "out", "runs/benchmark_transforms", "Directory for results.json and the plot.", **terminal.SHARED,
)

STEPS = 20  # in one dispatch
CE = {"name": "cross_entropy", "weight": 1.0}
GUIDANCE = {"name": "guidance", "weight": 1.0, "reference": "frozen"}
ELR = {"name": "elr", "weight": 1.0}
DISTILLATION = {
  "name": "distillation", "weight": 1.0, "teachers": ("frozen",), "teacher_temperature": 4.0,
  "student_temperature": 4.0, "form": "kl", "scale": "t_squared",
}
SMOOTHING = {"name": "label_smoothing", "alpha": 0.1, "convention": "uniform"}
NOISE = {"name": "annealed_noise", "eta": 0.01, "gamma": 0.55}
AVERAGE = {"name": "ema", "decay": 0.99}


def frozen(cache: str) -> dict:
  """Returns a references section with the CNN, whose outputs are kept as `cache` says."""
  return {"references": {"frozen": {"model": {"name": "resnet", "blocks": (1, 1, 1), "width": 16}, "cache": cache}}}


CONTENDERS = {
  "cross-entropy": {},
  "label smoothing": {"targets": {"smoothing": SMOOTHING}},
  "gradient noise": {"gradients": {"noise": NOISE}},
  "weight average": {"parameters": {"average": AVERAGE}},
  "ELR": {"losses": {"ce": CE, "elr": ELR}},
  "KL to running targets": {"losses": {"ce": CE, "kl": {"name": "target_divergence", "weight": 1.0}}},
  "forgetting events": {"losses": {"ce": CE, "events": {"name": "forgetting_events", "weight": 0.0}}},
  "distillation, looked up": {"losses": {"ce": CE, "kd": DISTILLATION}, **frozen("logits")},
  "distillation, online": {"losses": {"ce": CE, "kd": DISTILLATION}, **frozen("")},
  "guidance, cached Gram matrices": {"losses": {"ce": CE, "guide": GUIDANCE}, **frozen("pre")},
  "guidance, online": {"losses": {"ce": CE, "guide": GUIDANCE}, **frozen("")},
  "all, looked up": {
    "targets": {"smoothing": SMOOTHING}, "gradients": {"noise": NOISE}, "parameters": {"average": AVERAGE},
    "losses": {"ce": CE, "elr": ELR, "kd": DISTILLATION, "guide": GUIDANCE}, **frozen("pre"),
  },
}


def config() -> dict:
  """Returns the plain experiment."""
  return {
    "seed": 0, "steps": 1_000_000, "batch_size": _BATCH.value,
    "data": {
      "source": {"name": "digits"}, "seed": 0, "validation": 0, "subset": 500, "test_subset": 0, "label_noise": {},
      "noisy_validation": True, "normalize": "standardize", "normalize_labels": "none", "augment": {},
    },
    "model": {"name": "mlp", "depth": _DEPTH.value, "width": _WIDTH.value, "kernel_init": "lecun"},
    "scheduled": {}, "references": {}, "targets": {}, "losses": {"ce": CE}, "gradients": {},
    "optimizer": {"name": "adam", "learning_rate": 1e-3}, "parameters": {}, "probes": {},
    "evaluation": {"batch_size": 500, "parameters": ""},
    "ensemble": {"seeds": 1, "grid": {}, "chunk": 1, "map": "vmap"},
    "log_every": 100, "steps_per_dispatch": STEPS, "checkpoint": {"every": 0, "keep": 1}, "report": {"metrics": ()},
  }


class Contender:
  """One experiment in training."""

  def __init__(self, changes: dict):
    self.programs = Programs(Experiment.of(put(config(), changes), data.Reader("data")), 1)
    self.hp = jax.tree.map(lambda leaf: leaf[None], hyper_parameters(0))
    self.states = self.programs.init(self.hp)
    self.sums = self.programs.zeros(self.programs.shapes["sums"])

  def seconds_per_step(self, seconds: float) -> float:
    """Trains for about `seconds` and returns the time of a step."""
    taken, began = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - began) < seconds:
      self.states, self.sums = self.programs.steps(
        self.states, self.sums, self.hp, self.programs.fields, self.programs.arrays, length=STEPS
      )
      jax.block_until_ready(self.sums)
      taken += STEPS
    return elapsed / taken


def main(argv: Sequence[str]) -> None:
  del argv
  contenders, times = {}, {name: [] for name in CONTENDERS}
  with reporting.Progress(len(CONTENDERS) * (1 + _ROUNDS.value), "transforms") as progress:
    for i, (name, changes) in enumerate(CONTENDERS.items()):
      contenders[name] = Contender(changes)
      contenders[name].seconds_per_step(0.2)  # compiles and warms up
      progress.update(i + 1, None)
    for round_ in range(_ROUNDS.value):
      for i, (name, contender) in enumerate(contenders.items()):
        times[name].append(contender.seconds_per_step(_SECONDS.value))
        progress.update((1 + round_) * len(CONTENDERS) + i + 1, None)
  plain, rows, ratios = times["cross-entropy"], [], {}
  for name, taken in times.items():
    ratios[name] = [a / b for a, b in zip(taken, plain)]
    rows.append([
      name, f"{1e6 * statistics.median(taken):,.0f}", f"{statistics.median(ratios[name]):.3f}",
      f"{min(ratios[name]):.3f} to {max(ratios[name]):.3f}",
    ])
  table = reporting.markdown_table(["transform", "µs/step", "times plain", "range"], rows)
  print(table)
  print(f"\n{_DEPTH.value} x {_WIDTH.value} MLP, batch {_BATCH.value}; {jax.devices()[0].device_kind}, "
        f"jax {jax.__version__}, medians of {_ROUNDS.value} rounds.")
  out = pathlib.Path(_OUT.value)
  reporting.write_json(out / "results.json", {"seconds_per_step": times, "ratios": ratios})
  panel = reporting.Intervals("Time of a step", "times plain", ratios)
  print(reporting.intervals(out / "overhead.png", [panel], of="rounds"))


if __name__ == "__main__":
  terminal.run(main)
