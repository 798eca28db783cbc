"""Records of this room cannot be written to: what a trace reads must not change between two traces."""

import dataclasses
import importlib
import inspect
import pkgutil

from lib import training


def test_every_record_is_frozen_but_the_loop():
  modules = [importlib.import_module(f"lib.training.{m.name}") for m in pkgutil.iter_modules(training.__path__)]
  records = {kind for module in modules for _, kind in inspect.getmembers(module, dataclasses.is_dataclass)
             if inspect.isclass(kind) and kind.__module__.startswith("lib.training")}
  assert {"State", "Parts", "Experiment", "Reference", "Cache", "Loop"} <= {kind.__name__ for kind in records}
  assert {kind.__name__ for kind in records if not kind.__dataclass_params__.frozen} == {"Loop"}
