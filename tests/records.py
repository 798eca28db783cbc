"""Dataclasses of a room that can be written to: what a trace reads must not change between two traces."""

import dataclasses
import importlib
import inspect
import pkgutil
import types


def records_of(package: types.ModuleType) -> set[type]:
  """Returns every dataclass that a package defines, in whatever module."""
  names = [module.name for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
  classes = (kind for name in names for _, kind in inspect.getmembers(importlib.import_module(name), inspect.isclass))
  return {kind for kind in classes if dataclasses.is_dataclass(kind) and kind.__module__.startswith(package.__name__)}


def unfrozen(package: types.ModuleType) -> set[str]:
  """Returns the names of those whose fields can be set."""
  return {kind.__name__ for kind in records_of(package) if not kind.__dataclass_params__.frozen}
