"""Accuracy of the text that a network writes behind a prefix, token by token."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from nurture.core import Batch, Network
from nurture.core.hints import Whole
from nurture.probes.spec import SplitProbe, counted

Tree = Any


@dataclasses.dataclass(frozen=True)
class Writing(SplitProbe):
  """Accuracy of a network's own text: it reads the prefix, and then what it has written itself.

  At each position where a token is asked, the likeliest token is taken and put into the next position of the input,
  where training has the right one. "accuracy" is the share of tokens that are right, "exact" that of sequences in which
  all are; the probe `accuracy` measures each token behind the right ones instead.

  The network runs over the whole sequence once a position.

  Attributes:
    split, limit: the examples, as in `SplitProbe`.
  """

  split: str = "test"
  limit: Whole = 200

  tasks = ("generation",)

  def __call__(self, net: Network, variables: Tree, piece: Batch) -> dict[str, jax.Array]:
    """Returns the sums {"correct", "tokens", "exact", "sequences"} over one batch."""
    label, asked = piece["label"], piece["label"] >= 0
    length = label.shape[1]

    def write(t: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
      tokens, written = carry
      logits = net.apply(variables, net.inputs({**piece, "tokens": tokens})).logits
      token = jnp.argmax(jax.lax.dynamic_index_in_dim(logits, t, axis=1, keepdims=False), axis=-1)
      written = written.at[:, t].set(jnp.where(asked[:, t], token, -1).astype(label.dtype))
      follows = asked[:, t] & asked[:, jnp.minimum(t + 1, length - 1)] & (t + 1 < length)
      after = jnp.minimum(t + 1, length - 1)
      return tokens.at[:, after].set(jnp.where(follows, token.astype(tokens.dtype), tokens[:, after])), written

    # What is to be written is not shown: the answer in the input is overwritten before it is read.
    _, written = jax.lax.fori_loop(0, length, write, (piece["tokens"], jnp.full_like(label, -1)))
    mask, right = counted(piece), written == label
    sequences = jnp.any(mask, axis=1)
    exact = sequences & jnp.all(right | ~asked, axis=1)
    count = lambda which: jnp.sum(which, dtype=jnp.float32)
    return {"correct": count(mask & right), "tokens": count(mask), "exact": count(exact), "sequences": count(sequences)}

  def finish(self, sums: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Returns {"accuracy", "exact"}."""
    return {"accuracy": sums["correct"] / sums["tokens"], "exact": sums["exact"] / sums["sequences"]}
