"""Readers against files written here, byte by byte, from the published formats; damaged files are one sentence."""

import gzip
import hashlib
import os
import tracemalloc

import numpy as np
import pytest

from nurture.core import UserError, build
from nurture.data import DATASETS, load
from nurture.data.files import Cifar10, Cifar100, Digits, FashionMnist, Mnist, Text

_NAME_BYTES = lambda value: "bytes" if isinstance(value, bytes) else None  # gzip writes the time
_TINY = {"train_examples": 6, "test_examples": 3}


def _idx(values):
  return bytes((0, 0, 8, values.ndim)) + b"".join(n.to_bytes(4, "big") for n in values.shape) + values.tobytes()


def _write_mnist(root, folder="mnist", pack=True, rename=lambda name: f"{name}.gz", side=(5, 4)):
  rng = np.random.default_rng(0)
  arrays = {}
  (root / folder).mkdir()
  for part, n in (("train", 6), ("t10k", 3)):
    arrays[part] = rng.integers(0, 256, (n, *side), np.uint8), rng.integers(0, 10, n, np.uint8)
    for kind, values in zip(("images-idx3", "labels-idx1"), arrays[part]):
      name, data = f"{part}-{kind}-ubyte", _idx(values)
      (root / folder / rename(name)).write_bytes(gzip.compress(data) if pack else data)
  return arrays


_NAMES = {
  "as published": lambda name: f"{name}.gz",
  "without .gz": lambda name: name,
  "dots": lambda name: name.replace("-idx", ".idx"),
  "dots, .gz": lambda name: name.replace("-idx", ".idx") + ".gz",
}


@pytest.mark.parametrize("rename", _NAMES.values(), ids=_NAMES)
@pytest.mark.parametrize("pack", [True, False])
def test_mnist_packed_or_not_under_any_name(tmp_path, pack, rename):
  arrays = _write_mnist(tmp_path, pack=pack, rename=rename)
  data = Mnist(**_TINY).load(tmp_path)
  for split, part in ((data.train, "train"), (data.test, "t10k")):
    np.testing.assert_array_equal(split.inputs["image"], arrays[part][0][..., None])
    np.testing.assert_array_equal(split.label, arrays[part][1])
    np.testing.assert_array_equal(split.id, np.arange(len(split)))
  assert data.num_examples == 6 and data.task.num_outputs == 10 and len(data.validation) == 0
  name = "mnist/" + rename("t10k-labels-idx1-ubyte")
  assert len(data.checksums) == 4
  assert data.checksums[name] == hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()


def test_fashion_mnist_has_its_folder_and_names(tmp_path):
  _write_mnist(tmp_path, "fashion_mnist")
  data = FashionMnist(**_TINY).load(tmp_path)
  assert (data.name, data.task.outputs[9], len(data.task.outputs)) == ("fashion_mnist", "Ankle boot", 10)


def _one_sentence(error):
  message = str(error.value)
  assert message.endswith(".") and "\n" not in message
  return message


def test_a_missing_file_names_its_path_and_the_flag(tmp_path):
  with pytest.raises(UserError) as error:
    Mnist().load(tmp_path)
  message = _one_sentence(error)
  assert str(tmp_path / "mnist" / "train-images-idx3-ubyte.gz") in message and "--data_dir=DIR" in message


def test_a_set_of_another_length_is_refused(tmp_path):
  _write_mnist(tmp_path)
  with pytest.raises(UserError, match="holds 6 examples, but 60000 are expected"):
    Mnist().load(tmp_path)


_IMAGES = _idx(np.zeros((6, 5, 4), np.uint8))


@pytest.mark.parametrize(
  "data, words",
  [
    (gzip.compress(_IMAGES)[:-20], "no whole gzip file"),
    (b"<html>not found</html>", "no whole gzip file"),
    (gzip.compress(_IMAGES)[:20] + b"\xff" * 9 + gzip.compress(_IMAGES)[29:], "no whole gzip file"),
    (gzip.compress(_IMAGES[:-1]), "holds 119 values, but its header promises 120"),
    (gzip.compress(_IMAGES + b"x"), "holds 121 values, but its header promises 120"),
    (gzip.compress(_idx(np.zeros((6,), np.uint8))), "begins with 00000803"),
    (gzip.compress(b"\0\0\x0d\3" + _IMAGES[4:]), "begins with the bytes 00000d03"),
    (gzip.compress(_IMAGES[:9]), "16 bytes of header"),
    (gzip.compress(b""), r"\(none\)"),
    (b"", r"\(none\)"),
    (_IMAGES[:-1], "holds 119 values, but its header promises 120"),
    (gzip.compress(_IMAGES) + b"x", "no whole gzip file"),
    (_IMAGES + bytes(2**20), f"holds {120 + 2**20} or more values, but its header promises 120"),
    # 6 x 2^31 x 2^31 is 2^63 + 2^64, which is negative in 64 bits; 6 x 2^32 x 2^31 is 0.
    (_IMAGES[:8] + bytes((128, 0, 0, 0)) * 2, "promises 6 x 2147483648 x 2147483648 = 27670116110564327424 values"),
    (_IMAGES[:8] + bytes(8), "promises 6 x 0 x 0 = 0 values"),
    (_IMAGES[:8] + b"\0\0\x40\0" * 2 + bytes(120), "6 x 16384 x 16384 = 1610612736 values, .*at most 1073741824"),
  ],
  ids=_NAME_BYTES,
)
def test_a_damaged_idx_file_is_one_sentence(tmp_path, data, words):
  _write_mnist(tmp_path)
  path = tmp_path / "mnist" / "train-images-idx3-ubyte.gz"
  path.write_bytes(data)
  with pytest.raises(UserError, match=words) as error:
    Mnist(**_TINY).load(tmp_path)
  assert str(path) in _one_sentence(error) and "download" in str(error.value)


def test_no_more_is_decompressed_than_the_header_announces(tmp_path):
  """64 MB in a small gzip file, whose header announces 120 bytes and is no header of labels."""
  _write_mnist(tmp_path)
  bomb = gzip.compress(_IMAGES + bytes(2**26), 1)
  for name, words in (("labels-idx1", "00000803"), ("images-idx3", "or more values, but its header promises 120")):
    (tmp_path / "mnist" / f"train-{name}-ubyte.gz").write_bytes(bomb)
    tracemalloc.start()
    with pytest.raises(UserError, match=words):
      Mnist(**_TINY).load(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**23


@pytest.mark.parametrize("train, test, wrong", [
  ((32, 32), (28, 28), ["train-images"]), ((28, 28), (32, 28), ["t10k-images"]),
  ((8, 8), (9, 9), ["train-images", "t10k-images"]),
])
def test_images_of_different_sizes_name_the_file(tmp_path, train, test, wrong):
  for root, side in ((tmp_path / "a", train), (tmp_path / "b", test)):
    root.mkdir()
    _write_mnist(root, side=side)
  for kind in ("images-idx3", "labels-idx1"):
    os.replace(tmp_path / "b" / "mnist" / f"t10k-{kind}-ubyte.gz", tmp_path / "a" / "mnist" / f"t10k-{kind}-ubyte.gz")
  with pytest.raises(UserError, match="but those of mnist have 28 x 28; download") as error:
    Mnist(**_TINY).load(tmp_path / "a")
  named = [part for part in ("train-images", "t10k-images") if part in _one_sentence(error)]
  assert named == wrong


def test_files_beside_their_folder_are_told_where_to_go(tmp_path):
  _write_mnist(tmp_path)
  with pytest.raises(UserError, match="move train-images-idx3-ubyte.gz from .* into the folder mnist there"):
    Mnist(**_TINY).load(tmp_path / "mnist")


@pytest.mark.parametrize("source, archive", [(Cifar10(), "cifar-10-binary"), (Cifar100(), "cifar-100-binary")])
def test_an_archive_that_is_still_packed_is_named(tmp_path, source, archive):
  (tmp_path / f"{archive}.tar.gz").write_bytes(b"")
  with pytest.raises(UserError, match=f"does not exist; unpack {archive}.tar.gz in .*, as `tar xzf {archive}.tar.gz`"):
    source.load(tmp_path)


@pytest.mark.parametrize(("source", "words"), [
  ({"name": "mnist", "train_examples": 0}, "train_examples is 0; give a whole number of at least 1"),
  ({"name": "fashion_mnist", "test_examples": -1}, "test_examples is -1; give a whole number of at least 1"),
  ({"name": "cifar10", "examples_per_file": 0}, "examples_per_file is 0; give"),
  ({"name": "cifar100", "train_examples": 0}, "train_examples is 0; give"),
  ({"name": "digits", "test_examples": 1797}, "test_examples is 1797; give a whole number from 1 to 1796"),
  ({"name": "text", "context": 0}, "context is 0; give a whole number of at least 1"),
  ({"name": "text", "test_fraction": 1.0}, "test_fraction is 1.0; give a number from above 0 to below 1"),
  ({"name": "tfds", "dataset": "mnist", "resize": 0}, "resize is 0; give a whole number of at least 1"),
])
def test_a_number_that_no_set_has_is_one_sentence(source, words):
  with pytest.raises(UserError, match=f"^config.data.source.{words}"):
    build(DATASETS, source, path="config.data.source")


def test_an_impossible_label_is_refused(tmp_path):
  _write_mnist(tmp_path)
  labels = np.array([0, 1, 2, 10, 4, 5], np.uint8)
  (tmp_path / "mnist" / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(_idx(labels)))
  with pytest.raises(UserError, match="example 3 the label 10, but labels go from 0 to 9"):
    Mnist(**_TINY).load(tmp_path)


def _records(images, *labels):
  """CIFAR's record, written the long way: labels, then the red, green and blue planes row by row."""
  out = b""
  for i, image in enumerate(images):
    out += bytes(int(column[i]) for column in labels)
    for channel in range(3):
      out += b"".join(bytes(image[row, :, channel].tolist()) for row in range(32))
  return out


def _write_cifar10(root):
  rng = np.random.default_rng(0)
  base = root / "cifar-10-batches-bin"
  base.mkdir()
  images, labels = rng.integers(0, 256, (12, 32, 32, 3), np.uint8), rng.integers(0, 10, 12)
  for i, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
    (base / f"{name}.bin").write_bytes(_records(images[2 * i : 2 * i + 2], labels[2 * i : 2 * i + 2]))
  (base / "batches.meta.txt").write_text("\n".join(f"class{i}" for i in range(10)) + "\n\n")
  return images, labels


def test_cifar10(tmp_path):
  images, labels = _write_cifar10(tmp_path)
  data = Cifar10(examples_per_file=2).load(tmp_path)
  np.testing.assert_array_equal(data.train.inputs["image"], images[:10])
  np.testing.assert_array_equal(data.train.label, labels[:10])
  np.testing.assert_array_equal(data.test.inputs["image"], images[10:])
  assert data.task.outputs[3] == "class3" and data.num_examples == 10 and len(data.checksums) == 7


def test_a_short_cifar10_file_is_one_sentence(tmp_path):
  _write_cifar10(tmp_path)
  path = tmp_path / "cifar-10-batches-bin" / "data_batch_3.bin"
  path.write_bytes(path.read_bytes()[:-3073])
  with pytest.raises(UserError, match=r"holds 3073 bytes \(1 examples .* but 6146 \(2 examples\)") as error:
    Cifar10(examples_per_file=2).load(tmp_path)
  assert str(path) in _one_sentence(error)
  path.write_bytes(b"")
  with pytest.raises(UserError, match=r"holds 0 bytes \(0 examples"):
    Cifar10(examples_per_file=2).load(tmp_path)
  with pytest.raises(UserError, match=f"but {2**40 * 3073} .{2**40} examples. are expected"):
    Cifar10(examples_per_file=2**40).load(tmp_path)
  path.unlink()
  with pytest.raises(UserError, match="data_batch_3.bin does not exist; pass --data_dir"):
    Cifar10(examples_per_file=2).load(tmp_path)


def test_an_impossible_cifar_label_names_the_file(tmp_path):
  images, _ = _write_cifar10(tmp_path)
  (tmp_path / "cifar-10-batches-bin" / "data_batch_4.bin").write_bytes(_records(images[:2], [3, 10]))
  with pytest.raises(UserError, match="data_batch_4.bin gives example 1 the label 10, but labels go from 0 to 9"):
    Cifar10(examples_per_file=2).load(tmp_path)


@pytest.mark.parametrize("labels, num_classes", [("fine", 100), ("coarse", 20)])
def test_cifar100(tmp_path, labels, num_classes):
  rng = np.random.default_rng(0)
  base = tmp_path / "cifar-100-binary"
  base.mkdir()
  images = rng.integers(0, 256, (5, 32, 32, 3), np.uint8)
  columns = {"coarse": rng.integers(0, 20, 5), "fine": rng.integers(20, 100, 5)}
  for name, part in (("train", slice(0, 3)), ("test", slice(3, 5))):
    (base / f"{name}.bin").write_bytes(_records(images[part], columns["coarse"][part], columns["fine"][part]))
  (base / f"{labels}_label_names.txt").write_text("\n".join(f"{labels}{i}" for i in range(num_classes)))
  data = Cifar100(labels=labels, train_examples=3, test_examples=2).load(tmp_path)
  np.testing.assert_array_equal(data.train.inputs["image"], images[:3])
  np.testing.assert_array_equal(data.test.label, columns[labels][3:])
  assert data.task.num_outputs == num_classes and data.task.outputs[-1] == f"{labels}{num_classes - 1}"


def test_a_list_of_too_few_names_is_refused(tmp_path):
  _write_cifar10(tmp_path)
  (tmp_path / "cifar-10-batches-bin" / "batches.meta.txt").write_text("cat\ndog\n")
  with pytest.raises(UserError, match="holds 2 names, but 10 are expected"):
    Cifar10(examples_per_file=2).load(tmp_path)


_CLASSES = "\n".join(f"clâss{i}" for i in range(10))


@pytest.mark.parametrize("data, words", [
  (_CLASSES.encode(), None),
  (_CLASSES.encode("utf-8-sig"), None),
  (gzip.compress(_CLASSES.encode()), None),
  (_CLASSES.replace("\n", "\r\n").encode(), None),
  (_CLASSES.encode("latin-1"), "is not UTF-8 .*convert it"),
  (_CLASSES.encode("utf-16"), "is not UTF-8 .*convert it"),
  (_CLASSES.replace("â", "a").encode("utf-16-le"), "NUL"),  # valid UTF-8
  (bytes(2**20 + 1), "longer than 1048576 bytes"),
], ids=_NAME_BYTES)
def test_lists_of_names_in_all_encodings(tmp_path, data, words):
  _write_cifar10(tmp_path)
  (tmp_path / "cifar-10-batches-bin" / "batches.meta.txt").write_bytes(data)
  if words is None:
    assert Cifar10(examples_per_file=2).load(tmp_path).task.outputs == tuple(_CLASSES.split("\n"))
    return
  with pytest.raises(UserError, match=f"batches.meta.txt .*{words}") as error:
    Cifar10(examples_per_file=2).load(tmp_path)
  _one_sentence(error)


def test_digits_are_a_fixed_stratified_partition():
  from sklearn.datasets import load_digits  # noqa: PLC0415

  data, source = Digits().load(""), load_digits()
  assert (len(data.train), len(data.test), data.num_examples) == (1437, 360, 1437)
  assert data.train.inputs["image"].shape == (1437, 8, 8, 1) and data.train.inputs["image"].dtype == np.uint8
  # Undoing the scale gives back all 1797 source rows, each once.
  both = np.concatenate([data.train.inputs["image"], data.test.inputs["image"]])[..., 0]
  label = np.concatenate([data.train.label, data.test.label])
  rows = np.concatenate([np.rint(both / 255 * 16).reshape(1797, 64), label[:, None]], 1)
  expected = np.concatenate([source.data, source.target[:, None]], 1)
  np.testing.assert_array_equal(rows[np.lexsort(rows.T)], expected[np.lexsort(expected.T)])
  quota = np.bincount(source.target) * 360 / 1797
  assert np.all(np.abs(np.bincount(data.test.label) - quota) < 1)
  again = Digits().load("")
  np.testing.assert_array_equal(again.test.inputs["image"], data.test.inputs["image"])


def test_text_windows_predict_the_next_character(tmp_path):
  text = "the quick brown fox\njumps é over" * 4
  (tmp_path / "notes.txt").write_text(text, encoding="utf-8")
  data = Text(path="notes.txt", context=7, test_fraction=0.25).load(tmp_path)
  assert data.task.outputs == tuple(sorted(set(text))) and data.task.num_outputs == len(set(text))
  decode = lambda tokens: "".join(data.task.outputs[t] for t in tokens)
  cut = len(text) - round(0.25 * len(text))
  for split, part in ((data.train, text[:cut]), (data.test, text[cut:])):
    assert len(split) == len(part) // 8
    windows = "".join(decode(tokens) + decode(label[-1:]) for tokens, label in zip(split.inputs["tokens"], split.label))
    assert windows == part[: len(part) // 8 * 8]
    np.testing.assert_array_equal(split.inputs["tokens"][:, 1:], split.label[:, :-1])
  assert set(data.train.inputs) == {"tokens"} and data.train.inputs["tokens"].dtype == np.uint8


@pytest.mark.parametrize("data", ["ab".encode("utf-8-sig") + b"ab" * 50, gzip.compress(b"ab" * 52)], ids=_NAME_BYTES)
def test_a_byte_order_mark_is_no_character_and_a_packed_text_is_unpacked(tmp_path, data):
  (tmp_path / "t.txt").write_bytes(data)
  text = Text(path="t.txt", context=4).load(tmp_path)
  assert text.task.outputs == ("a", "b") and text.task.num_outputs == 2
  np.testing.assert_array_equal(text.train.inputs["tokens"][0], [0, 1, 0, 1])


@pytest.mark.parametrize("data, words", [
  (b"abc", "has 3 characters, too few"),
  (b"", "has 0 characters, too few"),
  (b"\xef\xbb\xbf", "has 0 characters, too few"),
  (b"a" * 1000, "is one character, 'a', again and again"),
  ("é".encode("latin-1") * 1000, "is not UTF-8"),
  ("ab".encode("utf-16") * 1000, "is not UTF-8"),
  (b"a\0b\0" * 1000, "NUL"),
  (gzip.compress(b"ab" * 1000)[:-9], "no whole gzip file"),
], ids=_NAME_BYTES)
def test_text_that_cannot_be_used_is_one_sentence(tmp_path, data, words):
  (tmp_path / "bad.txt").write_bytes(data)
  with pytest.raises(UserError, match=f"bad.txt .*{words}") as error:
    Text(path="bad.txt").load(tmp_path)
  _one_sentence(error)


def test_an_absolute_path_is_read_and_kept_with_its_checksum(tmp_path):
  path = tmp_path / "elsewhere.txt"
  path.write_text("hello world " * 50)
  (tmp_path / "data").mkdir()
  for name in (path, "../elsewhere.txt"):
    text = Text(path=str(name), context=4).load(tmp_path / "data")
    assert list(text.checksums.values()) == [hashlib.sha256(path.read_bytes()).hexdigest()]
  assert list(Text(path=str(path), context=4).load(tmp_path / "data").checksums) == [str(path)]


_PATHS = {
  "a long component": ("a" * 300, "cannot be looked up"),
  "a long path": ("a/" * 5000 + "b", "cannot be looked up"),
  "a NUL": ("a\0b", "cannot be looked up"),
  "a surrogate": ("a\ud800b", "cannot be looked up"),
  "two lines": ("a\nb", "does not exist"),
  "a folder": (".", "is a folder|does not exist"),
  "nothing": ("", "is a folder|does not exist"),
  "through a file": ("file/b", "does not exist"),
}


@pytest.mark.parametrize("path, words", _PATHS.values(), ids=_PATHS)
def test_any_path_is_one_short_sentence(tmp_path, path, words):
  (tmp_path / "file").write_text("x")
  for source, root in ((Text(path=path), tmp_path), (Mnist(), tmp_path / path / "c")):
    with pytest.raises(UserError, match=f"{words}|is no path") as error:
      source.load(root)
    assert len(_one_sentence(error)) < 800


def test_what_the_system_refuses_is_not_called_damage(tmp_path, monkeypatch):
  _write_mnist(tmp_path)
  refuse = lambda *_, **__: (_ for _ in ()).throw(PermissionError(13, "Permission denied", "x"))
  monkeypatch.setattr("pathlib.Path.open", refuse)
  with pytest.raises(UserError, match="images-idx3-ubyte.gz cannot be read .Permission denied.; mend that") as error:
    Mnist(**_TINY).load(tmp_path)
  assert "download" not in _one_sentence(error)
  monkeypatch.setattr("nurture.data.folder.os.stat", refuse)
  with pytest.raises(UserError, match="cannot be looked up .Permission denied"):
    Mnist(**_TINY).load(tmp_path)


def test_counts_and_paths_come_from_a_config_too(tmp_path):
  config = {
    "source": {"name": "mnist", "train_examples": 0}, "seed": 0, "validation": 0, "subset": 0, "test_subset": 0,
    "label_noise": {}, "noisy_validation": True, "normalize": "unit", "normalize_labels": "none", "augment": {},
  }
  with pytest.raises(UserError, match="data.source.train_examples is 0; give a whole number"):
    load(config, tmp_path)
