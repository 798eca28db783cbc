"""Annotations of the package: each can be evaluated, the shapes of arrays included."""

import importlib
import inspect
import pkgutil
import typing

import pytest

import nurture
from nurture import data, models, probes
from nurture.core import Preset, fields_of, hints, schedules
from nurture.models import initializers
from nurture.transforms import gradients, losses, parameters, targets

KERNELS = ("attention.mosaic", "attention.simulation")  # need Pallas, which takes seconds to load
SHAPED = ("attention.api", "attention.reference", "curvature", "ntk", "similarity", "transforms")


def functions():
  """Yields (name, function) of all functions and methods that the package defines."""
  for module in pkgutil.walk_packages(nurture.__path__, "nurture."):
    if not module.name.startswith(tuple(f"nurture.{name}" for name in KERNELS)):
      loaded = importlib.import_module(module.name)
      for value in vars(loaded).values():
        # An __init__ that a dataclass makes names types of other modules: a field that it inherits.
        members = vars(value).values() if inspect.isclass(value) and value.__module__ == module.name else [value]
        for member in filter(inspect.isfunction, members):
          if member.__module__ == module.name and member.__name__ != "__init__":
            yield f"{module.name}.{member.__qualname__}", member


def unreadable(named):
  """Returns {name: what is wrong} of the functions whose annotations cannot be evaluated."""
  found = {}
  for name, function in named:
    try:
      typing.get_type_hints(function)
    except Exception as error:  # whatever an expression can raise
      found[name] = repr(error)
  return found


def test_every_annotation_can_be_evaluated():
  known = list(functions())
  assert unreadable(known) == {}
  shaped = [name for name, f in known if any("Array, " in str(hint) for hint in f.__annotations__.values())]
  for room in SHAPED:
    assert any(name.startswith(f"nurture.{room}") for name in shaped), room


@pytest.mark.parametrize("table", [
  models.MODELS, data.DATASETS, data.LABEL_NOISE, data.AUGMENTATIONS, targets.TARGETS, losses.LOSSES,
  gradients.GRADIENTS, parameters.PARAMETERS, probes.PROBES, schedules.SCHEDULES, initializers.INITIALIZERS,
], ids=lambda table: next(iter(table)))
def test_every_field_of_a_row_has_a_type(table):
  """A field without one would take anything from a config."""
  for name, row in table.items():
    constructor = row.constructor if isinstance(row, Preset) else row
    assert set(fields_of(row)) <= set(hints.of(constructor)), name


def test_a_wrong_annotation_is_found():
  def twice(x: 'jaxtyping.Float[jaxtyping.Array, "*a *b"]'): ...  # noqa: F821

  assert list(unreadable([("twice", twice)])) == ["twice"]
