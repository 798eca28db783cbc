"""Weights that walk randomly, measured against the law, for runs of configs/gradient_noise/zero_init.py.

  python -m experiments.gradient_noise DIR [--layer=dense_10]

From zero, no gradient reaches a weight, so after t steps of SGD with noise of variance eta / (1 + s)^gamma

    std(w_t) = lr sqrt(sum_{s<t} eta / (1 + s)^gamma)

until the signal passes all layers (the escape, here: the loss falls 5 % below where it stood). Prints the
ratio of measured and predicted standard deviation of every group before its escape, and draws both to
DIR/plots/random_walk.png.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags

from experiments import terminal
from lib import reporting
from lib.core import UserError

_LAYER = flags.DEFINE_string("layer", None, "Kernel whose weights to look at; default: the one in the middle.")


def predicted_std(steps: np.ndarray, learning_rate: float, eta: float, gamma: float) -> np.ndarray:
  """Returns lr sqrt(sum_{s<t} eta / (1 + s)^gamma) at each step t, [T]."""
  variances = eta / (1.0 + np.arange(steps.max())) ** gamma
  return learning_rate * np.sqrt(np.concatenate([[0.0], np.cumsum(variances)])[steps])


def escape_step(steps: np.ndarray, loss: np.ndarray) -> float:
  """Returns the first logged step at which a member's loss [T] is 5 % below its early level; inf if never.

  The level is the median over the first tenth of the run, where the output bias has settled on the class
  frequencies and nothing else has moved.
  """
  level = np.median(loss[: max(3, len(loss) // 10)])
  below = np.flatnonzero(loss < 0.95 * level)
  return float(steps[below[0]]) if len(below) else np.inf


def ratios_before_escape(rows: Sequence[Mapping[str, Any]], members: Sequence[int], name: str, law: Any) -> np.ndarray:
  """Returns measured / predicted standard deviations of all members at all steps before their escape."""
  steps, measured = reporting.series(rows, name, members)
  logged, losses = reporting.series(rows, "loss", members)
  kept = [(steps > 0) & (steps < escape_step(logged, loss)) for loss in losses]
  return np.concatenate([values[keep] / law(steps)[keep] for values, keep in zip(measured, kept)])


def main(argv: Sequence[str]) -> None:
  if len(argv) != 2:
    raise UserError("give one run directory: python -m experiments.gradient_noise DIR.")
  directory = pathlib.Path(argv[1])
  if not (directory / "results.json").exists():
    raise UserError(f"{directory} is not a finished run (it has no results.json); train it to its end first.")
  results, config = reporting.read_json(directory / "results.json"), reporting.read_json(directory / "config.json")
  rows = reporting.read_rows(directory / "metrics.jsonl")
  name = _metric_name(rows, _LAYER.value)
  table, measured, theory, losses = [], {}, {}, {}
  for group in results["groups"]:
    eta = group["values"].get("eta", config["gradients"]["noise"]["eta"])
    lr = group["values"].get("lr", config["optimizer"]["learning_rate"])
    law = lambda steps, lr=lr, eta=eta: predicted_std(steps, lr, eta, config["gradients"]["noise"]["gamma"])
    steps, values = reporting.series(rows, name, group["members"])
    measured[group["label"]], losses[group["label"]] = (steps, values), reporting.series(rows, "loss", group["members"])
    if eta == 0:
      table.append([group["label"], len(values), f"largest std(w) = {values.max():.3g}", "–", "–"])
      continue
    theory[f"{group['label']}: law"] = (steps, law(steps))
    ratios = ratios_before_escape(rows, group["members"], name, law)
    escapes = [escape_step(losses[group["label"]][0], loss) for loss in losses[group["label"]][1]]
    first_last = f"{min(escapes):.0f} to {max(escapes):.0f}"
    table.append([group["label"], len(values), f"{ratios.mean():.4f}", f"{ratios.min():.4f} to {ratios.max():.4f}",
                  first_last])
  headers = ["group", "n", "measured / law before escape", "range over members and steps", "escape at step"]
  print(reporting.markdown_table(headers, table))
  plot = reporting.curves(directory / "plots" / "random_walk.png", [
    reporting.Panel(f"Weights of {name.split('/')[-3]}", "standard deviation", measured, theory=theory),
    reporting.Panel("Training loss", "cross-entropy (nats)", losses),
  ])
  print(f"\n{plot}")


def _metric_name(rows: Sequence[Mapping[str, Any]], layer: str | None) -> str:
  known = list(dict.fromkeys(k for row in rows for k in row if k.endswith("kernel/std")))
  if not known:
    raise UserError("the run has no weight statistics; add the probe {'name': 'weight_statistics', 'every': 20}.")
  chosen = known[len(known) // 2] if layer is None else next((k for k in known if layer in k), None)
  if chosen is None:
    raise UserError(f"--layer={layer} is in no metric; known: {', '.join(known)}.")
  return chosen


if __name__ == "__main__":
  terminal.run(main, takes_arguments=True)
