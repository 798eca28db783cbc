"""Target transforms, which change what the model is asked to predict."""

from typing import Protocol

from jaxtyping import Array, Float

from nurture.core import Context
from nurture.transforms.targets.distillation import DistillationTargets
from nurture.transforms.targets.label_smoothing import LabelSmoothing


class TargetTransform(Protocol):
  """Maps targets to targets: pure, without state, in the order of the config."""

  def __call__(self, ctx: Context, targets: Float[Array, "B *T K"]) -> Float[Array, "B *T K"]:
    """Returns the new targets.

    Args:
      ctx: this step; ctx.outputs is None.
      targets: [B, K] or [B, T, K] float32. Rows sum to 1, or to 0 at a position without prediction; both stay so.
    """


TARGETS = {"distillation": DistillationTargets, "label_smoothing": LabelSmoothing}
