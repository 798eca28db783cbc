"""The largest eigenvalues of the Hessian of the loss."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from nurture.core import Network
from nurture.core.hints import Count, Whole
from nurture.curvature.lanczos import lanczos, ritz
from nurture.curvature.spectrum import eigenvalues_of
from nurture.probes.curvature import CurvatureProbe, Matrix, curvature

Tree = Any


@dataclasses.dataclass(frozen=True)
class Sharpness(CurvatureProbe):
  """The largest and smallest eigenvalues of the Hessian over a fixed sample, by Lanczos from one random vector:

      largest       the sharpness; gradient descent with a constant step is stable below 2 / lr, with heavy-ball
                    momentum below (2 + 2 beta) / lr (`nurture.curvature.spectrum.stability_threshold`)
      smallest      about 0 or negative
      eigenvalues   the `top` largest, descending
      error         how far `largest` can be from an eigenvalue; raise `steps` if that is much

  Memory is `steps` vectors of all parameters, and what the backward pass of one chunk keeps. The model is in evaluation
  mode, its parameters in float32 at least.

  Attributes:
    split, limit: the examples, as in `SplitProbe`.
    top: eigenvalues.
    steps: of Lanczos, each a product with the Hessian; no more than there are parameters are taken.
    matrix, chunk: of the products, as in `CurvatureProbe`.

  Raises:
    UserError: (in prepare) for the Gauss-Newton matrix of what is no classification; (when called) for more
      eigenvalues than parameters.
  """

  split: str = "train"
  limit: Whole = 1000
  top: Count = 1
  steps: Count = 20
  matrix: Matrix = "hessian"
  chunk: Whole = 0

  def __post_init__(self):
    if self.top > self.steps:
      raise ValueError(f"top is {self.top} and steps {self.steps}; give at least as many steps")

  def __call__(self, net: Network, variables: Tree, piece: Tree) -> dict[str, jax.Array]:
    """Returns the measures of the one piece."""
    operator, params = curvature(net, variables, piece["chunks"], self.matrix)
    decomposition = lanczos(operator, params, piece["key"], steps=self.steps)
    values, errors = eigenvalues_of(decomposition, self.top)
    return {
      "largest": values[0], "smallest": ritz(decomposition)[0][0], "eigenvalues": values, "error": errors[0],
    }
