"""What changes while a network trains, and nothing else."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

Tree = Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
  """The state of one member; an ensemble's has a leading member axis on every leaf.

  There is no key and no iterator in it: both are pure functions of (seed, step).

  Attributes:
    step: [] int32, number of steps taken.
    variables: the model's collections, "params" and whatever else it has ("batch_stats").
    opt_state: {"gradients": {label: state}, "optimizer": state}.
    loss_states: {label: state} of the loss terms.
    parameter_states: {label: state} of the parameter transforms.
    died_at: [] int32, the step whose loss or gradient was not finite (or whose gradient's norm is above the largest
      float32), after which variables and opt_state stand still; -1 while the member is alive. The step before a
      checkpoint or a log, where parameters or what the optimizer keeps of them are not finite.
  """

  step: jax.Array
  variables: Tree
  opt_state: Tree
  loss_states: Tree
  parameter_states: Tree
  died_at: jax.Array
