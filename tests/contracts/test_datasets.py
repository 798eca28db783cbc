"""Contracts of data sets; those that read files are checked in tests/data."""

import dataclasses

import numpy as np
import pytest

from nurture.data import Dataset
from nurture.testing import check_dataset

SIZES = {"min_length": 2, "max_length": 4, "num_examples": 20, "test_examples": 9}


@pytest.mark.parametrize("config", [
  {"name": "digits"}, {"name": "digits", "label": "ink"}, {"name": "digits", "label": "name"},
  {"name": "parity", **SIZES}, {"name": "copy", **SIZES, "written": True}, {"name": "multiplication", **SIZES},
], ids=lambda config: "-".join(map(str, config.values())))
def test_datasets(config):
  check_dataset(config)


class Twin:
  """Signs of sums, with one mistake of choice."""

  def __init__(self, mistake=""):
    self.mistake = mistake

  def load(self, data_dir):
    rng = np.random.default_rng(None if self.mistake == "no seed" else 0)
    x = rng.normal(size=(20, 3)).astype(np.float32)
    y = x.sum(axis=1) > 0
    if self.mistake == "not finite":
      x[7, 1] = np.nan
    if self.mistake == "arrays":
      return x, y
    test = 0 if self.mistake == "no test" else 5
    made = Dataset.from_arrays((x[5:], y[5:]), (x[:test], y[:test]), outputs=("below", "above"))
    if self.mistake == "fresh ones have another form":
      return dataclasses.replace(made, generate=lambda key, n: {"image": np.zeros((n, 2), np.float32)})
    if self.mistake == "one draw":
      return dataclasses.replace(made, generate=lambda key, n: {
        "image": np.zeros((n, 3), np.float32), "label": np.zeros(n, np.int32)
      })
    if self.mistake == "names of things":
      return dataclasses.replace(made, checksums={"x": Twin})
    return made


def test_a_right_dataset_passes():
  check_dataset(Twin())


@pytest.mark.parametrize("mistake, words", {
  "no seed": "the train split: loading again gives other examples .* draw from np.random.default_rng",
  "not finite": "Twin: the train split of arrays has an input that is not finite",
  "arrays": "load returns tuple; return a nurture.data.Dataset",
  "no test": "the test split: there is no example",
  "fresh ones have another form": r"generate: fresh examples have image float32\[2\], and the stored ones",
  "one draw": "generate: two keys draw the same examples",
  "names of things": "the manifest: it raises TypeError",
}.items())
def test_a_wrong_dataset_is_caught(mistake, words):
  with pytest.raises(AssertionError, match=words) as error:
    check_dataset(Twin(mistake))
  assert "\n" not in str(error.value)
