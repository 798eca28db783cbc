"""Member-steps per second of a vmapped ensemble, beside the same network trained one after another in PyTorch.

  python -m experiments.benchmarks.ensemble [--members=1,16,128] [--rounds=7] [--out=DIR]

The 20 x 50 ReLU network of the gradient-noise study on MNIST-shaped random data, batch 32, SGD with clipping
by the global norm and annealed noise. Every round times each contender once, one after the other, so ratios
are of neighbours in time; reported are medians over rounds after a warm-up. PyTorch (pip install torch==2.13.0,
its CPU build) is left out if it is not installed. The share is the arithmetic of the matrix products
alone, as a part of the rate of one large float32 product measured in the same rounds.
"""

import importlib.util
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from nurture import reporting, terminal
from nurture.data import Classification, Dataset, Split
from nurture.training.experiment import Experiment
from nurture.training.programs import Programs, members_at_once

_MEMBERS = flags.DEFINE_list("members", ["1", "16", "128"], "Sizes of the ensemble.")
_ROUNDS = flags.DEFINE_integer("rounds", 7, "Times that every contender is measured.", lower_bound=1, **terminal.SHARED)
_SECONDS = flags.DEFINE_float("seconds", 1.5, "Length of one measurement, about.", lower_bound=0.01, **terminal.SHARED)
_OUT = flags.DEFINE_string(
  "out", "runs/benchmark_ensemble", "Directory for results.json and the plot.", **terminal.SHARED,
)

DEPTH, WIDTH, BATCH, INPUTS, CLASSES, EXAMPLES = 20, 50, 32, 784, 10, 10_000
LEARNING_RATE, MAX_NORM, ETA, GAMMA = 0.1, 10.0, 0.01, 0.55
STEPS = 50  # in one dispatch

CONFIG = {
  "seed": 0, "steps": 1_000_000, "batch_size": BATCH,
  "data": {"source": {"name": "random"}, "normalize": "unit", "augment": {}},
  "model": {"name": "mlp", "depth": DEPTH, "width": WIDTH, "kernel_init": "he"},
  "scheduled": {}, "references": {}, "targets": {},
  "losses": {"ce": {"name": "cross_entropy", "weight": 1.0}},
  "gradients": {
    "clip": {"name": "clip_by_global_norm", "max_norm": MAX_NORM},
    "noise": {"name": "annealed_noise", "eta": ETA, "gamma": GAMMA},
  },
  "optimizer": {"name": "sgd", "learning_rate": LEARNING_RATE},
  "parameters": {}, "probes": {}, "evaluation": {"batch_size": BATCH, "parameters": ""},
  "ensemble": {"seeds": 1, "grid": {}, "chunk": 0, "map": "vmap"},
  "log_every": 100, "steps_per_dispatch": STEPS, "checkpoint": {"every": 0, "keep": 1}, "report": {"metrics": ()},
}


def flops_per_step() -> int:
  """Returns the multiply-adds (two operations each) of the matrix products of one step of one member.

  Forward, the gradient of the weights, and the gradient of the inputs of every layer but the first.
  """
  sizes = [INPUTS, *[WIDTH] * DEPTH, CLASSES]
  products = [a * b for a, b in zip(sizes[:-1], sizes[1:])]
  return 2 * BATCH * (3 * sum(products) - products[0])


def random_dataset(seed: int = 0) -> Dataset:
  """Returns MNIST-shaped noise: the timing does not depend on what the pixels show."""
  generator = np.random.default_rng(seed)
  images = generator.integers(0, 256, (EXAMPLES, 28, 28, 1), dtype=np.uint8)
  split = Split.clean(images, generator.integers(0, CLASSES, EXAMPLES))
  return Dataset.read("random", split, split, Classification(tuple(map(str, range(CLASSES)))))


class Ensemble:
  """Our contender: `members` networks, in chunks of the size that a run would choose."""

  def __init__(self, members: int):
    dataset = random_dataset()
    experiment = Experiment.of(CONFIG, lambda section: dataset)
    chunk = members_at_once(experiment, members)
    sizes = [chunk] * (members // chunk) + [members % chunk] * (members % chunk > 0)
    programs = {size: Programs(experiment, size) for size in set(sizes)}
    self.members, self.chunks = members, []
    for i, size in enumerate(sizes):
      hp = {"seed": jnp.arange(size, dtype=jnp.uint32) + 1000 * i, "values": {}}
      states, sums = programs[size].init(hp), programs[size].zeros(programs[size].shapes["sums"])
      self.chunks.append((programs[size], states, sums, hp))

  def run(self) -> int:
    """Takes STEPS steps of every member; returns the number of member-steps."""
    for i, (programs, states, sums, hp) in enumerate(self.chunks):
      states, sums = programs.steps(states, sums, hp, programs.fields, {}, length=STEPS)
      self.chunks[i] = (programs, states, sums, hp)
    jax.block_until_ready([chunk[1] for chunk in self.chunks])
    return STEPS * self.members

  def rate(self, seconds: float) -> float:
    """Returns member-steps per second over about `seconds`."""
    return _rate(self.run, seconds)


class Torch:
  """One network after another in PyTorch, in a process of its own (experiments.benchmarks.torch_sequential)."""

  def __init__(self):
    sizes = ",".join(map(str, [INPUTS, *[WIDTH] * DEPTH, CLASSES]))
    numbers = map(str, (BATCH, EXAMPLES, LEARNING_RATE, MAX_NORM, ETA, GAMMA))
    command = [sys.executable, "-m", "experiments.benchmarks.torch_sequential", sizes, *numbers]
    self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

  def rate(self, seconds: float) -> float:
    """Returns steps per second over about `seconds`."""
    self.process.stdin.write(f"{seconds}\n")
    self.process.stdin.flush()
    return float(self.process.stdout.readline())


class Product:
  """The rate of one large float32 matrix product, in operations."""

  def __init__(self, n: int = 2048):
    self.n, self.a = n, jax.random.normal(jax.random.key(0), (n, n))
    self.product = jax.jit(lambda a: a @ a)

  def run(self) -> int:
    """Multiplies once; returns the number of operations."""
    self.product(self.a).block_until_ready()
    return 2 * self.n**3

  def rate(self, seconds: float) -> float:
    """Returns operations per second over about `seconds`."""
    return _rate(self.run, seconds)


def _rate(run: Callable[[], int], seconds: float) -> float:
  units, began = 0, time.perf_counter()
  while (elapsed := time.perf_counter() - began) < seconds:
    units += run()
  return units / elapsed


def main(argv: Sequence[str]) -> None:
  del argv
  contenders = {f"ours, {m} member{'s' * (m != 1)}": Ensemble(m) for m in map(int, _MEMBERS.value)}
  if importlib.util.find_spec("torch"):
    contenders["PyTorch, one by one"] = Torch()
  else:
    print("PyTorch is not installed; pip install torch==2.13.0 (its CPU build) to measure beside it.")
  product = Product()
  for contender in [*contenders.values(), product]:
    contender.rate(0.5)  # compiles and warms up
  rates = {name: [] for name in [*contenders, "product"]}
  for _ in range(_ROUNDS.value):
    for name, contender in [*contenders.items(), ("product", product)]:
      rates[name].append(contender.rate(_SECONDS.value))

  ceiling = statistics.median(rates["product"])
  rows = []
  for name in contenders:
    shares = [flops_per_step() * ours / full for ours, full in zip(rates[name], rates["product"])]
    ratios = [ours / theirs for ours, theirs in zip(rates[name], rates.get("PyTorch, one by one", []))]
    median = statistics.median(rates[name])
    rows.append([
      name, f"{median:,.0f}", f"{1e6 / median:,.0f}", f"{100 * statistics.median(shares):.0f} %",
      f"{statistics.median(ratios):.2f}" if ratios else "–",
      f"{min(ratios):.2f} to {max(ratios):.2f}" if ratios else "–",
    ])
  headers = ["contender", "member-steps/s", "µs/member-step", "share of matmul rate", "times PyTorch", "range"]
  print(reporting.markdown_table(headers, rows))
  floor = 1e6 * flops_per_step() / ceiling
  print(f"\nOne step is {flops_per_step() / 1e6:.1f} MFLOP in matrix products; a 2048-cubed product runs at "
        f"{ceiling / 1e9:,.0f} GFLOP/s here, so the arithmetic takes {floor:,.0f} µs at least. "
        f"{jax.devices()[0].device_kind}, jax {jax.__version__}, medians of {_ROUNDS.value} rounds.")
  out = pathlib.Path(_OUT.value)
  reporting.write_json(out / "results.json", {"rates": rates, "flops_per_step": flops_per_step(), "table": rows})
  print(f"{out / 'results.json'}")


if __name__ == "__main__":
  terminal.run(main)
