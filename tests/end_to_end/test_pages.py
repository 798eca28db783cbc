"""No page names what does not exist: commands with flags and configs, links, paths, modules, rows of tables, code.

The pages are README.md, RESULTS.md and all of docs/. What is checked of a command is that its program would accept it;
`test_readme.py` runs the first ones. Blocks of Python are run, from the top of a page to its end.
"""

import ast
import functools
import importlib
import re
import subprocess
import sys
import tomllib
import types
import unittest.mock

import numpy as np
import pytest
from absl import flags
from ml_collections import ConfigDict, config_flags
from PIL import Image

from nurture import data, probes, similarity, terminal, training, transforms
from nurture.models import MODELS
from nurture.training import places
from nurture.training.config import check, plain, put
from nurture.training.grid import members_of
from tests.end_to_end.test_configs import metrics_of
from tests.pages import PAGES, ROOT, blocks, commands, files, prose
from tests.tiny import read, tiny_config

TARGETS = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
ROOMS = sorted(path.parent.name for path in (ROOT / "lib" / "nurture").glob("*/__init__.py"))
# Table -> the page that names every row of it.
TABLES = {
  "transforms.md": (transforms.TARGETS, transforms.LOSSES, transforms.GRADIENTS, transforms.PARAMETERS),
  "data.md": (data.DATASETS, data.AUGMENTATIONS, data.LABEL_NOISE, data.NORMALIZATIONS),
  "probes.md": (probes.PROBES,),
}
# What a block of Python may add rows to.
GROWING = (*TABLES["transforms.md"], *TABLES["data.md"], probes.PROBES, similarity.MEASURES, MODELS)
SHARED = types.SimpleNamespace(SHARED={})  # of `terminal`: what lets several programs have a flag of one name
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@every_page
@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # 2026-11: how ml_collections loads a config
def test_commands_would_be_accepted(page):
  for words in commands(page):
    match words:
      case ["make", target, *variables]:
        assert target in TARGETS, words
        assert all(f"$({name.split('=')[0]})" in (ROOT / "Makefile").read_text() for name in variables), words
      case ["python", "-m", "pytest", *paths]:
        assert all((ROOT / path).exists() for path in paths), words
      case ["python", "-m", module, *arguments]:
        accept(module, tuple(arguments))
      case [path, "python", "-m", *_] if path.startswith("PYTHONPATH="):
        assert files(page), words  # test_extending.py runs it, beside the files of the page
      case ["pip", "install", *packages]:
        extras = [extra for package in packages for extra in re.findall(r"^\.\[(\w+)\]", package)]
        assert set(extras) <= set(EXTRAS), words
      case _:
        raise AssertionError(f"{page.name} has a command that no test understands: {words}")


@functools.cache
def accept(module, arguments):
  """Parses a command line as its program would, the config and its overrides included, without importing the program.

  Raises:
    Exception: where the program would refuse it, or is not there.
  """
  source = ROOT / (module.replace(".", "/") + ".py")
  known, names = flags.FlagValues(), {"flags": flags, "config_flags": config_flags, "terminal": SHARED}
  for node in ast.walk(ast.parse(source.read_text())):
    if isinstance(node, ast.Call) and re.match(r"(config_)?flags\.DEFINE_", ast.unparse(node.func)):
      node.keywords.append(ast.keyword("flag_values", ast.Name("known", ast.Load())))
      eval(compile(ast.fix_missing_locations(ast.Expression(node)), source.name, "eval"), {**names, "known": known})
  words = ["program", *(re.sub(r"^--config=", f"--config={ROOT}/", word) for word in arguments)]
  if "config" in known:
    file = next(word for word in words if word.startswith("--config=")).removeprefix("--config=")
    config = known["config"].parser.parse(file)
    words = terminal.apply("config", words, config, file, places.ROOT)
    check(plain(config))
  with unittest.mock.patch.object(sys, "argv", words):  # where config_flags looks for overrides
    rest = known(words)[1:]
  assert "config" not in known or known["workdir"].present, arguments
  assert not rest or "takes_arguments=True" in source.read_text(), f"{rest} has no meaning"


@every_page
def test_links_lead_somewhere(page):
  for path, anchor in re.findall(r"\]\(([^()\s#:]*)(?:#([^()\s]+))?\)", prose(page)):
    target = (page.parent / path).resolve() if path else page
    assert target.exists(), path
    if anchor:
      titles = re.findall(r"^#+ (.*)$", prose(target), re.MULTILINE)
      assert [title for title in titles if anchor == slug(title)], f"{path}#{anchor}"


def slug(title):
  """Returns the anchor of a heading; hosts of repositories and mkdocs must agree on it."""
  kept = re.sub(r"[^\w\s-]", "", title.lower()).strip()
  assert re.sub(r"\s", "-", kept) == re.sub(r"[-\s]+", "-", kept), f"the anchor of {title!r} depends on who makes it"
  return re.sub(r"\s", "-", kept)


@every_page
def test_paths_and_modules_exist(page):
  for code in re.findall(r"`([^`\n]+)`", prose(page)):
    if re.fullmatch(r"(configs|docs|experiments|lib|notebooks|tests)/[\w./-]+(:\w+)?", code):
      assert (ROOT / code.split(":")[0]).exists(), code
    if re.fullmatch(r"(nurture|experiments|configs)(\.\w+)+", code) and not code.endswith(".py"):
      attribute(code)


@pytest.mark.parametrize("room", ROOMS)
def test_docstrings_refer_to_what_exists(room):
  for path in (ROOT / "lib" / "nurture" / room).rglob("*.py"):
    for dotted in re.findall(r"`(nurture(?:\.\w+)+)`", path.read_text()):
      attribute(dotted)


def attribute(dotted):
  """Returns the module, or the attribute of one, of a dotted name."""
  try:
    return importlib.import_module(dotted)
  except ModuleNotFoundError:
    module, name = dotted.rsplit(".", 1)
    return getattr(attribute(module), name)


@pytest.mark.parametrize("page", TABLES)
def test_the_rows_on_a_page_are_those_of_its_tables(page):
  text, rows = prose(ROOT / "docs" / page), {row for table in TABLES[page] for row in table}
  assert rows - set(re.findall(r"`([\w.]+)`", text)) == set()
  tables = re.findall(r"^\| (?:row|`\S*name`) \|.*\n(?:\|.*\n)+", text, re.MULTILINE)
  shown = {name for table in tables for name in re.findall(r"^\| `(\w+)` \|", table.split("\n", 1)[1], re.MULTILINE)}
  assert shown and shown <= rows


def test_every_room_has_a_page_of_the_reference():
  pages = {page.stem: page.read_text() for page in (ROOT / "docs" / "reference").glob("*.md")}
  assert sorted(pages) == ROOMS
  assert all(f"::: nurture.{room}" in text for room, text in pages.items())


def test_the_numbers_of_claims_stand_in_the_results():
  rows = [line for line in (ROOT / "RESULTS.md").read_text().splitlines() if line.startswith("| ")][2:]
  assert len(rows) > 50
  for row in rows:
    _, _, _, ours, verdict, _ = row.split("|")
    assert_within(ours, ROOT / re.search(r"\]\(([^#)]+)", verdict)[1])
  shown = [line for line in (ROOT / "README.md").read_text().splitlines() if re.match(r"\| .* ± ", line)]
  assert len(shown) == 4
  assert_within("\n".join(shown), ROOT / "docs/results/elr.md")


def assert_within(text, page):
  """Fails for a number with a decimal point that a page does not have."""
  for number in re.findall(r"\d[\d,]*\.\d+(?:e-?\d+)?", text):
    assert re.search(rf"(?<![\d.,]){re.escape(number)}(?!\d)", page.read_text()), f"{number} is not in {page.name}"


def write_own_data(root):
  """Writes what the pages take for data of the reader's own."""
  rng = np.random.default_rng(0)
  for name in ("train/cat", "train/dog", "test/cat", "test/dog"):
    (root / "pets" / name).mkdir(parents=True)
    for i in range(70):
      Image.fromarray(rng.integers(0, 256, (4, 5, 3), np.uint8)).save(root / "pets" / name / f"{i}.png")
  rows = [f"{i},{'north' if i % 2 else 'south'},{i * 1.5}" for i in range(200)]
  (root / "houses.csv").write_text("rooms,district,price\n" + "\n".join(rows) + "\n")


@pytest.mark.parametrize("page", [
  pytest.param(page, id=page.stem) for page in PAGES
  if blocks(page, "python") and page.stem != "extending"  # which has a test of its own
])
def test_python_runs(page, tmp_path, monkeypatch):
  code = blocks(page, "python")
  monkeypatch.chdir(tmp_path)
  monkeypatch.syspath_prepend(ROOT)
  monkeypatch.syspath_prepend(tmp_path)
  if any("runs/quickstart" in block for block in code):
    training.run(tiny_config(), "runs/quickstart")
  write_own_data(tmp_path / "data")
  before = [dict(table) for table in GROWING]
  names, seen = {"__name__": page.stem}, None
  try:
    for file, text in files(page).items():  # of the reader's own, beside which a program is started
      (tmp_path / file).write_text(text)
    for block in code:
      if block in files(page).values():
        continue
      exec(compile(block, f"{page.name}: {block.splitlines()[0]}", "exec"), names)
      config = names.get("config")
      given = isinstance(config, ConfigDict) and config.data.source.get("name") == "given"  # the block has run it
      if isinstance(config, ConfigDict) and not given and (config := plain(config)) != seen:
        measured = metrics_of(read(put(config, members_of(config)[-1].assignments)))  # traces its step and its probes
        assert set(config["report"]["metrics"]) <= measured
        seen = config
  finally:
    for table, rows in zip(GROWING, before):  # what a block has added is taken back
      table.clear()
      table.update(rows)
    for file in tmp_path.glob("*.py"):
      sys.modules.pop(file.stem, None)


def test_the_site_is_built_without_a_warning(tmp_path):
  pytest.importorskip("mkdocs")
  words = ["-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
  done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=240)
  assert done.returncode == 0, done.stderr
  html = "".join(path.read_text() for path in (tmp_path / "site").rglob("*.html"))
  outside = set(re.findall(r"<(?:script|img|link rel=\"stylesheet\")[^>]*(?:src|href)=\"(https?:[^\"]+)", html))
  assert not outside, "a reader's browser would fetch these"
