"""Tasks: which labels they know, what they compare predictions with, and which rows serve them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nurture.core import UserError
from nurture.core.build import Preset
from nurture.core.task import check_served
from nurture.data import Dataset, Split, load
from nurture.data.files import Digits
from nurture.data.synthetic import Copy, Multiplication
from nurture.data.tasks import TASKS, Classification, Generation, Pairs, PerPosition, Regression

IMAGES, TOKENS = np.zeros((4, 6), np.float32), np.zeros((4, 3), np.int32)
SECTION = {
  "source": {"name": "digits"}, "seed": 0, "validation": 0, "subset": 0, "test_subset": 0, "label_noise": {},
  "noisy_validation": True, "normalize": "none", "normalize_labels": "none", "augment": {},
}


def batch(label, weight=None):
  label = jnp.asarray(label)
  return {"label": label, "weight": jnp.ones(len(label)) if weight is None else jnp.asarray(weight)}


def refused(words, make):
  with pytest.raises(UserError, match=words) as error:
    make()
  assert "\n" not in str(error.value) and str(error.value).endswith(".")


@pytest.mark.parametrize("task, label, inputs, words", [
  (Classification(("a", "b")), [0, 1, 0.5, 1], IMAGES, "0.5 in example 2; give whole .*, or choose .* 'regression'"),
  (Classification(("a", "b")), [0, 1, 2, 1], IMAGES, "example 2 the label 2, but labels go from 0 to 1"),
  (Classification(("a", "b")), [[0], [1], [0], [1]], IMAGES, r"labels \(4, 1\); give one an example"),
  (PerPosition(("a", "b")), [0, 1, 0, 1], {"tokens": TOKENS}, r"labels \(4,\) for tokens \(4, 3\); give one a token"),
  (PerPosition(("a", "b")), np.full((4, 3), -2), {"tokens": TOKENS}, "the label -2"),
  (Regression(("x",)), [0.0, np.nan, 1.0, 2.0], IMAGES, "example 1 the x nan, which is no finite number"),
  (Regression(("x",)), [0.0, 1e39, 1.0, 2.0], IMAGES, r"example 1 the x 1e\+39, which is no finite number of 32 bits"),
  (Regression(("x", "y")), np.zeros((4, 3)), IMAGES, r"labels \(4, 3\); give 2 numbers an example \(x, y\)"),
  (Regression(("x",)), list("abcd"), IMAGES, "have the type <U1; give numbers"),
  (Pairs(), [0, 1, 2, 3], IMAGES, "has the field image, and pairs need two"),
  (Pairs(), [0, -1, 2, 3], {"image": IMAGES, "tokens": TOKENS}, "the label -1"),
  (Pairs(), np.zeros((4, 2)), {"image": IMAGES, "tokens": TOKENS}, r"labels \(4, 2\); give one an example"),
])
def test_labels_that_a_task_does_not_know(task, label, inputs, words):
  split = Split.clean(inputs, np.asarray(label))
  refused(words, lambda: Dataset.read("toy", split, split, task))


def test_labels_are_kept_in_the_type_of_the_task():
  of = lambda label: Split.clean(IMAGES, label)
  read = lambda task, label: Dataset.read("toy", of(label), of(label), task).train.label
  assert read(Classification(("a", "b")), np.float64([0, 1, 1, 0])).dtype == np.int32
  numbers = read(Regression(("x",)), np.float64([0.1, 0.2, 0.3, 0.4]))
  assert numbers.dtype == np.float32 and numbers.shape == (4, 1)
  np.testing.assert_array_equal(numbers[:, 0], np.float32([0.1, 0.2, 0.3, 0.4]))  # none is cut off
  assert read(Regression(("x",)), np.array([3, 2, 1, 0])).dtype == np.float32


def test_targets_by_hand():
  np.testing.assert_array_equal(Classification(("a", "b")).targets(batch([1, 0])), [[0, 1], [1, 0]])
  asked = PerPosition(("a", "b")).targets(batch([[1, -1]]))
  np.testing.assert_array_equal(asked, [[[0, 1], [0, 0]]])
  numbers = Regression(("x", "y"), (1.0, 0.0), (2.0, 1.0))
  np.testing.assert_array_equal(numbers.targets(batch(np.float32([[5, 3], [1, -1]]))), [[2, 3], [0, -1]])
  np.testing.assert_array_equal(numbers.in_units(numbers.targets(batch(np.float32([[5, 3]])))), [[5, 3]])
  together = Pairs().targets(batch([7, 3, 7, 7], weight=[1.0, 1.0, 1.0, 0.0]))
  np.testing.assert_array_equal(together, [[0.5, 0, 0.5, 0], [0, 1, 0, 0], [0.5, 0, 0.5, 0], [0.5, 0, 0.5, 0]])


def test_labels_are_standardized_by_those_that_are_trained_on():
  config = SECTION | {"source": {"name": "digits", "label": "ink"}, "normalize_labels": "standardize", "subset": 100}
  data = load(config, "")
  task, label = data.task, data.train.label
  np.testing.assert_allclose(task.mean, label.mean(axis=0), rtol=1e-6)
  target = task.targets(batch(label))
  np.testing.assert_allclose([target.mean(), target.std()], [0, 1], atol=1e-5)
  plain = load(config | {"normalize_labels": "none"}, "").task
  assert dataclasses.replace(task, mean=(), std=()) == plain
  del config["normalize_labels"]  # as a config had it before there was such a field
  assert load(config, "").task == plain
  constant = Regression(("x", "y")).standardized(np.float32([[2, 1], [2, 3]]))
  assert constant.mean == (2.0, 2.0) and constant.std == (1.0, 1.0)  # what does not vary keeps its unit


@pytest.mark.parametrize("changes, words", [
  ({"normalize_labels": "standardize"}, "normalize_labels needs numbers as labels, but digits asks for classification"),
  ({"normalize_labels": "unit"}, "config.data.normalize_labels is 'unit'; give 'none' or 'standardize'"),
  ({"source": {"name": "digits", "label": "ink"}, "label_noise": {"name": "symmetric", "rate": 0.1,
    "include_true": False}}, "label_noise needs one class an example, but digits asks for regression"),
  ({"source": {"name": "digits", "label": "name"}, "augment": {"mix": {"name": "mixup", "alpha": 1.0,
    "symmetric": True}}}, "config.data.augment.mix is 'mixup', which serves .* but digits asks for pairs"),
  ({"source": {"name": "digits", "label": "inc"}}, "config.data.source.label is 'inc'.*'class', 'ink', 'name'"),
])
def test_sections_that_do_not_fit_the_task(changes, words):
  refused(words, lambda: load(SECTION | changes, ""))


def test_the_ink_is_the_mean_of_the_pixels_and_a_name_its_letters():
  classes, ink, name = (Digits(label=label).load() for label in ("class", "ink", "name"))
  np.testing.assert_allclose(ink.test.label[:, 0], classes.test.inputs["image"].mean(axis=(1, 2, 3)) / 255, rtol=1e-6)
  np.testing.assert_array_equal(name.train.label, classes.train.label)
  assert (classes.num_classes, classes.class_names) == (10, tuple("0123456789")) and ink.class_names == ("ink",)
  first = np.flatnonzero(classes.train.label == 3)[0]
  word = "".join(chr(ord("a") + letter - 1) for letter in name.train.inputs["tokens"][first] if letter)
  assert word == "three" and np.unique(name.train.inputs["tokens"], axis=0).shape == (10, 5)
  assert classes.checksums == ink.checksums  # of what was read


@pytest.mark.parametrize("task", [
  Copy(2, 4, num_examples=20, test_examples=5), Copy(2, 4, num_examples=20, test_examples=5, end=True),
  Multiplication(1, 3, num_examples=20, test_examples=5),
], ids=str)
def test_a_written_answer_stands_one_position_later(task):
  plain, written = task.load().train, dataclasses.replace(task, written=True).load()
  assert isinstance(written.task, Generation)
  tokens, label = written.train.inputs["tokens"], written.train.label
  np.testing.assert_array_equal(label, plain.label)
  for row, original, answer in zip(tokens, plain.inputs["tokens"], label):
    asked = np.flatnonzero(answer >= 0)
    np.testing.assert_array_equal(row[asked[1:]], answer[asked[:-1]])
    others = np.setdiff1d(np.arange(len(row)), asked[1:])
    np.testing.assert_array_equal(row[others], original[others])
  fresh = jax.jit(written.generate, static_argnums=1)(jax.random.key(0), 3)
  assert jax.tree.map(jnp.shape, fresh)["tokens"] == (3, task.length)


@dataclasses.dataclass
class Numbers:
  tasks = ("regression",)


class Any:
  pass


@pytest.mark.parametrize("row", [Numbers, Preset(Numbers)])
def test_a_row_that_does_not_serve_names_those_that_do(row):
  table = {"numbers": row, "any": Any, "classes": type("Classes", (), {"tasks": ("classification",)})}
  for name in ("numbers", "any"):
    check_served(table, name, "regression", "digits", "config.losses.x")
  check_served(table, {"name": "any"}, "pairs", "digits", "config.losses.x")
  words = ("config.losses.x is 'numbers', which serves regression, but digits asks for classification; remove it, or "
           "choose one that serves classification: any, classes.")
  with pytest.raises(UserError) as error:
    check_served(table, {"name": "numbers"}, "classification", "digits", "config.losses.x")
  assert str(error.value) == words


def test_every_task_says_what_it_is():
  assert all(name == task.name and len(task.__doc__) > 100 for name, task in TASKS.items())
