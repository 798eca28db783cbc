"""Training: one pure step, and around it scans, ensembles, devices, checkpoints and the run directory."""

from nurture.training.experiment import Experiment, hyper_parameters
from nurture.training.loop import NotFinite
from nurture.training.preemption import Preempted
from nurture.training.run import run
from nurture.training.state import State

__all__ = ["Experiment", "NotFinite", "Preempted", "State", "hyper_parameters", "run"]
