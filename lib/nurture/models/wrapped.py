"""The common part of all models that stand around a network of another library."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import flax.errors
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.extend.core import get_opaque_trace_state

from nurture.core import Outputs, UserError
from nurture.core.extensions import told
from nurture.models.taps import Taps

Tree = Any
Call = tuple[str, Any]  # where a submodule stands, such as "encoder.linear", and what it returned

# The names under which networks ask whether they train, and the value that says yes.
FLAGS = {
  "train": True, "training": True, "is_train": True, "is_training": True,
  "eval_mode": False, "deterministic": False, "use_running_average": False, "inference": False,
}
# What goes wrong while a network is traced. That a number is not known there yet is the sweep's business.
_FAULTS = (
  ArithmeticError, AssertionError, AttributeError, LookupError, NameError, NotImplementedError, TypeError, ValueError,
  flax.errors.FlaxError,
)
_UNKNOWN = (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError)


@dataclasses.dataclass(frozen=True)
class Wrapped(abc.ABC):
  """A network of another library behind the interface of a model."""

  @abc.abstractmethod
  def init(self, keys: Any, x: Any, **scheduled: Any) -> Tree:
    """Returns the variables {"params": ..., other collections}, made in evaluation mode."""

  @abc.abstractmethod
  def apply(
    self, variables: Tree, x: Any, train: bool = False, rngs: Any = None, mutable: Any = False, **scheduled: Any
  ) -> Outputs | tuple[Outputs, Tree]:
    """Maps [B, ...] to `Outputs`, with the changed collections beside them unless `mutable` is False."""

  def clone(self, *, parent: nn.Module | None, name: str | None) -> Nested:
    """Returns a linen module with these variables, for a model that is made of others."""
    return Nested(self, parent=parent, name=name)


class Nested(nn.Module):
  """A wrapped network as a part of a linen module.

  Attributes:
    model: the network.
  """

  model: Any

  @nn.compact
  def __call__(self, x: Any, train: bool = False) -> Outputs:
    """Maps [B, ...] to `Outputs`."""
    if self.is_initializing():
      self._put(self.model.init({name: self.make_rng(name) for name in ("params", "dropout")}, x))
      return self.model.apply(dict(self.variables), x)
    rngs = {"dropout": self.make_rng("dropout")} if self.has_rng("dropout") else None
    mutable = [name for name in self.variables if name != "params" and self.is_mutable_collection(name)]
    outputs, changed = self.model.apply(dict(self.variables), x, train=train, rngs=rngs, mutable=mutable)
    self._put(changed)
    return outputs

  def _put(self, variables: Mapping[str, Any]) -> None:
    for collection, entries in variables.items():
      for name, value in entries.items():
        self.put_variable(collection, name, value)


Kind = TypeVar("Kind", bound=type[Wrapped])


@functools.cache
def with_arguments(kind: Kind, scheduled: tuple[str, ...]) -> Kind:
  """Returns a class whose __call__ has the signature of a model with these arguments: the trainer reads it."""

  def __call__(self, x, train=False, **scheduled):
    raise TypeError("a wrapped network holds no variables; use model.apply(variables, x).")

  parameter = inspect.Parameter
  __call__.__signature__ = inspect.Signature([  # type: ignore[attr-defined]
    *(parameter(name, parameter.POSITIONAL_OR_KEYWORD) for name in ("self", "x")),
    parameter("train", parameter.POSITIONAL_OR_KEYWORD, default=False),
    *(parameter(name, parameter.KEYWORD_ONLY) for name in scheduled),
  ])
  return type(kind.__name__, (kind,), {"__call__": __call__})  # type: ignore[return-value]


def arguments_of(call: Callable[..., Any], first: int) -> list[str]:
  """Returns the names of the arguments of a call but for the first ones."""
  return [
    name for name, p in inspect.signature(call).parameters.items()
    if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
  ][first:]


def parameters_of(constructor: Callable[..., Any]) -> dict[str, inspect.Parameter]:
  """Returns the arguments of a class or a function that can be given by keyword, by name."""
  # The metaclasses of some libraries hide the signature of a class.
  call = constructor.__init__ if inspect.isclass(constructor) else constructor  # type: ignore[misc]
  parameters = list(inspect.signature(call).parameters.items())[inspect.isclass(constructor):]
  return {name: p for name, p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}


def in_mode(arguments: Iterable[str], train: bool) -> dict[str, bool]:
  """Returns the values of those arguments that ask for the mode."""
  return {name: FLAGS[name] == train for name in arguments if name in FLAGS}


def unscheduled(arguments: Iterable[str], *own: str) -> tuple[str, ...]:
  """Returns the arguments that a schedule may set: neither a flag nor one that the wrapper gives itself."""
  return tuple(name for name in arguments if name not in FLAGS and name not in own)


def key_of(keys: Any, stream: str) -> Any:
  """Returns the key of a stream, of {stream: key} or of one key for all; None where there is none."""
  return keys.get(stream) if isinstance(keys, Mapping) else keys


def batch_size(x: Any) -> int:
  """Returns B of a batch of model inputs, one array or several."""
  return jax.tree.leaves(x)[0].shape[0]


def known(fields: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the fields of a network that is built anew in every trace, whose numbers must be plain.

  Raises:
    ConcretizationTypeError: for a number that varies inside of a program; a sweep then gives each value its own.
  """
  for value in jax.tree.leaves(fields):
    if isinstance(value, jax.core.Tracer):
      float(value)
  return dict(fields)


@contextlib.contextmanager
def faults_told(owner: str, x: Any = None) -> Iterator[None]:
  """Makes one sentence of what goes wrong inside of a network.

  Args:
    owner: the name of its class.
    x: the batch that it is called with; None where it is constructed.
  """
  try:
    yield
  except _UNKNOWN:
    raise
  except _FAULTS as error:
    shapes = " and ".join(str(jnp.shape(array)) for array in jax.tree.leaves(x))
    fault = f"does not take a batch of shape {shapes}" if shapes else "cannot be made"
    raise UserError(f"config.model is {owner}, which {fault} ({told(error)}); mend it, or its fields.") from error


@contextlib.contextmanager
def noted(modules: Iterable[tuple[str, Any]], calls: list[Call]) -> Iterator[None]:
  """Notes what modules return when they are called, by their classes: for libraries without interceptors.

  What is called inside of a transformation such as jax.vmap or jax.checkpoint is not noted, for its arrays do not exist
  outside.

  Args:
    modules: (name, module).
    calls: where it is noted.
  """
  names = {id(module): (name, module) for name, module in modules}  # the modules are kept, and so are their ids
  here, kinds = get_opaque_trace_state(), {type(module) for _, module in names.values()}
  kinds = {kind for kind in kinds if any("__call__" in vars(parent) for parent in kind.__mro__)}

  def noting(kind: type) -> Callable[..., Any]:
    original = kind.__call__

    @functools.wraps(original)
    def __call__(self, *args, **kwargs):
      y = original(self, *args, **kwargs)
      if type(self) is kind and id(self) in names and get_opaque_trace_state() == here:
        calls.append((names[id(self)][0], y))
      return y

    return __call__

  originals = {kind: vars(kind).get("__call__") for kind in kinds}
  changed = {kind: noting(kind) for kind in kinds}  # of all, before any is set: one may inherit from another
  try:
    for kind, call in changed.items():
      kind.__call__ = call  # type: ignore[method-assign]
    yield
  finally:
    for kind in changed:
      if originals[kind] is None:
        del kind.__call__
      else:
        kind.__call__ = originals[kind]  # type: ignore[method-assign]


def outputs_of(out: Any, calls: Iterable[Call], batch: int, owner: str) -> Outputs:
  """Returns what a network returned, with what its submodules returned as taps, as `Outputs`.

  Raises:
    UserError: if it is no array of logits, and no `Outputs`.
  """
  if isinstance(out, Outputs):
    return out
  if not isinstance(out, (jax.Array, np.ndarray)):
    raise UserError(f"config.model is {owner}, which returns a {type(out).__name__} and not logits; return the logits "
                    "alone.")
  taps = Taps()
  for name, value in calls:
    tap(taps, name, value, batch)
  return taps.outputs(jnp.asarray(out))


def tap(taps: Taps, name: str, value: Any, batch: int) -> None:
  """Notes the numbers of a batch in what a submodule returned; those of several arrays are "name/0", "name/1"."""
  leaves = jax.tree_util.tree_leaves_with_path(value)
  for path, array in leaves:
    if jnp.ndim(array) and array.shape[0] == batch and jnp.issubdtype(array.dtype, jnp.floating):
      suffix = "/" + jax.tree_util.keystr(path, simple=True, separator="/") if len(leaves) > 1 else ""
      taps(name + suffix, array)
