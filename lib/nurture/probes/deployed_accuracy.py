"""Accuracy of a network after structural re-parameterization."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from nurture.core import Batch, Network, UserError
from nurture.probes.accuracy import Accuracy
from nurture.probes.spec import ProbeSpec

Tree = Any


@dataclasses.dataclass(frozen=True)
class DeployedAccuracy(Accuracy):
  """Merges the network into its deployed form and measures that one: accuracy, mean cross-entropy in nats.

      difference = ||y_deployed - y|| / ||y||        l2 norms of the logits over the split

  is how far the two forms are apart: rounding once they are the same function (VanillaNet at λ = 1), and before that
  how far training is from a network that can be merged. The model must have `to_deploy` and `deployed`.

  Attributes:
    split, limit: the examples, as in `SplitProbe`.
  """

  def prepare(self, spec: ProbeSpec, key: jax.Array) -> list[Batch]:
    """Returns the split's batches.

    Raises:
      UserError: if the model has no deployed form.
    """
    if not hasattr(spec.model, "deployed"):
      raise UserError("the probe 'deployed_accuracy' needs a model with a deployed form, such as vanillanet_cifar; "
                      "choose such a model or remove the probe.")
    return super().prepare(spec, key)

  def __call__(self, net: Network, variables: Tree, piece: Batch) -> dict[str, jax.Array]:
    """Returns the sums of `Accuracy` for the deployed form, and of the squares that make the difference."""
    merged, deployed = net.model.to_deploy(variables, force=True), net.model.deployed()
    other = net._replace(model=deployed, apply=lambda variables, x: deployed.apply(variables, x))
    weight = piece["weight"][:, None]
    logits = net.apply(variables, net.inputs(piece)).logits
    change = other.apply(merged, net.inputs(piece)).logits - logits
    return {
      **super().__call__(other, merged, piece),
      "squared_change": jnp.sum(weight * change**2),
      "squared_logits": jnp.sum(weight * logits**2),
    }

  def finish(self, sums: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Returns {"accuracy", "loss", "difference"}, and "sequence_accuracy" of sequences."""
    size = jnp.maximum(sums["squared_logits"], jnp.finfo(jnp.float32).tiny)
    return {**super().finish(sums), "difference": jnp.sqrt(sums["squared_change"] / size)}
