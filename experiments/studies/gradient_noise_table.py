"""The MNIST table of the gradient-noise paper from a run of configs/gradient_noise/table1.py, ours beside theirs.

  python -m experiments.studies.gradient_noise_table DIR

For every row and noise level: last-step test accuracy in % at each learning rate (mean ± standard error over
seeds), and over all runs of both learning rates together, which is what the paper reports: mean and best.
"""

import math
from collections.abc import Sequence

from nurture import reporting, terminal
from nurture.core import UserError
from nurture.reporting import schema

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
    raise UserError("give one run directory: python -m experiments.studies.gradient_noise_table DIR.")
  results = reporting.read_results(argv[1])
  cells = cells_of(results["members"], argv[1])
  rates = sorted({lr for cell in cells.values() for lr in cell}, reverse=True)
  rows = []
  for (row, eta), cell in cells.items():
    together = [accuracy for lr in rates for accuracy in cell.get(lr, ())]
    best, mean = PUBLISHED.get((row.split(" ")[0], eta > 0), ("–", "–"))
    finite = [accuracy for accuracy in together if accuracy is not None and math.isfinite(accuracy)]
    rows.append([
      row, f"{eta:g}", *(_shown(cell.get(lr, ())) for lr in rates), _shown(together),
      f"{max(finite):.1f}" if finite else "–", mean, best,
    ])
  headers = ["row", "η", *(f"lr {lr:g}" for lr in rates), "mean of all", "best", "paper: mean", "paper: best"]
  print(reporting.markdown_table(headers, rows))
  seeds = max(len(accuracies) for cell in cells.values() for accuracies in cell.values())
  print(f"\nTest accuracy in % after {results['steps']:,} steps, {seeds} seeds at each learning rate.")


def cells_of(members: Sequence[reporting.Member], directory: str) -> dict[tuple[str, float], dict[float, list]]:
  """Returns {(row, eta): {lr: [test accuracy in % of each seed, None if it died]}}.

  Raises:
    UserError: for a run with another grid, or without test accuracy.
  """
  cells: dict[tuple[str, float], dict[float, list[float | None]]] = {}
  for member in members:
    values = member["values"]
    row, eta, lr = (values.get(axis) for axis in ("row", "eta", "lr"))
    if len(values) != 3 or not isinstance(row, str) or not schema.is_number(eta) or not schema.is_number(lr):
      raise UserError(f"{directory} is not a run of configs/gradient_noise/table1.py: its grid must have a row (text), "
                      "eta and lr (numbers) and no other axis.")
    accuracy = reporting.metric_of(member, METRIC)
    cells.setdefault((row, eta), {}).setdefault(lr, []).append(accuracy if accuracy is None else 100 * accuracy)
  return cells


def _shown(values: Sequence[float | None]) -> str:
  summary = reporting.summarize(values)
  dead = f" ({summary['dead']} dead)" if summary["dead"] else ""
  return reporting.format_mean_sem(summary["mean"], summary["sem"], summary["n"]) + dead


if __name__ == "__main__":
  terminal.run(main, takes_arguments=True)
