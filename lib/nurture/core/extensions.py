"""Rows outside of the tables: code of the user's own, which a config names as "module.path:Name"."""

from __future__ import annotations

import hashlib
import importlib
import pathlib
import sys
import traceback
from typing import Any

from nurture.core.errors import UserError

_LIMIT = 200_000  # characters of one source; a manifest must not fill the disk
_imported: set[str] = set()  # modules that configs have named


def is_extension(name: Any) -> bool:
  """Tells if a name stands for code of the user's own, "module.path:Name"."""
  module, colon, attribute = name.partition(":") if isinstance(name, str) else ("", "", "")
  return bool(colon) and attribute.isidentifier() and all(part.isidentifier() for part in module.split("."))


def imported(name: str, path: str) -> Any:
  """Imports what a config names as "module.path:Name", once.

  Modules are found as Python finds them: in the folder in which a program is started, beside an installed package, and
  wherever PYTHONPATH leads.

  Args:
    name: of the row.
    path: of the name in the config, for messages.

  Raises:
    UserError: if the module cannot be imported, with its own error, or has no such name, or that is nothing to call.
  """
  module, _, attribute = name.partition(":")
  try:
    found = importlib.import_module(module)
  except Exception as error:
    at = traceback.extract_tb(error.__traceback__)[-1]
    place = f" in line {at.lineno} of {at.filename}" if not at.filename.startswith("<frozen") else ""
    words = " ".join(f"{type(error).__name__}: {error}".split())
    raise UserError(f"{path} is {name!r}, but {module} cannot be imported ({words}{place}); mend it, or start where it "
                    "lies, or add its folder to PYTHONPATH.") from error
  if not hasattr(found, attribute):
    known = ", ".join(sorted(n for n, v in vars(found).items() if callable(v) and not n.startswith("_"))) or "nothing"
    raise UserError(f"{path} is {name!r}, but {module} has no {attribute!r}; it has {known}.")
  row = getattr(found, attribute)
  if not callable(row) and not hasattr(row, "constructor"):
    raise UserError(f"{path} is {name!r}, which is {type(row).__name__} and not a class or a function; name one.")
  _imported.add(module)
  return row


def sources() -> dict[str, dict[str, str]]:
  """Returns {module: {"sha256", "text"}} of what configs have named, and of what belongs to the same packages."""
  packages = {module.partition(".")[0] for module in _imported}
  found = {}
  for name, module in sorted(sys.modules.items()):
    file = getattr(module, "__file__", None)
    if name.partition(".")[0] in packages and file and file.endswith(".py"):
      text = pathlib.Path(file).read_text()
      found[name] = {"sha256": hashlib.sha256(text.encode()).hexdigest(), "text": text[:_LIMIT]}
  return found
