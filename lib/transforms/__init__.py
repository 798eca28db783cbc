"""What acts on training: on the targets, in the loss, on the gradients, on the parameters; and the optimizers."""

from lib.transforms.gradients import GRADIENTS
from lib.transforms.losses import LOSSES
from lib.transforms.optimizers import OPTIMIZERS, build_optimizer
from lib.transforms.parameters import PARAMETERS
from lib.transforms.targets import TARGETS

__all__ = ["GRADIENTS", "LOSSES", "OPTIMIZERS", "PARAMETERS", "TARGETS", "build_optimizer"]
