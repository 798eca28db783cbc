"""Parameter transforms, which act on the parameters after the update."""

from typing import Any, Protocol

from jaxtyping import Array, Int

from nurture.transforms.parameters.ema import ExponentialMovingAverage


class ParameterTransform(Protocol):
  """A map of the updated parameters, with a state of its own if it needs one."""

  def init(self, params: Any) -> Any:
    """Returns the state for the initial parameters, a pytree of arrays; () for none."""

  def apply(self, state: Any, params: Any, step: Int[Array, ""]) -> tuple[Any, Any]:
    """Returns the parameters that training goes on with, and the next state, both of the old structure.

    Args:
      state: of this transform.
      params: after the optimizer's update and the transforms before this one.
      step: [] int32, updates made before this one.
    """

  def evaluation(self, state: Any, params: Any) -> Any:
    """Returns the parameters that evaluation uses where it asks for this transform; those of training, say."""


PARAMETERS = {"ema": ExponentialMovingAverage}
