"""The MNIST table of the gradient-noise paper from a run of configs/gradient_noise/table1.py, ours beside theirs.

  python -m experiments.gradient_noise_table DIR

For every row and noise level: last-step test accuracy in % at each learning rate (mean ± standard error over
seeds), and over all runs of both learning rates together, which is what the paper reports: mean and best.
"""

import pathlib
from collections.abc import Sequence

from experiments import terminal
from lib import reporting
from lib.core import UserError

# Neelakantan et al. 2015, arXiv:1511.06807, table 1: (row, noise) -> (best, mean) in %, of 20 seeds x 2 rates.
PUBLISHED = {
  ("1", False): (89.9, 43.1), ("1", True): (96.7, 52.7),
  ("2", False): (90.0, 46.3), ("2", True): (96.7, 52.3),
  ("3", False): (95.7, 51.6), ("3", True): (97.0, 53.6),
  ("4", False): (97.4, 92.1), ("4", True): (97.5, 92.2),
  ("5", False): (97.4, 91.7), ("5", True): (97.2, 91.7),
  ("6", False): (11.4, 10.1), ("6", True): (94.5, 49.7),
}
METRIC = "test/accuracy"


def main(argv: Sequence[str]) -> None:
  if len(argv) != 2:
    raise UserError("give one run directory: python -m experiments.gradient_noise_table DIR.")
  results = reporting.read_json(pathlib.Path(argv[1]) / "results.json")
  cells: dict[tuple[str, float], dict[float, list[float | None]]] = {}
  for member in results["members"]:
    values = member["values"]
    if not {"row", "eta", "lr"} <= set(values):
      raise UserError(f"{argv[1]} is not a run of configs/gradient_noise/table1.py: its grid has no row, eta and lr.")
    accuracy = None if member["died_at"] is not None else 100 * member["metrics"][METRIC]
    cells.setdefault((values["row"], values["eta"]), {}).setdefault(values["lr"], []).append(accuracy)
  rates = sorted({lr for cell in cells.values() for lr in cell}, reverse=True)
  rows = []
  for (row, eta), cell in cells.items():
    together = [accuracy for lr in rates for accuracy in cell[lr]]
    best, mean = PUBLISHED.get((row.split()[0], eta > 0), ("–", "–"))
    alive = [accuracy for accuracy in together if accuracy is not None]
    rows.append([
      row, f"{eta:g}", *(_shown(cell[lr]) for lr in rates), _shown(together), f"{max(alive):.1f}" if alive else "–",
      mean, best,
    ])
  headers = ["row", "η", *(f"lr {lr:g}" for lr in rates), "mean of all", "best", "paper: mean", "paper: best"]
  print(reporting.markdown_table(headers, rows))
  seeds = len(next(iter(cells.values()))[rates[0]])
  print(f"\nTest accuracy in % after {results['steps']:,} steps, {seeds} seeds at each learning rate.")


def _shown(values: Sequence[float | None]) -> str:
  summary = reporting.summarize(values)
  dead = f" ({summary['dead']} dead)" if summary["dead"] else ""
  return reporting.format_mean_sem(summary["mean"], summary["sem"], summary["n"]) + dead


if __name__ == "__main__":
  terminal.run(main, takes_arguments=True)
