"""The benchmark of kernels, at tiny sizes: agreement with neural-tangents, and what its parts report."""

import subprocess
import sys

import jax
import numpy as np
import pytest
from absl.testing import flagsaver

from experiments.benchmarks import ntk as benchmark
from nurture import models
from nurture.core import UserError
from nurture.ntk.infinite import neural_tangents


def package():
  try:
    return neural_tangents()
  except UserError as error:
    pytest.skip(str(error))


def test_both_implementations_of_neural_tangents_agree_with_ours():
  with jax.numpy_rank_promotion("allow"):
    compiled = benchmark.contenders({"name": "mlp", "depth": 1, "width": 4}, 3, (5,), package())
  measured = benchmark.compare(compiled, rounds=2)
  assert list(measured) == [benchmark.OURS, "neural-tangents 1", "neural-tangents 3"]
  for of in measured.values():
    assert of["difference"] <= 1e-5 and of["compilation"] > 0
    assert len(of["seconds"]) == len(of["ratios"]) == 2 and min(of["seconds"]) > 0


@pytest.fixture
def parsed():
  with flagsaver.flagsaver():
    benchmark.flags.FLAGS.mark_as_parsed()
    yield


def test_the_kernel_by_blocks_reports_its_memory(parsed, monkeypatch, capsys):
  small = models.build("resnet", num_classes=2, blocks=(1,), width=2)
  monkeypatch.setattr(benchmark.models, "build", lambda *args, **fields: small)
  with flagsaver.flagsaver(samples=3, block=2, reduce="pseudo", data_dir=None):
    result = benchmark.resnet18()
  assert result["images"] == "random images" and result["peak_bytes"] >= result["bytes_before"] > 0
  assert np.isclose(result["trace"], sum(result["largest_eigenvalues"]), rtol=1e-5)
  assert "3 random images" in capsys.readouterr().out


def test_deep_kernels_compile_without_the_peer(parsed, monkeypatch, capsys):
  monkeypatch.setattr(benchmark, "peer", lambda: None)
  with flagsaver.flagsaver(depth=2):
    assert list(benchmark.deep()) == [benchmark.DEEP]
  assert "NTK of 2 ReLU layers" in capsys.readouterr().out


def test_mistakes_are_one_sentence():
  command = [sys.executable, "-m", "experiments.benchmarks.ntk", "--part=all"]
  done = subprocess.run(command, capture_output=True, text=True, timeout=240)
  assert done.returncode == 2 and done.stderr.startswith("error:") and len(done.stderr.splitlines()) == 1
