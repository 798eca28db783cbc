"""Trains any config: one network, or an ensemble over seeds and hyper-parameters as one program.

  python -m experiments.train --config=configs/quickstart.py --workdir=runs/quickstart

Any field can be set from the command line, listed in the config or not (--config.optimizer.learning_rate=0.05), and
any part taken out (--remove=probes.train); python -m experiments.rows lists the fields. The same command again
continues an interrupted run. Sets that are not embedded are read from --data_dir, laid out as their archives
unpack: mnist/*-ubyte.gz, cifar-10-batches-bin/*.bin, tinyshakespeare/input.txt.
"""

import pathlib
import sys
import time
from collections.abc import Sequence

from absl import flags
from ml_collections import config_flags

from experiments import report
from nurture import reporting, terminal, training
from nurture.core.build import suggest
from nurture.training import places

_CONFIG = config_flags.DEFINE_config_file("config", None, "Config file, such as configs/quickstart.py.")
_REMOVE = flags.DEFINE_multi_string(
  "remove", [], "Field or part of the config to take out, such as probes.train; may be given several times.",
)
_WORKDIR = flags.DEFINE_string(
  "workdir", None, "Run directory; made if needed, continued if it belongs to the config.", **terminal.SHARED,
)
_DATA_DIR = flags.DEFINE_string("data_dir", "data", "Directory of data sets that are not embedded.", **terminal.SHARED)
_PROFILE = flags.DEFINE_bool("profile", False, "Write a jax.profiler trace of a few dispatches to WORKDIR/profile.")
_TENSORBOARD = flags.DEFINE_bool("tensorboard", False, "Also write TensorBoard events to WORKDIR/tensorboard.")
_WANDB = flags.DEFINE_bool(
  "wandb", False, "Also send the metrics to Weights & Biases; WANDB_MODE=offline keeps them in WORKDIR/wandb.",
)
flags.mark_flags_as_required(["config", "workdir"])


def main(argv: Sequence[str]) -> int:
  del argv
  terminal.enable_compilation_cache()
  workdir = pathlib.Path(_WORKDIR.value)
  config = _CONFIG.value
  name = pathlib.Path(config_flags.get_config_filename(flags.FLAGS["config"]).split(":")[0]).stem
  began = time.monotonic()
  try:
    training.run(
      config,
      workdir,
      name=name,
      data_dir=_DATA_DIR.value,
      argv=sys.argv[1:],
      profile=_PROFILE.value,
      tensorboard=_TENSORBOARD.value,
      wandb=_WANDB.value,
    )
  except training.Preempted as stopped:
    print(stopped, file=sys.stderr)
    return stopped.exit_code
  show(workdir, name, tuple(config.report.metrics))
  print(f"{time.monotonic() - began:.0f} s; {workdir}/results.json holds all numbers.")
  return 0


def show(workdir: pathlib.Path, name: str, metrics: Sequence[str]) -> None:
  """Prints the table of a finished run and draws its curves to plots/curves.png."""
  finished = report.read_run(workdir, name)
  known = {name for group in finished.groups for name in group.metrics}
  for name in metrics:
    if name not in known:
      print(f"config.report.metrics names {name!r}, which the run has not measured; {suggest(name, known)}.")
  metrics, _ = report.choose_metrics([finished], [name for name in metrics if name in known])
  print(report.table_of([finished], metrics))
  plot = reporting.curves(
    workdir / "plots" / "curves.png", [report.panel_of([finished], m) for m in metrics],
    styles=report.styles_of([finished]), of="seeds",
  )
  print(f"\n{plot}")


if __name__ == "__main__":
  terminal.run(main, places=places.ROOT)
