"""Lists what a config can name: the rows of every table, with their fields, defaults and meaning.

  python -m experiments.rows                  every row of every table, in a line or two
  python -m experiments.rows losses probes    tables: every field with its type, range and default
  python -m experiments.rows --name=elr       one row, with all that its docstring says
  python -m experiments.rows losses --name=my_project.losses:Sce    a row of your own

A field without a default is required. All can be set from the command line, whether a config lists
them or not (--config.losses.ce.stop_step=100). The tables:

  in a config   datasets label_noise augmentations models targets losses gradients optimizers
                parameters probes
  within those  schedules initializers activations norms normalizations sections similarity tasks
"""

import dataclasses
import functools
import inspect
import re
import textwrap
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from absl import flags

from nurture import data, models, similarity, terminal
from nurture.core import Preset, UserError, fields_of, hints
from nurture.core.build import suggest
from nurture.core.extensions import imported, is_extension
from nurture.core.schedules import SCHEDULES
from nurture.core.task import served_by
from nurture.models.layers import NORMS
from nurture.similarity.measures import Measure
from nurture.training.initial import Init
from nurture.training.places import ROWS, Place
from nurture.training.references import Entry
from nurture.training.selection import Best, Stopping
from nurture.transforms.optimizers import MASKS

_NAME = flags.DEFINE_string("name", None, "Row to show whole, or module.path:Name.", **terminal.SHARED)

_WIDTH = 100  # columns


@dataclasses.dataclass(frozen=True)
class Table:
  """A table of rows.

  Attributes:
    rows: name -> constructor.
    where: a config names a row of it.
    has_fields: whether a config sets the fields of a row, or gives its name alone.
    also: fields of every row that are not its constructor's.
    supplied: fields that the trainer fills in.
    hidden: fields that a config cannot write.
  """

  rows: Mapping[str, Any]
  where: str
  has_fields: bool = True
  also: Mapping[str, Place] = dataclasses.field(default_factory=dict)
  supplied: tuple[str, ...] = ()
  hidden: tuple[str, ...] = ()


def _of(path: str, **more: tuple[str, ...]) -> Table:
  return Table(ROWS[path].table or {}, f"config.{path}", True, ROWS[path].fields, **more)


TABLES = {
  "datasets": _of("data.source"),
  "label_noise": _of("data.label_noise"),
  "augmentations": _of("data.augment.LABEL"),
  "models": _of("model", supplied=("num_classes", "num_outputs", "input_shape")),
  "targets": _of("targets.LABEL"),
  "losses": _of("losses.LABEL"),
  "gradients": _of("gradients.LABEL"),
  "optimizers": _of("optimizer", hidden=MASKS),
  "parameters": _of("parameters.LABEL"),
  "probes": _of("probes.LABEL"),
  "schedules": Table(SCHEDULES, "config.scheduled.ARGUMENT, a learning rate, the weight of a loss"),
  "initializers": Table(models.INITIALIZERS, "kernel_init and bias_init of a model"),
  "activations": Table(models.ACTIVATIONS, "activation of a model", False),
  "norms": Table(NORMS, "norm of a model", False),
  "normalizations": Table(data.NORMALIZATIONS, "config.data.normalize", False),
  "sections": Table(
    {"references": Entry, "init": Init, "best": Best, "stopping": Stopping},
    "config.references.LABEL, config.init, config.checkpoint.best and config.stopping, which have no name",
  ),
  "similarity": Table(similarity.MEASURES, "what compares features, such as the loss guidance", False),
  "tasks": Table(data.TASKS, "what a data set asks for", False),
}


def main(argv: Sequence[str]) -> None:
  for name in argv[1:]:
    if name not in TABLES:
      raise UserError(f"{name!r} is no table; {suggest(name, TABLES)}.")
  chosen = {name: TABLES[name] for name in argv[1:] or TABLES}
  if _NAME.value:
    print("\n\n".join(whole(*found) for found in find(_NAME.value, chosen)))
  else:
    print("\n\n".join((in_full if argv[1:] else in_short)(title, table) for title, table in chosen.items()))


def find(name: str, tables: Mapping[str, Table]) -> list[tuple[str, str, Any, Table]]:
  """Returns (title, name, row, table) of every row of this name, or of code of one's own.

  Raises:
    UserError: where there is none.
  """
  if is_extension(name):
    title, table = next(iter(tables.items())) if len(tables) == 1 else ("your own", Table({}, ""))
    return [(title, name, imported(name, "--name"), table)]
  found = [(title, name, table.rows[name], table) for title, table in tables.items() if name in table.rows]
  if not found:
    known = dict.fromkeys(row for table in tables.values() for row in table.rows)
    among = f"the table {next(iter(tables))}" if len(tables) == 1 else "any table"
    raise UserError(f"--name={name} is no row of {among}; {suggest(name, known)}.")
  return found


def in_short(title: str, table: Table) -> str:
  """Returns the names of all rows of a table, each with its fields and the first sentence of its docstring."""
  lines = [_heading(title, table), ""]
  indent = min(max(map(len, table.rows)), 26) + 4
  for name, row in table.rows.items():
    if isinstance(row, Preset):
      texts = [f"{row.constructor.__name__}: {_arguments(row, short=True)}"]
    else:
      shown = [f.short for f in fields(row, table) if not f.is_supplied and f.name not in table.also]
      texts = [" ".join(shown) if table.has_fields else "", first_sentence(row)]
    lines += _beside(f"  {name}", "\n".join(_filled(text, indent) for text in texts if text), indent)
  return "\n".join(lines)


def in_full(title: str, table: Table) -> str:
  """Returns all rows of a table, each with the first sentence of its docstring and its fields."""
  parts = ["\n".join([_heading(title, table), *_field_lines(_also(table))])]
  shown: dict[Any, str] = {}
  for name, row in table.rows.items():
    constructor, lines = constructor_of(row), [name]
    if isinstance(row, Preset):
      lines.append(_filled(f"{constructor.__name__} with {_arguments(row)}", 2))
    if constructor in shown:
      lines.append(f"  Fields as of {shown[constructor]}.")
    else:
      shown[constructor] = name
      lines += [_filled(sentence, 2) for sentence in [first_sentence(row)] if sentence]
      own = [field for field in fields(constructor, table) if field.name not in table.also]
      lines += _field_lines(own) if table.has_fields else []
    parts.append("\n".join(lines))
  return "\n\n".join(parts)


def whole(title: str, name: str, row: Any, table: Table) -> str:
  """Returns one row with its docstring and its fields."""
  lines = [_filled(f"{title}: {name}" + (f"   ({table.where})" if table.where else ""), 0, 2)]
  if isinstance(row, Preset):
    lines[0] += f"\nA {row.constructor.__name__} with other defaults."
  lines += ["", _docstring(row)] if _docstring(row) else []
  if served := served_by(row):
    lines += ["", _filled(f"Serves the tasks {', '.join(served)}.", 0)]
  if table.has_fields:
    built = models.as_row(row) if title == "models" and is_extension(name) else row  # a network of any library
    lines += ["", "Fields", *_field_lines(fields(built, table))]
  return "\n".join(lines)


@dataclasses.dataclass(frozen=True)
class Field:
  """A field of a row: its type in words, and its default as it is written; None where it must be given."""

  name: str
  kind: str
  default: str | None
  is_supplied: bool = False

  @property
  def short(self) -> str:
    """The field in a line of several."""
    return self.name if self.default is None else f"{self.name}={self.default}"


def fields(row: Any, table: Table) -> list[Field]:
  """Returns the fields of a row: those of its constructor and those that all rows of the table have."""
  types_of = hints.of(constructor_of(row))
  presets = row.arguments if isinstance(row, Preset) else {}
  found = []
  for name, parameter in fields_of(row).items():
    default = presets.get(name, parameter.default)
    if name not in table.also and name not in table.hidden:
      written = None if default is inspect.Parameter.empty else _written(default)
      found.append(Field(name, kind_of(types_of.get(name, Any)), written, name in table.supplied))
  if not set(table.hidden) & set(fields_of(row)):
    return found + [field for field in _also(table) if field.name != "decay"]  # which stands for a mask
  return found + _also(table)


def _also(table: Table) -> list[Field]:
  """Returns the fields of every row that are not its constructor's."""
  defaults = {"start_step": "0", "stop_step": "never", "decay": "the row's own"}
  return [
    Field(name, kind_of(place.hint, "dict" if place.table is None else "schedule"), defaults.get(name))
    for name, place in table.also.items()
  ]


def kind_of(hint: Any, mapping: str = "dict") -> str:
  """Returns a type in words, with its range: "number of at least 0 or None"."""
  origin = typing.get_origin(hint)
  if origin is Annotated:
    base, *notes = typing.get_args(hint)
    return " ".join([kind_of(base, mapping), *(str(note) for note in notes if isinstance(note, hints.Range))])
  if origin in (typing.Union, types.UnionType):
    options = [option for option in typing.get_args(hint) if typing.get_origin(option) is not Callable]
    return " or ".join(dict.fromkeys(kind_of(option, mapping) for option in options))
  if origin is Literal:
    return " | ".join(repr(value) for value in typing.get_args(hint))
  if (origin or hint) in (tuple, list):
    inner = [option for option in typing.get_args(hint) if option is not ...]
    several = re.sub(r"\b(number|tuple|dict)\b", r"\1s", kind_of(inner[0])) if len(inner) == 1 else ""
    return f"tuple of {several}" if several else "tuple"
  if inspect.isclass(origin or hint) and issubclass(origin or hint, Mapping):
    return mapping
  names = {float: "number", int: "whole number", bool: "true or false", str: "text", type(None): "None"}
  return names.get(hint, "any value")


def first_sentence(row: Any) -> str:
  """Returns the first sentence of a row's docstring; "" where it has none."""
  paragraph = " ".join(_docstring(row).split("\n\n")[0].split())
  return re.split(r"(?<=[.:])\s+(?=[A-Z])", paragraph)[0].rstrip(":. ") + "." if paragraph else ""


def constructor_of(row: Any) -> Callable[..., Any]:
  row = row.constructor if isinstance(row, Preset) else row.function if isinstance(row, Measure) else row
  return row.func if isinstance(row, functools.partial) else row


def _docstring(row: Any) -> str:
  """Returns a row's docstring, its long lines wrapped; "" for one that a dataclass has made up."""
  constructor = constructor_of(row)
  own = vars(constructor).get("__doc__") if inspect.isclass(constructor) else constructor.__doc__  # not of a base class
  text = re.sub(r":\w+:(?=`)", "", inspect.cleandoc(own or ""))  # roles of Sphinx
  made_up = text.startswith(f"{getattr(constructor, '__name__', '')}(") and text.endswith(")")
  return "" if made_up else "\n".join(_wrapped(text.splitlines())).strip()


def _wrapped(lines: Iterable[str]) -> Iterator[str]:
  """Yields lines of at most 100 columns: paragraphs and entries (of "Args:") are filled anew where one is too long.

  What is indented otherwise is an equation or a table and stays as it is, as far as it fits.
  """
  paragraph: list[str] = []
  for line in [*lines, ""]:
    indent, entry = len(line) - len(line.lstrip()), re.match(r"  [\w*, ]+: ", line)
    goes_on = indent >= 4 if paragraph and paragraph[0].startswith(" ") else indent == 0
    if paragraph and not (line and goes_on):
      filled = _filled(" ".join(map(str.strip, paragraph)), *((2, 4) if paragraph[0].startswith(" ") else (0,)))
      yield from filled.splitlines() if max(map(len, paragraph)) > _WIDTH else paragraph
      paragraph = []
    if line and (paragraph or indent == 0 or entry):
      paragraph.append(line)
    else:
      yield from [line] if len(line) <= _WIDTH else _filled(line.strip(), indent, indent + 2).splitlines()


def _heading(title: str, table: Table) -> str:
  line = f"{title.upper()}   {table.where}"
  also = f"; every row also has {', '.join(table.also)}" if table.also else ""
  return _filled(f"{line}{also}", 0)


def _field_lines(found: Iterable[Field]) -> list[str]:
  """Returns a line or more for each field: name, default, type."""
  found = list(found)
  defaults = {f.name: "of the data" if f.is_supplied else f.default or "required" for f in found}
  widths = [max((len(word) for word in words), default=0) for words in (defaults, defaults.values())]
  name_width, default_width = min(widths[0], 28), min(widths[1], 24)
  indent = 4 + name_width + 2 + default_width + 2
  lines = []
  for f in found:
    default, kind = defaults[f.name], _filled(f.kind, indent)
    if len(default) > default_width:  # the layers of a model
      lines += [*_beside(f"    {f.name}", _filled(default, 6 + name_width), 6 + name_width), *kind.splitlines()]
    else:
      lines += _beside(f"    {f.name:<{name_width}}  {default}", kind, indent)
  return lines


def _beside(start: str, text: str, indent: int) -> list[str]:
  """Returns a text that is filled at an indent, with a word before it; above it, where there is no room."""
  if len(start) + 2 > indent and text:
    return [start, *text.splitlines()]
  return [f"{start:<{indent}}{text.lstrip()}".rstrip()]


def _arguments(row: Preset, short: bool = False) -> str:
  """Returns what a preset chooses; what would take lines is left to --name."""
  written = {name: _written(value) for name, value in row.arguments.items()}
  return " ".join(f"{name}={'...' if short and len(value) > 60 else value}" for name, value in written.items())


def _filled(text: str, indent: int, rest: int | None = None) -> str:
  return textwrap.fill(
    text, _WIDTH, initial_indent=" " * indent, subsequent_indent=" " * (indent if rest is None else rest),
    break_long_words=False, break_on_hyphens=False,
  )


def _written(default: Any) -> str:
  """Returns a default as Python writes it; of a function, its name."""
  if callable(default):
    return getattr(default, "__name__", type(default).__name__)
  return {True: "true", False: "false"}[default] if isinstance(default, bool) else repr(default)


if __name__ == "__main__":
  terminal.run(main, takes_arguments=True)
