"""Rows as the checks take them: a config, a class, or an object that is built."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from nurture.core import build, fields_of, hints, lookup
from nurture.core.build import Preset
from nurture.core.task import served_by
from nurture.testing.laws import BrokenLaw, require

# What a config says of a part that is not the row's: the trainer reads it.
_TRAINERS = ("weight", "every", "start_step", "stop_step")


class Row(NamedTuple):
  """A row that is being checked.

  Attributes:
    name: for messages.
    built: the object.
    tasks: the names of the tasks that it says it serves; None if it says nothing, which means all.
  """

  name: str
  built: Any
  tasks: tuple[str, ...] | None

  def serves(self, known: Iterable[str]) -> tuple[str, ...]:
    """Returns those of the known tasks that the row serves; raises BrokenLaw if there is none."""
    served = tuple(task for task in known if self.tasks is None or task in self.tasks)
    require(served, f"{self.name} serves {self.tasks}, of which no task is known", f"name some of {', '.join(known)}")
    return served

  @property
  def hint(self) -> str:
    """A sentence for a failure in a task that the row does not name."""
    return ("" if self.tasks is not None else
            "If it does not serve this task, say in the class which it does: tasks = ('classification',).")


def read(
  table: Mapping[str, Any], row: Any, needs: tuple[str, ...], make: Callable[..., Any] = build, **supplied: Any
) -> Row:
  """Returns the row that a user means.

  Args:
    table: of the registered rows.
    row: {"name": a registered row or "module.path:Name", field: value}, the name alone, a class or function that makes
      a row with its defaults, or an object that is built.
    needs: the methods that tell an object from what makes one.
    make: (table, config) -> object.
    **supplied: fields that the caller knows.

  Raises:
    UserError: for a config that does not describe an object.
    BrokenLaw: for a row without the methods or the types that its kind needs.
  """
  if isinstance(row, (str, Mapping)):
    config = {"name": row} if isinstance(row, str) else dict(row)
    constructor, name = lookup(table, config.get("name", "")), str(config.get("name"))
  elif inspect.isclass(row) or not all(hasattr(row, method) for method in needs) and callable(row):
    name = getattr(row, "__name__", type(row).__name__)
    config, constructor, table = {"name": name}, row, {name: row}
  else:
    _check_methods(row, type(row).__name__, needs)
    return Row(getattr(row, "__name__", type(row).__name__), row, served_by(row))
  known = fields_of(constructor)
  built = make(table, {k: v for k, v in config.items() if k in known or k not in _TRAINERS}, **supplied)
  _check_methods(built, name, needs)
  made = constructor.constructor if isinstance(constructor, Preset) else constructor
  function = inspect.unwrap(made)
  function = getattr(function, "func", function)  # of a functools.partial
  for field in known:
    if field not in hints.of(made) and not function.__module__.startswith("optax."):  # which has no types in part
      raise BrokenLaw(f"the field {field!r} has no type, so a config may set it to anything; annotate it, a number "
                      "with its range from nurture.core.hints.", name)
  tasks = served_by(constructor)
  return Row(name, built, tasks if tasks is not None else getattr(built, "tasks", None))


def _check_methods(built: Any, name: str, needs: tuple[str, ...]) -> None:
  for method in needs:
    require(callable(getattr(built, method, None)), f"{name} has no method {method!r}",
            "add it, as the page on extending shows")
