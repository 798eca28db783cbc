"""Two networks of one kind, trained side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import jax
from flax import linen as nn

from nurture import core, models
from nurture.core import Outputs
from nurture.core.hints import Count
from nurture.models.taps import Taps


class Pair(nn.Module):
  """Two networks with parameters of their own, which see the same inputs; the logits are the mean of both.

  Taps: those of each network under "first." and "second.", ending with its own "logits" [B, K], by which loss terms
  tell them apart: cross-entropy with `of="members"`, and ELR+.

  Attributes:
    num_classes: K.
    model: config of either network; nothing of it may be scheduled.
    dtype: of the computation, where the config of the network leaves it out; parameters and logits are float32.
  """

  num_classes: Count
  model: str | Mapping[str, Any]
  dtype: Literal["float32", "bfloat16"] = "float32"

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> Outputs:
    """Maps a batch of inputs to `Outputs` with logits [B, K]."""
    taps, both = Taps(), []
    for name in ("first", "second"):
      shape = jax.tree.map(lambda array: array.shape[1:], x)
      network = models.fitted(self.model, "config.model.model", self.num_classes, shape, dtype=self.dtype)
      with core.model_at("config.model.model"):
        outputs = network.clone(parent=self, name=name)(x, train=train)
      taps.extend(name, outputs.taps)
      both.append(taps(f"{name}.logits", outputs.logits))
    return taps.outputs((both[0] + both[1]) / 2)
