"""Networks of the user's own, of any of four libraries, as rows that a config can name."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from flax import linen as nn

from nurture import core
from nurture.core import Outputs, Preset, UserError, hints
from nurture.core.extensions import is_extension
from nurture.models.capture import capture
from nurture.models.from_equinox import from_equinox
from nurture.models.from_haiku import from_haiku, from_transformed
from nurture.models.from_nnx import from_nnx
from nurture.models.wrapped import parameters_of

_FRAMEWORK = ("parent", "name")  # arguments that are the library's, never a config's
_KNOWN = ("a linen module, an nnx module, an equinox module or a haiku module, or a function that returns one of them")


def as_row(row: Any) -> Any:
  """Returns a constructor whose result is a model, with the fields of a class or function of the user's own.

  A config gets it by the name "module.path:Name"; in a notebook it may become a row, MODELS["mine"] = as_row(Net).

  A linen module whose __call__ is annotated with `-> Outputs` is a model as it is, and so is anything else with
  `init` and `apply`. All others are wrapped: linen modules by `capture`; classes and functions that take `rngs` as nnx
  modules; those that take a `key` as equinox modules; haiku by its modules' classes, or by functions that return what
  hk.transform or hk.transform_with_state gave.
  """
  if isinstance(row, functools.partial) and not row.args:
    row = Preset(row.func, **row.keywords)
  return Preset(_adapted(row.constructor), **row.arguments) if isinstance(row, Preset) else _adapted(row)


@functools.cache  # parts are built anew in every trace
def _adapted(constructor: Callable[..., Any]) -> Callable[..., Any]:
  wrap = _wrapper_of(constructor)

  def model(**fields: Any) -> Any:
    return wrap(constructor, **fields)

  hidden = {*_FRAMEWORK, *(name for name, made in _BY_ARGUMENT.items() if made is wrap)}
  fields = {name: parameter for name, parameter in parameters_of(constructor).items() if name not in hidden}
  model.__signature__ = inspect.Signature([  # type: ignore[attr-defined]
    parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in fields.values()
  ])
  model.__annotations__ = {name: hint for name, hint in hints.of(constructor).items() if name in fields}
  return model


def _wrapper_of(constructor: Callable[..., Any]) -> Callable[..., Any]:
  """Returns (constructor, fields) -> model, by the library of a class, and by what a function asks for."""
  if inspect.isclass(constructor):
    found = [wrap for kind, wrap in _BY_CLASS.items() if kind in _kinds(constructor)]
    return found[0] if found else _made
  if _BY_CLASS.keys() & _kinds(type(constructor)):
    raise UserError(f"config.model.name stands for a network that is made already, of {type(constructor).__name__}; "
                    "name its class, so that every seed makes one.")
  asked = [wrap for name, wrap in _BY_ARGUMENT.items() if name in parameters_of(constructor)]
  return asked[0] if asked else _made


def _kinds(kind: type) -> set[str]:
  """Returns the classes that a class inherits from, with their library: "equinox.Module" is known without equinox."""
  return {
    f"{library}.{parent.__name__}" for parent in kind.__mro__ for library in _LIBRARIES
    if f"{parent.__module__}.".startswith(f"{library}.")
  }


def _made(constructor: Callable[..., Any], **fields: Any) -> Any:
  """Returns what a constructor returns, as a model."""
  made = constructor(**fields)
  if isinstance(made, nn.Module):
    is_model = hints.of(type(made).__call__).get("return") is Outputs
    return made if is_model else capture(made.clone(parent=None, name=None))
  kinds = _kinds(type(made))
  if kinds & {"haiku.Transformed", "haiku.TransformedWithState"}:
    return from_transformed(made, constructor)
  for kind, argument in (("flax.nnx.Module", "rngs"), ("equinox.Module", "key")):
    if kind in kinds:
      raise UserError(f"config.model is {constructor.__name__}, which makes a network from random numbers of its own; "
                      f"give it an argument {argument!r}, from which every seed gets others.")
  if not (hasattr(made, "init") and hasattr(made, "apply")):
    raise UserError(f"config.model is {constructor.__name__}, which makes no network that is known but "
                    f"a {type(made).__name__}; name {_KNOWN}.")
  return made


_LIBRARIES = ("flax.linen", "flax.nnx", "equinox", "haiku")
# Who makes a model of what a class constructs, and of what a function does that asks for random numbers.
_BY_CLASS: Mapping[str, Callable[..., Any]] = {
  "flax.linen.Module": _made, "flax.nnx.Module": from_nnx, "equinox.Module": from_equinox, "haiku.Module": from_haiku,
}
_BY_ARGUMENT: Mapping[str, Callable[..., Any]] = {"rngs": from_nnx, "key": from_equinox}


def rows_for(table: Mapping[str, Any], config: str | Mapping[str, Any]) -> Mapping[str, Any]:
  """Returns a table that has the row of a config, also where that is code of the user's own."""
  name = config.get("name") if isinstance(config, Mapping) else config
  if not isinstance(name, str) or name in table or not is_extension(name):
    return table
  return {**table, name: as_row(core.lookup(table, name, path="config.model"))}
