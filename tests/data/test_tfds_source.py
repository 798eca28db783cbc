"""The door to TensorFlow Datasets, offline: tiny sets prepared here, the cached file, and what is refused."""

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from nurture.core import UserError
from nurture.data.tfds_source import Tfds, _write_cache, read_builder

# Runs in a process of its own: preparing registers classes and, for tfrecord, imports tensorflow.
_PREPARE = """
import sys
import numpy as np
import tensorflow_datasets as tfds


class TinyImages(tfds.core.GeneratorBasedBuilder):
  VERSION = tfds.core.Version("1.0.0")

  def _info(self):
    features = {"image": tfds.features.Tensor(shape=(4, 5, 3), dtype=np.uint8),
                "label": tfds.features.ClassLabel(names=["ant", "bee", "cow"])}
    if "tfrecord" in sys.argv:
      features["image"] = tfds.features.Image(shape=(None, None, 3))
    return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features),
                                 supervised_keys=("image", "label"))

  def _split_generators(self, manager):
    return {"train": self._generate_examples(80), "test": self._generate_examples(7)}

  def _generate_examples(self, n):
    for i in range(n):
      yield i, {"image": np.full((4, 5 + ("ragged" in sys.argv) * (i % 2), 3), i, np.uint8), "label": i % 3}


# More rows a shard than the 16 that tf.data's default takes from each in turn.
two_shards = tfds.download.DownloadConfig(num_shards=2)
TinyImages(data_dir=sys.argv[1], file_format=sys.argv[2]).download_and_prepare(download_config=two_shards)
assert ("tensorflow" in sys.modules) == ("tfrecord" in sys.argv)
"""

_LOAD = """
import json, sys
from nurture.data.tfds_source import Tfds
data = Tfds(**json.loads(sys.argv[2])).load(sys.argv[1])
print(json.dumps({
  "modules": [m for m in ("tensorflow", "tensorflow_datasets") if m in sys.modules],
  "ids": data.train.id.tolist(), "pixels": data.train.inputs["image"][:, 0, 0, 0].tolist(),
  "labels": data.train.label.tolist(),
  "shape": data.test.inputs["image"].shape, "names": data.task.outputs, "checksums": dict(data.checksums),
}))
"""


def _python(code, *arguments):
  result = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)
  assert result.returncode == 0, result.stderr
  return result.stdout.strip().splitlines()[-1] if result.stdout.strip() else ""


def _load(root, **fields):
  return json.loads(_python(_LOAD, root, json.dumps({"dataset": "tiny_images", **fields})))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
  root = tmp_path_factory.mktemp("tfds")
  _python(_PREPARE, root, "array_record")
  return root


def test_the_second_load_needs_neither_tfds_nor_tensorflow(prepared):
  first, second = _load(prepared), _load(prepared)
  assert first.pop("modules") == ["tensorflow_datasets"]
  assert second.pop("modules") == []
  assert first == second
  assert sorted(first["pixels"]) == list(range(80)) and first["ids"] == list(range(80))
  assert first["labels"] == [pixel % 3 for pixel in first["pixels"]]
  assert first["shape"] == [7, 4, 5, 3] and first["names"] == ["ant", "bee", "cow"]
  assert [p.suffix for p in (prepared / "nurture-cache").iterdir()] == [".npz"]  # no temporary file is left


def test_other_fields_have_a_file_of_their_own(prepared):
  whole, part = _load(prepared), _load(prepared, train_split="train[:10]", resize=6)
  assert part["pixels"] == whole["pixels"][:10] and part["shape"] == [7, 6, 6, 3]


def test_a_damaged_cache_is_one_sentence(prepared, tmp_path):
  data = Tfds("tiny_images").load(prepared)  # from the cache, or by tfds
  cache = next((prepared / "nurture-cache").glob("tfds-tiny-images-*.npz"))
  copy = tmp_path / "nurture-cache" / Tfds("tiny_images")._file_name()
  copy.parent.mkdir()
  whole = cache.read_bytes()
  for damaged in (whole[: len(whole) // 2], b"", whole[:100] + b"\xff" * 200 + whole[300:]):
    copy.write_bytes(damaged)
    with pytest.raises(UserError, match="is damaged .*delete it"):
      Tfds("tiny_images").load(tmp_path)
  arrays = {"train_image": data.train.inputs["image"][:-1], "train_label": data.train.label[:-1]}
  arrays["class_names"] = np.array(["a"])
  arrays |= {"test_image": data.test.inputs["image"], "test_label": data.test.label}
  np.savez(copy, format=1, counts=[80, 80, 7, 7], **arrays)
  with pytest.raises(UserError, match=r"holds \(79, 79, 7, 7\) rows, but \(80, 80, 7, 7\) were written"):
    Tfds("tiny_images").load(tmp_path)


# Imports tensorflow twice, 5 to 10 s each on two cores.
def test_tfrecord_is_read_in_the_same_order_and_ragged_images_need_resize(prepared, tmp_path):
  _python(_PREPARE, tmp_path, "tfrecord", "ragged")
  refused = """
from nurture.core import UserError
try: Tfds('tiny_images').load(sys.argv[1])
except UserError as error: assert 'several sizes' in str(error)
else: raise SystemExit(1)
"""
  code = _LOAD.replace("data =", refused + "data =")
  out = json.loads(_python(code, tmp_path, json.dumps({"dataset": "tiny_images", "resize": 4})))
  assert len(list(tmp_path.glob("tiny_images/1.0.0/*-train.tfrecord-*"))) == 2
  assert out["pixels"] == _load(prepared)["pixels"] and out["shape"] == [7, 4, 4, 3]
  assert out["labels"] == [pixel % 3 for pixel in out["pixels"]]


class _Splits(dict):
  def __missing__(self, key):
    raise ValueError(f"Unrecognized split format:\n{key}")


class _Builder:
  """What read_builder needs of a tfds builder, with faults that can be chosen."""

  def __init__(self, declared=5, held=5, file_format="array_record", shapes=((4, 4, 3),), dtype=np.uint8, label=True,
               labels=(0, 1)):
    self.held, self.shapes, self.dtype, self.labels = held, shapes, dtype, labels
    splits = _Splits({name: SimpleNamespace(num_examples=declared) for name in ("train", "test")})
    features = {"image": SimpleNamespace(), "label": SimpleNamespace(names=["a", "b"]) if label else SimpleNamespace()}
    self.info = SimpleNamespace(
      name="faulty", file_format=SimpleNamespace(value=file_format), supervised_keys=None,
      features=features, splits=splits,
    )

  def as_data_source(self, split):
    for i in range(self.held):
      image = np.full(self.shapes[i % len(self.shapes)], i, self.dtype)
      yield {"image": image, "label": self.labels[i % len(self.labels)]}


def _read(resize=None, train="train", **faults):
  return read_builder(_Builder(**faults), train, "test", resize)


def test_a_sound_builder_is_read():
  arrays = _read()
  np.testing.assert_array_equal(arrays["train_image"][:, 0, 0, 0], np.arange(5))
  np.testing.assert_array_equal(arrays["test_label"], [0, 1, 0, 1, 0])
  assert _read(shapes=((4, 4),))["train_image"].shape == (5, 4, 4, 1)


def test_resize_keeps_constant_images_and_channels():
  out = _read(resize=3, shapes=((4, 4, 3), (7, 2, 3)))["train_image"]
  assert out.shape == (5, 3, 3, 3)
  np.testing.assert_array_equal(out, np.broadcast_to(np.arange(5).reshape(5, 1, 1, 1), out.shape))


@pytest.mark.parametrize("faults, words", [
  ({"held": 4}, "declares 5 examples in 'train', but 4 were read"),
  ({"held": 6}, "declares 5 examples in 'train', but 6 were read"),
  ({"file_format": "parquet"}, "stored as parquet, which loses rows"),
  ({"shapes": ((4, 4, 3), (4, 5, 3))}, "several sizes; set config.data.source.resize"),
  ({"dtype": np.float32}, "an image of type float32"),
  ({"label": False}, "an image and a class label are needed"),
  ({"train": "trian[:3]"}, "data.source.train_split is 'trian.*faulty has test, train"),
  ({"train": "train[:x]"}, "data.source.train_split is 'train.:x.', which tfds cannot read"),
  ({"declared": 0, "held": 0}, "data.source.train_split is 'train', which has no example"),
  ({"labels": (-1,)},
   "the split 'train' of faulty gives example 0 the label -1, .*set config.data.source.train_split to"),
  ({"labels": (0, 1, 2)}, "the split 'train' of faulty gives example 2 the label 2, but labels go from 0 to 1"),
  ({"labels": (0, 1.5)}, "labels of the split 'train' of faulty hold 1.5 in example 1"),
  ({"declared": 2**50}, "1125899906842624 images of 'train' of faulty would take .*split to a part of it"),
  ({"resize": 2**40}, "5 images of 'train' of faulty would take .*; lower config.data.source.resize"),
])
def test_a_faulty_builder_is_one_sentence(faults, words):
  with pytest.raises(UserError, match=words) as error:
    _read(**faults)
  assert "\n" not in str(error.value)


@pytest.mark.parametrize("wrong", [-1, 2])
def test_a_cache_with_labels_that_are_no_classes_is_refused(tmp_path, wrong):
  source = Tfds("toy", test_split="unlabeled")
  cache = tmp_path / "nurture-cache" / source._file_name()
  cache.parent.mkdir()
  images, labels = np.zeros((4, 2, 2, 3), np.uint8), np.array([0, 1, 1, 0])
  arrays = {"train_image": images, "test_image": images, "class_names": np.array(["a", "b"])}
  write = lambda test: np.savez(cache, format=1, counts=[4] * 4, train_label=labels, test_label=test, **arrays)
  write(labels)
  np.testing.assert_array_equal(source.load(tmp_path).test.label, labels)
  write(np.full(4, wrong))
  with pytest.raises(UserError, match=f"'unlabeled' of toy gives example 0 the label {wrong}.*data.source.test_split"):
    source.load(tmp_path)


def test_a_cache_that_the_system_refuses_is_not_called_damaged(prepared, monkeypatch):
  Tfds("tiny_images").load(prepared)
  refuse = lambda *_, **__: (_ for _ in ()).throw(OSError(24, "Too many open files"))
  monkeypatch.setattr("pathlib.Path.open", refuse)
  with pytest.raises(UserError, match="npz cannot be read .Too many open files.; mend that") as error:
    Tfds("tiny_images").load(prepared)
  assert "delete" not in str(error.value)


def test_a_cache_that_cannot_be_written_is_one_sentence(tmp_path):
  (tmp_path / "nurture-cache").write_text("a file where the folder belongs")
  with pytest.raises(UserError, match="npz cannot be written .*make room there, or pass --data_dir=DIR"):
    _write_cache(tmp_path / "nurture-cache" / "tfds-x.npz", _read())


def test_a_long_name_makes_no_long_file_name():
  assert len(Tfds("a/" * 200)._file_name()) < 120
  assert Tfds("a/" * 200)._file_name() != Tfds("a/" * 200 + "b")._file_name()


def test_an_unknown_set_is_one_sentence(tmp_path):
  code = "import sys\nfrom nurture.data.tfds_source import Tfds, UserError\n"
  code += "try: Tfds('no_such_set').load(sys.argv[1])\n"
  message = _python(code + "except UserError as error: print(error)", tmp_path)
  assert message.startswith("config.data.source.dataset is 'no_such_set', which tfds does not know")
  assert str(tmp_path) in message


def test_a_set_that_cannot_be_downloaded_says_how_to_prepare_it(tmp_path):
  code = """
import sys
import tensorflow_datasets as tfds
from nurture.data.tfds_source import Tfds, UserError
def refuse(self, **_):
  raise ConnectionError("no route\\nto host")
tfds.core.DatasetBuilder.download_and_prepare = refuse
try: Tfds("mnist").load(sys.argv[1])
except UserError as error: print(error)
"""
  message = _python(code, tmp_path)
  assert "(ConnectionError: no route to host)" in message
  assert f"tfds build mnist --data_dir={tmp_path} --file_format=array_record" in message
  assert not list(tmp_path.glob("nurture-cache/*"))
