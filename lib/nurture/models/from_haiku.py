"""Networks of haiku as models; haiku is imported when one is made."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any, cast

from jax.extend.core import get_opaque_trace_state

from nurture.core import Outputs
from nurture.models.wrapped import (
  Call,
  Wrapped,
  arguments_of,
  batch_size,
  faults_told,
  in_mode,
  key_of,
  outputs_of,
  unscheduled,
  with_arguments,
)

Tree = Any


def from_haiku(constructor: Callable[..., Any], **fields: Any) -> FromHaiku:
  """Returns a model of a haiku module's class."""
  import haiku as hk  # noqa: PLC0415  (no dependency)

  arguments = arguments_of(cast(Any, constructor).__call__, 2)  # self and the input come first
  return _model(hk.transform_with_state(lambda x, **given: constructor(**fields)(x, **given)), arguments, constructor)


def from_transformed(transformed: Any, constructor: Callable[..., Any]) -> FromHaiku:
  """Returns a model of what hk.transform or hk.transform_with_state gave.

  Args:
    transformed: of a function of the input.
    constructor: who made it, for messages.
  """
  import haiku as hk  # noqa: PLC0415

  if isinstance(transformed, hk.Transformed):
    transformed = hk.with_empty_state(transformed)
  arguments = arguments_of(transformed.apply, 4)  # params, state, rng and the input come first
  return _model(transformed, arguments, constructor)


def _model(transformed: Any, arguments: list[str], constructor: Callable[..., Any]) -> FromHaiku:
  made = with_arguments(FromHaiku, unscheduled(arguments))
  return made(transformed, tuple(arguments), constructor.__name__, inspect.isclass(constructor))


@dataclasses.dataclass(frozen=True)
class FromHaiku(Wrapped):
  """A transformed function of haiku behind the interface of a model; made by `from_haiku` or `from_transformed`.

  The parameters and the state are haiku's own, as "params" and "state". A module's name has dots for slashes,
  "net.linear". Random numbers come from the key of "dropout", and there are none in evaluation. The mode is set by the
  arguments of the call in FLAGS, usually `is_training`.

  Taps: the output of every call of every submodule's __call__, in the order in which the calls return. Those inside of
  hk.scan and other transformations are not there.

  Attributes:
    transformed: hk.TransformedWithState.
    arguments: of the call.
    owner: who made it, for messages.
    has_root: whether all modules are inside of one, which is no tap itself.
  """

  transformed: Any
  arguments: tuple[str, ...]
  owner: str
  has_root: bool

  def init(self, keys: Any, x: Any, **scheduled: Any) -> Tree:
    """Returns the function's variables, made in training mode: haiku's batch normalization needs that."""
    with faults_told(self.owner, x):
      params, state = self.transformed.init(
        key_of(keys, "params"), x, **in_mode(self.arguments, True), **scheduled
      )
    return {"params": _dotted(params)} | ({"state": _dotted(state)} if state else {})

  def apply(
    self, variables: Tree, x: Any, train: bool = False, rngs: Any = None, mutable: Any = False, **scheduled: Any
  ) -> Outputs | tuple[Outputs, Tree]:
    """Maps [B, ...] to `Outputs`, with the changed collections beside them unless `mutable` is False."""
    import haiku as hk  # noqa: PLC0415

    calls: list[Call] = []
    here = get_opaque_trace_state()

    def note(next_function, args, kwargs, context):
      y = next_function(*args, **kwargs)
      path = [part for part in context.module.module_name.split("/") if part != "~"][self.has_root:]
      if context.method_name == "__call__" and path and get_opaque_trace_state() == here:
        calls.append((".".join(path), y))
      return y

    key = key_of(rngs, "dropout") if train else None
    with faults_told(self.owner, x), hk.intercept_methods(note):
      out, state = self.transformed.apply(
        _slashed(variables["params"]), _slashed(variables.get("state", {})), key, x,
        **in_mode(self.arguments, train), **scheduled,
      )
    outputs = outputs_of(out, calls, batch_size(x), self.owner)
    changed = {"state": _dotted(state)}
    return outputs if mutable is False else (outputs, {name: changed[name] for name in mutable if name in changed})


def _dotted(tree: Mapping[str, Any]) -> dict[str, Any]:
  """Returns {module: its arrays} with names that a checkpoint and a path of the config can have."""
  return {module.replace("/", "."): dict(arrays) for module, arrays in tree.items()}


def _slashed(tree: Mapping[str, Any]) -> dict[str, Any]:
  return {module.replace(".", "/"): arrays for module, arrays in tree.items()}
