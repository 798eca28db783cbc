"""Training: one pure step, and around it scans, ensembles, devices, checkpoints and the run directory."""

from lib.training.experiment import Experiment, hyper_parameters
from lib.training.loop import NotFinite
from lib.training.preemption import Preempted
from lib.training.run import run
from lib.training.state import State

__all__ = ["Experiment", "NotFinite", "Preempted", "State", "hyper_parameters", "run"]
