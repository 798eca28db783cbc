"""Curvature of the loss over a fixed sample: what the probes of its spectrum share."""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from nurture.core import Batch, Network, UserError
from nurture.core.task import ONE_CLASS
from nurture.curvature.hvp import Operator, gauss_newton, hessian
from nurture.probes.sample import SampleProbe, in_chunks, in_float32
from nurture.probes.spec import ProbeSpec

Tree = Any
Matrix = Literal["hessian", "gauss_newton"]


class CurvatureProbe(SampleProbe):
  """A probe of a curvature matrix. An iteration is no sum over examples, so they make one piece.

  Attributes:
    matrix: "hessian" of the experiment's loss, or "gauss_newton" of the cross-entropy of the labels, which has no
      negative eigenvalues.
    chunk: examples of one product, where the memory does not hold all; 0 takes all. For losses that are means over
      examples: terms that compare the examples of a batch, such as guidance, see the chunk.
  """

  matrix: Matrix
  chunk: int

  def prepare(self, spec: ProbeSpec, key: jax.Array) -> list[Tree]:
    """Returns one piece: {"chunks": the sample, "key"}."""
    if self.matrix == "gauss_newton" and spec.data.task.name not in ONE_CLASS:
      raise UserError(f"the probe {self.name!r} takes the Gauss-Newton matrix of the cross-entropy of classes, and the "
                      f"task is {spec.data.task.name}; set its matrix to 'hessian'.")
    [sample] = super().prepare(spec, key)
    return [{"chunks": in_chunks(sample, self.chunk), "key": key}]


def curvature(
  net: Network, variables: Tree, chunks: Batch, matrix: Matrix
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
