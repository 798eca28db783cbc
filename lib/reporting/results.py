"""JSON files of a run, and many members' numbers as one: mean, standard error, count."""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from lib.core import UserError
from lib.reporting.files import Path, plain, replace_file


def write_json(path: Path, value: Any) -> None:
  """Writes a value as JSON, atomically, keys in the order given, nan and infinity as null.

  Raises:
    UserError: if the file cannot be written.
  """
  replace_file(path, json.dumps(plain(value), indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
  """Reads a JSON file.

  Raises:
    UserError: if there is no such file, or it does not hold JSON.
  """
  try:
    return json.loads(pathlib.Path(path).read_bytes())
  except FileNotFoundError:
    raise UserError(f"{path} does not exist; give the directory of a run, which holds it.") from None
  except OSError as error:
    raise UserError(f"{path} cannot be read ({error.strerror}); mend its permissions or give another path.") from error
  except ValueError as error:
    raise UserError(f"{path} is not JSON ({error}); restore it from a copy or remove it.") from error


def summarize(values: Iterable[float | None]) -> dict[str, float | int | None]:
  """Returns the mean over members and its standard error: sem = std(values, ddof=1) / sqrt(n).

  Args:
    values: one number a member; None, nan and infinity mark members that died, and are left out.

  Returns:
    {"mean", "sem", "n", "dead"}: n members counted and `dead` left out; mean is None where n = 0, and
    sem where n < 2.
  """
  numbers = np.asarray([math.nan if v is None else v for v in values], np.float64)
  alive = numbers[np.isfinite(numbers)]
  n = len(alive)
  return {
    "mean": float(alive.mean()) if n else None,
    "sem": float(alive.std(ddof=1) / math.sqrt(n)) if n > 1 else None,
    "n": n,
    "dead": len(numbers) - n,
  }
