"""The installation: the package alone, with versions that two files agree on, and the names that outside code uses."""

import importlib
import pathlib
import re
import tomllib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def ranges(lines):
  """Returns {name of a package: its range} of requirements."""
  found = {}
  for line in lines:
    if wanted := re.match(r"([\w.-]+)(?:\[[\w,]+\])?(.*)", line.split("#")[0].strip()):
      found[wanted[1]] = wanted[2]
  return found


def test_requirements_name_every_package_with_the_ranges_of_the_project():
  extras = PROJECT["optional-dependencies"]
  named = ranges((ROOT / "requirements.txt").read_text().splitlines())
  tests = {"pytest": ranges(extras["dev"])["pytest"]}
  assert named == ranges(PROJECT["dependencies"]) | ranges(extras["tfds"]) | ranges(extras["infinite"]) | tests
  assert all(re.fullmatch(r">=[\d.]+,<[\d.]+", one) for one in named.values())


def test_nothing_but_the_package_is_installed():
  assert [p.name for p in (ROOT / "lib").iterdir() if not p.name.endswith(".egg-info")] == ["nurture"]
  folders = {path.parent for path in (ROOT / "lib").rglob("*.py")}
  assert all((folder / "__init__.py").exists() for folder in folders)  # or it would be left out of a wheel


@pytest.mark.parametrize("module, names", [
  ("nurture.models", "build MODELS"),
  ("nurture.attention", "sigmoid_attention softmax_attention"),
  ("nurture.similarity", "linear_cka rbf_cka rsa procrustes cca svcca pwcca linear_regression knn_overlap"),
  ("nurture.transforms.targets", "TARGETS"), ("nurture.transforms.losses", "LOSSES"),
  ("nurture.transforms.gradients", "GRADIENTS"), ("nurture.transforms.parameters", "PARAMETERS"),
  ("nurture.probes", "PROBES"), ("nurture.data", "DATASETS Dataset"),
  ("nurture.ntk.empirical", "ntk"), ("nurture.ntk.deep", "deep_log_kernel"), ("nurture.ntk.dual", "optimal_hermite"),
  ("nurture.ntk.eigenframework", "rf_predict krr_predict"),
  ("nurture.training", "run Experiment member_variables"),
  ("experiments.train", "main"), ("experiments.models", "main"), ("experiments.report", "main"),
])
def test_names_that_outside_code_uses(module, names):
  loaded = importlib.import_module(module)
  assert [name for name in names.split() if not hasattr(loaded, name)] == []


@pytest.mark.parametrize("config", ["base", "quickstart", "mnist_mlp", "cifar10_cnn"])
def test_configs_that_outside_code_uses(config):
  assert (ROOT / "configs" / f"{config}.py").is_file()
