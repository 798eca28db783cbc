"""Type hints of the fields that a config sets: a type, and for a number its range.

    alpha: Share                                 # from 0 to 1
    steps: Count                                 # a whole number of at least 1
    scale: Annotated[float, Range(above=-1)]     # what no name below says

A number without a range of its own must be finite and fit in 32 bits, as everything on the device is. A value inside a
trace cannot be seen, so every point of a sweep is built with its plain values first.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import math
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any

import jax
import numpy as np

from nurture.core.errors import UserError

_UNIONS = (typing.Union, types.UnionType)
_INT32 = 2**31 - 1
_FLOAT32, _TINY = float(np.finfo(np.float32).max), float(np.finfo(np.float32).tiny)


@dataclasses.dataclass(frozen=True)
class Range:
  """An interval of numbers; stands in a type, as in Annotated[float, Range(least=0, below=1)].

  Attributes:
    least, above: the lower end, with or without itself; one of them, or neither.
    most, below: the upper end, likewise.
    infinite: whether inf is meant too.
  """

  least: float | None = None
  above: float | None = None
  most: float | None = None
  below: float | None = None
  infinite: bool = False

  def __contains__(self, value: float) -> bool:
    return (
      (self.least is None or value >= self.least) and (self.above is None or value > self.above)
      and (self.most is None or value <= self.most) and (self.below is None or value < self.below)
      and (abs(value) != math.inf or self.infinite) and value == value
    )

  def __str__(self):
    low = "" if self.least is self.above else f"above {self.above}" if self.least is None else f"{self.least}"
    high = "" if self.most is self.below else f"below {self.below}" if self.most is None else f"{self.most}"
    if low and high:
      return f"from {low} to {high}"
    if low:
      return low if self.least is None else f"of at least {low}"
    return high if self.most is None else f"of at most {high}"


Positive = Annotated[float, Range(above=0)]
NonNegative = Annotated[float, Range(least=0)]
Share = Annotated[float, Range(least=0, most=1)]
Memory = Annotated[float, Range(least=0, below=1)]  # the weight of the past in an average that forgets
Limit = Annotated[float, Range(least=0, infinite=True)]  # where something is cut off; inf cuts nothing
Count = Annotated[int, Range(least=1)]
Whole = Annotated[int, Range(least=0)]  # 0 often stands for none, or for all
Seed = Annotated[int, Range(least=0, most=2**32 - 1)]


@functools.cache  # parts are built anew in every trace
def of(constructor: Any) -> dict[str, Any]:
  """Returns the type hints of a constructor's arguments by name, ranges included."""
  # A class is asked itself where its __init__ names types of the module of a class that it inherits from.
  for annotated in (constructor.__init__, constructor) if inspect.isclass(constructor) else (constructor,):
    with contextlib.suppress(NameError, TypeError):  # annotations that only a type checker can resolve
      return typing.get_type_hints(annotated, include_extras=True)
  return {}  # nothing to check


def annotate(function: Callable[..., Any], **types: Any) -> Callable[..., Any]:
  """Returns a function of another library with the type hints, and so the ranges, that a config is held to.

  Arguments that are not named keep the function's own; names that it does not have are left out.
  """

  @functools.wraps(function)
  def annotated(*args, **kwargs):
    return function(*args, **kwargs)

  known = inspect.signature(function).parameters
  annotated.__annotations__ = of(function) | {name: hint for name, hint in types.items() if name in known}
  return annotated


def check(path: str, value: Any, hint: Any, owner: str = "") -> Any:
  """Checks a config's value, and returns it as its field holds it.

  A command line cannot change the type of a field, so one that takes words and numbers gets its numbers as strings.
  A whole number in a field of float is a float: JAX would count with it in integers, which overflow.

  Args:
    path: where it stands in the config.
    value: a plain value, or a number inside a trace.
    hint: the type that is needed.
    owner: who needs it, for the message.

  Raises:
    UserError: for another type, or a number out of range.
  """
  if isinstance(value, str) and typing.get_origin(hint) in _UNIONS and not matches(value, hint):
    with contextlib.suppress(ValueError):
      value = float(value) if matches(float(value), hint) else value
  if not matches(value, hint):
    needs = f"{owner!r} needs {describe(hint)}" if owner else f"{describe(hint)} is needed"
    raise UserError(f"{path} is {_shown(value)}, but {needs}.")
  for place, number, wanted in _outside(path, value, hint):
    raise UserError(f"{place} is {number}; give {wanted}.")
  return _held(value, hint)


def check_argument(name: str, value: Any, hint: Any, meaning: str = "") -> None:
  """Checks a plain number that a function is given; what is inside a trace passes.

  Functions may run in float64, so a number need not fit in 32 bits here.

  Args:
    name: of the argument, for the message.
    value: the number.
    hint: a type with its range, such as `Count` or `Positive | None`.
    meaning: what to give, for the message; empty, what the type says.

  Raises:
    UserError: for another type, or a number out of range.
  """
  if isinstance(value, jax.core.Tracer):
    return
  kind, span = _chosen(value, hint)
  number = _is_number(value) or _is_array(value)
  if not matches(value, kind) or number and value not in span:
    raise UserError(f"{name} is {value if number else repr(value)}; give {meaning or _wanted(value, kind, span)}.")


def check_fields(built: Any, path: str) -> None:
  """Checks the numbers in the fields of an object, for one that was not built from a config.

  Raises:
    UserError: for a number out of range.
  """
  constructor: Any = type(built)
  for name, hint in of(constructor).items():
    value = getattr(built, name, None)
    if matches(value, hint):
      check(f"{path}.{name}", value, hint)


def matches(value: Any, hint: Any) -> bool:
  """Tells if a config value fits a type hint, ranges aside; hints that a config cannot express accept everything."""
  origin = typing.get_origin(hint)
  if origin is Annotated:
    return matches(value, typing.get_args(hint)[0])
  if origin in _UNIONS:
    return any(matches(value, h) for h in typing.get_args(hint))
  if origin is typing.Literal:
    return any(type(value) is type(h) and value == h for h in typing.get_args(hint))
  if hint is float:  # the one type that may vary inside a program
    return (_is_array(value) and jax.numpy.ndim(value) == 0) or _is_number(value)
  if hint is int:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)
  if hint is bool:
    return isinstance(value, (bool, np.bool_))
  if hint is str:
    return isinstance(value, str)
  if hint in (type(None), None):
    return value is None
  if origin is Callable:
    return callable(value)
  if (origin or hint) in (tuple, list):
    return isinstance(value, (tuple, list)) and all(matches(v, h) for v, h in _items(value, hint))
  if inspect.isclass(origin or hint) and issubclass(origin or hint, Mapping):
    return isinstance(value, Mapping)
  if inspect.isclass(hint) and (hint is complex or issubclass(hint, (jax.Array, np.ndarray, np.generic))):
    return _is_array(value) or _is_number(value)
  return True


def describe(hint: Any) -> str:
  """Returns a type hint in words."""
  names = {float: "a number", int: "a whole number", bool: "true or false", str: "a string", type(None): "nothing"}
  if hint in names:
    return names[hint]
  origin = typing.get_origin(hint)
  if origin is Annotated:
    return describe(typing.get_args(hint)[0])
  if origin in _UNIONS:
    return " or ".join(describe(h) for h in typing.get_args(hint))
  if origin is typing.Literal:
    return "one of " + ", ".join(repr(v) for v in typing.get_args(hint))
  if origin is Callable:
    return "a function"
  if (origin or hint) in (tuple, list):
    return "a tuple"
  if inspect.isclass(origin or hint) and issubclass(origin or hint, Mapping):
    return "a dict"
  return str(hint)


def _outside(path: str, value: Any, hint: Any) -> Iterator[tuple[str, Any, str]]:
  """Yields (path, number, what to give) for each number in a value of the right type that is out of range."""
  hint, span = _chosen(value, hint)
  if isinstance(value, (tuple, list)):
    for i, (item, inner) in enumerate(_items(value, hint)):
      yield from _outside(f"{path}[{i}]", item, inner)
  if not _is_number(value):
    return
  whole = hint is int
  wanted = _wanted(value, hint, span)
  if value not in span:
    yield path, value, wanted
  elif whole and abs(value) > max(_INT32, span.most or 0):
    yield path, value, f"{wanted}, within 32 bits"
  elif not whole and (_FLOAT32 < abs(value) != math.inf or _rounded(value) not in span):
    yield path, value, f"{wanted}, as float32 holds it"


def _wanted(value: Any, hint: Any, span: Range) -> str:
  """Returns what to give in place of a value, in words: "a whole number of at least 1"."""
  if hint not in (float, Any):
    return f"{describe(hint)} {span}".strip()
  finite = span == Range() or _is_number(value) and abs(value) == math.inf
  return f"{'a finite number' if finite else 'a number'} {span}".strip()


def _chosen(value: Any, hint: Any) -> tuple[Any, Range]:
  """Returns the member of a union that a value fits, without its annotation, and its range."""
  if typing.get_origin(hint) in _UNIONS:
    options = [_chosen(value, h) for h in typing.get_args(hint) if matches(value, h)] or [(hint, Range())]
    return next((option for option in options if option[1] != Range()), options[0])
  if typing.get_origin(hint) is not Annotated:
    return hint, Range()
  base, *notes = typing.get_args(hint)
  return base, next((note for note in notes if isinstance(note, Range)), Range())


def _held(value: Any, hint: Any) -> Any:
  """Returns a value with floats where its type has them."""
  hint, _ = _chosen(value, hint)
  if isinstance(value, (tuple, list)):
    return type(value)(_held(item, inner) for item, inner in _items(value, hint))
  return float(value) if isinstance(value, int) and hint is float else value


def _items(value: Any, hint: Any) -> list[tuple[Any, Any]]:
  """Returns the items of a tuple, each with its type."""
  inner = typing.get_args(hint)
  if not inner or inner[-1] is Ellipsis or len(inner) != len(value):
    inner = (inner[0] if inner else Any,) * len(value)
  return list(zip(value, inner))


def _rounded(value: float) -> float:
  """Returns a number as the device has it, which takes the smallest for 0."""
  rounded = np.float32(value)
  return float(rounded) if abs(rounded) >= _TINY else 0.0


def _shown(value: Any) -> str:
  return f"an array of type {value.dtype}" if _is_array(value) else f"{value!r} ({type(value).__name__})"


def _is_array(value: Any) -> bool:
  return isinstance(value, (jax.Array, np.ndarray))


def _is_number(value: Any) -> bool:
  return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
