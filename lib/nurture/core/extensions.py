"""Rows outside of the tables: code of the user's own, which a config names as "module.path:Name"."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.metadata
import os
import pathlib
import sys
import sysconfig
import textwrap
import traceback
from collections.abc import Iterator, Mapping
from typing import Any

from nurture.core.errors import UserError

_LIMIT = 200_000  # characters of one source; a manifest must not fill the disk
_SHOWN = 300  # characters of an error
# Where code lies that is not the user's: this package, Python's own, and what is installed.
_NOT_OWN = tuple(folder + os.sep for folder in (
  str(pathlib.Path(__file__).parents[1]), sysconfig.get_path("stdlib"), f"{os.sep}site-packages",
))


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
    raise UserError(f"{path} is {name!r}, but {module} cannot be imported ({told(error)}); mend it, or start where it "
                    "lies, or add its folder to PYTHONPATH.") from error
  if not hasattr(found, attribute):
    known = ", ".join(sorted(n for n, v in vars(found).items() if callable(v) and not n.startswith("_"))) or "nothing"
    raise UserError(f"{path} is {name!r}, but {module} has no {attribute!r}; it has {known}.")
  row = getattr(found, attribute)
  if not callable(row) and not hasattr(row, "constructor"):
    raise UserError(f"{path} is {name!r}, which is {type(row).__name__} and not a class or a function; name one.")
  return row


def told(error: Exception) -> str:
  """Returns an error of the user's code in one line: "TypeError: ... in line 3 of losses.py".

  The line is the user's last one, if the error passed through any.
  """
  frames = [at for at in traceback.extract_tb(error.__traceback__) if not at.filename.startswith("<")]
  own = [at for at in frames if not any(part in at.filename for part in _NOT_OWN)]
  place = "".join(f" in line {at.lineno} of {at.filename}" for at in own[-1:])
  return textwrap.shorten(f"{type(error).__name__}: {error}", _SHOWN, placeholder=" ...") + place


def sources(config: Any) -> dict[str, dict[str, str]]:
  """Returns the code that a config names, for the manifest.

  Args:
    config: plain dicts, whose names have been imported.

  Returns:
    {module: {"sha256", "text"}} of the modules that are named and of all that belongs to the same packages;
    {package: {"version"}} of a package that is installed, such as optax.
  """
  found = {}
  for package in sorted({name.partition(":")[0].partition(".")[0] for name in _names(config)}):
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
      found[package] = {"version": importlib.metadata.version(package)}
      continue
    for name, module in sorted(sys.modules.items()):
      file = getattr(module, "__file__", None)
      if name.partition(".")[0] == package and file and file.endswith(".py"):
        text = pathlib.Path(file).read_text()
        found[name] = {"sha256": hashlib.sha256(text.encode()).hexdigest(), "text": text[:_LIMIT]}
  return found


def _names(config: Any) -> Iterator[str]:
  """Yields the names of imported code in a config, wherever they stand; "tfds:mnist" is none."""
  if isinstance(config, Mapping):
    config = tuple(config.values())
  if isinstance(config, (tuple, list)):
    for inner in config:
      yield from _names(inner)
  elif is_extension(config) and config.partition(":")[0] in sys.modules:
    yield config
