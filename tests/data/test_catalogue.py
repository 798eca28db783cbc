"""Splits of a config: what is kept through noise, split and subset, and what is refused."""

import gzip
import subprocess
import sys

import numpy as np
import pytest

from nurture.core import UserError
from nurture.data import catalogue, load

_NOISE = {"name": "symmetric", "rate": 0.5, "include_true": False}


@pytest.fixture
def data_dir(tmp_path):
  """A set in MNIST's format with 200 + 40 images; the pixels of image i spell i."""
  folder = tmp_path / "mnist"
  folder.mkdir()
  for part, n in (("train", 200), ("t10k", 40)):
    images = np.repeat(np.arange(n, dtype=np.uint8), 4).reshape(n, 2, 2)
    for kind, values in (("images-idx3", images), ("labels-idx1", (np.arange(n) * 7 % 10).astype(np.uint8))):
      header = bytes((0, 0, 8, values.ndim)) + b"".join(v.to_bytes(4, "big") for v in values.shape)
      (folder / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress(header + values.tobytes()))
  return tmp_path


def _config(**changes):
  return {
    "source": {"name": "mnist", "train_examples": 200, "test_examples": 40},
    "seed": 0, "validation": 50, "subset": 0, "test_subset": 0, "label_noise": _NOISE, "noisy_validation": True,
    "normalize": "unit", "normalize_labels": "none", "augment": {}, **changes,
  }  # fmt: skip


def _consistent(split):
  np.testing.assert_array_equal(split.inputs["image"][:, 0, 0, 0], split.id)
  np.testing.assert_array_equal(split.true_label, split.id * 7 % 10)
  assert np.all(np.diff(split.id) > 0)


def test_ids_and_true_labels_survive_noise_split_and_subset(data_dir):
  data = load(_config(subset=60, test_subset=11), data_dir)
  assert [len(data.train), len(data.validation), len(data.test)] == [60, 50, 11]
  assert data.num_examples == 200 and data.task.num_outputs == 10
  for split in (data.train, data.validation, data.test):
    _consistent(split)
  assert not set(data.train.id) & set(data.validation.id)
  np.testing.assert_array_equal(data.test.label, data.test.true_label)


def test_nothing_asked_for_is_the_set_as_it_is(data_dir):
  data = load(_config(validation=0, label_noise={}), data_dir)
  np.testing.assert_array_equal(data.train.id, np.arange(200))
  np.testing.assert_array_equal(data.train.label, data.train.true_label)
  assert len(data.validation) == 0 and len(data.test) == 40


def test_noise_covers_the_whole_training_file_before_the_split(data_dir):
  whole = load(_config(validation=0), data_dir).train
  assert np.sum(whole.label != whole.true_label) == 100
  for changes in ({}, {"validation": 120}, {"subset": 30}):
    data = load(_config(**changes), data_dir)
    for split in (data.train, data.validation):
      np.testing.assert_array_equal(split.label, whole.label[split.id])
  assert np.any(data.validation.label != data.validation.true_label)


def test_a_clean_validation_split_has_true_labels_and_the_same_examples(data_dir):
  noisy, clean = load(_config(), data_dir), load(_config(noisy_validation=False), data_dir)
  np.testing.assert_array_equal(clean.validation.id, noisy.validation.id)
  np.testing.assert_array_equal(clean.validation.label, clean.validation.true_label)
  np.testing.assert_array_equal(clean.train.label, noisy.train.label)


def test_the_seed_decides_everything_random(data_dir):
  one, two, other = (load(_config(subset=60, test_subset=20, seed=s), data_dir) for s in (1, 1, 2))
  for name in ("train", "validation", "test"):
    a, b, c = (d.split(name) for d in (one, two, other))
    np.testing.assert_array_equal(a.id, b.id)
    np.testing.assert_array_equal(a.label, b.label)
    assert set(a.id) != set(c.id)


def test_a_smaller_subset_is_contained_in_a_larger_one(data_dir):
  small, large = (set(load(_config(subset=n), data_dir).train.id) for n in (20, 80))
  assert small < large and len(large) == 80


def test_a_validation_split_is_not_the_head_of_the_file(data_dir):
  ids = load(_config(), data_dir).validation.id
  assert ids.max() > 150 and ids.min() < 50


def test_a_name_and_a_tfds_name_stand_for_their_rows(monkeypatch, tmp_path):
  asked = []
  monkeypatch.setattr(catalogue.Tfds, "load", lambda self, data_dir: asked.append((self.dataset, self.resize)) or 1 / 0)
  for source in ("tfds:cifar10_corrupted/fog_1", {"name": "tfds:cifar10_corrupted/fog_1", "resize": 8}):
    with pytest.raises(ZeroDivisionError):
      load(_config(source=source), tmp_path)
  assert asked == [("cifar10_corrupted/fog_1", None), ("cifar10_corrupted/fog_1", 8)]
  assert load(_config(source="digits"), tmp_path).num_examples == 1437


def test_every_field_is_required(data_dir):
  for field in _config().keys() - {"normalize_labels"}:
    config = _config()
    del config[field]
    with pytest.raises(UserError, match=f"^config.data.{field} is missing; give"):
      load(config, data_dir)


@pytest.mark.parametrize("changes, words", [
  ({"valdation": 3}, "data.valdation does not exist; did you mean 'validation'"),
  ({"source": "mnits"}, "data.source.name is 'mnits', .*did you mean 'mnist'"),
  ({"source": 3}, "data.source is 3"),
  ({"source": {"name": "mnist", "size": 3}}, "data.source.size does not exist"),
  ({"seed": -1}, "data.seed is -1"),
  ({"validation": 0.1}, "data.validation is 0.1; give a number of training examples"),
  ({"validation": True}, "data.validation is True"),
  ({"validation": 200}, "data.validation is 200, but there are 200 examples; give at most 199"),
  ({"subset": 151}, "data.subset is 151, but there are 150 examples; give at most 150"),
  ({"test_subset": 41}, "data.test_subset is 41, but there are 40 examples"),
  ({"validation": 2**70}, "data.validation is 1180591620717411303424, but there are 200"),
  ({"subset": 2**70}, "data.subset is 1180591620717411303424, but there are 150"),
  ({"test_subset": 2**70}, "data.test_subset is 1180591620717411303424, but there are 40"),
  ({"noisy_validation": 1}, "data.noisy_validation is 1; give true or false"),
  ({"label_noise": {"name": "symetric"}}, "data.label_noise.name is 'symetric', .*did you mean 'symmetric'"),
  ({"label_noise": {**_NOISE, "rate": 1.5}}, "data.label_noise.rate is 1.5; give a number from 0 to 1"),
  ({"normalize": "standardise"}, "data.normalize.name is 'standardise', .*did you mean 'standardize'"),
  ({"augment": {"c": {"name": "crop"}}}, "data.augment.c.name is 'crop'"),
  ({"augment": "flip"}, "data.augment is 'flip'; give a dict"),
])
def test_a_bad_config_is_one_sentence(data_dir, changes, words):
  with pytest.raises(UserError, match=words) as error:
    load(_config(**changes), data_dir)
  assert "\n" not in str(error.value)


@pytest.mark.parametrize("noise, words", [
  (lambda labels, k, rng: labels + 1, "the train split of mnist gives example 7 the label 10"),  # 7 * 7 % 10 is 9
  (lambda labels, k, rng: labels - 1, "the train split of mnist gives example 0 the label -1"),
  (lambda labels, k, rng: labels * 0.5, "labels of the train split of mnist hold 3.5 in example 1; give whole numbers"),
])
def test_noise_that_makes_no_classes_is_refused(data_dir, monkeypatch, noise, words):
  monkeypatch.setitem(catalogue.LABEL_NOISE, "own", lambda: noise)
  with pytest.raises(UserError, match=words):
    load(_config(label_noise="own"), data_dir)


def test_noise_on_sequences_is_refused(tmp_path):
  (tmp_path / "a.txt").write_text("hello world " * 200)
  source = {"name": "text", "path": "a.txt"}
  with pytest.raises(UserError, match="data.label_noise needs one class an example"):
    load(_config(source=source), tmp_path)
  data = load(_config(source=source, label_noise={}, validation=2), tmp_path)
  assert set(data.train.inputs) == {"tokens"} and data.validation.label.shape == (2, 64)


def test_importing_the_room_loads_no_heavy_library():
  heavy = {"tensorflow", "tensorflow_datasets", "sklearn", "PIL", "matplotlib"}
  code = f"import sys, nurture.data; print(sorted({heavy} & set(sys.modules)))"
  out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
  assert out.stdout.strip() == "[]"
