"""What a frozen network says of a fixed training set, computed once: a step looks it up and runs no network."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nurture.core import DataSpec, Outputs, UserError
from nurture.core.taps import select
from nurture.similarity import Gram, flatten, gram

Tree = Any

_LARGEST = 8 * 2**30  # bytes of all Gram matrices together
_AT_ONCE = 4 * 2**30  # bytes of activations in host memory


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cache:
  """Outputs of a frozen network on the n training examples.

  Attributes:
    row: [num_examples] int32, where the example of an id stands in the others.
    logits: [n, K].
    grams: [P, n, n], the Gram matrices of P taps' centred and normalized activations.
    taps: their P names.
  """

  row: jax.Array
  logits: jax.Array
  grams: jax.Array
  taps: tuple[str, ...] = dataclasses.field(metadata={"static": True})

  def outputs(self, ids: jax.Array) -> Outputs:
    """Returns the outputs on the examples with these ids [B]; taps are `nurture.similarity.Gram` matrices [B, B]."""
    rows = self.row[ids]
    values = self.grams[:, rows[:, None], rows[None]]
    return Outputs(self.logits[rows], {name: Gram(values[i]) for i, name in enumerate(self.taps)})


def abstract_cache(
  apply: Callable[[Tree, jax.Array], Outputs],
  variables: Tree,
  spec: DataSpec,
  inputs: jax.ShapeDtypeStruct,
  count: int,
  which: str | tuple[str, ...],
  path: str,
) -> Cache:
  """Returns the shapes and dtypes of what `filled` computes, from a trace.

  Args:
    apply: (variables, input) -> outputs.
    variables: of the network.
    spec: of the data.
    inputs: shape of a batch of model inputs.
    count: n, the number of training examples.
    which: "logits", or taps as `select` takes them.
    path: of the reference's config, for error messages.

  Raises:
    UserError: for taps that do not exist, or Gram matrices that take more than 8 GiB.
  """
  outputs = jax.eval_shape(apply, variables, inputs)
  names = () if which == "logits" else tuple(select(outputs.taps, which))
  needed = 4 * count**2 * len(names)
  if needed > _LARGEST:
    raise UserError(f"{path}.cache would keep {len(names)} Gram matrices of {count} examples, "
                    f"{needed / 2**30:.0f} GiB; name fewer taps, set config.data.subset, or set the cache to ''.")
  return Cache(
    row=jax.ShapeDtypeStruct((spec.num_examples,), jnp.int32),
    logits=jax.ShapeDtypeStruct((count, *outputs.logits.shape[1:]), outputs.logits.dtype),
    grams=jax.ShapeDtypeStruct((len(names), count, count) if names else (0, 1, 1), jnp.float32),
    taps=names,
  )


def filled(
  cache: Cache,
  apply: Callable[[Tree, jax.Array], Outputs],
  variables: Tree,
  inputs: Iterable[tuple[np.ndarray, jax.Array]],
) -> Cache:
  """Runs a network over the training split and returns the cache with its numbers.

  Args:
    cache: of `abstract_cache`.
    apply, variables: as there.
    inputs: (ids [B], model inputs [B, ...]) over the split.
  """
  batches = list(inputs)
  ids = np.concatenate([ids for ids, _ in batches])

  def over_split(names):
    """Returns the logits, and the activations [n, D] of some taps by their names."""

    @jax.jit
    def read(variables, x):
      outputs = apply(variables, x)
      return outputs.logits, {name: flatten(outputs.taps[name]).astype(jnp.float32) for name in names}

    parts = [jax.tree.map(np.asarray, read(variables, x)) for _, x in batches]
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)

  taps = jax.eval_shape(apply, variables, batches[0][1]).taps
  sizes = {name: 4 * len(ids) * math.prod(taps[name].shape[1:]) for name in cache.taps}
  grams, left = [], list(cache.taps)
  logits, _ = over_split(())
  while left:  # as many taps in a pass as memory takes, one at least
    count = max(1, sum(total <= _AT_ONCE for total in np.cumsum([sizes[name] for name in left])))
    _, activations = over_split(tuple(left[:count]))
    grams += [jax.jit(gram)(activations.pop(name)).values for name in left[:count]]
    left = left[count:]
  row = np.zeros(cache.row.shape, np.int32)
  row[ids] = np.arange(len(ids), dtype=np.int32)
  return Cache(
    row=jnp.asarray(row),
    logits=jnp.asarray(logits),
    grams=jnp.stack(grams) if grams else jnp.zeros(cache.grams.shape),
    taps=cache.taps,
  )
