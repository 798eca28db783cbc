"""The spectral density of the Hessian of the loss."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from nurture.core import Network
from nurture.core.hints import Count, Positive, Range, Whole
from nurture.curvature.spectrum import density, quadrature
from nurture.probes.curvature import CurvatureProbe, Matrix, curvature

Tree = Any


@dataclasses.dataclass(frozen=True)
class SpectralDensity(CurvatureProbe):
  """The density of the Hessian's eigenvalues over a fixed sample, by stochastic Lanczos quadrature:

      grid, density    [bins] each; the density, of integral 1, at places evenly spread over the spectrum
      trace            sum of the eigenvalues
      negative_share   of the eigenvalues, those below -width
      largest, smallest

  Every eigenvalue is broadened to a Gaussian whose standard deviation is `width` times the span of the spectrum, or
  times its one eigenvalue, if there is no other (1 if that is 0). One
  piece and the memory of one random vector's iteration, as for `Sharpness`, whose fields are these; the cost is
  vectors x steps products with the Hessian.

  Attributes:
    split, limit, steps, matrix, chunk: as in `Sharpness`.
    vectors: random vectors that are averaged over.
    bins: places of the grid, at most 99.
    width: of the Gaussians, as a share of the span.

  Raises:
    UserError: (in prepare) for the Gauss-Newton matrix of what is no classification.

  Reference: Ghorbani et al. 2019, arXiv:1901.10159.
  """

  split: str = "train"
  limit: Whole = 1000
  vectors: Count = 4
  steps: Count = 40
  bins: Annotated[int, Range(least=2, most=99)] = 64
  width: Positive = 0.01
  matrix: Matrix = "hessian"
  chunk: Whole = 0

  def __call__(self, net: Network, variables: Tree, piece: Tree) -> dict[str, jax.Array]:
    """Returns the measures of the one piece."""
    operator, params = curvature(net, variables, piece["chunks"], self.matrix)
    nodes = quadrature(operator, params, piece["key"], num_vectors=self.vectors, steps=self.steps)
    lowest, highest = jnp.min(nodes.nodes), jnp.max(nodes.nodes)
    span = highest - lowest
    size = jnp.maximum(jnp.abs(lowest), jnp.abs(highest))
    resolved = span > 1e-5 * size  # of one eigenvalue it is rounding
    span = jnp.where(resolved, span, jnp.where(size > 0, size, 1.0))  # one eigenvalue still has a width
    width = self.width * span
    grid = lowest - 3 * width + (span + 6 * width) * jnp.linspace(0.0, 1.0, self.bins)
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    mean = lambda values: jnp.sum(nodes.weights * values) / self.vectors
    return {
      "grid": grid, "density": density(nodes, grid, width), "trace": count * mean(nodes.nodes),
      "negative_share": mean(nodes.nodes < -width), "largest": highest, "smallest": lowest,
    }
