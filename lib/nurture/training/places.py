"""The places of a config: the fields that may stand at each, listed or not, with the type of each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

from nurture import data, models
from nurture.core import Preset, UserError, fields_of, hints, lookup
from nurture.core.hints import NonNegative, Whole
from nurture.core.schedules import SCHEDULES
from nurture.probes import PROBES
from nurture.training.config import FIELDS, OPTIONAL, SECTIONS
from nurture.training.initial import Init
from nurture.training.references import Entry
from nurture.training.selection import Best, Stopping
from nurture.transforms.gradients import GRADIENTS
from nurture.transforms.losses import LOSSES
from nurture.transforms.optimizers import OPTIMIZERS
from nurture.transforms.parameters import PARAMETERS
from nurture.transforms.targets import TARGETS

Table = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Place:
  """A place of a config: the type of its value, and the fields below it.

  Attributes:
    hint: the type of the value.
    table: of the rows that a dict here may name; None where it names none.
    fields: that a dict here may have beside those of its row.
    label: what stands below any other name; None where there is no other name.
  """

  hint: Any = Any
  table: Table | None = None
  fields: Mapping[str, Place] = dataclasses.field(default_factory=dict)
  label: Callable[[], Place] | None = None

  def inside(self, value: Any, path: str) -> dict[str, Place]:
    """Returns the fields of a dict that stands here, by name.

    Args:
      value: the dict.
      path: of this place, for messages.

    Raises:
      UserError: if it names no row, or one that does not exist.
    """
    found = dict(self.fields)
    if self.table is not None:
      name = value.get("name")
      if name is None:
        raise UserError(f"{path} names no row yet; give {path}.name=ROW first (python -m experiments.rows lists them).")
      short = str(name).partition(":")[0]  # "tfds:SET" is the row tfds
      row = lookup(self.table, short if short in self.table else name, path=path)
      types_of = hints.of(row.constructor if isinstance(row, Preset) else row)
      found = {"name": Place(str)} | {field: _free(types_of.get(field, Any)) for field in fields_of(row)} | found
    return found

  def below(self, value: Any, name: str, path: str) -> Place | None:
    """Returns the place of one name below this one; None where it may not stand.

    Args:
      value: what stands here.
      name: of a field, or a label.
      path: of this place, for messages.

    Raises:
      UserError: as `inside`.
    """
    if name == "name" and self.table is not None:  # by which a part begins
      return Place(str)
    return self.inside(value, path).get(name) or (self.label() if self.label else None)


def _free(hint: Any = Any) -> Place:
  """Returns a place that says nothing about what stands below it."""
  return Place(hint, label=_free)


def _labelled(place: Place) -> Place:
  return Place(Mapping, label=lambda: place)


def _section(types_of: Mapping[str, Any], **places: Place) -> Place:
  return Place(Mapping, fields={name: _free(hint) for name, hint in types_of.items()} | places)


def _row(table: Table, hint: Any = Mapping, **places: Place) -> Place:
  return Place(hint, table, places)


_SCHEDULE = _row(SCHEDULES, float | Mapping)
_WINDOW = {"start_step": _free(Whole), "stop_step": _free(Whole)}
_WEIGHT = dataclasses.replace(_SCHEDULE, hint=NonNegative | Mapping)
_AXIS = _section({"path": str | tuple, "levels": tuple, "names": tuple, "arms": Mapping})

# Where rows are named, by the paths of a config.
ROWS = {
  "data.source": _row(data.DATASETS, str | Mapping),
  "data.label_noise": _row(data.LABEL_NOISE, str | Mapping),
  "data.augment.LABEL": _row(data.AUGMENTATIONS, **_WINDOW),
  "model": _row(models.MODELS),
  "scheduled.ARGUMENT": _SCHEDULE,
  "targets.LABEL": _row(TARGETS, **_WINDOW),
  "losses.LABEL": _row(LOSSES, weight=_WEIGHT, **_WINDOW),
  "gradients.LABEL": _row(GRADIENTS, **_WINDOW),
  "optimizer": _row(OPTIMIZERS, learning_rate=_SCHEDULE, decay=Place(Literal["all", "matrices"])),
  "parameters.LABEL": _row(PARAMETERS),
  "probes.LABEL": _row(PROBES, every=Place(Whole)),
}
_SECTIONS = {
  "data": _section(
    data.SECTION, source=ROWS["data.source"], label_noise=ROWS["data.label_noise"],
    augment=_labelled(ROWS["data.augment.LABEL"]),
  ),
  "scheduled": _labelled(_SCHEDULE),
  "references": _labelled(_section(hints.of(Entry), model=ROWS["model"])),
  "init": _section(hints.of(Init)),
  "ensemble": _section(FIELDS["ensemble"], grid=_labelled(_AXIS)),
  "stopping": _section(hints.of(Stopping)),
  "checkpoint": _section(FIELDS["checkpoint"], best=_section(hints.of(Best))),
}


def _place(section: str, hint: Any) -> Place:
  if section in _SECTIONS:
    return _SECTIONS[section]
  if section in ROWS:
    return ROWS[section]
  if f"{section}.LABEL" in ROWS:
    return _labelled(ROWS[f"{section}.LABEL"])
  return _section(FIELDS[section]) if section in FIELDS else _free(hint)


# The whole config.
ROOT = Place(Mapping, fields={section: _place(section, hint) for section, hint in (SECTIONS | OPTIONAL[""]).items()})
