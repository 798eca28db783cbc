"""VanillaNet: a deep network without shortcuts or attention whose training form merges into half as many layers.

In training every convolution is a pair with an activation between that fades into the identity; at the end the pairs,
and the batch normalization around them, are one linear map each, and `to_deploy` multiplies them out.

Reference: Chen et al. 2023, arXiv:2305.12972, and the code released with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from nurture.core import Outputs, Preset, UserError
from nurture.core.hints import Count, Range, Share, Whole
from nurture.models.checks import check_images, check_ranges
from nurture.models.initializers import initializers
from nurture.models.layers import DepthwiseConv, PatchConv, adaptive_max_pool, batch_norm
from nurture.models.merging import Affine, chain, fold_norm
from nurture.models.taps import Taps

Tree = Any


def annealed_relu(x: jax.Array, lam: float | jax.Array) -> jax.Array:
  """(1 - λ) relu(x) + λ x: ReLU at λ = 0, and exactly the identity at λ = 1."""
  return jnp.where(x >= 0, x, jnp.asarray(lam, x.dtype) * x)


class _Form(nn.Module):
  """What the two forms of a VanillaNet share: the fields, the stages, the pools."""

  num_classes: Count
  dims: tuple[Count, ...]
  strides: tuple[Count, ...]
  act_num: Annotated[int, Range(least=0, most=100)] = 3
  dropout: Share = 0.0
  stem_patch: Count = 4
  stem_stride: Whole = 0
  stem_pad: Whole = 0
  ada_pool: tuple[Whole, ...] = ()
  kernel_init: str | Mapping[str, Any] = "timm"
  bias_init: str | Mapping[str, Any] = "zeros"
  dtype: Literal["float32", "bfloat16"] = "float32"

  def __post_init__(self):
    if len(self.dims) != len(self.strides) + 1 or not self.strides:
      raise UserError(f"config.model.dims has {len(self.dims)} widths and config.model.strides {len(self.strides)} "
                      "strides; give the width of the stem and then one width and one stride for every block.")
    check_ranges(self)
    if self.ada_pool and len(self.ada_pool) != len(self.strides):
      raise UserError(f"config.model.ada_pool has {len(self.ada_pool)} sizes for {len(self.strides)} blocks; give one "
                      "for every block, 0 where the stride decides.")
    super().__post_init__()

  def _conv(self, name: str, features: int, x: jax.Array) -> jax.Array:
    """A 1x1 convolution, which is a dense layer on the channels."""
    return nn.Dense(features, dtype=jnp.dtype(self.dtype), name=name, **self._init(x.shape[-1]))(x)

  def _stem_conv(self, x: jax.Array) -> jax.Array:
    check_images(x.shape)
    if min(x.shape[1:3]) + 2 * self.stem_pad < self.stem_patch:
      raise UserError(f"config.model.stem_patch is {self.stem_patch}, but the image is {x.shape[1]} x {x.shape[2]}; "
                      "give a smaller patch.")
    fields = {"name": "stem_conv1", "dtype": jnp.dtype(self.dtype), **self._init(self.stem_patch**2 * x.shape[-1])}
    patch, stride = self.stem_patch, self.stem_stride or self.stem_patch
    if (patch, 0) == (stride, self.stem_pad):
      return PatchConv(self.dims[0], patch, **fields)(x.astype(self.dtype))
    padding = [(self.stem_pad,) * 2] * 2
    return nn.Conv(self.dims[0], (patch,) * 2, (stride,) * 2, padding, **fields)(x.astype(self.dtype))

  def _pool(self, block: int, x: jax.Array, taps: Taps) -> jax.Array:
    stride, size = self.strides[block], self.ada_pool[block] if self.ada_pool else 0
    if min(x.shape[1:3]) < (size or stride):
      field = f"ada_pool is {self.ada_pool}" if size else f"strides is {self.strides}"
      raise UserError(f"config.model.{field}, but the image is {x.shape[1]} x {x.shape[2]} before block {block}; give "
                      "larger images, a smaller stem_patch or smaller pools.")
    if size:
      return taps("max_pool", adaptive_max_pool(x, size))
    return taps("max_pool", nn.max_pool(x, (stride,) * 2, (stride,) * 2)) if stride > 1 else x

  def _series(self, name: str, x: jax.Array, taps: Taps, use_bias: bool) -> jax.Array:
    """The series activation without its normalization: a depthwise mixture of shifted ReLUs."""
    x, size = taps("relu", jax.nn.relu(x)), 2 * self.act_num + 1
    init = self._init(size**2)
    return taps("conv", DepthwiseConv(size, use_bias, dtype=self.dtype, name=f"{name}_series", **init)(x))

  def _init(self, fan_in: int) -> dict[str, Any]:
    return initializers(self.kernel_init, self.bias_init, fan_in)


class VanillaNet(_Form):
  """The training form: pairs of 1x1 convolutions with batch normalization, and leaky(λ) inside each pair.

      stem     conv patch x patch - BN - leaky(λ) - conv 1x1 - BN - series activation
      block i  conv 1x1 - BN - leaky(λ) - conv 1x1 - BN - max pool - series activation
      head     global average pool - dropout - conv 1x1 - BN - leaky(λ) - conv 1x1
      series activation: A_s(x)[h, w, c] = BN(sum_{i, j in [-n, n]} a[i, j, c] relu(x[h + i, w + j, c]))

  λ is the argument `lam` of a call: 1 - λ of ReLU and λ of the identity, the same everywhere. It is remembered in the
  collection "slope", so evaluation without the argument and `to_deploy` use the λ of the last training step. Variables
  without that collection need the argument. The published schedule is {"name": "epoch_ramp", ...} of
  nurture.core.schedules.

  Taps: every conv, norm, activation ("annealed_relu", "relu") and pool.

  Attributes:
    num_classes: K.
    dims: widths of the stem and of every block.
    strides: of the pool of every block; 1 for none.
    act_num: n of the series activation, whose kernel is 2n + 1 wide.
    dropout: rate before the head; stream "dropout".
    stem_patch, stem_stride, stem_pad: of the first convolution; a stride of 0 takes the patch.
    ada_pool: for every block the side to which it pools adaptively; 0 pools by stride. Empty for none.
    kernel_init, bias_init: rows of INITIALIZERS, by name or with their numbers.
    dtype: of the computation; parameters and logits are float32.

  Differs from the paper: as in its code, no bias stands inside the ReLU of the series activation (the normalization
  before it has one) and a normalization follows it.
  """

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False, lam: Share | jax.Array | None = None) -> Outputs:
    """Maps [B, H, W, C] float32 to `Outputs` with logits [B, K]; lam is λ, [] or a number, None takes the last one."""
    taps, lam = Taps(), self._slope(train, lam)
    norm = lambda name, x: taps("norm", batch_norm(train, epsilon=1e-6, dtype=jnp.dtype(self.dtype), name=name)(x))

    def pair(name, features, first):
      x = norm(f"{name}_norm1", taps("conv", first))
      x = taps("annealed_relu", annealed_relu(x, lam))
      return taps("conv", self._conv(f"{name}_conv2", features, x))

    x = norm("stem_norm2", pair("stem", self.dims[0], self._stem_conv(x)))
    x = norm("stem_series_norm", self._series("stem", x, taps, use_bias=False))
    for i, features in enumerate(self.dims[1:]):
      name = f"block{i}"
      x = norm(f"{name}_norm2", pair(name, features, self._conv(f"{name}_conv1", x.shape[-1], x)))
      x = self._series(name, self._pool(i, x, taps), taps, use_bias=False)
      x = norm(f"{name}_series_norm", x)
    x = taps("global_avg_pool", x.mean(axis=(1, 2)))
    x = nn.Dropout(self.dropout, deterministic=not train)(x)
    x = norm("head_norm1", taps("conv", self._conv("head_conv1", self.num_classes, x)))
    x = taps("annealed_relu", annealed_relu(x, lam))
    return taps.outputs(self._conv("head_conv2", self.num_classes, x))

  def _slope(self, train: bool, lam: float | jax.Array | None) -> float | jax.Array:
    """Returns λ, the given one or the last one, and remembers it where the collection "slope" may change."""
    known = self.is_initializing() or self.has_variable("slope", "lam")
    if lam is None and not known:
      raise UserError("λ of this VanillaNet is not known: its variables have no collection 'slope'; pass lam, which is "
                      "1.0 at the end of the published training, or keep 'slope' beside 'params'.")
    if lam is not None and not (known or self.is_mutable_collection("slope")):
      return lam
    seen = self.variable("slope", "lam", lambda: jnp.asarray(1.0 if lam is None else lam, jnp.float32))
    lam = seen.value if lam is None else lam
    if train and self.is_mutable_collection("slope"):
      seen.value = jnp.asarray(lam, jnp.float32)
    return lam

  def _check_convertible(self, variables: Tree, force: bool) -> None:
    if "batch_stats" not in variables:
      raise UserError("these variables are already those of a deployed network, or not those of a VanillaNet; "
                      "convert the variables of the training form.")
    layers = {f"{name}_conv1" for name in ("stem", "head", *(f"block{i}" for i in range(len(self.strides))))}
    if not layers <= set(variables["params"]) or variables["params"]["head_conv2"]["bias"].ndim != 1:
      raise UserError("these variables are those of another network or of a whole ensemble; convert the variables of "
                      "one member, or vmap over members with force=True.")
    if force:
      return
    lam = variables.get("slope", {}).get("lam")
    if lam is None or isinstance(lam, jax.core.Tracer):
      raise UserError("λ of these variables is not known (there is no collection 'slope', or it is traced); make sure "
                      "that it is 1 and pass force=True.")
    if float(lam) != 1.0:
      raise UserError(f"λ is {float(lam):.7g}, and the pairs are linear at λ = 1 only; train until the schedule of lam "
                      "has reached 1, or pass force=True for a different function.")

  def deployed(self) -> DeployedVanillaNet:
    """Returns the merged form of this network."""
    names = ("num_classes", *[name for name in _Form.__annotations__ if name != "num_classes"])
    return DeployedVanillaNet(**{name: getattr(self, name) for name in names})

  def to_deploy(self, variables: Tree, *, force: bool = False) -> Tree:
    """Merges trained variables into those of `deployed()`, in float64.

    Args:
      variables: {"params", "batch_stats", "slope"} of this network.
      force: merges at λ < 1 too, where the two forms are different functions; needed where λ is traced.

    Returns:
      {"params": ...} of the deployed form, in the dtype of the given parameters.

    Raises:
      UserError: if λ is below 1, or the variables are those of a deployed network.
    """
    self._check_convertible(variables, force)
    params, stats = variables["params"], variables["batch_stats"]
    dtype = params["head_conv2"]["kernel"].dtype
    with jax.enable_x64(True):

      def folded(layer, norm):
        kernel = params[layer]["kernel"].astype(jnp.float64)
        bias = params[layer].get("bias", jnp.zeros(kernel.shape[-1]))
        return fold_norm(Affine(kernel, bias.astype(jnp.float64)), params[norm], stats[norm], epsilon=1e-6)

      merged = {}
      for name in ("stem", *(f"block{i}" for i in range(len(self.strides)))):
        pair = chain(folded(f"{name}_conv1", f"{name}_norm1"), folded(f"{name}_conv2", f"{name}_norm2"))
        merged[f"{name}_conv1"] = pair
        merged[f"{name}_series"] = folded(f"{name}_series", f"{name}_series_norm")
      last = Affine(*(params["head_conv2"][leaf].astype(jnp.float64) for leaf in ("kernel", "bias")))
      merged["head_conv1"] = chain(folded("head_conv1", "head_norm1"), last)
      return {"params": {
        name: {"kernel": affine.kernel.astype(dtype), "bias": affine.bias.astype(dtype)}
        for name, affine in merged.items()
      }}


class DeployedVanillaNet(_Form):
  """The merged form: one convolution where the training form has a pair, and no normalization.

  The published parameter counts and multiply-adds are of this form. It can be trained as it is, which is another
  experiment. Attributes as for VanillaNet.
  """

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> Outputs:
    """Maps [B, H, W, C] float32 to `Outputs` with logits [B, K]."""
    taps = Taps()
    x = self._series("stem", taps("conv", self._stem_conv(x)), taps, use_bias=True)
    for i, features in enumerate(self.dims[1:]):
      x = taps("conv", self._conv(f"block{i}_conv1", features, x))
      x = self._series(f"block{i}", self._pool(i, x, taps), taps, use_bias=True)
    x = taps("global_avg_pool", x.mean(axis=(1, 2)))
    x = nn.Dropout(self.dropout, deterministic=not train)(x)
    return taps.outputs(self._conv("head_conv1", self.num_classes, x))

  def to_deploy(self, variables: Tree, *, force: bool = False) -> Tree:
    """Refuses: there is nothing left to merge.

    Raises:
      UserError: always.
    """
    raise UserError("this network is already deployed; convert the training form once.")


def _published(depth: int, base: int = 512, **fields: Any) -> dict[str, Any]:
  """Returns the fields of a depth: stem, depth - 2 blocks and head."""
  if depth in (5, 6):
    multiples, strides = (1, 2, 4, 8, 8)[: depth - 1], (2, 2, 2, 1)[: depth - 2]
  else:
    multiples = (1, 1, 2, *(4,) * (depth - 6), 8, 8)
    strides = (1, 2, 2, *(1,) * (depth - 7), 2, 1)
  return {"dims": tuple(base * multiple for multiple in multiples), "strides": strides, **fields}


_ADAPTIVE = {"stem_stride": 3, "stem_pad": 1, "ada_pool": (0, 38, 19, 0, 0, 0, 0, 0, 0, 10, 0)}
_FIELDS = {
  **{f"vanillanet_{depth}": _published(depth) for depth in range(5, 14)},
  "vanillanet_13_x1_5": _published(13, base=768),
  "vanillanet_13_x1_5_ada_pool": _published(13, base=768, **_ADAPTIVE),
  # Our adaptation to images of 32 x 32: there is no published one. 16, 8, 4, 2 and 2 pixels a side.
  "vanillanet_cifar": {"dims": (64, 128, 256, 512, 512), "strides": (2, 2, 2, 1), "stem_patch": 2},
}
VANILLANETS = {
  "vanillanet": VanillaNet,
  "vanillanet_deployed": DeployedVanillaNet,
  **{name: Preset(VanillaNet, **fields) for name, fields in _FIELDS.items()},
  **{f"{name}_deployed": Preset(DeployedVanillaNet, **fields) for name, fields in _FIELDS.items()},
}
