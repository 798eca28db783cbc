"""Building of objects from a table of constructors and a piece of config.

A *table* is a literal dict from a name to a constructor: a dataclass, a linen module, a plain function,
or a `Preset` of one of those. A *config* is a mapping with the key "name" and the constructor's
arguments, or just the name. Beside the rows of its table it may name code of the user's own, "module.path:Name".
"""

from __future__ import annotations

import difflib
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any

import jax

from nurture.core import hints
from nurture.core.errors import UserError
from nurture.core.extensions import imported, is_extension

_LISTED = 40  # names that one sentence can hold

# Arguments of linen modules that are the framework's, never a config's.
_FRAMEWORK_FIELDS = frozenset({"parent", "name", "self"})


class Preset:
  """A row of a table that is another constructor with some arguments already chosen.

  The chosen arguments are defaults: a config may still override them.
  """

  def __init__(self, constructor: Callable, **arguments: Any):
    self.constructor = constructor
    self.arguments = arguments

  def __repr__(self):
    return f"Preset({self.constructor.__name__}, {self.arguments})"


def lookup(table: Mapping[str, Any], name: str, *, path: str = "") -> Any:
  """Returns table[name], or what "module.path:Name" stands for.

  Raises:
    UserError: if there is no such row; names the nearest one and lists all.
  """
  if isinstance(name, str) and name in table:
    return table[name]
  if is_extension(name):
    return imported(name, _dotted(path, "name"))
  raise UserError(f"{_dotted(path, 'name')} is {name!r}, which does not exist; {suggest(name, table)}.")


def suggest(name: object, known: typing.Iterable[str]) -> str:
  """Returns "did you mean 'x'? (known: a, b, x)" with the nearest of the known names, if one is near.

  Of many names only the nearest are listed.
  """
  known = sorted(known)
  near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
  near = near or [other for other in known if name and str(name) in other]
  shown, more = known, ""
  if len(known) > _LISTED:
    nearest = difflib.get_close_matches(str(name), known, n=_LISTED // 2, cutoff=0.0)
    shown, more = sorted(nearest), f" and {len(known) - len(nearest)} more"
  listing = "known: " + (", ".join(shown) or "none") + more
  return f"did you mean {near[0]!r}? ({listing})" if near else listing


def fields_of(row: Any) -> dict[str, inspect.Parameter]:
  """Returns the arguments that a config may set for a row of a table, by name."""
  constructor = row.constructor if isinstance(row, Preset) else row
  parameters = inspect.signature(constructor).parameters
  kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
  return {k: p for k, p in parameters.items() if p.kind in kinds and k not in _FRAMEWORK_FIELDS}


def build(table: Mapping[str, Any], config: str | Mapping[str, Any], *, path: str = "", **supplied: Any) -> Any:
  """Builds the object that a config describes.

  Args:
    table: name -> constructor.
    config: {"name": row, argument: value, ...}, or just the name of the row.
    path: where this config stands in the whole, for error messages ("losses.ce").
    **supplied: values that the caller knows (such as num_classes), used for arguments that the row has
      and the config leaves out.

  Returns:
    The constructor's result.

  Raises:
    UserError: for an unknown name, an unknown or missing argument, a value of the wrong type, or a number out of
      range (see nurture.core.hints).
  """
  if isinstance(config, str):
    config = {"name": config}
  if not isinstance(config, Mapping):
    raise UserError(f"{path or 'the config'} is {config!r}; give a name or a dict with a 'name'.")
  given = dict(config)
  if "name" not in given:
    raise UserError(f"{path or 'the config'} has no 'name'; {suggest('', table)}.")
  name = given.pop("name")
  row = lookup(table, name, path=path)
  constructor, arguments = (row.constructor, dict(row.arguments)) if isinstance(row, Preset) else (row, {})
  fields = fields_of(row)
  types_of = hints.of(constructor)
  for key, value in given.items():
    if key not in fields:
      raise UserError(f"{_dotted(path, key)} does not exist for {name!r}; {suggest(key, fields)}.")
    given[key] = hints.check(_dotted(path, key), value, types_of.get(key, Any), name)
  arguments.update({k: v for k, v in supplied.items() if k in fields})
  arguments.update(given)
  missing = [k for k, p in fields.items() if p.default is inspect.Parameter.empty and k not in arguments]
  if missing:
    raise UserError(f"{_dotted(path, missing[0])} is missing; {name!r} needs it.")
  try:
    return constructor(**arguments)
  except (TypeError, ValueError) as error:
    if isinstance(error, (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError)):
      raise  # a value that varies inside one program met code that needs a plain number
    raise UserError(f"{path or name}: {str(error).rstrip('.')}.") from error


def _dotted(path: str, key: str) -> str:
  return f"{path}.{key}" if path else key
