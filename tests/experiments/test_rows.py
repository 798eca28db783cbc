"""The listing of rows: all tables, all rows, all fields, at 100 columns."""

import importlib
import pkgutil
import sys
import types
from collections.abc import Callable, Mapping
from typing import Any, Literal

import pytest

import nurture
from experiments import rows
from nurture.core import Preset, UserError
from nurture.core.hints import Count, Memory, Seed, Share
from nurture.similarity.measures import Measure
from tests.pages import ROOT

ALL = [(title, name) for title, table in rows.TABLES.items() for name in table.rows]
# Tables whose rows no config names: of kernels and their theory, and of the tools that test the code.
INTERNAL = {"DAMAGES", "DUALS", "FORMS", "SECTIONS", "WRITERS"}


def registries():
  """Returns {name: table} of every dict of constructors that a module of the package has under a public name."""
  found = {}
  for module in pkgutil.walk_packages(nurture.__path__, "nurture."):
    if module.name.startswith("nurture.ntk.infinite"):  # needs an extra
      continue
    for name, value in vars(importlib.import_module(module.name)).items():
      is_table = name.isupper() and not name.startswith("_") and isinstance(value, dict) and value
      if is_table and all(callable(row) or isinstance(row, (Preset, Measure)) for row in value.values()):
        found[name] = value
  return found


def unlisted(found, tables):
  """Returns the names of tables of which a row is in none of the listed ones."""
  listed = [table.rows for table in tables.values()]
  return {name for name, table in found.items() if not any(table.items() <= rows.items() for rows in listed)}


def test_every_table_of_the_package_is_listed():
  assert unlisted(registries(), rows.TABLES) == INTERNAL
  fewer = {title: table for title, table in rows.TABLES.items() if title != "probes"}
  assert unlisted(registries(), fewer) == INTERNAL | {"PROBES"}


def test_the_help_names_every_table():
  assert set(rows.TABLES) <= set(rows.__doc__.split())


@pytest.mark.parametrize("title", rows.TABLES)
def test_every_row_is_shown_with_its_fields_and_its_docstring(title):
  table = rows.TABLES[title]
  short, full = rows.in_short(title, table), rows.in_full(title, table)
  for name, row in table.rows.items():
    text = rows.whole(title, name, row, table)
    assert f"\n  {name}" in short and f"\n\n{name}\n" in f"{full}\n"
    constructor, sentence = rows.constructor_of(row), rows.first_sentence(row)
    if constructor.__module__.startswith("nurture") and constructor.__name__ != "<lambda>":
      assert sentence.rstrip(".") in " ".join(text.split()) and len(sentence) > 10, name
    for field in rows.fields(row, table) if table.has_fields else ():
      assert f"\n    {field.name} " in text, name
      assert isinstance(row, Preset) or field.is_supplied or field.name in short
    for line in (*text.splitlines(), *short.splitlines(), *full.splitlines()):
      assert len(line) <= 100 or " " not in line.strip(), line


def test_what_a_row_shows():
  table = rows.TABLES["losses"]
  shown = {field.name: (field.kind, field.default) for field in rows.fields(table.rows["elr"], table)}
  assert shown == {
    "lam": ("number of at least 0", "3.0"), "beta": ("number from 0 to 1", "0.7"),
    "form": ("'clamped' | 'exact'", "'clamped'"), "weight": ("number of at least 0 or schedule", None),
    "start_step": ("whole number of at least 0", "0"), "stop_step": ("whole number of at least 0", "never"),
  }
  text = rows.whole("losses", "elr", table.rows["elr"], table)
  assert "eq. 6, section 4" in text and "Serves the tasks classification." in text
  assert "    L_i = λ log(1 - <p_i, t_i>),    t_i <- β t_i + (1 - β) p_i,    p = softmax(z)" in text
  adam, sgd = ({f.name for f in rows.fields(rows.TABLES["optimizers"].rows[name], rows.TABLES["optimizers"])}
               for name in ("adamw", "sgd"))
  assert "decay" in adam and "mask" not in adam and "learning_rate" in adam & sgd and "decay" not in sgd
  resnet = rows.TABLES["models"].rows["resnet50"]
  defaults = {f.name: f.default for f in rows.fields(resnet, rows.TABLES["models"])}
  assert defaults["blocks"] == "(3, 4, 6, 3)" and defaults["bottleneck"] == "true" and defaults["width"] == "64"


@pytest.mark.parametrize(("hint", "words"), [
  (float, "number"), (Share, "number from 0 to 1"), (Memory | None, "number from 0 to below 1 or None"),
  (Count, "whole number of at least 1"), (Seed, "whole number from 0 to 4294967295"), (bool, "true or false"),
  (str | tuple[str, ...], "text or tuple of text"), (tuple[Count, ...], "tuple of whole numbers of at least 1"),
  (Literal["a", 1], "'a' | 1"), (float | Callable[..., Any], "number"), (Mapping[str, Any], "dict"), (Any, "any value"),
])
def test_types_in_words(hint, words):
  assert rows.kind_of(hint) == words


def listed(capsys, *arguments, name=None):
  """Returns what the program prints."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(rows, "_NAME", types.SimpleNamespace(value=name))
    rows.main(["rows", *arguments])
  return capsys.readouterr().out


def test_the_program(capsys, tmp_path, monkeypatch):
  everything = listed(capsys)
  assert all(f"\n  {name}" in everything for _, name in ALL) and everything.startswith("DATASETS")
  two = listed(capsys, "losses", "parameters")
  assert two.startswith("LOSSES   config.losses.LABEL; every row also has weight") and "\n\nPARAMETERS" in two
  assert listed(capsys, name="distillation").count("\nFields\n") == 2  # a target and a loss
  assert listed(capsys, "losses", name="distillation").startswith("losses: distillation")
  (tmp_path / "of_mine.py").write_text('class Sce:\n  """Symmetric."""\n  def __init__(self, a: float = 0.5): pass\n')
  monkeypatch.syspath_prepend(tmp_path)
  try:
    text = listed(capsys, "losses", name="of_mine:Sce")
  finally:
    sys.modules.pop("of_mine", None)
  assert "Symmetric." in text and "a           0.5" in text and "weight      required" in text


def test_a_network_of_another_library_has_its_own_fields_and_docstring(capsys, monkeypatch):
  """Its class hides the signature, and inherits a long docstring."""
  monkeypatch.syspath_prepend(ROOT / "tests")
  try:
    text = listed(capsys, "models", name="own_nets.in_nnx:Net")
  finally:
    for name in [name for name in sys.modules if name.startswith("own_nets")]:
      del sys.modules[name]
  assert [line.split()[0] for line in text.splitlines()[3:]] == ["num_classes", "input_shape", "width", "dropout"]
  assert "Base class" not in text


@pytest.mark.parametrize(("arguments", "name", "message"), [
  (["loses"], None, "'loses' is no table; did you mean 'losses'?"),
  ([], "sharpnes", "--name=sharpnes is no row of any table; did you mean 'sharpness'?"),
  (["losses"], "sharpness", "--name=sharpness is no row of the table losses; known: "),
  ([], "nowhere:Loss", "nowhere cannot be imported"),
])
def test_a_wrong_name_is_one_sentence(capsys, arguments, name, message):
  with pytest.raises(UserError) as error:
    listed(capsys, *arguments, name=name)
  assert message in str(error.value) and "\n" not in str(error.value)
