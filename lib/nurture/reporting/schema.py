"""Shapes of JSON files as literals, and one clause that names the place where a value has another.

A shape is a `Kind`, a list of one shape ([NUMBER]: a list of numbers, of any length), a dict of shapes by field name
({"step": COUNT}: an object with this field, and perhaps others), or `Each(shape)`: an object whose values, under any
names, all have that shape. `Optional(shape)` is a field that may be missing.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from typing import Any

Shape = Any

_LARGEST = sys.float_info.max
_SHOWN = 40  # characters of a value in a message


@dataclasses.dataclass(frozen=True)
class Kind:
  """A value that is looked at as a whole.

  Attributes:
    words: what it is, for messages.
    fits: whether a value is one.
  """

  words: str
  fits: Callable[[Any], bool]


@dataclasses.dataclass(frozen=True)
class Each:
  """An object whose values all have one shape."""

  shape: Shape


@dataclasses.dataclass(frozen=True)
class Optional:
  """A field that may be missing."""

  shape: Shape


def is_number(value: Any) -> bool:
  """Tells if a value is a finite number that a float can hold; true and false are none."""
  return isinstance(value, (int, float)) and not isinstance(value, bool) and -_LARGEST <= value <= _LARGEST


def _is_count(value: Any) -> bool:
  return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _is_measured(value: Any) -> bool:
  if isinstance(value, list):
    return all(map(_is_measured, value))
  return value is None or isinstance(value, (float, bool, str)) or is_number(value)  # floats of a file are finite


ANY = Kind("a value", lambda value: True)
NUMBER = Kind("a number", is_number)
NUMBER_OR_NULL = Kind("a number or null", lambda value: value is None or is_number(value))
COUNT = Kind("a whole number of at least 0", _is_count)
COUNT_OR_NULL = Kind("a whole number of at least 0 or null", lambda value: value is None or _is_count(value))
TEXT = Kind("text", lambda value: isinstance(value, str))
# Where a member stands on an axis.
LEVEL = Kind("a number, text, true or false", lambda value: isinstance(value, (bool, str)) or is_number(value))
# A metric: a number, null where it was not finite, or an array of them as lists.
MEASURED = Kind("a number, null, text or a list of these", _is_measured)


def mismatch(value: Any, shape: Shape, place: str = "") -> str | None:
  """Returns where and how a value differs from a shape, "groups[0].label is 3, but needs text"; None if it fits.

  Args:
    value: out of `nurture.reporting.json_files.parse`.
    shape: as above.
    place: where the value stands in its file; empty for the whole file.
  """
  if isinstance(shape, Kind):
    return None if shape.fits(value) else _wrong(value, shape.words, place)
  if isinstance(shape, list):
    if not isinstance(value, list):
      return _wrong(value, "a list", place)
    return next((found for i, v in enumerate(value) if (found := mismatch(v, shape[0], f"{place}[{i}]"))), None)
  if not isinstance(value, dict):
    return _wrong(value, "an object {...}", place)
  if isinstance(shape, Each):
    if isinstance(shape.shape, Kind) and all(map(shape.shape.fits, value.values())):
      return None  # most of what is read: places are named only where one is wrong
    return next((found for k, v in value.items() if (found := mismatch(v, shape.shape, joined(place, k)))), None)
  for name, inner in shape.items():
    optional = isinstance(inner, Optional)
    if name not in value:
      if not optional:
        return f"{joined(place, name)} is missing"
    elif found := mismatch(value[name], inner.shape if optional else inner, joined(place, name)):
      return found
  return None


def joined(place: str, name: str) -> str:
  """Returns the place of a field: "config.steps", or 'metrics["test/accuracy"]' where a dot would mislead."""
  if not name.isidentifier():
    return f"{place}[{shown(name)}]"
  return f"{place}.{name}" if place else name


def shown(value: Any) -> str:
  """Returns a value as it stands in the file, shortened."""
  if isinstance(value, list):
    return f"a list of {len(value)}"
  if isinstance(value, dict):
    return "an object of " + (", ".join(map(shown, list(value)[:3])) + (", …" if len(value) > 3 else "") or "no fields")
  text = json.dumps(value, ensure_ascii=False)
  return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def _wrong(value: Any, words: str, place: str) -> str:
  return f"{place or 'all of it'} is {shown(value)}, but needs {words}"
