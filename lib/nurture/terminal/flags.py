"""The command line: flags, config files and their overrides, each mistake in it one sentence that names the fix."""

from __future__ import annotations

import os
import pathlib
import re
import sys
from collections.abc import Sequence
from typing import Any

from absl import app, flags

from nurture.core import UserError
from nurture.core.build import suggest
from nurture.reporting.files import exists, is_directory
from nurture.terminal.overrides import Place, apply

# For flags of a name that several binaries have: a notebook or a test may import more than one of them.
SHARED = {"allow_override": True}


def parse_flags(argv: Sequence[str], root: Place | None = None) -> list[str]:
  """Parses the command line into flags.FLAGS and returns what is not a flag.

  Args:
    argv: the command line, the name of the program first.
    root: what may stand in a config (see `nurture.terminal.overrides.apply`).

  Raises:
    UserError: for an unknown or missing flag, a value of the wrong type, a config file that is not there, or
      an override of a field that the config, or a row that it names, does not have.
  """
  if any(re.fullmatch(r"--?(help|helpshort|\?)", argument) for argument in argv[1:]):
    app.usage(shorthelp=True, writeto_stdout=True)
    sys.exit(0)
  configs, words = {}, list(argv)
  for name in list(flags.FLAGS):
    if flags.FLAGS[name].flag_type() == "config object":
      configs[name], words = config_of(name, words, root)
  whole = sys.argv
  try:
    sys.argv = words  # where config_flags looks for overrides, which have been taken out
    rest = flags.FLAGS(words)
    for name, config in configs.items():
      if config is not None:
        flags.FLAGS[name].value = config
    return rest
  except flags.UnrecognizedFlagError as error:
    known = [f.name for f in flags.FLAGS.get_key_flags_for_module(sys.argv[0])]
    raise UserError(f"--{error.flagname} does not exist; {suggest(error.flagname, known)}.") from error
  except flags.Error as error:
    raise UserError(_sentence(str(error))) from error
  finally:
    sys.argv = whole


def config_of(name: str, argv: Sequence[str], root: Place | None = None) -> tuple[Any, list[str]]:
  """Reads the config of a flag and changes it as the command line says; config_flags has errors of many types.

  Returns:
    The config, None where none is given, and the words of the command line that do not change it.

  Raises:
    UserError: see `parse_flags`.
  """
  path = _value_of(name, argv)
  if path is None:
    override = next((word for word in argv[1:] if re.match(rf"--?(?:no)?{re.escape(name)}\.", word)), None)
    if override and flags.FLAGS[name].default is None:
      raise UserError(f"{override.split('=')[0]} needs a config to override; put --{name}=FILE before it.")
    return None, list(argv)
  file = pathlib.Path(path.split(":", 1)[0])
  if not exists(file) or is_directory(file):
    raise UserError(f"--{name}={file} does not exist{_nearest_config(file)}.")
  try:
    config = flags.FLAGS[name].parser.parse(path)
    hasattr(config, "keys")  # an OSError of the config file is kept until the config is used
  except SyntaxError as error:
    raise UserError(f"{file}, line {error.lineno}: {error.msg}; mend the config file.") from error
  except (TypeError, ValueError) as error:  # the traceback stands in its message
    lines = re.findall(rf'File "{re.escape(os.fspath(file))}", line (\d+)', str(error))
    place = f"{file}, line {lines[-1]}" if lines else f"{file}"
    raise UserError(f"{place}: {str(error).strip().splitlines()[-1]}; mend the config file.") from error
  except OSError as error:
    raise UserError(f"{file}: {error.__cause__ or error}; mend the config file.") from error
  except AttributeError as error:
    if "get_config" not in str(error):
      raise
    raise UserError(f"{file} has no function get_config(); give a config file, such as those in configs/.") from error
  return config, apply(name, argv, config, file, root)


def _value_of(name: str, argv: Sequence[str]) -> str | None:
  for i, argument in enumerate(argv[1:], start=1):
    if match := re.fullmatch(rf"--?{re.escape(name)}(?:=(.*))?", argument, re.DOTALL):
      return match[1] if match[1] is not None else (argv[i + 1] if i + 1 < len(argv) else None)
  return None


def _nearest_config(file: pathlib.Path) -> str:
  """Returns "; did you mean configs/mnist_mlp.py?" with the nearest config below the same first directory."""
  directory = next((d for d in (file.parent, *file.parents, pathlib.Path("configs")) if os.path.isdir(d)), None)
  if directory in (None, pathlib.Path(), pathlib.Path("/")):  # never walk through all that lies here
    directory = pathlib.Path("configs")
  known = [os.fspath(p) for p in sorted(directory.rglob("*.py")) if p.stem != "__init__"]
  return f"; {suggest(os.fspath(file), known)}" if known else "; give the path of a config file"


def _sentence(message: str) -> str:
  """One line out of absl's message, which may carry several and a traceback."""
  if missing := re.search(r"Flag (--[\w.]+) must have a value other than None", message):
    name = missing[1]
    return f"{name} is missing; give {name}=VALUE ({flags.FLAGS[name[2:]].help.rstrip('.')})."
  if unset := re.search(r"Missing value for flag (--[\w.]+)", message):
    return f"{unset[1]} has no value; write {unset[1]}=VALUE."
  return " ".join(message.split()).rstrip(".") + "; see --help."
