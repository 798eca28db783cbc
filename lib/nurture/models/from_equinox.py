"""Networks of equinox as models; equinox is imported when one is made."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import jax
from flax import traverse_util

from nurture.core import Outputs, trees
from nurture.models.wrapped import (
  Call,
  Wrapped,
  arguments_of,
  batch_size,
  faults_told,
  in_mode,
  key_of,
  known,
  noted,
  outputs_of,
  parameters_of,
  unscheduled,
  with_arguments,
)

Tree = Any

_AXIS = "batch"


def from_equinox(constructor: Callable[..., Any], **fields: Any) -> FromEquinox:
  """Returns a model of an equinox module.

  Args:
    constructor: a class, or a function that returns a module; it is given the `key` that it asks for.
    **fields: its other arguments.
  """
  import equinox as eqx  # noqa: PLC0415  (no dependency)

  fields, kind = known(fields), cast(Any, constructor)
  if not inspect.isclass(constructor):
    with faults_told(constructor.__name__):
      kind = type(eqx.filter_eval_shape(lambda: constructor(**fields, key=jax.random.key(0))))
  arguments = tuple(arguments_of(kind.__call__, 2))  # self and the input come first
  return with_arguments(FromEquinox, unscheduled(arguments, "key", "state"))(constructor, fields, arguments)


@dataclasses.dataclass(frozen=True)
class FromEquinox(Wrapped):
  """A module of equinox behind the interface of a model; made by `from_equinox`.

  As always with equinox, the module is called with one example and mapped over the batch, along an axis that is called
  "batch" (for eqx.nn.BatchNorm), with a `key` of each example's own in training and None in evaluation, if the call has
  that argument. One with the argument `state` returns (logits, state).

  Every array of floating-point numbers is trained, as eqx.filter_grad has it: it is in "params" under its path. Other
  arrays are in "constants", those of eqx.nn.State in "state". The mode is set by eqx.nn.inference_mode, and by the
  arguments of the call in FLAGS.

  Taps: the output of every call of every submodule's __call__, in the order in which the calls return. Those inside of
  jax.vmap, eqx.filter_jit and other transformations are not there.

  Attributes:
    constructor: of the module.
    fields: its arguments.
    arguments: of the module's call.
  """

  constructor: Callable[..., Any]
  fields: Mapping[str, Any]
  arguments: tuple[str, ...]

  def init(self, keys: Any, x: Any, **scheduled: Any) -> Tree:
    """Returns the arrays of the module; it is not called."""
    import equinox as eqx  # noqa: PLC0415

    with faults_told(self.constructor.__name__):
      model, state = self._made(key_of(keys, "params"))
    arrays = dict(trees.named_leaves(eqx.filter(model, eqx.is_array)))
    trained = {name for name, array in arrays.items() if eqx.is_inexact_array(array)}
    collections = {
      "params": {name: array for name, array in arrays.items() if name in trained},
      "constants": {name: array for name, array in arrays.items() if name not in trained},
      "state": {str(i): array for i, array in enumerate(jax.tree.leaves(state))},
    }
    return {name: traverse_util.unflatten_dict(flat, sep="/") for name, flat in collections.items() if flat}

  def apply(
    self, variables: Tree, x: Any, train: bool = False, rngs: Any = None, mutable: Any = False, **scheduled: Any
  ) -> Outputs | tuple[Outputs, Tree]:
    """Maps [B, ...] to `Outputs`, with the changed collections beside them unless `mutable` is False."""
    import equinox as eqx  # noqa: PLC0415

    size = batch_size(x)
    names: list[str] = []
    flags = in_mode(self.arguments, train) | scheduled
    key = key_of(rngs, "dropout") if train else None
    keys = None if key is None else jax.random.split(key, size)
    with faults_told(self.constructor.__name__, x):
      # What is no array is known without computing anything.
      model, state = eqx.filter_eval_shape(self._made, jax.random.key(0))
      model = eqx.nn.inference_mode(_filled(model, variables), value=not train)
      state = _restored(state, variables.get("state", {}))
      asked = inspect.signature(type(model).__call__).parameters.get("state")  # a Sequential takes it or not
      stateful = asked is not None and (asked.default is asked.empty or bool(jax.tree.leaves(state)))

      def one(x: Any, key: Any) -> tuple[Any, Any, list[Any]]:
        own = {"key": key} if "key" in self.arguments else {}
        own |= {"state": state} if stateful else {}
        calls: list[Call] = []
        with noted(_submodules(model), calls):
          out = model(x, **own, **flags)
        out, after = out if stateful else (out, state)
        names[:] = [name for name, _ in calls]
        is_state = lambda node: isinstance(node, eqx.nn.State)
        return out, after, [eqx.filter(y, lambda node: not is_state(node), is_leaf=is_state) for _, y in calls]

      out, state, values = jax.vmap(one, (0, None if keys is None else 0), (0, None, 0), axis_name=_AXIS)(x, keys)
    outputs = outputs_of(out, zip(names, values), size, self.constructor.__name__)
    changed = {"state": {str(i): array for i, array in enumerate(jax.tree.leaves(state))}}
    return outputs if mutable is False else (outputs, {name: changed[name] for name in mutable if name in changed})

  def _made(self, key: jax.Array) -> tuple[Any, Any]:
    """Returns (module, state)."""
    import equinox as eqx  # noqa: PLC0415

    own = {"key": key} if "key" in parameters_of(self.constructor) else {}
    return eqx.nn.make_with_state(functools.partial(self.constructor, **self.fields))(**own)


def _filled(model: Any, variables: Tree) -> Any:
  """Returns a module of shapes with the arrays of the variables."""
  arrays: dict[str, Any] = {}
  for name in ("params", "constants"):
    arrays |= traverse_util.flatten_dict(variables.get(name, {}), sep="/")
  paths, treedef = jax.tree_util.tree_flatten_with_path(model)
  return jax.tree.unflatten(treedef, [arrays.get(trees.path_name(path), leaf) for path, leaf in paths])


def _restored(state: Any, arrays: Mapping[str, Any]) -> Any:
  return jax.tree.unflatten(jax.tree.structure(state), [arrays[str(i)] for i in range(len(arrays))])


def _submodules(model: Any, path: tuple = ()) -> Iterator[tuple[str, Any]]:
  """Yields (name, module) of all modules inside of one."""
  import equinox as eqx  # noqa: PLC0415

  inner = lambda node: isinstance(node, eqx.Module) and node is not model
  for place, leaf in jax.tree_util.tree_leaves_with_path(model, is_leaf=inner):
    if inner(leaf):
      yield trees.path_name((*path, *place)).replace("/", "."), leaf
      yield from _submodules(leaf, (*path, *place))
