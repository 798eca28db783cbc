"""The main binary hands its flags to the run."""

import importlib
import pathlib
import sys
import types

import pytest
from absl import flags


@pytest.fixture
def train(monkeypatch):
  """The module, whose flags stay its own: tests of other binaries in this process must not need a --config."""
  for name in ("mark_flags_as_required", "DEFINE_string", "DEFINE_bool", "DEFINE_multi_string"):
    monkeypatch.setattr(flags, name, lambda *arguments, **more: None)
  monkeypatch.setattr("ml_collections.config_flags.DEFINE_config_file", lambda *arguments, **more: None)
  monkeypatch.delitem(sys.modules, "experiments.train", raising=False)
  yield importlib.import_module("experiments.train")
  sys.modules.pop("experiments.train", None)


@pytest.mark.parametrize("flag", ["profile", "tensorboard", "wandb"])
def test_flags_reach_the_run(train, tmp_path, monkeypatch, flag):
  given = {}
  values = {
    "_CONFIG": types.SimpleNamespace(report=types.SimpleNamespace(metrics=("loss",))),
    "_WORKDIR": str(tmp_path / "run"), "_DATA_DIR": "of_mine",
  }
  for name in ("_CONFIG", "_WORKDIR", "_DATA_DIR", "_PROFILE", "_TENSORBOARD", "_WANDB"):
    value = values.get(name, name == f"_{flag.upper()}")
    monkeypatch.setattr(train, name, types.SimpleNamespace(value=value))
  monkeypatch.setattr(train.flags, "FLAGS", {"config": None})
  monkeypatch.setattr(train.config_flags, "get_config_filename", lambda flag: "configs/elr/tiny.py:part")
  monkeypatch.setattr(train.terminal, "enable_compilation_cache", lambda: None)
  monkeypatch.setattr(train.training, "run", lambda config, workdir, **more: given.update(more, workdir=workdir))
  monkeypatch.setattr(train, "show", lambda workdir, name, metrics: given.update(shown=(name, metrics)))
  assert train.main([]) == 0
  assert given["workdir"] == pathlib.Path(tmp_path / "run") and given["shown"] == ("tiny", ("loss",))
  assert given["name"] == "tiny" and given["data_dir"] == "of_mine"
  assert [name for name in ("profile", "tensorboard", "wandb") if given[name]] == [flag]
