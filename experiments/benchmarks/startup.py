"""The cost of starting up: the time to import each room, and whether anything heavy comes along.

  python -m experiments.benchmarks.startup [--rounds=5]

Every import runs in a process of its own, with warm file caches; reported are medians beside those of jax alone.
"""

import json
import statistics
import subprocess
import sys
from collections.abc import Sequence

import jax
from absl import flags

from nurture import reporting, terminal

_ROUNDS = flags.DEFINE_integer("rounds", 5, "Times that every import is measured.", lower_bound=1, **terminal.SHARED)

MODULES = (
  "jax", "flax.linen", "nurture.core", "nurture.data", "nurture.models", "nurture.transforms.losses",
  "nurture.probes", "nurture.training",
)
HEAVY = ("tensorflow", "tensorflow_datasets", "matplotlib", "sklearn", "orbax.checkpoint")
_CODE = """
import importlib, json, sys, time
began = time.perf_counter()
importlib.import_module(sys.argv[1])
print(json.dumps({"seconds": time.perf_counter() - began, "heavy": [m for m in sys.argv[2:] if m in sys.modules]}))
"""


def measure(module: str) -> dict:
  """Imports a module in a fresh process; returns {"seconds", "heavy": names of heavy modules that came along}."""
  done = subprocess.run([sys.executable, "-c", _CODE, module, *HEAVY], capture_output=True, text=True, check=True)
  return json.loads(done.stdout)


def main(argv: Sequence[str]) -> None:
  del argv
  measured = {module: [] for module in MODULES}
  for module in MODULES:
    measure(module)  # fills the file caches
  for _ in range(_ROUNDS.value):
    for module in MODULES:
      measured[module].append(measure(module))
  alone = statistics.median(m["seconds"] for m in measured["jax"])
  rows = []
  for module, values in measured.items():
    seconds = statistics.median(m["seconds"] for m in values)
    heavy = ", ".join(values[0]["heavy"]) or "nothing"
    rows.append([module, f"{seconds:.2f}", f"{seconds / alone:.2f}", heavy])
  print(reporting.markdown_table(["import", "seconds", "times jax", "heavy modules loaded"], rows))
  print(f"\nMedians of {_ROUNDS.value} processes each, Python {sys.version.split()[0]}, jax {jax.__version__}.")


if __name__ == "__main__":
  terminal.run(main)
