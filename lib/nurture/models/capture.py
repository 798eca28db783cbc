"""Linen modules written elsewhere, as models: what their submodules return becomes the taps."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import traverse_util

from nurture.core import Outputs, UserError
from nurture.core.build import suggest
from nurture.models.taps import Taps
from nurture.models.wrapped import FLAGS, Wrapped, arguments_of, batch_size, faults_told, tap, with_arguments

Tree = Any

_TAPS = "intermediates"  # the collection into which flax captures


def capture(
  module: nn.Module,
  *,
  logits: Callable[[Any], jax.Array] = lambda out: out,
  submodules: Callable[[nn.Module], bool] = lambda module: True,
  train_flag: str = "",
  eval_flag: str = "",
) -> Captured:
  """Returns a model with the taps of any linen module, which need not know of `Outputs`.

  A row of MODELS may be a function that ends with it:

      def theirs(num_classes: int, width: int = 64):
        return capture(Theirs(num_classes, width), logits=lambda out: out["logits"])

  Args:
    module: unbound; it is called as module(x, **flags, **scheduled).
    logits: what the module returns -> the logits.
    submodules: whether the outputs of a submodule are tapped, such as
      lambda module: isinstance(module, (nn.Dense, nn.Conv)).
    train_flag: name of the argument or field that is true in training.
    eval_flag: name of the argument or field that is true in evaluation. Without either, all names in FLAGS that the
      module has are set; a module with none of them does the same in both modes.

  Raises:
    UserError: if the module has no such argument or field.
  """
  named = {train_flag: True, eval_flag: False}
  named.pop("", None)
  arguments = arguments_of(type(module).__call__, 2)  # self and the input come first
  fields = [field.name for field in dataclasses.fields(module) if field.name not in ("parent", "name")]
  for name in named:
    if name not in (*arguments, *fields):
      raise UserError(f"{type(module).__name__} has no argument or field {name!r}; "
                      f"{suggest(name, {*arguments, *fields})}.")
  flags = named or FLAGS
  made = with_arguments(Captured, tuple(name for name in arguments if name not in flags))
  return made(
    module,
    arguments=tuple((name, flags[name]) for name in arguments if name in flags),
    fields=tuple((name, flags[name]) for name in fields if name in flags and name not in arguments),
    logits=logits,
    submodules=submodules,
  )


@dataclasses.dataclass(frozen=True)
class Captured(Wrapped):
  """A foreign module behind the interface of a model; made by `capture`.

  Taps: the output of every call of every submodule's __call__, in the order in which the calls return, so that the
  last one of a block is the block itself; not the module's own. "003_encoder.Dense_1" is the submodule's path, and a
  submodule that returns several arrays has one tap for each ("004_LSTMCell_0/1"). A module called twice has two taps;
  under `nn.scan`, or any other lifted map, whose variable_axes hold {"intermediates": 0}, layer i is
  "005_ScanBlock_0[i].Dense_0".

  Not captured: functions such as nn.relu, which are no modules; methods other than __call__; arrays whose first axis
  is not the batch's; all inside an `nn.scan` or `nn.vmap` without that axis, or inside `nn.while_loop` and
  `nn.custom_vjp`, which drop what they are not told of. The tap before an activation need not be its input. Layers of
  a scan over a function instead of a module class come layer by layer for each submodule.

  Attributes:
    module: the foreign module; the variables are its own.
    arguments, fields: (name, value in training) of its flags.
    logits, submodules: as for `capture`.
  """

  module: nn.Module
  arguments: tuple[tuple[str, bool], ...]
  fields: tuple[tuple[str, bool], ...]
  logits: Callable[[Any], jax.Array]
  submodules: Callable[[nn.Module], bool]

  def init(self, keys: Any, x: jax.Array, **scheduled: Any) -> Tree:
    """Returns the module's variables, initialized in evaluation mode."""
    module, flags = self._in_mode(False)
    with faults_told(type(self.module).__name__, x):
      return _without_taps(module.init(keys, x, **cast(dict[str, Any], flags), **scheduled))

  def apply(
    self, variables: Tree, x: jax.Array, train: bool = False, rngs: Any = None, mutable: Any = False, **scheduled: Any
  ) -> Outputs | tuple[Outputs, Tree]:
    """Maps [B, ...] to `Outputs`, with the changed collections beside them unless `mutable` is False.

    Raises:
      UserError: if what the module returns is no array, and `logits` does not find one in it.
    """
    module, flags = self._in_mode(train)
    calls: list[_Call] = []

    def note(next_function, args, kwargs, context):
      y = next_function(*args, **kwargs)
      if context.method_name == "__call__" and context.module.path:
        calls.append(_Call(context.module.path, jax.tree.map(jnp.shape, y), self.submodules(context.module)))
      return y

    def run(variables, x, rngs):
      with nn.intercept_methods(note):
        return module.apply(
          variables, x, rngs=rngs, mutable=mutable, **cast(dict[str, Any], flags), **scheduled,
          capture_intermediates=lambda module, method: method == "__call__" and bool(module.path),
        )

    # flax carries the arrays out of every transformation; what is noted on the side is their order and shape.
    arguments = _without_taps(variables), x, rngs
    with faults_told(type(self.module).__name__, x):
      out, changed = run(*arguments)
    if isinstance(out, Outputs):  # the module is a model already
      return out if mutable is False else (out, _without_taps(changed))
    captured = {path[:-1]: values for path, values in traverse_util.flatten_dict(changed.get(_TAPS, {})).items()
                if path[-1] == "__call__"}
    noted = collections.Counter(call.path for call in calls)
    if any(noted[path] < len(values) for path, values in captured.items()):  # an nn.jit that was not traced again
      calls.clear()
      with jax.disable_jit():
        jax.eval_shape(run, *arguments)
    batch, taps = batch_size(x), Taps()
    for call in _unstacked(_filled(calls, captured, batch)):
      if call.tapped:
        tap(taps, ".".join(call.place), call.value, batch)
    logits = self.logits(out)
    if not isinstance(logits, (jax.Array, np.ndarray)):
      raise UserError(f"config.model is {type(self.module).__name__}, which returns a {type(logits).__name__} and not "
                      "logits; return the logits alone, or say where they are, as in "
                      "models.capture(module, logits=lambda out: out[0]).")
    outputs = taps.outputs(logits)
    return outputs if mutable is False else (outputs, _without_taps(changed))

  def _in_mode(self, train: bool) -> tuple[nn.Module, dict[str, bool]]:
    """Returns the module with its fields set, and the arguments of its call."""
    choose = lambda flags: {name: value == train for name, value in flags}
    return self.module.clone(**choose(self.fields)) if self.fields else self.module, choose(self.arguments)


class _Call(NamedTuple):
  """One call of a submodule: where, the shapes that it returned there, whether it is tapped, and what came out.

  `axes` are the leading axes that transformations have added; `place` is the path with the indices along them.
  """

  path: tuple[str, ...]
  shapes: Any
  tapped: bool
  value: Any = None
  axes: tuple[int, ...] = ()
  place: tuple[str, ...] = ()


def _filled(calls: list[_Call], captured: Mapping[tuple[str, ...], tuple], batch: int) -> Iterator[_Call]:
  """Yields the calls with their values. A function that was traced again is noted again: the first trace counts."""
  used: collections.Counter[tuple[str, ...]] = collections.Counter()
  for call in calls:
    values = captured.get(call.path, ())
    i, used[call.path] = used[call.path], used[call.path] + 1
    if i < len(values):
      yield call._replace(value=values[i], axes=_added_axes(values[i], call.shapes, batch), place=call.path)


def _added_axes(value: Any, shapes: Any, batch: int) -> tuple[int, ...]:
  """Returns the sizes of the axes before the batch; none where the batch itself was mapped over."""
  is_shape = lambda node: isinstance(node, tuple) and all(isinstance(n, int) for n in node)
  for array, inner in zip(jax.tree.leaves(value), jax.tree.leaves(shapes, is_leaf=is_shape)):
    if inner and inner[0] == batch:
      return array.shape[: array.ndim - len(inner)]
  return ()


def _unstacked(calls: Iterable[_Call]) -> Iterator[_Call]:
  """Yields calls without added axes, those of a scanned module layer by layer."""
  calls = list(calls)
  stacked = {call.path for call in calls if call.axes}
  scanned: list[_Call] = []
  for call in calls:
    if not call.axes:
      yield call
      continue
    scanned.append(call)
    depth = next(n for n in range(len(call.path) + 1) if call.path[:n] in stacked)
    if depth == len(call.path):  # the scanned module itself, which returns last
      for i in range(call.axes[0]):
        yield from _unstacked(_layer(inner, i, depth) for inner in scanned)
      scanned = []
  for call in scanned:
    for i in range(call.axes[0]):
      yield from _unstacked([_layer(call, i, len(call.path))])


def _layer(call: _Call, index: int, depth: int) -> _Call:
  place = (*call.place[: depth - 1], f"{call.place[depth - 1]}[{index}]", *call.place[depth:])
  return call._replace(value=jax.tree.map(lambda a: a[index], call.value), axes=call.axes[1:], place=place)


def _without_taps(variables: Mapping[str, Any]) -> dict[str, Any]:
  return {name: collection for name, collection in variables.items() if name != _TAPS}
