"""Rules of linen layers: the factors of a call that make up, with its output's cotangent, its parameters' Jacobian.

A rule stands for one class exactly, with the fields that it names at their defaults: a subclass, a masked convolution
or a layer with another product of its own is not recognized, and its parameters are differentiated as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from nurture.core import UserError
from nurture.ntk.contraction import Linear, Lookup, Values, Window, accumulator

Array = jax.Array


class Call(NamedTuple):
  """One call of a layer on one sample.

  Attributes:
    module: the layer; its fields are read, and a copy of it may be called.
    leaves: its parameters, by name, as indices into all of them.
    state: its other collections.
    args, kwargs: of the call.
  """

  module: nn.Module
  leaves: Mapping[str, int]
  state: Mapping[str, Any]
  args: tuple
  kwargs: Mapping[str, Any]


class Rule(NamedTuple):
  """How a class of layers is factored.

  Attributes:
    parameters: names of those that the layer may have.
    recognizes: whether the rule holds for a call.
    joins: call -> what two calls must agree in beside their parameters, for one factor to hold both.
    keeps: call -> arrays that the factor needs beside the cotangent.
    factor: (calls, what each keeps, cotangents [K, ...] of each one's output) -> the factor of one sample.
  """

  parameters: tuple[str, ...]
  recognizes: Callable[[Call], bool]
  joins: Callable[[Call], Any]
  keeps: Callable[[Call], Any]
  factor: Callable[[Sequence[Call], Sequence[Any], Sequence[Array]], Any]


_OWN = ("dot_general", "dot_general_cls", "conv_general_dilated", "conv_general_dilated_cls", "mask")


def _plain(call: Call) -> bool:
  """Whether the layer is called on one array and has no product, mask or promotion of its own."""
  module = call.module
  promotes = getattr(module, "promote_dtype", None) in (None, nn.dtypes.promote_dtype)
  return promotes and len(call.args) == 1 and not call.kwargs and all(getattr(module, f, None) is None for f in _OWN)


def _dense_input(call: Call) -> Array:
  """Returns [T, 1, p]."""
  (x,) = call.args
  return x.reshape(-1, 1, x.shape[-1])


def _general_input(call: Call) -> Array:
  """Returns [T, 1, p] with the contracted axes in order, as they stand in the kernel."""
  (x,) = call.args
  axes = sorted(axis % x.ndim for axis in _sequence(call.module.axis))
  rest = [axis for axis in range(x.ndim) if axis not in axes]
  return x.transpose(*rest, *axes).reshape(-1, 1, math.prod(x.shape[axis] for axis in axes))


def _linear(calls: Sequence[Call], kept: Sequence[Array], cotangents: Sequence[Array]) -> Linear:
  windows = tuple(_window(call) if isinstance(call.module, nn.Conv) else None for call in calls)
  groups = windows[0].groups if windows[0] else 1
  width = math.prod(_sequence(calls[0].module.features)) // groups
  shaped = tuple(d.reshape(d.shape[0], -1, groups, width) for d in cotangents)
  return Linear(tuple(kept), shaped, windows, "bias" in calls[0].leaves)


def _sequence(value: int | Sequence[int]) -> tuple[int, ...]:
  return (value,) if isinstance(value, int) else tuple(value)


def _window(call: Call) -> Window | None:
  """Returns where a convolution looks; None if this cannot be said."""
  module, (x,) = call.module, call.args
  size = _sequence(module.kernel_size)
  each = lambda value: (value or 1,) * len(size) if value is None or isinstance(value, int) else tuple(value)
  strides, dilation = each(module.strides), each(module.kernel_dilation)
  if set(each(module.input_dilation)) != {1} or x.ndim != len(size) + 2:
    return None
  reach = [(k - 1) * d for k, d in zip(size, dilation)]
  padding, mode = module.padding, "constant"
  if padding in ("CIRCULAR", "REFLECT"):
    mode = "wrap" if padding == "CIRCULAR" else "reflect"
    padding = [(r // 2, (r + 1) // 2) for r in reach]
  elif padding == "CAUSAL":
    padding = [(reach[0], 0)]
  elif isinstance(padding, str):
    effective = [r + 1 for r in reach]
    padding = jax.lax.padtype_to_pads(x.shape[1:-1], effective, strides, padding)
  elif isinstance(padding, int):
    padding = [(padding, padding)] * len(size)
  else:
    padding = [(p, p) if isinstance(p, int) else tuple(p) for p in padding]
  if min(min(pair) for pair in padding) < 0:
    return None
  return Window(size, strides, tuple(map(tuple, padding)), dilation, module.feature_group_count, mode)


def _embedding(calls: Sequence[Call], kept: Sequence[Array], cotangents: Sequence[Array]) -> Lookup:
  rows, width = calls[0].module.num_embeddings, calls[0].module.features
  tokens = tuple(jnp.where(t < 0, t + rows, t).reshape(-1) for t in kept)
  return Lookup(tokens, tuple(d.reshape(d.shape[0], -1, width) for d in cotangents), rows)


def _normalizes_last_axis(call: Call) -> bool:
  module = call.module
  axes = getattr(module, "axis", -1), getattr(module, "feature_axes", -1)
  return len(call.args) >= 1 and call.kwargs.get("mask") is None and all(a in (-1, (-1,), [-1]) for a in axes)


def _normalized(call: Call) -> Any:
  """Returns what the scale multiplies."""
  fields = {name: False for name in ("use_scale", "use_bias") if hasattr(call.module, name)}
  bare = call.module.clone(parent=None, name=None, **fields)
  return bare.apply(dict(call.state), *call.args, **call.kwargs)


def _scale_and_shift(calls: Sequence[Call], kept: Sequence[Array], cotangents: Sequence[Array]) -> Values:
  totals = []
  for name in sorted(calls[0].leaves):
    products = [d * x[None] if name == "scale" else d for x, d in zip(kept, cotangents)]
    totals.append(sum(_channel_sums(product) for product in products))
  return Values(jnp.concatenate(totals, axis=-1))


def _channel_sums(d: Array) -> Array:
  return jnp.sum(d.reshape(d.shape[0], -1, d.shape[-1]), axis=1, dtype=accumulator(d))


_NORM = Rule(("bias", "scale"), _normalizes_last_axis, lambda call: None, _normalized, _scale_and_shift)

RULES: dict[type, Rule] = {
  nn.Dense: Rule(("bias", "kernel"), _plain, lambda call: None, _dense_input, _linear),
  nn.DenseGeneral: Rule(
    ("bias", "kernel"), lambda call: _plain(call) and not call.module.batch_dims, lambda call: None,
    _general_input, _linear,
  ),
  nn.Conv: Rule(
    ("bias", "kernel"), lambda call: _plain(call) and _window(call) is not None,
    lambda call: call.module.feature_group_count, lambda call: call.args[0], _linear,
  ),
  nn.Embed: Rule(
    # The only row of a table of one is returned whatever the token.
    ("embedding",), lambda call: _plain(call) and call.module.num_embeddings > 1, lambda call: None,
    lambda call: call.args[0], _embedding,
  ),
  **{norm: _NORM for norm in (nn.BatchNorm, nn.GroupNorm, nn.InstanceNorm, nn.LayerNorm, nn.RMSNorm)},
}


def refuse_training(module: nn.Module, args: tuple, kwargs: Mapping[str, Any]) -> None:
  """Raises UserError for a call that makes outputs depend on the other samples of a batch, or on chance."""
  def setting(name):
    given = kwargs.get(name, args[1] if len(args) > 1 else None)
    return getattr(module, name) if given is None else given

  place = "/".join(module.path) or type(module).__name__
  if isinstance(module, nn.BatchNorm) and setting("use_running_average") is not True:
    raise UserError(f"{place} is a BatchNorm in training mode, so an output depends on the whole batch and has no NTK "
                    "of its own; let apply run the model in evaluation mode (train=False, use_running_average=True).")
  if isinstance(module, nn.Dropout) and module.rate > 0 and setting("deterministic") is not True:
    raise UserError(f"{place} is a Dropout that is on, so the NTK would be that of one random network; let apply run "
                    "the model in evaluation mode (train=False, deterministic=True).")


def refuse_chance(module: nn.Module) -> None:
  """Raises UserError after a call in which a module has drawn random numbers, as dropped paths and attention do."""
  counters = {} if module.scope is None else module.scope.rng_counters
  drawn = [name for name, count in counters.items() if isinstance(count, int) and count]
  if drawn:
    place = "/".join(module.path) or type(module).__name__
    raise UserError(f"{place} draws random numbers ({drawn[0]!r}), so the NTK would be that of one random network; let "
                    "apply run the model in evaluation mode (train=False, deterministic=True).")
