"""Taps: a model's intermediate arrays by name, in call order.

A name is a number, the block that the layer stands in, and what the layer does: "007_stage1.block0.relu". The tap
before that of an activation is always what goes into it, so "pre-activation" and "post-activation" are neighbours.
`nurture.core.taps.select` picks among them.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from nurture.core import Outputs, UserError

_MOST = 1000  # as many as three digits count


class Taps:
  """Collects intermediate arrays under names whose sorted order is the call order ("003_dense").

  The number goes first and is padded with zeros because jit sorts the keys of a dict. A block that is rematerialized
  or scanned cannot write into its parent's collector: it has one of its own, returns `arrays` beside its result, and
  the parent puts them in their place with `extend` or `extend_scanned`.
  """

  def __init__(self):
    self.arrays: dict[str, jax.Array] = {}

  def __call__(self, kind: str, array: jax.Array) -> jax.Array:
    """Notes an array and returns it."""
    if len(self.arrays) == _MOST:
      raise UserError(f"the network has more than {_MOST} taps, whose names could not be sorted; make it less deep.")
    self.arrays[f"{len(self.arrays):03d}_{kind}"] = array
    return array

  def extend(self, path: str, arrays: Mapping[str, jax.Array]) -> None:
    """Appends the taps of a block: its "002_relu" becomes "017_<path>.relu"."""
    for name in sorted(arrays):
      self(f"{path}.{name[4:]}", arrays[name])

  def extend_scanned(self, path: str, stacked: Mapping[str, jax.Array]) -> None:
    """Appends the taps of a scan over blocks, [L, B, ...] each, block by block: "017_<path><l>.relu"."""
    length = next(iter(stacked.values())).shape[0]
    for i in range(length):
      self.extend(f"{path}{i}", {name: array[i] for name, array in stacked.items()})

  def outputs(self, logits: jax.Array) -> Outputs:
    """Returns the model's outputs, the logits in float32 (float64 stays)."""
    return Outputs(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)), dict(self.arrays))
