"""Networks of flax nnx as models, by flax's own bridge; nnx is imported when one is made, for it takes its time."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any, cast

from nurture.core import Outputs, UserError, rng
from nurture.models.wrapped import (
  Call,
  Wrapped,
  arguments_of,
  batch_size,
  faults_told,
  in_mode,
  known,
  noted,
  outputs_of,
  parameters_of,
  unscheduled,
  with_arguments,
)

Tree = Any


def from_nnx(constructor: Callable[..., Any], **fields: Any) -> FromNnx:
  """Returns a model of an nnx module.

  Args:
    constructor: a class, or a function that returns a module; it is given the `rngs` that it asks for.
    **fields: its other arguments.
  """
  from flax import nnx  # noqa: PLC0415

  fields, kind = known(fields), cast(Any, constructor)
  if not inspect.isclass(constructor):
    with faults_told(constructor.__name__):
      kind = type(nnx.eval_shape(lambda: constructor(**fields, rngs=nnx.Rngs(0))))
  arguments = tuple(arguments_of(kind.__call__, 2))  # self and the input come first
  return with_arguments(FromNnx, unscheduled(arguments))(constructor, fields, arguments)


@dataclasses.dataclass(frozen=True)
class FromNnx(Wrapped):
  """A module of nnx behind the interface of a model; made by `from_nnx`.

  The variables are the module's own by their types, nnx.Param as "params" and nnx.BatchStat as "batch_stats"; other
  types are collections that change as the module changes them, but are not trained. Random numbers of all streams come
  from the key of "dropout", anew in every step. The mode is set by the module's `train()` and `eval()`, and by the
  arguments of its call in FLAGS.

  Taps: the output of every call of every submodule's __call__, in the order in which the calls return. Those inside of
  nnx.scan and other transformations are not there.

  Attributes:
    constructor: of the module.
    fields: its arguments.
    arguments: of the module's call.
  """

  constructor: Callable[..., Any]
  fields: Mapping[str, Any]
  arguments: tuple[str, ...]

  def init(self, keys: Any, x: Any, **scheduled: Any) -> Tree:
    """Returns the module's variables."""
    keys = _with_default(keys if isinstance(keys, Mapping) else {"params": keys}, "params")
    with faults_told(self.constructor.__name__, x), contextlib.ExitStack() as stack:
      given: dict[str, Any] = in_mode(self.arguments, False) | scheduled
      return _spelt(self._bridge(False, [], stack).init(keys, x, **given))

  def apply(
    self, variables: Tree, x: Any, train: bool = False, rngs: Any = None, mutable: Any = False, **scheduled: Any
  ) -> Outputs | tuple[Outputs, Tree]:
    """Maps [B, ...] to `Outputs`, with the changed collections beside them unless `mutable` is False."""
    calls: list[Call] = []
    rngs = _with_default(rngs, "dropout") if rngs else None
    with faults_told(self.constructor.__name__, x), contextlib.ExitStack() as stack:
      given: dict[str, Any] = in_mode(self.arguments, train) | scheduled
      out, changed = self._bridge(train, calls, stack).apply(
        _counted(variables), x, rngs=rngs, mutable=mutable or [], **given
      )
    outputs = outputs_of(out, calls, batch_size(x), self.constructor.__name__)
    return outputs if mutable is False else (outputs, _spelt(changed))

  def _bridge(self, train: bool, calls: list[Call], stack: contextlib.ExitStack) -> Any:
    """Returns the module as one of linen; while it is called, its submodules are noted."""
    from flax import nnx  # noqa: PLC0415

    takes_rngs = "rngs" in parameters_of(self.constructor)

    def made(**rngs: Any) -> Any:
      with faults_told(self.constructor.__name__):
        module = self.constructor(**self.fields, **rngs)
      if not isinstance(module, nnx.Module):
        raise UserError(f"config.model is {self.constructor.__name__}, which takes rngs and returns a "
                        f"{type(module).__name__}; return an nnx module.")
      module.train() if train else module.eval()
      submodules = [(".".join(map(str, path)), inner) for path, inner in nnx.iter_modules(module) if path]
      stack.enter_context(noted(submodules, calls))
      return module

    return nnx.bridge.ToLinen(cast(Any, made), skip_rng=not takes_rngs, metadata_fn=None, parent=None)


def _with_default(keys: Mapping[str, Any], stream: str) -> dict[str, Any]:
  """Returns keys with one for all streams that they do not name; without it the bridge takes the same in every step."""
  return {"default": rng.stream(keys[stream], "default"), **keys}


def _spelt(tree: Tree) -> Tree:
  """Returns dicts whose keys are all strings: nnx counts the parts of a list, which no checkpoint would keep."""
  return {str(k): _spelt(v) for k, v in tree.items()} if isinstance(tree, Mapping) else tree


def _counted(tree: Tree) -> Tree:
  """Returns dicts as nnx has them."""
  if not isinstance(tree, Mapping):
    return tree
  return {int(k) if k.isdecimal() else k: _counted(v) for k, v in tree.items()}
