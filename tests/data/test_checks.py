"""Labels that are no classes, inputs that no model reads and ids without a row: refused wherever a set comes from."""

import dataclasses

import numpy as np
import pytest

from nurture.core import UserError, memory
from nurture.data import Dataset, Split, padded_batches
from nurture.data.checks import as_int32, check_memory
from nurture.data.tasks import Classification, PerPosition

_N, _K = 6, 3
_IMAGES = np.zeros((_N, 4, 4, 1), np.uint8)
_TOKENS = np.zeros((_N, 5), np.int32)
_LABELS = np.arange(_N) % _K


def _read(inputs=_IMAGES, label=_LABELS, test=None, name="image", classes=("a", "b", "c")):
  train = Split.clean({name: inputs}, label)
  task = (PerPosition if np.ndim(label) > 1 else Classification)(classes)
  return Dataset.read("toy", train, train if test is None else test, task)


def _refused(words, make):
  with pytest.raises(UserError, match=words) as error:
    make()
  assert "\n" not in str(error.value) and str(error.value).endswith(".")


def _with(value, like=_LABELS):
  """Returns labels of which the fifth is another one."""
  labels = like.astype(np.result_type(like, np.asarray(value)))
  labels[4] = value
  return labels


@pytest.mark.parametrize("label, words", [
  (_with(-1), "the train split of toy gives example 4 the label -1, but labels go from 0 to 2; mend"),
  (_with(3), "example 4 the label 3, but labels go from 0 to 2; mend"),
  (_with(0.5), "labels of the train split of toy hold 0.5 in example 4; give whole numbers"),
  (_with(np.nan), "labels of the train split of toy hold nan in example 4"),
  (_with(np.inf), "labels of the train split of toy hold inf in example 4"),
  (_with(2**32 + 1), "labels of the train split of toy hold 4294967297 in example 4"),  # is 1 in 32 bits
  (_LABELS.astype(str), "labels of the train split of toy have the type <U"),
])
def test_labels_that_are_no_classes(label, words):
  _refused(words, lambda: _read(label=label))
  _refused(words.replace("train", "test"), lambda: _read(test=Split.clean(_IMAGES, label)))


@pytest.mark.parametrize("label", [np.eye(_N, _K), _LABELS[:, None]])
def test_labels_of_another_shape(label):
  sentence = f"train split of toy has labels {label.shape}".replace("(", r"\(").replace(")", r"\)")
  _refused(rf"{sentence} for tokens that are missing; give one a token", lambda: _read(label=label))
  _refused(rf"{sentence}; give one an example", lambda: dataclasses.replace(_read(), train=Split.clean(_IMAGES, label)))


@pytest.mark.parametrize("label", [_LABELS.astype(t) for t in (np.uint8, np.int64, np.float32)] + [_LABELS > 0])
def test_whole_numbers_of_any_type_become_int32(label):
  split = _read(label=label).train
  assert split.label.dtype == split.true_label.dtype == split.id.dtype == np.int32
  np.testing.assert_array_equal(split.label, label)


def test_noisy_and_true_labels_are_both_checked():
  data = _read()
  for field in ("label", "true_label"):
    _refused("the label 7", lambda f=field: dataclasses.replace(
      data, train=dataclasses.replace(data.train, **{f: _with(7)})
    ))
    _refused("hold 0.5", lambda f=field: dataclasses.replace(
      data, train=dataclasses.replace(data.train, **{f: _with(0.5)})
    ))


def test_sequences_may_ask_nothing_but_no_other_label_is_outside():
  at = lambda value: np.where(np.arange(5) == 2, value, np.zeros((_N, 5), np.int32))
  np.testing.assert_array_equal(_read(_TOKENS, at(-1), name="tokens").train.label, at(-1))
  for value in (-2, 3):
    words = f"example 0 the label {value}, but labels go from 0 to 2, or are -1 where nothing is asked"
    _refused(words, lambda v=value: _read(_TOKENS, at(v), name="tokens"))
  _refused("the label -1", lambda: _read(_TOKENS, _with(-1), name="tokens"))  # one label an example is always asked


@pytest.mark.parametrize("inputs, name, words", [
  (np.where(np.arange(_N)[:, None] == 3, np.nan, np.ones((_N, 2))), "image", "not finite .nan in example 3"),
  (np.float32([[0, 1]] * 5 + [[0, -np.inf]]), "image", "not finite .-inf in example 5"),
  (_IMAGES.astype(np.int32) - 1, "image", "inputs of type int32 .*give uint8 or floating-point images"),
  (_IMAGES[..., 0], "image", r"shape \(6, 4, 4\)"),
  (_TOKENS.astype(np.float32), "tokens", "inputs of type float32 .*give integers"),
  (_TOKENS - (np.arange(_N) == 3)[:, None], "tokens", "gives example 3 the token -1"),
])
def test_inputs_that_no_model_reads(inputs, name, words):
  _refused(words, lambda: _read(inputs, name=name))


@pytest.mark.parametrize("other", [np.zeros((2, 4, 5, 1), np.uint8), np.zeros((2, 4, 4, 1), np.float32)])
def test_splits_have_inputs_of_one_size_and_type(other):
  words = r"toy has inputs uint8 \[4, 4, 1\] to train on, but \w+ \[4, ., 1\] in the test split"
  _refused(words, lambda: _read(test=Split.clean(other, _LABELS[:2])))


@pytest.mark.parametrize("changes", [
  {"train": [0, 1, 6]}, {"train": [0, 1, -1]}, {"train": [0, 1, 1]}, {"validation": [0]}, {"validation": [9]},
])
def test_ids_are_rows_of_a_table_each_once(changes):
  data = _read()
  split = lambda ids: dataclasses.replace(data.train.take(np.arange(len(ids))), id=np.array(ids))
  fields = {name: split(ids) for name, ids in ({"train": [0, 1, 2]} | changes).items()}
  dataclasses.replace(data, train=split([0, 1, 5]), validation=split([3, 4]))
  _refused("ids of toy lie between .* example its own, from 0 to 5", lambda: dataclasses.replace(data, **fields))


def test_sets_without_anything_to_learn():
  one = np.zeros(_N, int)
  _refused(r"classes are \['a'\]; give at least two", lambda: _read(label=one, classes=("a",)))
  _refused("toy has no training example", lambda: _read(_IMAGES[:0], _LABELS[:0]))


def test_what_memory_cannot_hold_is_refused_before_it_is_made(monkeypatch, tmp_path):
  check_memory(2**20, "a small thing", "-")
  monkeypatch.setattr(memory, "_OF_CONTAINER", [tmp_path / "memory.max"])
  (tmp_path / "memory.max").write_text("max\n")
  check_memory(2**20, "a small thing", "-")
  (tmp_path / "memory.max").write_text(f"{2**19}\n")  # a container is smaller than its machine
  check_memory(2**19, "a small thing", "-")
  _refused("a thing would take about 1 MiB, but 0.5 MiB of memory are free; take less",
           lambda: check_memory(2**20, "a thing", "take less"))


def test_an_absurd_evaluation_batch_is_refused():
  _refused(f"an evaluation batch of {2**50} examples would take", lambda: padded_batches(_read().train, 2**50))


def test_a_conversion_copies_only_what_it_must():
  labels = _LABELS.astype(np.int32)
  assert as_int32(labels, "labels") is labels
