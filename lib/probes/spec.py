"""What a probe may prepare its data from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from lib.core import Batch, DataSpec


@dataclasses.dataclass(frozen=True)
class ProbeSpec:
  """The data as probes see them.

  Attributes:
    data: static facts.
    batches: (split, limit) -> evaluation batches on the device, of one shape, as stored (`Network.inputs` makes
      model inputs of them), the last padded with examples of weight 0 and id -1. limit 0 takes all examples.
  """

  data: DataSpec
  batches: Callable[[str, int], list[Batch]]
