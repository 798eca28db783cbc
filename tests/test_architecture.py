"""The floors of the house: which room may import which, what starting up loads, and what no file is called."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
FLOORS = {
  "core": 0,
  "attention": 1, "similarity": 1, "ntk": 1, "curvature": 1, "reporting": 1,
  "models": 2, "data": 2, "transforms": 2,
  "probes": 3,
  "training": 4,
  "terminal": 5, "testing": 5,
}
HEAVY = ("tensorflow", "tensorflow_datasets", "matplotlib", "sklearn")


def imports(source, package):
  """Yields the dotted name of every module that a source imports, wherever the statement stands."""
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
      module = ".".join([*parents, *([node.module] if node.module else [])])
      yield from (f"{module}.{alias.name}" for alias in node.names)


def violations(source, package):
  """Returns the imports of a source in nurture/<room>/, experiments/ or configs/ that go up or sideways."""
  top, *rest = package.split(".")
  found = []
  for name in imports(source, package):
    parts = name.split(".")
    if top == "configs":
      allowed = parts[0] in ("math", "ml_collections", "configs")
    elif top == "experiments":
      allowed = parts[0] != "configs"
    elif parts[0] == "nurture" and rest:
      room = parts[1] if len(parts) > 1 else ""
      allowed = room == rest[0] or FLOORS.get(room, 99) < FLOORS[rest[0]]
    else:
      allowed = parts[0] not in ("nurture", "experiments", "configs")
    found += [] if allowed else [name]
  return found


def sources():
  for top in ("lib", "experiments", "configs"):
    for path in sorted((ROOT / top).rglob("*.py")):
      yield path, ".".join(path.parent.relative_to(ROOT / "lib" if top == "lib" else ROOT).parts)


def test_every_room_has_a_floor():
  rooms = {p.parent.name for p in (ROOT / "lib" / "nurture").glob("*/__init__.py")}
  assert {"core", "reporting"} <= rooms <= set(FLOORS)


def test_imports_go_down_only():
  found = {str(p.relative_to(ROOT)): bad for p, package in sources() if (bad := violations(p.read_text(), package))}
  assert not found


@pytest.mark.parametrize("package, source", [
  ("nurture.core", "from nurture.reporting import tables"),
  ("nurture.models", "import nurture.data"),
  ("nurture.data", "from nurture import transforms"),
  ("nurture.transforms.losses", "def f():\n  from nurture.models.mlp import Mlp"),
  ("nurture.probes", "from ..training import loop"),
  ("nurture.similarity", "from nurture.ntk import dual"),
  ("nurture.training", "import experiments.train"),
  ("nurture.training", "from nurture.testing import damage"),
  ("nurture.training", "import nurture.terminal"),
  ("nurture", "import configs.quickstart"),
  ("nurture.ntk", "import nurture"),
  ("experiments", "from configs import quickstart"),
  ("configs.study", "import jax"),
  ("configs", "from nurture.core import UserError"),
])
def test_a_wrong_import_is_caught(package, source):
  assert len(violations(source, package)) == 1


@pytest.mark.parametrize("package, source", [
  ("nurture.training", "from nurture.probes import accuracy\nimport jax, nurture.core.trees"),
  ("nurture.transforms.losses", "from nurture.transforms.losses import elr\nfrom ..targets import y\nfrom . import z"),
  ("experiments", "from nurture import reporting, terminal\nfrom experiments import report"),
  ("configs", "import ml_collections\nfrom configs import base"),
])
def test_a_right_import_passes(package, source):
  assert violations(source, package) == []


def test_no_file_is_named_for_nothing():
  vague = {"utils", "util", "helpers", "helper", "misc", "common"}
  tracked = [p for top in ("lib", "experiments", "configs", "tests", "notebooks") for p in (ROOT / top).rglob("*")]
  assert len(tracked) > 20
  assert not [p for p in tracked if p.stem in vague]


def loaded_by(statement):
  """Returns those of the heavy modules that a fresh interpreter has loaded after a statement."""
  code = f"import sys\n{statement}\nprint(*[m for m in {HEAVY} if m in sys.modules])"
  done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
  assert done.returncode == 0, done.stderr
  return done.stdout.split()


def test_start_up_loads_nothing_heavy():
  rooms = [f"nurture.{room}" for room in FLOORS if (ROOT / "lib" / "nurture" / room / "__init__.py").exists()]
  assert loaded_by(f"import {', '.join(rooms)}") == []


def test_something_heavy_would_be_seen():
  assert loaded_by("import matplotlib") == ["matplotlib"]
