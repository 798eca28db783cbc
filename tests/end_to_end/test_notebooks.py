"""Every notebook runs from top to bottom, from its own folder."""

import os
import pathlib

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = pathlib.Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def test_there_are_notebooks():
  names = {"architectures", "elr", "gradient_noise", "guidance", "smoothing_distillation"}
  assert {f"{name}.ipynb" for name in names} <= {path.name for path in NOTEBOOKS}


@pytest.mark.slow  # each trains for up to two minutes
# 2026-11: jupyter_client and zmq warn about event loops and about sockets that are closed at exit.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_runs_without_error(path):
  notebook = nbformat.read(path, as_version=4)
  client = NotebookClient(
    notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}
  )
  # Notebooks run longer than they compile: without the flags of the tests.
  client.execute(env={name: value for name, value in os.environ.items() if name != "XLA_FLAGS"})


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_is_kept_with_its_outputs(path):
  cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
  outputs = [output for cell in cells for output in cell.outputs]
  assert any("image/png" in output.get("data", {}) for output in outputs)
  assert not any(output.output_type == "error" for output in outputs)
  assert not any(word in str(output) for output in outputs for word in ("/tmp/", "/home/", "/root/"))
