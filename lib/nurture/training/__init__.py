"""Training: one pure step, and around it scans, sweeps, devices, checkpoints and the run directory."""

from nurture.training.experiment import Experiment, hyper_parameters
from nurture.training.restore import TrainedNetwork, restore
from nurture.training.run import run
from nurture.training.run_directory import checkpoints_of, member_variables
from nurture.training.signals import Diverged, Preempted
from nurture.training.step import State

__all__ = [
  "Diverged", "Experiment", "Preempted", "State", "TrainedNetwork", "checkpoints_of", "hyper_parameters",
  "member_variables", "restore", "run",
]
