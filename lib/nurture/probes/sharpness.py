"""The largest eigenvalues of the Hessian of the loss."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from nurture.core import Batch, Network
from nurture.core.hints import Count, Whole
from nurture.curvature.hvp import Operator, gauss_newton, hessian
from nurture.curvature.lanczos import lanczos, ritz
from nurture.curvature.spectrum import eigenvalues_of
from nurture.probes.sample import in_chunks, in_float32, whole_sample
from nurture.probes.spec import ProbeSpec

Tree = Any


@dataclasses.dataclass(frozen=True)
class Sharpness:
  """The largest and smallest eigenvalues of the Hessian over a fixed sample, by Lanczos from one random vector:

      largest       the sharpness; gradient descent with a constant step is stable below 2 / lr, with heavy-ball
                    momentum below (2 + 2 beta) / lr (`nurture.curvature.spectrum.stability_threshold`)
      smallest      about 0 or negative
      eigenvalues   the `top` largest, descending
      error         how far `largest` can be from an eigenvalue; raise `steps` if that is much

  An iteration is no sum over examples, so they make one piece. Memory is `steps` vectors of all parameters, and what
  the backward pass of one chunk keeps. The model is in evaluation mode, its parameters in float32 at least.

  Attributes:
    split: "train", "validation" or "test".
    limit: takes the first examples only; 0 takes all.
    top: eigenvalues.
    steps: of Lanczos, each a product with the Hessian; no more than there are parameters are taken.
    matrix: "hessian" of the experiment's loss, or "gauss_newton" of the cross-entropy of the labels, which has no
      negative eigenvalues.
    chunk: examples of one product, where the memory does not hold all; 0 takes all. For losses that are means over
      examples: terms that compare the examples of a batch, such as guidance, see the chunk.

  Raises:
    UserError: (in prepare) for sequences with a label at each position; (when called) for more eigenvalues than
      parameters.
  """

  split: str = "train"
  limit: Whole = 1000
  top: Count = 1
  steps: Count = 20
  matrix: Literal["hessian", "gauss_newton"] = "hessian"
  chunk: Whole = 0

  def __post_init__(self):
    if self.top > self.steps:
      raise ValueError(f"top is {self.top} and steps {self.steps}; give at least as many steps")

  def prepare(self, spec: ProbeSpec, key: jax.Array) -> list[Tree]:
    """Returns one piece: {"chunks": the sample, "key"}."""
    return [{"chunks": in_chunks(whole_sample(spec, self.split, self.limit, "sharpness"), self.chunk), "key": key}]

  def __call__(self, net: Network, variables: Tree, piece: Tree) -> dict[str, jax.Array]:
    """Returns the measures of the one piece."""
    operator, params = curvature(net, variables, piece["chunks"], self.matrix)
    decomposition = lanczos(operator, params, piece["key"], steps=self.steps)
    values, errors = eigenvalues_of(decomposition, self.top)
    return {
      "largest": values[0], "smallest": ritz(decomposition)[0][0], "eigenvalues": values, "error": errors[0],
    }

  def finish(self, sums: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Returns the measures."""
    return sums


def curvature(
  net: Network, variables: Tree, chunks: Batch, matrix: Literal["hessian", "gauss_newton"]
) -> tuple[Operator, Tree]:
  """Returns the products with a curvature matrix over a sample in chunks, and the parameters they are taken at."""
  variables = in_float32(variables)
  params, counts = variables["params"], jnp.sum(chunks["weight"], axis=1)
  with_params = lambda params: {**variables, "params": params}
  if matrix == "hessian":
    loss = lambda params, piece: net.loss(with_params(params), piece)
    if len(counts) > 1:
      return hessian(loss, params, chunks, counts), params
    only = jax.tree.map(lambda leaf: leaf[0], chunks)
    return hessian(lambda params: loss(params, only), params), params

  def of_chunk(piece: Batch) -> Operator:
    def cross_entropy(logits):
      values = optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), piece["label"])
      return jnp.sum(jnp.where(piece["weight"] > 0, values, 0.0)) / jnp.sum(counts)

    return gauss_newton(lambda params: net.apply(with_params(params), net.inputs(piece)).logits, cross_entropy, params)

  def product(vector: Tree) -> Tree:
    add = lambda total, piece: (jax.tree.map(jnp.add, total, of_chunk(piece)(vector)), None)
    return jax.lax.scan(add, jax.tree.map(jnp.zeros_like, params), chunks)[0]

  if len(counts) > 1:
    return product, params
  return of_chunk(jax.tree.map(lambda leaf: leaf[0], chunks)), params
