"""Checks of rows of one's own, and means for tests: facts of data, configs made small, damage, absurd numbers.

Every row of every table obeys the same laws: it runs under jit, vmap and scan as it does alone, twice the same; values
and gradients are finite; states and targets keep their form, where 64-bit numbers are switched on as well; padding has
no influence. There is one check for each kind of row. It takes what a config says, and passes or raises an
AssertionError, one sentence with the law that is broken and what to do:

    from nurture import testing

    testing.check_loss({"name": "my_project.losses:GeneralizedCrossEntropy", "q": 0.7})
"""

from nurture.testing.datasets import check_dataset
from nurture.testing.laws import BrokenLaw
from nurture.testing.losses import check_loss, check_target
from nurture.testing.models import check_model
from nurture.testing.probes import check_probe
from nurture.testing.specs import class_spec
from nurture.testing.updates import check_gradient, check_optimizer, check_parameter_transform

__all__ = [
  "BrokenLaw", "check_dataset", "check_gradient", "check_loss", "check_model", "check_optimizer",
  "check_parameter_transform", "check_probe", "check_target", "class_spec",
]
