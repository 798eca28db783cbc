"""The exponential moving average of the parameters."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from nurture.core.hints import Share

Tree = Any


@dataclasses.dataclass(frozen=True)
class ExponentialMovingAverage:
  """Averages the parameters over the updates, with exponentially less weight on the past and without the bias of
  the first steps; training itself is not changed.

      a_t = sum_{s=1..t} d^(t-s) θ_s / sum_{s=1..t} d^(t-s)

  θ_s are the parameters after update s: the initial ones do not count. Before the first update a is θ_0.

  Args:
    decay: d in [0, 1]; may be traced. 0 gives the parameters themselves, 1 the mean of all of them.

  Other collections are not averaged: batch statistics in evaluation are those of the raw network. The average is
  float32; `evaluation` returns it in the parameters' dtypes. Reference for the correction: Kingma & Ba 2015,
  arXiv:1412.6980, section 3.
  """

  decay: Share

  def init(self, params: Tree) -> dict[str, Tree]:
    average = jax.tree.map(lambda leaf: jnp.array(leaf, jnp.float32), params)
    return {"average": average, "mass": jnp.float32(0.0)}

  def apply(self, state: dict[str, Tree], params: Tree, step: Int[Array, ""]) -> tuple[Tree, dict[str, Tree]]:
    del step
    mass = self.decay * state["mass"] + 1.0
    share = 1.0 / mass  # of the newest; 1 at the first update, where nothing may be left of θ_0
    mix = lambda old, new: (1.0 - share) * old + share * new.astype(jnp.float32)
    return params, {"average": jax.tree.map(mix, state["average"], params), "mass": mass}

  def evaluation(self, state: dict[str, Tree], params: Tree) -> Tree:
    return jax.tree.map(lambda average, leaf: average.astype(leaf.dtype), state["average"], params)
