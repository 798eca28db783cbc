"""Loss terms, whose sum with their weights is the number that training lowers.

A term that keeps a row for each example may be asked for its value on evaluation batches, whose ids can be of another
split, or -1 for padding. It must read without failing and drop such ids when it writes (that state is thrown away).
"""

from typing import Any, Protocol

from jaxtyping import Array, Float

from nurture.core import Context, DataSpec
from nurture.transforms.losses.contrastive import Contrastive
from nurture.transforms.losses.cross_entropy import CrossEntropy
from nurture.transforms.losses.discriminator import Discriminator
from nurture.transforms.losses.distillation import Distillation
from nurture.transforms.losses.elr import EarlyLearningRegularization
from nurture.transforms.losses.elr_plus import EarlyLearningRegularizationPlus
from nurture.transforms.losses.forgetting_events import ForgettingEvents
from nurture.transforms.losses.generalized_cross_entropy import GeneralizedCrossEntropy
from nurture.transforms.losses.guidance import Guidance
from nurture.transforms.losses.huber import Huber
from nurture.transforms.losses.mse import MeanSquaredError
from nurture.transforms.losses.ranking import Ranking
from nurture.transforms.losses.target_divergence import TargetDivergence


class LossTerm(Protocol):
  """One term of the loss, with a state of its own if it needs one."""

  def init(self, spec: DataSpec) -> Any:
    """Returns the state before the first step, a pytree of arrays; () for none."""

  def apply(self, state: Any, ctx: Context) -> tuple[Float[Array, " B"] | Float[Array, ""], Any]:
    """Returns the value, [B] or [] float32, and the next state, of the old one's structure.

    Differentiated with respect to ctx.outputs; what the state is made of is the term's to cut with stop_gradient.
    """


LOSSES = {
  "contrastive": Contrastive,
  "cross_entropy": CrossEntropy,
  "discriminator": Discriminator,
  "distillation": Distillation,
  "elr": EarlyLearningRegularization,
  "elr_plus": EarlyLearningRegularizationPlus,
  "forgetting_events": ForgettingEvents,
  "generalized_cross_entropy": GeneralizedCrossEntropy,
  "guidance": Guidance,
  "huber": Huber,
  "mse": MeanSquaredError,
  "ranking": Ranking,
  "target_divergence": TargetDivergence,
}
