"""The walks through the code that docs/architecture.md describes: every stop exists and names the next one."""

import functools
import importlib
import inspect
import pathlib
import re

import pytest

PAGE = (pathlib.Path(__file__).parents[1] / "docs" / "architecture.md").read_text()
STOP = re.compile(r"^(\d+)\. `(nurture\.[\w.]+)`", re.MULTILINE)


def walks():
  """Returns the dotted names of every numbered list, which begins at 1."""
  found = []
  for number, name in STOP.findall(PAGE):
    if number == "1":
      found.append([])
    found[-1].append(name)
  return found


def resolved(name):
  """Returns what a dotted name stands for: a function, or a method of a class."""
  parts = name.split(".")
  for count in range(len(parts), 0, -1):
    try:
      value = importlib.import_module(".".join(parts[:count]))
    except ModuleNotFoundError:
      continue
    for part in parts[count:]:
      value = inspect.getattr_static(value, part)
    return value
  raise AssertionError(name)


def source(name):
  value = resolved(name)
  value = getattr(value, "__func__", value)
  return inspect.getsource(value.func if isinstance(value, functools.cached_property) else value)


@pytest.mark.parametrize("walk", walks(), ids=lambda walk: walk[0].rsplit(".", 1)[-1])
def test_every_stop_of_a_walk_names_the_next(walk):
  assert len(walk) > 2
  for here, following in zip(walk, walk[1:]):
    word = following.rsplit(".", 1)[-1]
    # A compiled method is called by the name under which it was compiled.
    assert re.search(rf"\b{word.lstrip('_')}\b|\b{word}\b", source(here)), f"{here} does not name {word}"


def test_all_three_walks_are_there():
  assert [len(walk) for walk in walks()] == [8, 4, 6, 4, 3, 4]
