"""Mean, spread and size of the weights."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from nurture.core import Network, linalg, trees
from nurture.probes.spec import Probe, ProbeSpec

Tree = Any


@dataclasses.dataclass(frozen=True)
class WeightStatistics(Probe):
  """For every kernel its mean, standard deviation and largest magnitude, and the l2 norm of all parameters.

  Kernels are leaves of two and more dimensions. Names are paths: "dense_00/kernel/std".
  """

  def prepare(self, spec: ProbeSpec, key: jax.Array) -> list[dict]:
    """Returns one empty piece: the weights are all the data there is."""
    return [{}]

  def __call__(self, net: Network, variables: Tree, piece: dict) -> dict[str, jax.Array]:
    """Returns the statistics themselves."""
    statistics = {"norm": trees.norm(variables["params"])}
    for name, leaf in trees.named_leaves(variables["params"]):
      if leaf.ndim >= 2:
        leaf = leaf.astype(jnp.float32)
        scale = linalg.size_of(leaf)  # squares of very large and of very small weights would leave float32
        statistics |= {
          f"{name}/mean": scale * jnp.mean(leaf / scale), f"{name}/std": scale * jnp.std(leaf / scale),
          f"{name}/largest": jnp.max(jnp.abs(leaf)),
        }
    return statistics
