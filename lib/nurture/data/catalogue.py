"""The data sets by name, and the splits that the data section of a config describes."""

from __future__ import annotations

import dataclasses
import json
import os
import zlib
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from nurture.core import Task, UserError, build
from nurture.core.build import suggest
from nurture.core.hints import Whole, check_argument
from nurture.data.arrays import Dataset, Split
from nurture.data.batches import preprocess
from nurture.data.files import Cifar10, Cifar100, Digits, FashionMnist, Mnist, Text
from nurture.data.huggingface import HuggingFace
from nurture.data.image_folder import ImageFolder
from nurture.data.label_noise import LABEL_NOISE
from nurture.data.npz import Npz
from nurture.data.synthetic import Copy, Multiplication, Parity
from nurture.data.table import Csv
from nurture.data.tasks import Classification, Regression
from nurture.data.tfds_source import Tfds


@dataclasses.dataclass(frozen=True)
class Given:
  """The data set that was handed to `nurture.training.run(..., dataset=...)`, such as one of `Dataset.from_arrays`."""

  def load(self, data_dir: str | os.PathLike) -> Dataset:
    """Raises UserError: there is none."""
    raise UserError("config.data.source is 'given', but no data set was given; hand one to nurture.training.run(..., "
                    "dataset=...), or name another source.")


DATASETS = {
  "digits": Digits,
  "mnist": Mnist,
  "fashion_mnist": FashionMnist,
  "cifar10": Cifar10,
  "cifar100": Cifar100,
  "text": Text,
  "parity": Parity,
  "copy": Copy,
  "multiplication": Multiplication,
  "tfds": Tfds,
  "huggingface": HuggingFace,
  "npz": Npz,
  "image_folder": ImageFolder,
  "csv": Csv,
  "given": Given,
}
_SHORT = ("tfds", "huggingface")  # "tfds:SET" stands for {"name": "tfds", "dataset": SET}

_FIELDS = {  # name: (type, in words)
  "source": (str | Mapping, "a row of DATASETS, such as {'name': 'mnist'}"),
  "seed": (Whole, "a whole number of at least 0"),
  "validation": (Whole, "a number of training examples, 0 for none"),
  "subset": (Whole, "a number of training examples, 0 for all"),
  "test_subset": (Whole, "a number of test examples, 0 for all"),
  "label_noise": (str | Mapping, "{} or a row of LABEL_NOISE"),
  "noisy_validation": (bool, "true or false"),
  "normalize": (str, "a name"),
  "normalize_labels": (Literal["none", "standardize"], "'none' or 'standardize'"),
  "augment": (Mapping, "a dict of rows of AUGMENTATIONS by label"),
}
SECTION = {name: hint for name, (hint, _) in _FIELDS.items()}  # the fields of a data section, with their types
_ADDED = ("normalize_labels",)  # configs from before it mean "none"


def load(config: Mapping[str, Any], data_dir: str | os.PathLike, given: Dataset | None = None) -> Dataset:
  """Reads a data set, puts noise on its labels, splits it and cuts it down, in this order.

  Noise is drawn once over the whole training file, so the same seed gives the same labels at any size of the
  validation split or subset. Validation examples keep their noise if noisy_validation, else they have their
  true labels; test labels are never noisy. The validation split is drawn from the training file, then the subset
  from what remains; a smaller subset of the same seed is contained in a larger one. All splits are in
  the order of their ids. Noise, validation split and subsets draw from random streams of their own.

  Args:
    config: the data section: {"source", "seed", "validation", "subset", "test_subset", "label_noise",
      "noisy_validation", "normalize", "normalize_labels", "augment"}, all required but "normalize_labels", which is
      "none" without. "source" may also be a name, and "tfds:SET" stands for {"name": "tfds", "dataset": SET}.
    data_dir: the directory that holds the files; what each set needs in it stands at its class.
    given: the set that the source "given" means.

  Raises:
    UserError: for a bad config, and for files that are missing or damaged.
  """
  _check(config)
  source = build(DATASETS, _source(config["source"]), path="config.data.source")
  dataset = given if given is not None and isinstance(source, Given) else source.load(data_dir)
  rng = lambda name: np.random.default_rng([config["seed"], zlib.crc32(name.encode())])
  noisy = _with_noise(dataset, config["label_noise"], rng("label_noise"))

  held, rest = _draw(noisy.train, config["validation"], rng("validation"), "config.data.validation", leave=1)
  if not config["noisy_validation"]:
    held = dataclasses.replace(held, label=held.true_label)
  if config["subset"]:
    rest, _ = _draw(rest, config["subset"], rng("subset"), "config.data.subset")
  test = noisy.test
  if config["test_subset"]:
    test, _ = _draw(test, config["test_subset"], rng("test_subset"), "config.data.test_subset")
  task = _scaled(dataset, config.get("normalize_labels", "none"), rest)
  dataset = dataclasses.replace(dataset, train=rest, validation=held, test=test, task=task)
  preprocess(config, dataset)  # checks the rest of the config, and computes the moments before anything is traced
  return dataset


class Reader:
  """Reads data sets, each once; the last two stay in memory, so that a sweep over data does not fill it.

  Args:
    data_dir: the directory that holds the files.
    given: the set that the source "given" means.

  Attributes:
    checksums: of every data file read so far.
    described: what every data set read so far holds; see `Dataset.described`.
  """

  def __init__(self, data_dir: str | os.PathLike, given: Dataset | None = None):
    self.data_dir, self.given = data_dir, given
    self.checksums: dict[str, str] = {}
    self.described: list[dict[str, Any]] = []
    self._kept: dict[str, Dataset] = {}

  def __call__(self, config: Mapping[str, Any]) -> Dataset:
    """Returns the data set of a data section; see `load`."""
    key = json.dumps(config, default=repr)
    if key not in self._kept:
      while len(self._kept) > 1:
        del self._kept[next(iter(self._kept))]
      self._kept[key] = load(config, self.data_dir, self.given)
      self.checksums |= self._kept[key].checksums
      described = self._kept[key].described
      self.described += [described] * (described not in self.described)
    return self._kept[key]


def _check(config: Mapping[str, Any]) -> None:
  for field in config:
    if field not in _FIELDS:
      raise UserError(f"config.data.{field} does not exist; {suggest(field, _FIELDS)}.")
  for field, (hint, meaning) in _FIELDS.items():
    if field not in config and field in _ADDED:
      continue
    if field not in config:
      raise UserError(f"config.data.{field} is missing; give {meaning}.")
    check_argument(f"config.data.{field}", config[field], hint, meaning)


def _source(source: str | Mapping[str, Any]) -> dict[str, Any]:
  source = {"name": source} if isinstance(source, str) else dict(source)
  name = source.get("name")
  row, _, dataset = name.partition(":") if isinstance(name, str) else ("", "", "")
  if dataset and row in _SHORT:
    source |= {"name": row, "dataset": dataset}
  return source


def _with_noise(dataset: Dataset, config: str | Mapping[str, Any], rng: np.random.Generator) -> Dataset:
  if not config:
    return dataset
  noise = build(LABEL_NOISE, config, path="config.data.label_noise")
  train = dataset.train
  if not isinstance(dataset.task, Classification) or train.label.ndim != 1:
    raise UserError(f"config.data.label_noise needs one class an example, but {dataset.name} asks for "
                    f"{dataset.task.name}; set it to {{}}.")
  label = noise(train.true_label, dataset.task.num_outputs, rng)
  return dataclasses.replace(dataset, train=dataclasses.replace(train, label=label))


def _scaled(dataset: Dataset, scale: str, train: Split) -> Task:
  """Returns the task with the labels' unit, which is that of the examples to train on."""
  if scale == "none":
    return dataset.task
  if not isinstance(dataset.task, Regression):
    raise UserError(f"config.data.normalize_labels needs numbers as labels, but {dataset.name} asks for "
                    f"{dataset.task.name}; set it to 'none'.")
  return dataset.task.standardized(train.label)


def _draw(split: Split, count: int, rng: np.random.Generator, path: str, leave: int = 0) -> tuple[Split, Split]:
  """Returns (`count` random examples, the others), both in the order of the split."""
  if count > len(split) - leave:
    raise UserError(f"{path} is {count}, but there are {len(split)} examples; give at most {len(split) - leave}.")
  order = rng.permutation(len(split))
  return split.take(np.sort(order[:count])), split.take(np.sort(order[count:]))
