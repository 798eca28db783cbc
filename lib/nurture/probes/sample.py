"""A fixed sample in one piece, for measurements that are no sum over examples: kernels, spectra, products in a loop."""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from nurture.core import Batch
from nurture.probes.spec import ProbeSpec, SplitProbe

Tree = Any


class SampleProbe(SplitProbe):
  """A probe whose one piece is the first examples of a split, without padding."""

  tasks: ClassVar[tuple[str, ...]] = ("classification", "regression")

  def prepare(self, spec: ProbeSpec, key: jax.Array) -> list[Any]:
    """Returns one piece, the sample."""
    del key
    return [whole_sample(spec, self.split, self.limit)]


def whole_sample(spec: ProbeSpec, split: str, limit: int) -> Batch:
  """Returns the first examples of a split as one batch without padding; limit 0 takes all."""
  batches = jax.device_get(spec.batches(split, limit))
  rows = {field: np.concatenate([batch[field] for batch in batches]) for field in batches[0]}
  return {field: jnp.asarray(values[rows["weight"] > 0]) for field, values in rows.items()}


def in_chunks(sample: Batch, size: int) -> Batch:
  """Returns a sample [n, ...] as [m, size, ...], one chunk of n where size is 0.

  What fills the last chunk are copies of the first example with weight 0 and id -1.
  """
  n = sample["weight"].shape[0]
  size = min(size, n) or n
  missing = -n % size
  padding = {field: jnp.repeat(values[:1], missing, axis=0) for field, values in sample.items()}
  padding["weight"], padding["id"] = jnp.zeros_like(padding["weight"]), jnp.full_like(padding["id"], -1)
  padded = {field: jnp.concatenate([values, padding[field]]) for field, values in sample.items()}
  return {field: values.reshape(-1, size, *values.shape[1:]) for field, values in padded.items()}


def in_float32(variables: Tree) -> Tree:
  """Returns variables whose floating-point leaves are at least float32, for what rounding to bfloat16 would drown."""
  def lifted(leaf):
    return leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32)) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

  return jax.tree.map(lifted, variables)
