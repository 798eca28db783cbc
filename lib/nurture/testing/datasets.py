"""Check of data sets."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from nurture.data import DATASETS, Dataset, device_fields, padded_batches, preprocess
from nurture.testing import laws
from nurture.testing.laws import during, require
from nurture.testing.rows import read

_SEEDED = "draw from np.random.default_rng(self.seed), and sort what a folder lists"


def check_dataset(row: Any, data_dir: str | os.PathLike = "data") -> None:
  """Checks a data set against every law that training relies on; see `nurture.testing`.

  It loads, twice the same; labels are those of its task, inputs are finite and of one shape in all splits, each example
  has an id of its own (all of which `nurture.data.Dataset` refuses otherwise); there is something to test on; a batch
  can be normalized, and its targets are finite; what the manifest says of it can be written; fresh examples, where the
  set can be generated, have the form of the stored ones and depend on their key alone.

  Args:
    row: {"name": "my_project.data:Name", field: value}, the name alone, or an object.
    data_dir: the folder that a set with files is read from.

  Raises:
    AssertionError: names the law that is broken, and what to do.
  """
  subject = read(DATASETS, row, ("load",))
  with during(subject.name):
    dataset, again = subject.built.load(data_dir), subject.built.load(data_dir)
    require(isinstance(dataset, Dataset), f"load returns {type(dataset).__name__}",
            "return a nurture.data.Dataset, such as Dataset.from_arrays makes")
    for part in ("train", "test"):
      with during(f"the {part} split"):
        one, other = (getattr(each, part).fields for each in (dataset, again))
        require(len(one["label"]), "there is no example", "give it at least one")
        laws.close(other, one, "loading again gives other examples", _SEEDED, tolerance=0)
        _check_batch(dataset, part)
    with during("the manifest"):
      json.dumps([dataset.described, dict(dataset.checksums)])
    if dataset.generate is not None:
      with during("generate"):
        _check_generated(dataset, dataset.generate)


def _check_batch(dataset: Dataset, part: str) -> None:
  batch = jax.tree.map(jax.numpy.asarray, padded_batches(dataset.split(part), 8)[-1])
  pipeline = preprocess({"normalize": "standardize", "augment": {}}, dataset)
  inputs, targets = jax.jit(lambda batch: (pipeline.inputs(batch), dataset.task.targets(batch)))(batch)
  laws.finite(inputs, "a normalized input", "leave out inputs that are not finite, or too large for float32")
  laws.finite(targets, "a target", "leave out labels that are not finite")


def _check_generated(dataset: Dataset, generate: Callable[[jax.Array, int], Mapping[str, jax.Array]]) -> None:
  stored = device_fields(dataset.train.take(np.arange(1)))
  keys = jax.random.split(jax.random.key(0), 2)
  three = lambda key: generate(key, 3)
  laws.retraces(three, keys[0])
  first, other = jax.jit(three)(keys[0]), jax.jit(three)(keys[1])
  for name, values in first.items():
    kind = lambda values: (values.dtype, values.shape[1:])
    require(name in stored and kind(values) == kind(stored[name]),
            f"fresh examples have {name} {values.dtype}{list(values.shape[1:])}, and the stored ones another form",
            "make both by the same function")
  dataset.task.check_labels(np.asarray(first["label"]), {n: np.asarray(v) for n, v in first.items()}, "a fresh batch")
  same = all(np.array_equal(first[name], other[name]) for name in first)
  require(not same, "two keys draw the same examples", "draw from the key")
