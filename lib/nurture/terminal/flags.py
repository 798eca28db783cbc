"""The command line: flags, config files and their overrides, each mistake in it one sentence that names the fix."""

from __future__ import annotations

import os
import pathlib
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from absl import app, flags

from nurture.core import UserError
from nurture.core.build import suggest
from nurture.reporting.files import exists, is_directory

# For flags of a name that several binaries have: a notebook or a test may import more than one of them.
SHARED = {"allow_override": True}


def parse_flags(argv: Sequence[str]) -> list[str]:
  """Parses the command line into flags.FLAGS and returns what is not a flag.

  Raises:
    UserError: for an unknown or missing flag, a value of the wrong type, a config file that is not there, or
      an override of a field that the config does not have.
  """
  if any(re.fullmatch(r"--?(help|helpshort|\?)", argument) for argument in argv[1:]):
    app.usage(shorthelp=True, writeto_stdout=True)
    sys.exit(0)
  for name in list(flags.FLAGS):
    if flags.FLAGS[name].flag_type() == "config object":
      check_config(name, argv)
  try:
    return flags.FLAGS(argv)
  except flags.UnrecognizedFlagError as error:
    known = [f.name for f in flags.FLAGS.get_key_flags_for_module(sys.argv[0])]
    raise UserError(f"--{error.flagname} does not exist; {suggest(error.flagname, known)}.") from error
  except flags.Error as error:
    raise UserError(_sentence(str(error))) from error


def check_config(name: str, argv: Sequence[str]) -> None:
  """Looks at the config file and its overrides first: config_flags answers with errors of many types."""
  path = _value_of(name, argv)
  overrides = list(_overrides(name, argv))
  if path is None:
    if overrides and flags.FLAGS[name].default is None:
      raise UserError(f"--{name}.{overrides[0][0]} needs a config to override; put --{name}=FILE before it.")
    return
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
  for override, value in overrides:
    _check_override(name, config, override, value, file)


def _check_override(flag: str, config: Any, override: str, value: str | None, file: pathlib.Path) -> None:
  node, parts = config, override.split(".")
  for i, part in enumerate(parts):
    part, _, index = part.partition("[")
    here = ".".join([flag, *parts[:i]])
    if not hasattr(node, "keys"):
      raise UserError(f"--{flag}.{override} does not exist: {here} is {node!r}, which has no fields.")
    if part not in node:
      raise UserError(f"--{flag}.{override} does not exist in {file}; {suggest(part, node.keys())}.")
    kind = node.get_type(part)  # not type(node[part]): a placeholder is None until it is set
    node = node[part]
    if index:
      raise UserError(f"--{flag}.{override} is one element; give all of --{here}.{part}='{node!r}'.")
  if kind is type(None):
    raise UserError(
      f"--{flag}.{override} is None in {file}, which says nothing of its type; set it there, or write "
      "config_dict.placeholder(str) in its place."
    )
  if value is not None and not _fits(value, kind):
    raise UserError(f"--{flag}.{override}={value} needs {_describe(kind)}, because {file} has {_shown(node)} there.")


def _fits(text: str, kind: type) -> bool:
  parsers = {bool: flags.BooleanParser, int: flags.IntegerParser, float: flags.FloatParser}
  try:
    parsers.get(kind, flags.ArgumentParser)().parse(text)
  except ValueError:
    return False
  return not hasattr(kind, "keys") or text.lstrip().startswith("{")


def _describe(kind: type) -> str:
  if hasattr(kind, "keys"):
    return "a field behind it (--...field=value)"
  return {bool: "true or false", int: "a whole number", float: "a number"}[kind]


def _shown(value: Any) -> str:
  return f"the fields {', '.join(map(str, value.keys()))}" if hasattr(value, "keys") else repr(value)


def _value_of(name: str, argv: Sequence[str]) -> str | None:
  for i, argument in enumerate(argv[1:], start=1):
    if match := re.fullmatch(rf"--?{re.escape(name)}(?:=(.*))?", argument, re.DOTALL):
      return match[1] if match[1] is not None else (argv[i + 1] if i + 1 < len(argv) else None)
  return None


def _overrides(name: str, argv: Sequence[str]) -> Iterator[tuple[str, str | None]]:
  """Yields (path, value) of each --config.path=value; the value is None where another word holds it."""
  for argument in argv[1:]:
    if match := re.fullmatch(rf"--?(?:no)?{re.escape(name)}\.([^=]+)(?:=(.*))?", argument, re.DOTALL):
      yield match[1], match[2]


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
