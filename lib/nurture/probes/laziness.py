"""Distances of a network from its start and from its linearization there: lazy against rich training."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from nurture.core import Batch, Network
from nurture.core.hints import Whole
from nurture.ntk import metrics
from nurture.probes.sample import in_float32
from nurture.probes.tangent_kernel import KernelProbe, Method, Reduction

Tree = Any


@dataclasses.dataclass(frozen=True)
class Laziness(KernelProbe):
  """What training changed since the initial parameters theta_0, over a fixed sample; all are 0 in the lazy limit:

      parameters          |theta - theta_0| / |theta_0|
      kernel              |K - K_0| / |K_0|, K the neural tangent kernel
      kernel_distance     1 - <K, K_0> / (|K| |K_0|)
      linearization_gap   |f - f_lin| / |f - f_0| of the logits, with f_lin = f_0 + J_0 (theta - theta_0)
      loss_gap            cross-entropy of f_lin minus that of f

  One piece, as for `TangentKernel`, of which this computes two. Only parameters are linearized: other collections, such
  as batch statistics, stand in f, f_0 and f_lin as they are now, and in K_0 as they were.

  Attributes:
    split, limit: the examples, as in `SplitProbe`.
    reduce, method, block: as in `KernelProbe`.

  Reference: Chizat et al. 2019, arXiv:1812.07956; Fort et al. 2020, arXiv:2010.15110.
  """

  split: str = "train"
  limit: Whole = 200
  reduce: Reduction = "trace"
  method: Method = "auto"
  block: Whole = 0

  def __call__(self, net: Network, variables: Tree, piece: Batch) -> dict[str, jax.Array]:
    """Returns the measures of the one piece."""
    variables, initial, x = in_float32(variables), in_float32(net.initial()), net.inputs(piece)
    logits = lambda params: net.apply({**variables, "params": params}, x).logits.astype(jnp.float32)
    loss = lambda values: jnp.mean(optax.softmax_cross_entropy_with_integer_labels(values, piece["label"]))
    pair = initial["params"], variables["params"]
    k, start = self.kernel(net, variables, piece), self.kernel(net, initial, piece)
    return {
      "parameters": metrics.relative_change(pair[1], pair[0]),
      "kernel": metrics.relative_change(k, start),
      "kernel_distance": metrics.kernel_distance(k, start),
      "linearization_gap": metrics.linearization_gap(logits, *pair),
      "loss_gap": loss(metrics.linearized(logits, *pair)[1]) - loss(logits(pair[1])),
    }
