"""Data sets that are read from files in their published formats, or that come with a library."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from typing import Annotated, ClassVar, Literal

import numpy as np

from nurture.core import Task, UserError
from nurture.core.hints import Count, Range
from nurture.data.arrays import Dataset, Split
from nurture.data.checks import check_labels
from nurture.data.folder import Folder, shown
from nurture.data.formats import read_idx, read_names, read_records, read_text
from nurture.data.tasks import Classification, Pairs, PerPosition, Regression

_AGAIN = "download the file again"
_DIGIT_NAMES = tuple("0123456789")
_DIGIT_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_FASHION_NAMES = (
  "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)


@dataclasses.dataclass(frozen=True)
class Mnist:
  """Handwritten digits, 28x28x1, 10 classes, from `mnist/{train,t10k}-{images-idx3,labels-idx1}-ubyte.gz`.

  The files may lie there packed or unpacked, under either name. Images of another size are taken if both files agree.

  Reference: LeCun et al. 1998.
  """

  train_examples: Count = 60_000  # expected in the training file; any other count is an error
  test_examples: Count = 10_000  # expected in the test file

  name: ClassVar[str] = "mnist"
  class_names: ClassVar[tuple[str, ...]] = _DIGIT_NAMES

  def load(self, data_dir: str | os.PathLike) -> Dataset:
    """Returns the set as it is on disk; raises UserError for a missing or damaged file."""
    folder = Folder(data_dir, f"{self.name}/{{train,t10k}}-{{images-idx3,labels-idx1}}-ubyte.gz")

    file = lambda part, kind: f"{self.name}/{part}-{kind}-ubyte.gz"

    def read(part: str, count: int) -> Split:
      images = read_idx(folder, file(part, "images-idx3"), 3, count)
      labels = read_idx(folder, file(part, "labels-idx1"), 1, count)
      return Split.clean(images[..., None], check_labels(labels, 10, folder.where(file(part, "labels-idx1")), _AGAIN))

    train, test = read("train", self.train_examples), read("t10k", self.test_examples)
    sizes = {"train": train.inputs["image"].shape[1:3], "t10k": test.inputs["image"].shape[1:3]}
    if sizes["train"] != sizes["t10k"]:
      wrong = " and ".join(
        f"{folder.where(file(part, 'images-idx3'))} holds images of {height} x {width} pixels"
        for part, (height, width) in sizes.items() if (height, width) != (28, 28)
      )
      raise UserError(f"{wrong}, but those of {self.name} have 28 x 28; {_AGAIN}.")
    return Dataset.read(self.name, train, test, Classification(self.class_names), checksums=folder.checksums)


@dataclasses.dataclass(frozen=True)
class FashionMnist(Mnist):
  """Articles of clothing in the format of `Mnist`, from `fashion_mnist/`.

  Reference: Xiao et al. 2017, arXiv:1708.07747.
  """

  name: ClassVar[str] = "fashion_mnist"
  class_names: ClassVar[tuple[str, ...]] = _FASHION_NAMES


@dataclasses.dataclass(frozen=True)
class Cifar10:
  """Small photographs, 32x32x3, 10 classes, from the binary version's folder `cifar-10-batches-bin`.

  The five training files are read one after the other, so example i of data_batch_b has id 10000 (b - 1) + i.
  Reference: Krizhevsky 2009.
  """

  examples_per_file: Count = 10_000  # expected in each of the five training files and the test file

  def load(self, data_dir: str | os.PathLike) -> Dataset:
    """Returns the set as it is on disk; raises UserError for a missing or damaged file."""
    base = "cifar-10-batches-bin"
    layout = f"{base}/{{data_batch_1..5,test_batch}}.bin and {base}/batches.meta.txt"
    folder = Folder(data_dir, layout, "cifar-10-binary.tar.gz")

    def read(*files: str) -> Split:
      parts = []
      for file in files:
        images, labels = read_records(folder, f"{base}/{file}", 1, self.examples_per_file)
        parts.append((images, check_labels(labels[:, 0], 10, folder.where(f"{base}/{file}"), _AGAIN)))
      return Split.clean(*(np.concatenate(part) for part in zip(*parts)))

    train = read(*(f"data_batch_{i}.bin" for i in range(1, 6)))
    names = read_names(folder, f"{base}/batches.meta.txt", 10)
    return Dataset.read("cifar10", train, read("test_batch.bin"), Classification(names), checksums=folder.checksums)


@dataclasses.dataclass(frozen=True)
class Cifar100:
  """Small photographs, 32x32x3, 100 classes in 20 superclasses, from the folder `cifar-100-binary`.

  Reference: Krizhevsky 2009.
  """

  labels: Literal["fine", "coarse"] = "fine"  # 100 classes, or 20 superclasses
  train_examples: Count = 50_000  # expected in train.bin
  test_examples: Count = 10_000  # expected in test.bin

  def load(self, data_dir: str | os.PathLike) -> Dataset:
    """Returns the set as it is on disk; raises UserError for a missing or damaged file."""
    base = "cifar-100-binary"
    column, num_classes = {"coarse": (0, 20), "fine": (1, 100)}[self.labels]  # a record starts coarse, fine
    names_file = f"{base}/{self.labels}_label_names.txt"
    folder = Folder(data_dir, f"{base}/{{train,test}}.bin and {names_file}", "cifar-100-binary.tar.gz")

    def read(file: str, count: int) -> Split:
      images, labels = read_records(folder, f"{base}/{file}", 2, count)
      where = folder.where(f"{base}/{file}")
      return Split.clean(images, check_labels(labels[:, column], num_classes, where, _AGAIN))

    train, test = read("train.bin", self.train_examples), read("test.bin", self.test_examples)
    names = read_names(folder, names_file, num_classes)
    return Dataset.read("cifar100", train, test, Classification(names), checksums=folder.checksums)


@dataclasses.dataclass(frozen=True)
class Digits:
  """Handwritten digits, 8x8x1, 10 classes, 1,437 for training and 360 for testing; comes with scikit-learn.

  The values 0..16 become uint8 round(255 v / 16), halves to even. The 360 test examples are a fixed draw in
  which each class has its share (largest remainders); both parts keep the file's order, and an id is the
  position in its part. Needs no data directory.

  Attributes:
    test_examples: of the 1,797.
    label: "class", the digit. "ink" makes it a regression of the mean pixel, from 0 to 1, which is a linear function of
      the image. "name" makes pairs of it: the second view of an image is the field "tokens" [n, 5], the letters of its
      name (1 is "a", 26 is "z", 0 stands behind shorter names), and what has one name belongs together.
  """

  test_examples: Annotated[int, Range(least=1, most=1796)] = 360
  label: Literal["class", "ink", "name"] = "class"

  def load(self, data_dir: str | os.PathLike = "") -> Dataset:
    """Returns the set; `data_dir` is not read."""
    from sklearn.datasets import load_digits  # noqa: PLC0415

    source = load_digits()
    images = np.rint(source.images * (255 / 16)).astype(np.uint8)[..., None]
    label = source.target.astype(np.int32)
    in_test = np.zeros(len(label), bool)
    in_test[_stratified(label, self.test_examples, np.random.default_rng(0))] = True
    checksums = {"sklearn digits": hashlib.sha256(images.tobytes() + label.tobytes()).hexdigest()}
    inputs: dict[str, np.ndarray] = {"image": images}
    task: Task = Classification(_DIGIT_NAMES)
    if self.label == "ink":
      label, task = (images.mean(axis=(1, 2, 3)) / 255).astype(np.float32), Regression(("ink",))
    elif self.label == "name":
      inputs, task = {**inputs, "tokens": _letters(_DIGIT_WORDS)[label]}, Pairs()
    part = lambda rows: Split.clean({field: values[rows] for field, values in inputs.items()}, label[rows])
    train, test = part(~in_test), part(in_test)
    return Dataset.read("digits", train, test, task, checksums=checksums)


def _letters(words: tuple[str, ...]) -> np.ndarray:
  """Returns lower-case words as [n, longest] int32: 1 is "a", 26 is "z", 0 stands behind shorter words."""
  longest = max(map(len, words))
  return np.array([[ord(c) - ord("a") + 1 for c in word] + [0] * (longest - len(word)) for word in words], np.int32)


@dataclasses.dataclass(frozen=True)
class Text:
  """Prediction of the next character: windows of one text file, whose characters are the classes.

  The vocabulary is the sorted set of the characters of the whole file. The last `test_fraction` of the text
  is the test part. Each part is cut into windows of context + 1 characters that do not overlap (a shorter rest is
  dropped); tokens [n, T] are a window's first T = context characters and label [n, T] its last T. A byte-order mark
  at the start is no character.
  """

  path: str = "tinyshakespeare/input.txt"  # below the data directory, or absolute; UTF-8, perhaps packed by gzip
  context: Count = 64  # T, characters
  test_fraction: Annotated[float, Range(above=0, below=1)] = 0.1  # share of the characters, at the end of the file

  def load(self, data_dir: str | os.PathLike) -> Dataset:
    """Returns the windows; raises UserError for a missing, undecodable or too short file."""
    folder = Folder(data_dir, shown(self.path))
    text, file = read_text(folder, self.path), folder.where(self.path)
    codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    vocabulary, tokens = np.unique(codes, return_inverse=True)
    tokens = tokens.astype(np.uint8 if len(vocabulary) <= 256 else np.int32)
    cut = len(tokens) - round(self.test_fraction * len(tokens))
    train, test = (_windows(part, self.context) for part in (tokens[:cut], tokens[cut:]))
    if not (len(train) and len(test)):
      raise UserError(
        f"{file} has {len(tokens)} characters, too few for a window of {self.context + 1} in both "
        "parts; lower config.data.source.context or give a longer text."
      )
    if len(vocabulary) < 2:
      raise UserError(f"{file} is one character, {chr(vocabulary[0])!r}, again and again; give a text.")
    names = tuple(map(chr, vocabulary))
    return Dataset.read("text", train, test, PerPosition(names), checksums=folder.checksums)


def _windows(tokens: np.ndarray, context: int) -> Split:
  count = len(tokens) // (context + 1)
  windows = tokens[: count * (context + 1)].reshape(count, context + 1)
  return Split.clean({"tokens": windows[:, :-1]}, windows[:, 1:])


def _stratified(label: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
  """Returns `count` positions in which each class has its share of the whole, rounded by largest remainders."""
  sizes = np.bincount(label)
  quota = sizes * count / len(label)
  share = np.floor(quota).astype(int)
  share[np.argsort(share - quota, kind="stable")[: count - share.sum()]] += 1
  return np.concatenate([rng.permutation(np.flatnonzero(label == c))[:s] for c, s in enumerate(share)])
