"""Residual networks for large and small images: post- and pre-activation, wide, and stripped of their shortcuts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import jax
from flax import linen as nn

from nurture.core import Outputs, Preset, UserError
from nurture.core.hints import Count, Range, Share
from nurture.models.checks import check_images, check_ranges
from nurture.models.layers import depth_rate
from nurture.models.residual import Layers, ResidualBlock
from nurture.models.taps import Taps


class ResNet(nn.Module):
  """A stem, stages of residual blocks, global average pooling and a linear head.

  Each stage after the first halves the image and doubles the features. He et al. 2016, arXiv:1512.03385 and, with
  `preactivation`, arXiv:1603.05027; wide ones by Zagoruyko & Komodakis 2016, arXiv:1605.07146.

  Taps: "stem.conv", what every block notes ("stage1.block0.relu"; see `ResidualBlock`), "global_avg_pool"; not the
  logits.

  Differs from the papers: a bottleneck has its stride in the 3x3 convolution, as in torchvision, not in the first 1x1;
  weights start from PyTorch's defaults, where the papers draw from N(0, 2 / fan_in) (kernel_init="he") and torchvision
  from N(0, 2 / fan_out) ("he_fan_out").

  Attributes:
    num_classes: K.
    blocks: how many in each stage.
    width: features of the stem.
    widen: features of the first stage's convolutions are `widen` times `width`.
    bottleneck: blocks of three convolutions that end with four times the features.
    stem: "imagenet" is 7x7 with stride 2 and a 3x3 max pool with stride 2; "cifar" is 3x3 with stride 1.
    preactivation: norm and activation come before each convolution instead of after it.
    stem_activation: norm and activation after the stem's convolution.
    final_activation: norm and activation before the pooling.
    shortcut: False leaves a plain deep convolutional network, without projections.
    activated_shortcut: with `preactivation`, shortcuts start behind the first norm and activation of their block, as in
      the code of ELR+ (Liu et al. 2020, arXiv:2007.00151). He et al. start those without projection before them.
    projection: what a shortcut does where the shape changes: 1x1 convolution, or zeros for the new channels.
    residual_scale: factor on each branch before the sum (Szegedy et al. 2016, arXiv:1602.07261); 0 leaves shortcuts.
    dropout: rate between the convolutions of a block; stream "dropout".
    activation: a row of ACTIVATIONS.
    norm: with "none" the convolutions have a bias instead.
    remat: computes each block again in the backward pass, which saves memory and changes no result.
    kernel_init, bias_init: rows of INITIALIZERS, by name or with their numbers.
    dtype: of the computation; parameters and logits are float32.
  """

  num_classes: Count
  blocks: tuple[Annotated[int, Range(least=1, most=1000)], ...]
  width: Count = 64
  widen: Count = 1
  bottleneck: bool = False
  stem: Literal["imagenet", "cifar"] = "cifar"
  preactivation: bool = False
  stem_activation: bool = True
  final_activation: bool = False
  shortcut: bool = True
  activated_shortcut: bool = False
  projection: Literal["conv", "pad"] = "conv"
  residual_scale: float = 1.0
  dropout: Share = 0.0
  activation: str = "relu"
  norm: Literal["batch", "layer", "none"] = "batch"
  remat: bool = False
  kernel_init: str | Mapping[str, Any] = "torch_default"
  bias_init: str | Mapping[str, Any] = "torch_default"
  dtype: Literal["float32", "bfloat16"] = "float32"

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False, drop_path: Share | jax.Array = 0.0) -> Outputs:
    """Maps [B, H, W, C] float32 to `Outputs` with logits [B, K].

    Args:
      x: images.
      train: whether batch statistics, dropout and drop path are those of training.
      drop_path: in [0, 1], the rate at which the last block's branch is dropped; in block l of L it is l / L of that
        (Huang et al. 2016, arXiv:1603.09382). May be traced: the schedule min(1, t / T) (1 - p) makes it NASNet's
        ScheduledDropPath (Zoph et al. 2018, arXiv:1707.07012). Stream "dropout".

    Raises:
      UserError: for images of the wrong rank or size, and for fields that exclude each other.
    """
    self._check(x.shape, drop_path)
    taps = Taps()
    layers = Layers(self.activation, self.norm, self.kernel_init, self.bias_init, self.dtype)
    kernel, stride = (7, 2) if self.stem == "imagenet" else (3, 1)
    x = taps("stem.conv", layers.conv("stem", x.astype(self.dtype), self.width, kernel, stride))
    if self.stem_activation:
      x = layers.normalize("stem_norm", x, train, taps, "stem.norm")
      x = layers.activate(x, taps, "stem.")
    if self.stem == "imagenet":
      x = taps("stem.max_pool", nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1))))

    # None, unlike the number 0, stays known to be nothing when a rematerialized block traces its arguments.
    off = isinstance(drop_path, (int, float)) and drop_path == 0
    block = nn.remat(ResidualBlock, static_argnums=(2,)) if self.remat else ResidualBlock
    places = [(stage, i) for stage, count in enumerate(self.blocks) for i in range(count)]
    for depth, (stage, i) in enumerate(places):
      x, arrays = block(
        layers, self.width * self.widen * 2**stage, 2 if stage and not i else 1, self.bottleneck, self.preactivation,
        self.projection if self.shortcut else "none", self.residual_scale, self.dropout,
        self.activated_shortcut, name=f"stage{stage + 1}_block{i}",
      )(x, train, None if off else depth_rate(drop_path, depth, len(places)))
      taps.extend(f"stage{stage + 1}.block{i}", arrays)

    if self.final_activation:
      x = layers.activate(layers.normalize("norm", x, train, taps), taps)
    x = taps("global_avg_pool", x.mean(axis=(1, 2)))
    return taps.outputs(layers.dense("head", x, self.num_classes))

  def _check(self, shape: tuple[int, ...], drop_path: float | jax.Array) -> None:
    check_images(shape)
    if not self.blocks or min(self.blocks) < 1:
      raise UserError(f"config.model.blocks is {self.blocks}; give how many blocks each stage has, at least 1.")
    check_ranges(self)
    if self.activated_shortcut and not (self.preactivation and self.shortcut):
      field = "shortcut" if self.preactivation else "preactivation"
      raise UserError(f"config.model.activated_shortcut is true, but config.model.{field} is false; set both to true, "
                      "or leave activated_shortcut out.")
    plain = {"residual_scale": (self.residual_scale, 1), "drop_path": (drop_path, 0)}
    for field, (value, neutral) in plain.items():
      if not self.shortcut and not (isinstance(value, (int, float)) and value == neutral):
        raise UserError(f"config.model.shortcut is false, so there is no branch that {field} could act on; "
                        f"leave {field} out or set config.model.shortcut to true.")
    halvings = len(self.blocks) - 1 + (2 if self.stem == "imagenet" else 0)
    least = 2 ** (halvings - 1) + 1 if halvings else 1
    if min(shape[1:3]) < least:
      remedy = "config.model.stem = 'cifar'" if self.stem == "imagenet" else "fewer stages in config.model.blocks"
      raise UserError(f"config.model halves an image {halvings} times and needs at least {least} x {least} pixels, not "
                      f"{shape[1]} x {shape[2]}; take larger images or {remedy}.")


_IMAGENET = {"stem": "imagenet"}
_OPTION_A = {"width": 16, "projection": "pad"}
_HE = {"preactivation": True, "stem_activation": False, "final_activation": True}
_KUANGLIU = {"preactivation": True, "stem_activation": False}  # github.com/kuangliu/pytorch-cifar
_ELR_PLUS = {"preactivation": True, "activated_shortcut": True}  # github.com/shengliu66/ELR, ELR_plus/model
_WIDE = {"width": 16, **_HE}
_50 = {"blocks": (3, 4, 6, 3), "bottleneck": True}

RESNETS = {
  "resnet": ResNet,
  # He et al. 2016a, Table 1.
  "resnet18": Preset(ResNet, blocks=(2, 2, 2, 2), **_IMAGENET),
  "resnet34": Preset(ResNet, blocks=(3, 4, 6, 3), **_IMAGENET),
  "resnet50": Preset(ResNet, **_50, **_IMAGENET),
  "resnet18_cifar": Preset(ResNet, blocks=(2, 2, 2, 2)),
  "resnet34_cifar": Preset(ResNet, blocks=(3, 4, 6, 3)),
  "resnet50_cifar": Preset(ResNet, **_50),
  # The same without shortcuts; convnet50 has an activation after all three convolutions of a block.
  "convnet18": Preset(ResNet, blocks=(2, 2, 2, 2), shortcut=False, **_IMAGENET),
  "convnet34": Preset(ResNet, blocks=(3, 4, 6, 3), shortcut=False, **_IMAGENET),
  "convnet50": Preset(ResNet, shortcut=False, **_50, **_IMAGENET),
  "convnet18_cifar": Preset(ResNet, blocks=(2, 2, 2, 2), shortcut=False),
  "convnet34_cifar": Preset(ResNet, blocks=(3, 4, 6, 3), shortcut=False),
  "convnet50_cifar": Preset(ResNet, shortcut=False, **_50),
  # He et al. 2016a, section 4.2.
  "resnet20": Preset(ResNet, blocks=(3, 3, 3), **_OPTION_A),
  "resnet32": Preset(ResNet, blocks=(5, 5, 5), **_OPTION_A),
  "resnet56": Preset(ResNet, blocks=(9, 9, 9), **_OPTION_A),
  "resnet110": Preset(ResNet, blocks=(18, 18, 18), **_OPTION_A),
  # Three codes under one name. Only the first normalizes before the pooling, as He et al. 2016b do; in the third every
  # shortcut starts from the activated input. That code has 34 layers twice and trains neither: PreResNet.py builds them
  # of post-activation blocks, which is this row, and model.py of the blocks of its 18 layers, which is
  # {"name": "preact_resnet18_elr_plus", "blocks": (3, 4, 6, 3)}.
  "preact_resnet18": Preset(ResNet, blocks=(2, 2, 2, 2), **_HE),
  "preact_resnet34": Preset(ResNet, blocks=(3, 4, 6, 3), **_HE),
  "preact_resnet18_kuangliu": Preset(ResNet, blocks=(2, 2, 2, 2), **_KUANGLIU),
  "preact_resnet34_kuangliu": Preset(ResNet, blocks=(3, 4, 6, 3), **_KUANGLIU),
  "preact_resnet18_elr_plus": Preset(ResNet, blocks=(2, 2, 2, 2), **_ELR_PLUS),
  "preact_resnet34_elr_plus": Preset(ResNet, blocks=(3, 4, 6, 3)),
  # WRN-d-k has (d - 4) / 6 blocks in each of three stages.
  "wrn_16_4": Preset(ResNet, blocks=(2, 2, 2), widen=4, **_WIDE),
  "wrn_16_8": Preset(ResNet, blocks=(2, 2, 2), widen=8, **_WIDE),
  "wrn_22_8": Preset(ResNet, blocks=(3, 3, 3), widen=8, **_WIDE),
  "wrn_28_2": Preset(ResNet, blocks=(4, 4, 4), widen=2, **_WIDE),
  "wrn_28_10": Preset(ResNet, blocks=(4, 4, 4), widen=10, **_WIDE),
  "wrn_40_4": Preset(ResNet, blocks=(6, 6, 6), widen=4, **_WIDE),
}
