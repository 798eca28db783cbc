"""Weights that walk randomly, measured against the law, for runs of configs/gradient_noise/zero_init.py.

  python -m experiments.studies.gradient_noise DIR [--layer=dense_10]

From zero, no gradient reaches a weight, so after t steps of SGD with noise of variance eta / (1 + s)^gamma

    std(w_t) = lr sqrt(sum_{s<t} eta / (1 + s)^gamma)

until the signal passes all layers (the escape, here: the loss falls 5 % below where it stood). Prints the
ratio of measured and predicted standard deviation of every group before its escape, and draws both to
DIR/plots/random_walk.png.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags

from nurture import reporting, terminal
from nurture.core import UserError
from nurture.reporting import schema

_LAYER = flags.DEFINE_string("layer", None, "Kernel whose weights to look at; default: the one in the middle.")


# What is read of a config.
_READ = {
  "gradients": {"noise": {"eta": schema.NUMBER, "gamma": schema.NUMBER}},
  "optimizer": {"learning_rate": schema.NUMBER},
}


@dataclasses.dataclass(frozen=True)
class Walk:
  """A group of members whose weights are moved by the same noise."""

  label: str
  members: tuple[int, ...]
  learning_rate: float
  eta: float
  gamma: float

  def law(self, steps: np.ndarray) -> np.ndarray:
    """Returns the predicted standard deviation at each step, [T]."""
    return predicted_std(steps, self.learning_rate, self.eta, self.gamma)


def predicted_std(steps: np.ndarray, learning_rate: float, eta: float, gamma: float) -> np.ndarray:
  """Returns lr sqrt(sum_{s<t} eta / (1 + s)^gamma) at each step t, [T]."""
  variances = eta / (1.0 + np.arange(steps.max(initial=0))) ** gamma
  return learning_rate * np.sqrt(np.concatenate([[0.0], np.cumsum(variances)])[steps])


def escape_step(steps: np.ndarray, loss: np.ndarray) -> float:
  """Returns the first logged step at which a member's loss [T] is 5 % below its early level; inf if never.

  The level is the median over the first tenth of the run, where the output bias has settled on the class
  frequencies and nothing else has moved.
  """
  if not len(loss):
    return np.inf
  level = np.median(loss[: max(3, len(loss) // 10)])
  below = np.flatnonzero(loss < 0.95 * level)
  return float(steps[below[0]]) if len(below) else np.inf


def ratios_before_escape(rows: Sequence[Mapping[str, Any]], members: Sequence[int], name: str, law: Any) -> np.ndarray:
  """Returns measured / predicted standard deviations of all members at all steps before their escape."""
  steps, measured = reporting.series(rows, name, members)
  logged, losses = reporting.series(rows, "loss", members)
  kept = [(steps > 0) & (steps < escape_step(logged, loss)) for loss in losses]
  return np.concatenate([values[keep] / law(steps)[keep] for values, keep in zip(measured, kept)])


def _largest(values: np.ndarray) -> float:
  return np.max(values, where=np.isfinite(values), initial=0.0)


def read(directory: pathlib.Path) -> tuple[list[Walk], list[dict[str, Any]]]:
  """Returns the groups of a finished run with their noise, and its rows.

  Raises:
    UserError: if it is not a run of zero_init.py, is not finished, or a file is damaged.
  """
  results = reporting.read_results(directory)
  other = "give a run of configs/gradient_noise/zero_init.py"
  config = reporting.read_config(directory, _READ, fix=other)
  noise, walks = config["gradients"]["noise"], []
  for group in results["groups"]:
    eta = group["values"].get("eta", noise["eta"])
    lr = group["values"].get("lr", config["optimizer"]["learning_rate"])
    if not schema.is_number(eta) or not schema.is_number(lr):
      raise UserError(f"the group {group['label']!r} of {directory} has an eta or lr that is no number; {other}.")
    walks.append(Walk(group["label"], tuple(group["members"]), lr, eta, noise["gamma"]))
  rows = reporting.read_rows(directory / "metrics.jsonl")
  if late := next((row for row in rows if row["step"] > results["steps"]), None):
    raise UserError(f"{directory}/metrics.jsonl has a row of step {late['step']}, but the run has {results['steps']} "
                    "steps; restore the file from a copy.")
  return walks, rows


def main(argv: Sequence[str]) -> None:
  if len(argv) != 2:
    raise UserError("give one run directory: python -m experiments.studies.gradient_noise DIR.")
  directory = pathlib.Path(argv[1])
  walks, rows = read(directory)
  name = _metric_name(rows, _LAYER.value)
  table, measured, theory, losses = [], {}, {}, {}
  for walk in walks:
    steps, values = measured[walk.label] = reporting.series(rows, name, walk.members)
    losses[walk.label] = reporting.series(rows, "loss", walk.members)
    if walk.eta == 0:
      table.append([walk.label, len(values), f"largest std(w) = {_largest(values):.3g}", "–", "–"])
      continue
    theory[walk.label] = (steps, walk.law(steps))
    ratios = ratios_before_escape(rows, walk.members, name, walk.law)
    ratios = ratios[np.isfinite(ratios)]  # of a member that died there is no number
    escapes = [escape_step(losses[walk.label][0], loss) for loss in losses[walk.label][1]]
    table.append([
      walk.label, len(values), *((f"{ratios.mean():.4f}", f"{ratios.min():.4f} to {ratios.max():.4f}")
      if len(ratios) else ("–", "–")), f"{min(escapes):.0f} to {max(escapes):.0f}",
    ])
  headers = ["group", "n", "measured / law before escape", "range over members and steps", "escape at step"]
  print(reporting.markdown_table(headers, table))
  plot = reporting.curves(directory / "plots" / "random_walk.png", [
    reporting.Panel(f"Weights of {name.split('/')[-3]}", "standard deviation", measured, theory=theory),
    reporting.Panel("Training loss", "cross-entropy (nats)", losses),
  ], of="seeds", theory="law of the random walk")
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
