"""A split keeps its rows together; padded batches lose and double nothing."""

import numpy as np
import pytest

from nurture.core import UserError
from nurture.data import Dataset, Split, padded_batches
from nurture.data.tasks import Classification


def _split(n=11, shape=(4, 4, 3)):
  rng = np.random.default_rng(0)
  return Split.clean(rng.integers(0, 256, (n, *shape), np.uint8), rng.integers(0, 10, n))


def test_take_keeps_rows_together():
  split = _split()
  taken = split.take(np.array([7, 2, 2]))
  np.testing.assert_array_equal(taken.id, [7, 2, 2])
  np.testing.assert_array_equal(taken.inputs["image"], split.inputs["image"][[7, 2, 2]])
  np.testing.assert_array_equal(taken.label, split.label[[7, 2, 2]])


def test_arrays_of_different_lengths_are_refused():
  split = _split()
  with pytest.raises(ValueError, match="different lengths"):
    Split(split.inputs["image"][:-1], split.label, split.true_label, split.id)


def test_moments_are_those_of_float64_per_channel(monkeypatch):
  monkeypatch.setattr("nurture.data.arrays._ROWS", 7)  # several parts, the last one short
  split = _split()
  mean, std = split.moments["image"]
  exact = split.inputs["image"].astype(np.float64)
  np.testing.assert_allclose(mean, exact.mean((0, 1, 2)), rtol=1e-13)
  np.testing.assert_allclose(std, exact.std((0, 1, 2)), rtol=1e-13)


@pytest.mark.parametrize("batch_size", [1, 3, 4, 11, 16])
def test_padded_batches_reproduce_the_set_and_its_means(batch_size):
  split = _split()
  batches = padded_batches(split, batch_size)
  assert len(batches) == -(-11 // batch_size)
  shapes = {tuple((k, v.shape, v.dtype) for k, v in batch.items()) for batch in batches}
  assert len(shapes) == 1 and all(len(batch["weight"]) == batch_size for batch in batches)
  joined = {k: np.concatenate([batch[k] for batch in batches]) for k in batches[0]}
  real = joined["weight"] == 1
  np.testing.assert_array_equal(joined["id"][real], split.id)
  np.testing.assert_array_equal(joined["image"][real], split.inputs["image"])
  assert set(joined["id"][~real]) <= {-1} and set(joined["weight"]) <= {0.0, 1.0}
  value = joined["image"].astype(np.float64).mean((1, 2, 3))
  mean = np.sum(value * joined["weight"]) / np.sum(joined["weight"])
  np.testing.assert_allclose(mean, split.inputs["image"].mean(dtype=np.float64), rtol=1e-13)


def test_sequences_are_padded_too():
  tokens = np.arange(15, dtype=np.uint8).reshape(5, 3)
  last = padded_batches(Split.clean({"tokens": tokens}, tokens + 1), 4)[-1]
  np.testing.assert_array_equal(last["tokens"], tokens[[4, 0, 0, 0]])
  assert last["label"].shape == (4, 3)


def test_an_unusable_batch_size_is_one_sentence():
  with pytest.raises(UserError, match="batch size is 0"):
    padded_batches(_split(), 0)


def test_split_by_name():
  dataset = Dataset.read("toy", _split(11), _split(5), Classification(tuple("abcdefghij")))
  assert (len(dataset.split("train")), len(dataset.split("test")), dataset.num_examples) == (11, 5, 11)
  words = r"'validation' of toy is empty \(config.data.validation .*use one of train, test"
  with pytest.raises(UserError, match=words):
    dataset.split("validation")
  with pytest.raises(UserError, match="'dev' of toy does not exist; use one of train, test"):
    dataset.split("dev")
