"""Models: linen modules that map an input to `Outputs(logits, taps)`.

`module.apply(variables, x, train=False, **scheduled)` is the whole interface. In training mode batch statistics are a
mutable collection and dropout draws from the stream "dropout". What changes over training (VanillaNet's slope `lam`,
`drop_path`) is a keyword argument that may be traced. `select` picks taps. A network of one's own, of any of four
libraries, is a model by `as_row`, which configs use by themselves; `capture` has more to choose for linen modules.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flax import linen as nn

from nurture import core
from nurture.core.taps import select
from nurture.models.capture import capture
from nurture.models.cnn import CNN, LENET5, VGG11, VGG13, VGG16, VGG19, VGG_SMALL
from nurture.models.decoder import Decoder
from nurture.models.initializers import INITIALIZERS
from nurture.models.layers import ACTIVATIONS
from nurture.models.mlp import DEEP_FCN, MLP, WIDE_FCN
from nurture.models.own import as_row, rows_for
from nurture.models.pair import Pair
from nurture.models.resnet import RESNETS
from nurture.models.rnn import RNNS
from nurture.models.simplenet import SIMPLENETS
from nurture.models.taps import Taps
from nurture.models.two_towers import TwoTowers
from nurture.models.vanillanet import VANILLANETS
from nurture.models.vit import VITS

MODELS = {
  "cnn": CNN,
  "decoder": Decoder,
  "deep_fcn": DEEP_FCN,
  "lenet5": LENET5,
  "mlp": MLP,
  "pair": Pair,
  "two_towers": TwoTowers,
  "vgg11": VGG11,
  "vgg13": VGG13,
  "vgg16": VGG16,
  "vgg19": VGG19,
  "vgg_small": VGG_SMALL,
  "wide_fcn": WIDE_FCN,
  **RESNETS,
  **RNNS,
  **SIMPLENETS,
  **VANILLANETS,
  **VITS,
}


def build(config: str | Mapping[str, Any], **overrides: Any) -> nn.Module:
  """Builds a model from its name, or from a config {"name": ..., field: value}; overrides win over the config.

  Raises:
    UserError: for an unknown name or field, or a value of the wrong type.
  """
  config = ({"name": config} if isinstance(config, str) else dict(config)) | overrides
  return core.build(rows_for(MODELS, config), config, path="config.model")


def fitted(config: str | Mapping[str, Any], path: str, num_classes: int, inputs: Any, **supplied: Any) -> Any:
  """Builds a model of the size that data ask for.

  Args:
    config: a row of MODELS or code of one's own, by name or with fields.
    path: of the config, for messages.
    num_classes: K, for the fields `num_classes` and `num_outputs` where the config leaves them out.
    inputs: the shape of one example, or {field: shape}; for the field `input_shape`.
    **supplied: other fields, likewise.

  Raises:
    UserError: as `build`.
  """
  with core.model_at(path):
    return core.build(
      rows_for(MODELS, config), config, path="config.model", num_classes=num_classes, num_outputs=num_classes,
      input_shape=inputs, **supplied,
    )


__all__ = [
  "ACTIVATIONS", "INITIALIZERS", "MODELS", "Taps", "as_row", "build", "capture", "fitted", "rows_for", "select",
]
