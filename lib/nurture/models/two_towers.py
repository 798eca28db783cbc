"""Two networks that embed two views of an example, compared with each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from nurture import core, models
from nurture.core import Outputs, UserError, linalg
from nurture.core.build import suggest
from nurture.core.hints import Count, Positive
from nurture.models.taps import Taps

_LARGEST_SCALE = 100.0


class TwoTowers(nn.Module):
  """A network for each of two fields of a batch, and the scaled cosine of what they say:

      s_ij = scale <u_i, v_j>,    u_i = f(first_i) / |f(first_i)|,    v_j = g(second_j) / |g(second_j)|

  The predictions s are [B, B]. The scale is learned: its logarithm starts at log(1 / temperature), and the scale is cut
  off at 100.

  Taps: those of each network under "first." and "second.", ending with its "embedding" [B, width].

  Attributes:
    first, second: config of each network, with the field that it reads: {"field": "image", "name": "cnn", ...}.
    width: of the embeddings, the outputs of either network.
    temperature: at the start.
    dtype: of the computation, where the config of a network leaves it out; parameters and similarities are float32.

  Reference: Radford et al. 2021, arXiv:2103.00020, section 2.4 and figure 3.
  """

  first: Mapping[str, Any]
  second: Mapping[str, Any]
  width: Count = 32
  temperature: Positive = 0.07
  dtype: Literal["float32", "bfloat16"] = "float32"

  @nn.compact
  def __call__(self, x: Mapping[str, jax.Array], train: bool = False) -> Outputs:
    """Maps {field: [B, ...]} to `Outputs` with similarities [B, B].

    Raises:
      UserError: for a field that the batch does not have, or a network that gives one vector a position.
    """
    if not isinstance(x, Mapping):
      raise UserError("config.model 'two_towers' reads two fields, and the data have one; choose another model or data "
                      "set.")
    taps = Taps()
    u, v = (self._embedding(taps, tower, x, train) for tower in ("first", "second"))
    log_scale = self.param("log_scale", lambda key: jnp.log(1 / jnp.asarray(self.temperature, jnp.float32)))
    scale = jnp.minimum(jnp.exp(log_scale), _LARGEST_SCALE)
    return taps.outputs(scale * linalg.matmul(u, v.T))

  def _embedding(self, taps: Taps, tower: str, x: Mapping[str, jax.Array], train: bool) -> jax.Array:
    path, config = f"config.model.{tower}", dict(getattr(self, tower))
    field = config.pop("field", None)
    if field not in x:
      raise UserError(f"{path}.field is {field!r}; {suggest(field, x)}.")
    network = models.fitted(config, path, self.width, x[field].shape[1:], dtype=self.dtype)
    with core.model_at(path):
      outputs = network.clone(parent=self, name=tower)(x[field], train=train)
    if outputs.logits.ndim != 2:
      raise UserError(f"{path} gives one vector a position, {outputs.logits.shape}, and one an example is compared; "
                      f"set {path}.pool, or choose another model.")
    taps.extend(tower, outputs.taps)
    y = taps(f"{tower}.embedding", outputs.logits.astype(jnp.float32))
    return y * jax.lax.rsqrt(jnp.maximum(jnp.sum(jnp.square(y), axis=-1, keepdims=True), 1e-12))
