"""Training transforms of the targets, in the loss, of the gradients and of the parameters; and the optimizers."""

from nurture.transforms.gradients import GRADIENTS
from nurture.transforms.losses import LOSSES
from nurture.transforms.optimizers import OPTIMIZERS, build_optimizer
from nurture.transforms.parameters import PARAMETERS
from nurture.transforms.targets import TARGETS

__all__ = ["GRADIENTS", "LOSSES", "OPTIMIZERS", "PARAMETERS", "TARGETS", "build_optimizer"]
