"""Absurd values in every number of every config, and what building the experiment makes of them."""

import contextlib
import dataclasses
import functools
import pathlib
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from nurture import data
from nurture.core import Preset, UserError
from nurture.models import MODELS
from nurture.testing import shrink
from nurture.training import phases
from nurture.training.config import check, put
from nurture.training.experiment import Experiment
from nurture.training.grid import members_of
from nurture.training.probing import check_probe
from nurture.training.references import Reference
from nurture.training.sweep import cohorts_of

VALUES = {
  "a word": "x", "a tuple": (1, 2), "nothing": None, "0": 0, "negative": -1, "32 bits": 2**31 - 1, "huge": 2**40,
  "1e30": 1e30, "1e-30": 1e-30, "NaN": float("nan"), "inf": float("inf"),
}
OUTCOMES = ("run", "sentence", "lines", "traceback", "abort", "too long")
_FIRST = ("quickstart", "factorial", "digits", "dynamics")  # trace fast
_LAST = ("full_size", "cifar100", "resnet", "vit_cifar10", "vanillanet", "simplenet", "attention")  # trace slowly


def numbers(value: Any, place: tuple = ()) -> Iterator[tuple]:
  """Yields the place of every number of a config, as keys of dicts and positions in tuples."""
  if isinstance(value, dict):
    for name, inner in value.items():
      yield from numbers(inner, (*place, name))
  elif isinstance(value, tuple):
    for i, inner in enumerate(value):
      yield from numbers(inner, (*place, i))
  elif isinstance(value, (int, float)) and not isinstance(value, bool):
    yield place


def replaced(value: Any, place: tuple, new: Any) -> Any:
  """Returns a config with another value at a place."""
  if not place:
    return new
  inner = replaced(value[place[0]], place[1:], new)
  if isinstance(value, dict):
    return {**value, place[0]: inner}
  return (*value[: place[0]], inner, *value[place[0] + 1 :])


def alone(axis: dict, place: tuple, new: Any) -> dict:
  """Returns an axis of a grid with another value at a place, and only with what has to do with it.

  That is a level and the first or last of the others; or an arm, with one of its axes if the place is there.
  """
  if place[0] == "arms":
    _, name, field, *rest = place
    arm = axis["arms"][name]
    if field == "grid":
      label, *inside = rest
      return {"arms": {name: {**arm, "grid": {label: alone(arm["grid"][label], tuple(inside), new)}}}}
    return {"arms": {name: replaced({"set": arm["set"]}, place[2:], new)}}  # its grid might put its own value there
  axis, level = replaced(axis, place, new), place[1]
  pair = sorted({0 if level else len(axis["levels"]) - 1, level})
  return {**axis, **{field: tuple(axis[field][i] for i in pair) for field in ("levels", "names") if axis.get(field)}}


@dataclasses.dataclass(frozen=True)
class Case:
  """One value at one place of a config."""

  index: int
  name: str
  config: dict
  root: pathlib.Path
  place: tuple
  value: str

  def changed(self) -> dict:
    """Returns the config with the value, and with the part of its grid that has to do with it."""
    place, new, grid = self.place, VALUES[self.value], self.config["ensemble"]["grid"]
    if place[:2] != ("ensemble", "grid"):  # the grid might put its own value there
      return replaced(put(self.config, {"ensemble.grid": {}}), place, new)
    return put(self.config, {"ensemble.grid": {place[2]: alone(grid[place[2]], place[3:], new)}})

  @property
  def kind(self) -> str:
    """The row that the number belongs to, its field and the value, whatever the labels."""
    if self.place[:2] == ("ensemble", "grid"):
      axis, rest = self.config["ensemble"]["grid"][self.place[2]], self.place[3:]
      while rest[0] == "arms" and rest[2] == "grid":
        axis, rest = axis["arms"][rest[1]]["grid"][rest[3]], rest[4:]
      return f"grid of {axis['path']} {rest[2:]} {self.value}" if "path" in axis else f"arm {rest[2:]} {self.value}"
    row, inner = "", self.config
    for key in self.place[:-1]:
      inner = inner[key]
      if isinstance(inner, dict):
        row = str(inner.get("name", key))
    made = MODELS.get(row)
    row = made.constructor.__name__ if isinstance(made, Preset) else row
    field = [key for key in self.place if isinstance(key, str)][-1]
    return f"{self.place[0]} {row} {field} {[key for key in self.place if isinstance(key, int)]} {self.value}"


def cases(wanted: Sequence[str]) -> Iterator[Case]:
  """Yields every case of the configs whose names have one of the words in them; those that trace fast come first."""
  has = lambda part, words: any(word in shrink.label(*part) for word in words)
  index, parts = 0, sorted(shrink.PARTS, key=lambda part: (has(part, _LAST), not has(part, _FIRST)))
  with tempfile.TemporaryDirectory() as folder:
    for i, (path, part) in enumerate(parts):
      name, root = shrink.label(path, part), pathlib.Path(folder) / str(i)
      if wanted and not any(word in name for word in wanted):
        continue
      config = shrink.shrunk(path, part, root)
      for place in numbers(config):
        for value in VALUES:
          yield Case(index, name, config, root, place, value)
          index += 1


def prepare(config: dict, read: data.Reader) -> None:
  """Does what a run does before it trains."""
  check(config)
  cohorts_of(config, members_of(config), functools.partial(Experiment.of, read=read))


def build(config: dict, base: Experiment, data_dir: pathlib.Path) -> None:
  """Does what a run does before it traces."""
  check(config)
  for member in members_of(config):
    inner = put(config, member.assignments)
    check(inner)
    if inner["data"] != base.config["data"]:
      data.load(phases.at(inner, None)["data"], data_dir)
    references = {label: Reference.read(inner, label, base.spec) for label in inner["references"]}
    dataclasses.replace(base, config=inner, references=references).parts()
    for label, fields in inner["probes"].items():
      check_probe(label, fields, base.read())


def attempt(function: Callable, *arguments: Any) -> dict[str, str]:
  """Returns {"outcome", "message"}: "run", "sentence" or a failure."""
  try:
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
      warnings.simplefilter("ignore")
      function(*arguments)
    return {"outcome": "run", "message": ""}
  except UserError as error:
    message = str(error)
    return {"outcome": "sentence" if message.endswith(".") and "\n" not in message else "lines", "message": message}
  except TimeoutError:
    return {"outcome": "too long", "message": traceback.format_exc(limit=-4)}
  except Exception:
    return {"outcome": "traceback", "message": traceback.format_exc(limit=-4)}
