"""Values as they are written on a command line: numbers, words, and tuples and dicts of these."""

from __future__ import annotations

import ast
import contextlib
import inspect
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any

from absl import flags

from nurture.core import hints

_PARSERS: dict[Any, Any] = {bool: flags.BooleanParser(), int: flags.IntegerParser(), float: flags.FloatParser()}


def literal(text: str) -> Any:
  """Returns what a text stands for: Python's literals or JSON's, in which bare words are strings.

  Raises:
    ValueError: for a text that is none.
  """
  try:
    return evaluated(ast.parse(text.strip(), mode="eval").body)
  except (SyntaxError, TypeError, MemoryError, RecursionError) as error:
    raise ValueError(f"{text!r} is no literal") from error


def evaluated(node: ast.expr) -> Any:
  """Returns the value of a literal, see `literal`.

  Raises:
    ValueError: for another expression.
  """
  return ast.literal_eval(_Words().visit(node))


def parsed(text: str, hint: Any) -> Any:
  """Returns the value of a field that is given as a text; ranges are left to who builds the object.

      hint                    text                        value
      int | None              3, None                     3, None
      float | Mapping         0.1, {"name": "x"}          0.1, {"name": "x"}
      tuple                   (1, 2), or 1,2 or a,b       (1, 2), ("a", "b")
      str                     none                        "none"

  Args:
    text: as given.
    hint: the type of the field (see nurture.core.hints); of a union, the first kind in this order that fits.

  Raises:
    ValueError: for a text that stands for no value of this type.
  """
  options = sorted(_options(hint), key=_rank)
  for option in options:
    if str in options and _is(option, (tuple, list)) and text.lstrip()[:1] not in ("(", "[") and "," not in text:
      continue  # a word alone
    with contextlib.suppress(ValueError):
      return _value(text, option)
  raise ValueError(f"{text!r} is not {hints.describe(hint)}")


def _options(hint: Any) -> list[Any]:
  """Returns the types of a union, without their ranges."""
  origin = typing.get_origin(hint)
  if origin is Annotated:
    return _options(typing.get_args(hint)[0])
  if origin in (typing.Union, types.UnionType):
    return [option for inner in typing.get_args(hint) for option in _options(inner)]
  return [hint]


def _rank(option: Any) -> int:
  """Orders types from those that take few texts to those that take any."""
  if option in (type(None), None) or typing.get_origin(option) is typing.Literal:
    return 0
  if option in (int, float, bool):
    return 1 + (int, float, bool).index(option)
  return 4 if _is(option, (tuple, list, Mapping)) else 6 if option is str else 5


def _is(option: Any, kinds: tuple[type, ...]) -> bool:
  kind = typing.get_origin(option) or option
  return inspect.isclass(kind) and issubclass(kind, kinds)


def _value(text: str, option: Any) -> Any:
  if option in (type(None), None):
    if text != "None":
      raise ValueError
    return None
  if typing.get_origin(option) is typing.Literal:
    known = {str(value): value for value in typing.get_args(option)}
    if text not in known:
      raise ValueError
    return known[text]
  if option in _PARSERS:
    return _PARSERS[option].parse(text)
  if option is str:
    return text
  if _is(option, (tuple, list)):
    value = literal(text) if text.lstrip()[:1] in ("(", "[") else _listed(text)
    value = tuple(value) if isinstance(value, (tuple, list)) else (value,)
  elif _is(option, (Mapping,)):
    value = literal(text)
    if not isinstance(value, Mapping):
      raise ValueError
  else:  # a type that says nothing of texts
    value = _free(text)
  if not hints.matches(value, option):
    raise ValueError
  return value


def _listed(text: str) -> Any:
  """Returns the items of a,b,c; an item may be no literal, such as the path of a metric."""
  try:
    return literal(text)
  except ValueError:
    return tuple(_free(item.strip()) for item in text.split(","))


def _free(text: str) -> Any:
  """Returns a literal where the text is one, and else the text."""
  try:
    return literal(text)
  except ValueError:
    return text


class _Words(ast.NodeTransformer):
  """Takes a bare word, or one after a minus (-log_n), for a string, and JSON's true, false and null for themselves."""

  def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
    if isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Name):
      return ast.Constant(f"-{node.operand.id}")
    return node

  def visit_Name(self, node: ast.Name) -> ast.Constant:
    return ast.Constant({"true": True, "false": False, "null": None}.get(node.id, node.id))
