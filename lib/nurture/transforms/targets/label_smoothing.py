"""Label smoothing in both conventions."""

from __future__ import annotations

import dataclasses
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

from nurture.core import Context
from nurture.core.hints import Share
from nurture.core.task import CLASSES


@dataclasses.dataclass(frozen=True)
class LabelSmoothing:
  """Moves the share α of every target's mass to other classes.

      uniform:        y <- (1 - α) y + α / K                (Szegedy et al. 2016, arXiv:1512.00567, eq. 7)
      other_classes:  y <- (1 - α) y + α (1 - y) / (K - 1)  (Shen et al. 2021, arXiv:2104.00676, eq. 1)

  For a one-hot y, `uniform` leaves 1 - α + α / K on the label and `other_classes` 1 - α; the second at α is the
  first at α K / (K - 1). Rows that sum to 0 stay 0.

  Args:
    alpha: α in [0, 1]; may be traced. 0 changes no bit.
    convention: see above; papers differ, so there is no default.
  """

  alpha: Share
  convention: Literal["uniform", "other_classes"]

  tasks = CLASSES

  def __call__(self, ctx: Context, targets: Float[Array, "B *T K"]) -> Float[Array, "B *T K"]:
    del ctx
    num_classes = targets.shape[-1]
    mass = jnp.sum(targets, axis=-1, keepdims=True)
    if self.convention == "uniform":
      rest = mass / num_classes
    else:
      rest = (mass - targets) / (num_classes - 1)
    return (1 - self.alpha) * targets + self.alpha * rest
