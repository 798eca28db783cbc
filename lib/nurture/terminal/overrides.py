"""Changes of a config from the command line, in the order in which they stand there.

    --config.optimizer.momentum=0.5     sets a field, listed in the config or not
    --config.model.layers[0]=64         sets one element of a tuple
    --noconfig.augment                  sets a field to false
    --remove=probes.test                takes a field or a part out
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from ml_collections import ConfigDict

from nurture.core import UserError, hints
from nurture.core.build import suggest
from nurture.terminal.values import parsed


class Place(Protocol):
  """A place of a config: the type of its value, and the fields below it; nurture.training.places has them.

  Attributes:
    hint: the type of the value.
    table: of the rows that a dict here may name; None where it names none.
  """

  hint: Any
  table: Mapping[str, Any] | None

  def inside(self, value: Any, path: str) -> Mapping[str, Place]:
    """Returns the fields of a dict that stands here, by name."""

  def below(self, value: Any, name: str, path: str) -> Place | None:
    """Returns the place of one name below this one; None where it may not stand."""


def apply(flag: str, argv: Sequence[str], config: ConfigDict, file: Path, root: Place | None = None) -> list[str]:
  """Changes a config as a command line says.

  Args:
    flag: name of the config's flag, such as "config".
    argv: the command line, the name of the program first.
    config: is changed.
    file: that it comes from, for messages.
    root: what may stand in the config; None allows the fields that it lists.

  Returns:
    The words of the command line that are no changes, --remove among them, which is a flag like others.

  Raises:
    UserError: for a field that does not exist, and for a value of another type.
  """
  changes, words = _Changes(flag, config, file, root), list(argv)
  rest: list[str] = []
  while words:
    word = words.pop(0)
    if word == "--":
      return [*rest, word, *words]
    if match := re.fullmatch(rf"--?(no)?{re.escape(flag)}\.([^=]+)(?:=(.*))?", word, re.DOTALL):
      if not any(re.fullmatch(rf"--?{re.escape(flag)}(=.*)?", before, re.DOTALL) for before in rest):
        raise UserError(f"{word} stands before --{flag}={file}; put it behind.")
      negated, path, text = match.groups()
      if negated or text is None:
        text = changes.without_text(path, bool(negated), words)
      with config.unlocked():
        changes.set(path, text)
      continue
    rest.append(word)
    if match := re.fullmatch(r"--?remove(?:=(.*))?", word, re.DOTALL):
      path = match[1]
      if path is None and words:
        rest.append(path := words.pop(0))
      if path is not None:  # a flag without a value is refused as any other
        with config.unlocked():
          changes.remove(path)
  return rest


class _Changes:
  """Changes of one config; `given` has the paths that were set."""

  def __init__(self, flag: str, config: ConfigDict, file: Path, root: Place | None):
    self.flag, self.config, self.file, self.root = flag, config, file, root
    self.given: list[str] = []

  def without_text(self, path: str, negated: bool, words: list[str]) -> str:
    """Returns the value of --config.path, which may stand in the next word, or of --noconfig.path."""
    flag = f"--{self.flag}.{path}"
    node, _, last = self._walk(path)
    if isinstance(node.get(last), bool):
      return "false" if negated else "true"
    if negated:
      raise UserError(f"--no{flag[2:]} is for what is true or false; write --remove={path} to take it out.")
    if not words or words[0].startswith("--"):
      raise UserError(f"{flag} has no value; write {flag}=VALUE.")
    return words.pop(0)

  def set(self, path: str, text: str) -> None:
    """Puts a text's value at a path."""
    if lost := next((other for other in self.given if other.startswith(f"{path}.")), None):
      raise UserError(f"--{self.flag}.{path} replaces what --{self.flag}.{lost} sets before it; put it first.")
    node, place, last = self._walk(path)
    indices: list[str] = []
    if match := re.fullmatch(r"([^\[]+)((?:\[[^\[\]]*\])+)", last):
      last, indices = match[1], match[2][1:-1].split("][")
    here = self._below(node, place, last, _parent(path))
    if last not in node and (here is None or indices):
      raise self._unknown(node, place, last, _parent(path), path)
    if indices:
      value = self._with_element(node[last], indices, text, path)
      if here is not None and not hints.matches(value, here.hint):
        raise self._unfit(path, text, here.hint)
    else:
      value = self._value(node, here, last, path, text)
      if isinstance(value, tuple) and path in self.given and text.lstrip()[:1] not in ("(", "["):
        value = (*node[last], *value)
    with node.ignore_type():  # what a field takes is the row's to say, which may be a number or a dict
      try:
        node[last] = list(value) if isinstance(node.get(last), list) else value
      except ValueError as error:  # a name with a dot in it
        raise UserError(f"--{self.flag}.{path} cannot be {text}: {error}.") from error
    self.given.append(path)

  def remove(self, path: str) -> None:
    """Takes out what stands at a path, which may begin with the name of the flag, as in messages."""
    node, parts = self.config, path.removeprefix(f"{self.flag}.").split(".")
    for i, part in enumerate(parts):
      if not isinstance(node, ConfigDict) or part not in node:
        known = node.keys() if isinstance(node, ConfigDict) else ()
        raise UserError(f"--remove={path} fits nothing, {'.'.join([self.flag, *parts[:i]])} has no {part!r}; "
                        f"{suggest(part, known)}.")
      parent, node = node, node[part]
    del parent[parts[-1]]
    self.given = [other for other in self.given if not f"{other}.".startswith(f"{'.'.join(parts)}.")]

  def _walk(self, path: str) -> tuple[ConfigDict, Place | None, str]:
    """Returns the dict that holds the end of a path, its place, and the name there; makes dicts that may be."""
    node, place = self.config, self.root
    *parents, last = path.split(".")
    for i, part in enumerate(parents):
      here = self._below(node, place, part, ".".join(parents[:i]))
      inner = node.get(part)
      if not isinstance(inner, ConfigDict):
        inner = self._made(node, place, here, ".".join(parents[: i + 1]), path)
      node, place = inner, here
    return node, place, last

  def _made(self, node: ConfigDict, place: Place | None, here: Place | None, above: str, path: str) -> ConfigDict:
    """Returns a dict in place of what is no dict yet, or not there.

    Args:
      node: holds it.
      place: of the node.
      here: of the new dict.
      above: the path of the new dict.
      path: the whole one, which leads into it.
    """
    part, there = above.rpartition(".")[2], node.get(above.rpartition(".")[2])
    table, names_row = here.table if here is not None else None, path == f"{above}.name"
    fields: dict[str, Any] = {}
    if isinstance(there, str) and here is not None and table is not None and hints.matches({}, here.hint):
      fields = {"name": there}  # short for a dict
    elif there is not None and (table is None or not names_row):
      raise UserError(f"--{self.flag}.{path} does not exist: {self.flag}.{above} is {there!r}, which has no fields.")
    elif here is None:
      raise self._unknown(node, place, part, _parent(above), path)
    elif table is not None and not names_row:
      raise UserError(f"--{self.flag}.{path} does not exist in {self.file}: {suggest(part, node.keys())}; of a new "
                      f"part, give --{self.flag}.{above}.name=ROW first.")
    with self.config.unlocked(), node.ignore_type():
      node[part] = fields
    return node[part]

  def _below(self, node: ConfigDict, place: Place | None, name: str, above: str) -> Place | None:
    return None if place is None else place.below(node, name, ".".join(filter(None, (self.flag, above))))

  def _value(self, node: ConfigDict, here: Place | None, last: str, path: str, text: str) -> Any:
    """Returns the value of a text, of the type that the row has for it, or else of that which the config lists."""
    hint = here.hint if here is not None else Any
    kind = node.get_type(last) if last in node else None  # not type(node[last]): a placeholder is None until it is set
    if kind is type(None) and here is None:
      raise UserError(
        f"--{self.flag}.{path} is None in {self.file}, which says nothing of its type; set it there, or write "
        "config_dict.placeholder(str) in its place."
      )
    listed = hint is Any and kind not in (None, type(None))
    if listed:
      hint = Mapping if kind is ConfigDict else kind
    try:
      return parsed(text, hint)
    except ValueError:
      raise self._unfit(path, text, hint, node[last] if listed else None) from None

  def _with_element(self, value: Any, indices: list[str], text: str, path: str) -> Any:
    """Returns a tuple with one element replaced, which keeps its type where that is known."""
    if not indices:
      hint = type(value) if isinstance(value, (str, float)) else Any
      try:
        return parsed(text, hint)
      except ValueError:
        raise self._unfit(path, text, hint, value) from None
    if not isinstance(value, (tuple, list)) or not indices[0].isdecimal() or int(indices[0]) >= len(value):
      size = f"has {len(value)} elements, from 0" if isinstance(value, (tuple, list)) else f"is {value!r}"
      raise UserError(f"--{self.flag}.{path} does not exist, what stands there {size}; give all of it.")
    i = int(indices[0])
    return (*value[:i], self._with_element(value[i], indices[1:], text, path), *value[i + 1 :])

  def _unknown(self, node: ConfigDict, place: Place | None, part: str, above: str, path: str) -> UserError:
    known, owner = set(node.keys()), f" in {self.file}"
    if place is not None:
      known |= set(place.inside(node, ".".join(filter(None, (self.flag, above)))))
      owner = f" for {node['name']!r}" if place.table is not None else owner
    return UserError(f"--{self.flag}.{path} does not exist{owner}; {suggest(part, known)}.")

  def _unfit(self, path: str, text: str, hint: Any, listed: Any = None) -> UserError:
    needs = hints.describe(hint)
    if hint is Mapping and isinstance(listed, ConfigDict):
      needs, listed = "a field behind it (--...field=value)", f"the fields {', '.join(map(str, listed.keys()))}"
    elif listed is not None:
      listed = repr(listed)
    if hint is Mapping and text.lower() in ("", "none", "null", "false"):
      return UserError(f"--{self.flag}.{path}={text} needs {needs}; write --remove={path} to take it out.")
    because = f", because {self.file} has {listed} there" if listed is not None else ""
    return UserError(f"--{self.flag}.{path}={text} needs {needs}{because}.")


def _parent(path: str) -> str:
  return path.rpartition(".")[0]
