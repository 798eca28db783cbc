"""The gain of merging a VanillaNet: the time of its training form, in evaluation mode, against its deployed form.

  python -m experiments.benchmarks.deploy [--model=vanillanet_6] [--side=224] [--batch=1,8] [--act_num=3] [--out=DIR]

Every round times each form once, one after the other, so ratios are of neighbours in time; reported are medians over
rounds after a warm-up. The bounds are the ratios of the two forms' multiply-adds and of their parameters' bytes: a
large batch nears the first, a single image on a machine that waits for memory the second.
"""

import pathlib
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import flags

from nurture import models, reporting, terminal
from nurture.core import UserError, trees

_MODEL = flags.DEFINE_string("model", "vanillanet_6", "A row of MODELS with a deployed form.")
_SIDE = flags.DEFINE_integer("side", 224, "Side of the images in pixels.", lower_bound=1)
_BATCH = flags.DEFINE_list("batch", ["1", "8"], "Batch sizes.", **terminal.SHARED)
_CLASSES = flags.DEFINE_integer("classes", 1000, "Classes.", lower_bound=1, **terminal.SHARED)
_ACT_NUM = flags.DEFINE_integer("act_num", None, "n of the series activation; 0 leaves the products almost alone.")
_ROUNDS = flags.DEFINE_integer("rounds", 15, "Times that each form is measured.", lower_bound=1, **terminal.SHARED)
_OUT = flags.DEFINE_string("out", "runs/benchmark_deploy", "Directory for results.json.", **terminal.SHARED)


def seconds(run: Callable[[], jax.Array]) -> float:
  """Returns how long one call takes."""
  began = time.perf_counter()
  jax.block_until_ready(run())
  return time.perf_counter() - began


def multiply_adds(function: Callable, *args: object) -> float:
  """Returns half the operations of a call, by jax's cost analysis."""
  return jax.jit(function).lower(*args).cost_analysis()["flops"] / 2


def compare(
  name: str, side: int, batch: int, num_classes: int, rounds: int, fields: Mapping[str, Any] | None = None
) -> dict[str, float]:
  """Returns times, ratios and bounds for one batch size; `fields` override the row's."""
  module = models.build(name, num_classes=num_classes, **(fields or {}))
  if not hasattr(module, "to_deploy"):
    raise UserError(f"--model={name} has no deployed form; take a VanillaNet, such as vanillanet_6.")
  x = jax.random.normal(jax.random.key(0), (batch, side, side, 3))
  variables = jax.jit(module.init)(jax.random.key(1), x[:1])
  merged, deployed = module.to_deploy(variables), module.deployed()
  forms = {
    "training": (lambda v, x: module.apply(v, x).logits, variables),
    "deployed": (lambda v, x: deployed.apply(v, x).logits, merged),
  }
  programs = {form: jax.jit(function) for form, (function, _) in forms.items()}
  runs = {form: (lambda form=form, tree=tree: programs[form](tree, x)) for form, (_, tree) in forms.items()}
  a, b = (np.asarray(run()) for run in runs.values())  # compiles and warms up
  times = {form: [] for form in forms}
  for _ in range(rounds):
    for form, run in runs.items():
      times[form].append(seconds(run))
  cost = {form: multiply_adds(function, tree, x) for form, (function, tree) in forms.items()}
  size = {form: trees.num_bytes(tree) for form, (_, tree) in forms.items()}
  return {
    "batch": batch,
    "training_ms": 1e3 * statistics.median(times["training"]),
    "deployed_ms": 1e3 * statistics.median(times["deployed"]),
    "speedup": statistics.median(s / t for s, t in zip(times["training"], times["deployed"])),
    "bound_by_multiply_adds": cost["training"] / cost["deployed"],
    "bound_by_bytes": size["training"] / size["deployed"],
    "difference": float(np.abs(a - b).max() / np.abs(a).max()),
  }


def main(argv: Sequence[str]) -> None:
  del argv
  if not all(batch.isdigit() and int(batch) for batch in _BATCH.value):
    raise UserError(f"--batch={','.join(_BATCH.value)} are no batch sizes; give whole numbers from 1, such as 1,8.")
  fields = {} if _ACT_NUM.value is None else {"act_num": _ACT_NUM.value}
  rows = [compare(_MODEL.value, _SIDE.value, int(b), _CLASSES.value, _ROUNDS.value, fields) for b in _BATCH.value]
  head = ["batch", "training form, ms", "deployed, ms", "speed-up", "bound by operations", "by bytes", "difference"]
  cells = [[f"{row[key]:.4g}" for key in row] for row in rows]
  print(reporting.markdown_table(head, cells))
  print(f"\n{_MODEL.value} at {_SIDE.value} x {_SIDE.value}, float32, {jax.devices()[0].device_kind}, medians of "
        f"{_ROUNDS.value} paired rounds, jax {jax.__version__}.")
  out = pathlib.Path(_OUT.value)
  out.mkdir(parents=True, exist_ok=True)
  reporting.write_json(out / "results.json", {"name": _MODEL.value, "side": _SIDE.value, "rows": rows})


if __name__ == "__main__":
  terminal.run(main)
