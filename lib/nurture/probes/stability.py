"""Spread of the predictions for one class between its examples."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from nurture.core import Batch, Network
from nurture.core.hints import Whole
from nurture.core.references import outputs_of
from nurture.core.task import CLASSES
from nurture.probes.spec import SplitProbe, counted

Tree = Any


@dataclasses.dataclass(frozen=True)
class Stability(SplitProbe):
  """The spread of a network's probabilities within a class, mean over the classes of the split: 1 - S of Shen et al.

      vector_var   1/K sum_c E_{i in c} ||p_i - E_{j in c} p_j||^2
      scalar_std   1/K sum_c std_{i in c} p_ic,   of the probability of the true class alone
      scalar_var   1/K sum_c var_{i in c} p_ic

  All lie in [0, 1]; at 0 (S = 1) every image of a class gets the same prediction, so that what a teacher says of it is
  no more than its class. The paper's formula reads as any of the three, and its values of 0.29 to 0.34 exceed 1/4, the
  largest scalar_var. Also returns "p_true", the mean of p_ic: a network that fits its training set by heart has hardly
  any spread there, smoothed or not, and the spread says something only beside it or on another split.

  The class is the label as stored. Sequences count by position; positions with label -1 do not count.

  Attributes:
    split, limit: the examples, as in `SplitProbe`.
    of: label of the reference to measure, such as a teacher; empty, the network itself.

  Raises:
    UserError: (when called) if there is no such reference.

  Variances come from sums in float32, about the nearer of two origins: identical predictions far from both (0.5, say)
  give a standard deviation of up to 5e-4 instead of 0.

  Reference: Shen et al. 2021, arXiv:2104.00676, eq. 2.
  """

  split: str
  limit: Whole = 0
  of: str = ""

  tasks = CLASSES

  def __call__(self, net: Network, variables: Tree, piece: Batch) -> dict[str, jax.Array]:
    """Returns moments of one batch by class: "count" [K], "p_true" [], and about two origins "first" [2, K, K] (class,
    component), "vector_second" [2, K] and "scalar_second" [2, K]."""
    p = jax.nn.softmax(self._logits(net, variables, piece).astype(jnp.float32))
    num_classes = p.shape[-1]
    label = piece["label"]
    label, mask, p = label.reshape(-1), counted(piece).reshape(-1), p.reshape(-1, num_classes)
    y = jax.nn.one_hot(jnp.where(mask, label, -1), num_classes)
    p = jnp.where(mask[:, None], p, 0.0)
    # A variance from sums loses what their origin is away from the mean. A confident network lies near the one-hot
    # vector, an unsure one near 1/K; sums about both let `finish` take the nearer.
    d = jnp.stack([p - y, jnp.where(mask[:, None], p - 1 / num_classes, 0.0)])
    return {
      "count": jnp.sum(y, axis=0),
      "p_true": jnp.sum(p * y),
      "first": jnp.einsum("ic,oik->ock", y, d, precision="highest"),
      "vector_second": jnp.einsum("ic,oi->oc", y, jnp.sum(d**2, axis=-1), precision="highest"),
      "scalar_second": jnp.sum(y[None] * d**2, axis=1),
    }

  def finish(self, sums: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Returns {"vector_var", "scalar_std", "scalar_var", "p_true"}."""
    count = sums["count"]
    n = jnp.maximum(count, 1.0)
    mean = sums["first"] / n[None, :, None]
    vector = _variance(sums["vector_second"] / n[None], jnp.sum(mean**2, axis=-1))
    scalar = _variance(sums["scalar_second"] / n[None], jnp.diagonal(mean, axis1=1, axis2=2) ** 2)
    over_classes = lambda values: jnp.sum(values * (count > 0)) / jnp.maximum(jnp.sum(count > 0), 1)
    return {
      "vector_var": over_classes(vector),
      "scalar_std": over_classes(jnp.sqrt(scalar)),
      "scalar_var": over_classes(scalar),
      "p_true": sums["p_true"] / jnp.sum(count),
    }

  def _logits(self, net: Network, variables: Tree, piece: Batch) -> jax.Array:
    if self.of:
      return outputs_of(net.references(piece), self.of, f"the probe {self.name!r}").logits
    return net.apply(variables, net.inputs(piece)).logits


def _variance(second: jax.Array, squared_mean: jax.Array) -> jax.Array:
  """Returns E[d^2] - (E d)^2 about the origin that is nearer to the mean, [2, K] -> [K]."""
  variance = jnp.maximum(second - squared_mean, 0.0)
  return jnp.where(squared_mean[0] <= squared_mean[1], variance[0], variance[1])
