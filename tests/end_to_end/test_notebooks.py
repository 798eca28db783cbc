"""Every notebook runs from top to bottom, from its own folder, with shorter runs than it is kept with."""

import ast
import importlib
import os
import pathlib
import types

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = pathlib.Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

# Put behind the cell that imports: what a notebook trains takes an eighth of its steps, unless something is scheduled
# over them, and is dispatched in pieces of one length, so that it is compiled once.
SHORTER = """
from nurture import training
from nurture.training.config import plain, put

run = training.run

def shorter(config, *arguments, **options):
  config = plain(config)
  steps = config["steps"] if config["scheduled"] else max(config["steps"] // 400, 1) * 50
  return run(put(config, {"steps": steps, "steps_per_dispatch": 5}), *arguments, **options)

training.run = shorter
"""


def test_there_are_notebooks():
  names = {
    "architectures", "elr", "gradient_noise", "guidance", "more_is_better", "ntk_dynamics", "sigmoid_attention",
    "smoothing_distillation", "wide_and_deep",
  }
  assert {f"{name}.ipynb" for name in names} <= {path.name for path in NOTEBOOKS}


@pytest.mark.long  # each compiles and trains several networks
@pytest.mark.timeout(660)
# 2026-11: jupyter_client and zmq warn about event loops and about sockets that are closed at exit.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_runs_without_error(path):
  notebook = nbformat.read(path, as_version=4)
  notebook.cells.insert(1 + first_code(notebook), nbformat.v4.new_code_cell(SHORTER))
  client = NotebookClient(
    notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}
  )
  # One device, as a reader has it: the flags of the tests make two of one CPU.
  client.execute(env=os.environ | {"XLA_FLAGS": "--xla_backend_optimization_level=0"})


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_uses_what_exists(path):
  """Every name that a notebook imports of this project, and every attribute of a module of it, without running it."""
  source = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code")
  tree, modules, found = ast.parse(source), {}, 0
  for node in ast.walk(tree):
    if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in ("nurture", "experiments", "configs"):
      module = importlib.import_module(node.module)
      for alias in node.names:
        if not hasattr(module, alias.name):
          importlib.import_module(f"{node.module}.{alias.name}")
        found += 1
        value = getattr(module, alias.name)
        if isinstance(value, types.ModuleType):
          modules[alias.asname or alias.name] = value
  for node in ast.walk(tree):
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
      assert hasattr(modules[node.value.id], node.attr), f"{node.value.id}.{node.attr}"
      found += 1
  assert found > 3


def first_code(notebook):
  """Returns the index of the cell that imports."""
  return next(i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_is_kept_with_its_outputs(path):
  cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
  outputs = [output for cell in cells for output in cell.outputs]
  assert any("image/png" in output.get("data", {}) for output in outputs)
  assert not any(output.output_type == "error" for output in outputs)
  assert not any(word in str(output) for output in outputs for word in ("/tmp/", "/home/", "/root/"))
