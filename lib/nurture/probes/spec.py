"""The interface of probes, and the data that they are prepared from."""

from __future__ import annotations

import abc
import dataclasses
import re
from collections.abc import Callable
from typing import Any, Protocol

import jax

from nurture.core import Batch, DataSpec, Network


@dataclasses.dataclass(frozen=True)
class ProbeSpec:
  """The data as probes see them, and the kind of network that they will see.

  Attributes:
    data: static facts.
    batches: (split, limit) -> evaluation batches on the device, of one shape, as stored (`Network.inputs` makes
      model inputs of them), the last padded with examples of weight 0 and id -1. limit 0 takes all examples.
    model: the module, to find out beforehand whether it can be measured.
  """

  data: DataSpec
  batches: Callable[[str, int], list[Batch]]
  model: Any = None


def counted(piece: Batch) -> jax.Array:
  """Returns which predictions of a batch count, [B] or [B, T] bool: no padded example, no position with label -1.

  Select with it (`jnp.where`) rather than multiply: padding may hold anything, and infinity times 0 is not 0.
  """
  label = piece["label"]
  return (piece["weight"].reshape((-1,) + (1,) * (label.ndim - 1)) > 0) & (label >= 0)


class Probe(Protocol):
  """A measurement that is a function of sums over pieces of fixed data."""

  def prepare(self, spec: ProbeSpec, key: jax.Array) -> list[Any]:
    """Returns the pieces: pytrees of device arrays of one structure and shape. `key` is the same for every member."""

  @abc.abstractmethod
  def __call__(self, net: Network, variables: Any, piece: Any) -> Any:
    """Returns one piece's share of the sums. Pure; it is compiled once and mapped over the members."""

  def finish(self, sums: Any) -> dict[str, jax.Array]:
    """Returns {name: number or short array} from the sums over all pieces, which may be the sums. Pure."""
    return sums


class SplitProbe(Probe):
  """A probe of the examples of a split: its pieces are the batches, and its fields say of which examples.

  A subclass adds the measurement: the sums over one batch, and in `finish` the result from the sums.

  Attributes:
    split: "train", "validation" or "test".
    limit: takes the first examples only; 0 takes all.
  """

  split: str
  limit: int

  @property
  def name(self) -> str:
    """The row of the table that the probe is, "tap_norms" of `TapNorms`; for messages."""
    return re.sub("(?<=[a-z])(?=[A-Z])", "_", type(self).__name__).lower()

  def prepare(self, spec: ProbeSpec, key: jax.Array) -> list[Any]:
    """Returns the split's batches."""
    del key
    return spec.batches(self.split, self.limit)
