"""JSON files, written whole and read strictly: what only Python takes for JSON, or has two meanings, is refused."""

from __future__ import annotations

import json
import math
from typing import Any

from nurture.core import UserError
from nurture.reporting.files import Path, json_form, read_file, replace_file
from nurture.reporting.schema import ANY, Shape, mismatch, shown

_DEPTH = 100  # lists and objects within each other; configs have about ten
_TOO_DEEP = f"is nested more than {_DEPTH} levels deep"
_FIX = "restore it from a copy or remove it"


class Malformed(ValueError):
  """Text that is not JSON as it is read here; the message is a clause, "is empty"."""


def write_json(path: Path, value: Any) -> None:
  """Writes a value as JSON, atomically, keys in the order given, nan and infinity as null.

  Raises:
    UserError: if the file cannot be written.
  """
  replace_file(path, json.dumps(json_form(value), indent=1, allow_nan=False) + "\n")


def read_json(path: Path, shape: Shape = ANY, fix: str = _FIX) -> Any:
  """Reads a JSON file.

  Args:
    path: of the file.
    shape: what it must hold (see `nurture.reporting.schema`).
    fix: what to do about a file that holds something else, the end of the message.

  Raises:
    UserError: if there is no such file, or it does not hold JSON of that shape.
  """
  try:
    value = parse(read_file(path))
  except Malformed as error:
    raise UserError(f"{path} {error}; {fix}.") from None
  if found := mismatch(value, shape):
    raise UserError(f"{path}: {found}; {fix}.")
  return value


def parse(data: bytes) -> Any:
  """Returns the value that a text of JSON stands for.

  Raises:
    Malformed: for anything but JSON; for NaN, Infinity and numbers beyond all floats; for an object that has a name
      twice, half a surrogate pair (which no file or terminal takes), and more than 100 levels.
  """
  if not data.strip():
    raise Malformed("is empty")
  try:
    value = json.loads(data, object_pairs_hook=_unique, parse_constant=_no_number)
  except RecursionError:
    raise Malformed(_TOO_DEEP) from None
  except Malformed:
    raise
  except (json.JSONDecodeError, UnicodeDecodeError) as error:
    raise Malformed(f"is not JSON ({error})") from None
  except ValueError:  # Python's bound for the digits of a whole number
    raise Malformed("is not JSON as it is written here (a number has thousands of digits)") from None
  _check(value, characters=b"\\u" in data or not data.isascii())
  return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  result = dict(pairs)
  if len(result) < len(pairs):
    names = [name for name, _ in pairs]
    raise Malformed(f"has {shown(next(name for name in names if names.count(name) > 1))} twice in one object")
  return result


def _no_number(token: str) -> Any:
  raise Malformed(f"is not JSON ({token} is no number there; null stands for it)")


def _check(value: Any, characters: bool) -> None:
  """Looks at every number and container, and at the characters of all text if some may be no characters."""
  level = [value]
  for depth in range(_DEPTH + 1):  # level by level, since a deep value would be too much for a recursion
    inner: list[Any] = []
    for item in level:
      if isinstance(item, float):
        if not -math.inf < item < math.inf:
          raise Malformed("has a number that is too large for a float")
      elif depth == _DEPTH and isinstance(item, (dict, list)):
        raise Malformed(_TOO_DEEP)
      elif isinstance(item, dict):
        inner += item.values()
        if characters:
          inner += item
      elif isinstance(item, list):
        inner += item
      elif characters and isinstance(item, str) and any("\ud800" <= c <= "\udfff" for c in item):
        raise Malformed("has text with half a surrogate pair, which is no character")
    level = inner
