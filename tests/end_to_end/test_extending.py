"""The page on rows of one's own: its blocks lie in a folder outside of the repository, are checked, and train."""

import importlib
import os
import shlex
import subprocess
import sys

import pytest

from nurture import testing, training
from nurture.reporting import read_json
from nurture.training.config import plain, put
from tests.pages import ROOT, commands, files

PAGE = ROOT / "docs" / "extending.md"
FILES = files(PAGE)
TESTS = FILES["test_my_project.py"]


@pytest.fixture
def own(tmp_path, monkeypatch):
  """A folder with the files of the page, beside the place of a run; names are imported from it."""
  folder = tmp_path / "own"
  for path, text in FILES.items():
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_text(text)
  monkeypatch.syspath_prepend(folder)
  yield folder
  for name in [name for name in sys.modules if name.partition(".")[0] in ("my_project", "study", "test_my_project")]:
    del sys.modules[name]


def test_there_is_a_row_of_every_kind():
  checks = [name for name in testing.__all__ if name.startswith("check_")]
  assert len(checks) == 8 and all(f"testing.{check}(" in TESTS for check in checks)
  rows = [path for path in FILES if path.startswith("my_project/")]
  assert len(rows) == 8 and all(path.removesuffix(".py").replace("/", ".") + ":" in TESTS for path in rows)


@pytest.mark.parametrize("name", [
  line.split("(")[0].removeprefix("def ") for line in TESTS.splitlines() if line.startswith("def ")
])
def test_every_row_obeys_the_laws(own, name):
  getattr(importlib.import_module("test_my_project"), name)()


def test_the_study_trains_with_all_of_them_in_one_program(own, tmp_path):
  config = plain(importlib.import_module("study").get_config())
  tail = {"parameters.tail.start": 4, "steps": 6, "log_every": 3, "checkpoint.every": 0}
  often = {"probes.test.every": 6, "probes.margin.every": 6, "steps_per_dispatch": 3}
  results = training.run(put(config, tail | often), tmp_path / "run")
  assert len(results["members"]) == 8 and {member["cohort"] for member in results["members"]} == {0}
  assert len({member["params_sha256"] for member in results["members"]}) == 8  # every number does something
  assert {"test/accuracy", "margin/mean"} <= set(results["groups"][0]["metrics"])
  manifest = read_json(tmp_path / "run" / "manifest.json")
  assert {path.removesuffix(".py").replace("/", ".") for path in FILES if path.startswith("my_project/")} == set(
    manifest["extensions"]
  )
  assert manifest["extensions"]["my_project.losses"]["text"] == FILES["my_project/losses.py"]


@pytest.mark.long  # starts Python twice, and trains as long as the page does
def test_the_commands_of_the_page(own, tmp_path):
  for path, *words in (words for words in commands(PAGE) if words[0].startswith("PYTHONPATH=")):
    environment = os.environ | {"PYTHONPATH": f"{own}:{ROOT / 'lib'}"}
    assert path == "PYTHONPATH=../own" and words[0] == "python"
    arguments = [word.replace("../own", str(own)).replace("runs/own", str(tmp_path / "run")) for word in words[1:]]
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True,
                          timeout=300)
    assert done.returncode == 0, shlex.join(arguments) + done.stdout + done.stderr
  results = read_json(tmp_path / "run" / "results.json")
  for group in results["groups"]:
    assert group["metrics"]["test/accuracy"]["mean"] > 0.8, group
