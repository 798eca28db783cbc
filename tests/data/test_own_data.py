"""Data of one's own: arrays, a folder of images, a table, a set of the Hugging Face hub."""

import csv
import dataclasses
import io
import json

import numpy as np
import pytest
from PIL import Image

from nurture import training
from nurture.core import UserError, build
from nurture.data import DATASETS, Dataset, Reader, load
from nurture.data.classes import encoded, held_out
from nurture.data.tasks import Classification, Pairs, PerPosition, Regression
from nurture.reporting import read_json
from tests.tiny import tiny_config

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (12, 5, 6, 3), np.uint8)
LABELS = np.arange(12) % 3


def refused(words, make):
  with pytest.raises(UserError, match=words) as error:
    make()
  assert "\n" not in str(error.value) and str(error.value).endswith(".")


def source(name, root, **fields):
  return build(DATASETS, {"name": name, **fields}).load(root)


# Labels.

@pytest.mark.parametrize("label, names, numbers", [
  ([0, 2, 1, 0], ("0", "1", "2"), [0, 2, 1, 0]),
  ([0, 3, 1, 0], ("0", "1", "2", "3"), [0, 3, 1, 0]),  # 2 is missing here and keeps its place
  ([1, 2, 3, 1], ("0", "1", "2", "3"), [1, 2, 3, 1]),
  ([10, 30, 20, 10], ("10", "20", "30"), [0, 2, 1, 0]),
  ([-1, 1, -1, 1], ("-1", "1"), [0, 1, 0, 1]),
  ([1.0, 0.0, 1.0, 0.0], ("0", "1"), [1, 0, 1, 0]),
  (["dog", "cat", "dog", "ant"], ("ant", "cat", "dog"), [2, 1, 2, 0]),
])
def test_classes_may_be_numbers_or_text(label, names, numbers):
  train, test, task = encoded(np.array(label), np.array(label[:2]), "x")
  assert task == Classification(names) and train.tolist() == numbers and test.tolist() == numbers[:2]
  assert train.dtype == np.int32


def test_labels_that_are_no_classes():
  refused("train labels of x hold 0.5 in example 1; give classes, or set .*task to 'regression'",
          lambda: encoded(np.array([0, 0.5]), np.array([0]), "x"))
  refused("train labels of x hold nan in example 0", lambda: encoded(np.array([np.nan, 1]), np.array([0]), "x"))
  refused("test labels of x hold emu in example 1, which no training example has",
          lambda: encoded(np.array(["ant", "bee"]), np.array(["ant", "emu"]), "x"))
  refused(r"classes are \['7'\]; give at least two", lambda: encoded(np.array([7, 7]), np.array([7]), "x"))


def test_what_is_held_out_has_its_share_of_each_class_and_leaves_one():
  label = np.array(["a"] * 20 + ["b"] * 10 + ["c"])
  chosen = held_out(label, 0.3, "classification")
  assert [int(chosen[label == name].sum()) for name in "abc"] == [6, 3, 0]
  np.testing.assert_array_equal(chosen, held_out(label, 0.3, "classification"))
  assert held_out(np.zeros(10), 0.25, "regression").sum() == 2


# Arrays.

def write_npz(path, **changes):
  arrays = {"train_image": IMAGES, "train_label": LABELS, "test_image": IMAGES[:4], "test_label": LABELS[:4]} | changes
  np.savez_compressed(path, **{name: values for name, values in arrays.items() if values is not None})
  return path


def test_npz_is_read_with_its_names_and_checksum(tmp_path):
  write_npz(tmp_path / "own.npz", class_names=np.array(["x", "y", "z"]))
  data = source("npz", tmp_path, file="own.npz")
  np.testing.assert_array_equal(data.train.inputs["image"], IMAGES)
  assert data.task == Classification(("x", "y", "z")) and len(data.test) == 4 and list(data.checksums) == ["own.npz"]
  assert data.described["splits"]["train"]["image"] == {
    "shape": [12, 5, 6, 3], "dtype": "uint8", "range": [float(IMAGES.min()), float(IMAGES.max())],
  }
  np.savez(tmp_path / "keras.npz", x_train=IMAGES[..., 0], y_train=LABELS, x_test=IMAGES[:2, ..., 0], y_test=LABELS[:2])
  assert source("npz", tmp_path, file="keras.npz").train.inputs["image"].shape == (12, 5, 6, 1)


def test_npz_of_other_tasks(tmp_path):
  numbers = RNG.normal(size=(12, 2))
  write_npz(tmp_path / "r.npz", train_label=numbers, test_label=numbers[:4], class_names=np.array(["x", "y"]))
  data = source("npz", tmp_path, file="r.npz", task="regression")
  assert data.task == Regression(("x", "y"))
  np.testing.assert_array_equal(data.train.label, numbers.astype(np.float32))
  tokens = RNG.integers(0, 7, (12, 4))
  write_npz(tmp_path / "p.npz", train_tokens=tokens, test_tokens=tokens[:4])
  data = source("npz", tmp_path, file="p.npz", task="pairs")
  assert data.task == Pairs() and data.input_shapes == {"image": (5, 6, 3), "tokens": (4,)}
  only = {"train_image": None, "test_image": None, "train_tokens": tokens, "test_tokens": tokens[:4]}
  write_npz(tmp_path / "s.npz", **only, train_label=tokens, test_label=tokens[:4])
  assert source("npz", tmp_path, file="s.npz", task="per_position").task == PerPosition(tuple("0123456"))


@pytest.mark.parametrize("changes, fields, words", [
  ({"train_label": None}, {}, "has no train_label .it holds test_image, test_label, train_image.; add it"),
  ({"test_image": None}, {}, "has no test_image"),
  ({"train_label": LABELS + 0.5}, {}, "train labels of .*own.npz hold 0.5 in example 0"),
  ({"train_label": LABELS[:5]}, {}, "different lengths"),
  ({"train_image": IMAGES.astype(np.float32) * np.nan}, {}, "not finite"),
  ({"test_image": IMAGES[:4, :4]}, {}, "has inputs uint8 .5, 6, 3. to train on, but uint8 .4, 6, 3. in the test split"),
  ({}, {"task": "pairs"}, "has the field image, and pairs need two"),
  ({"train_image": np.array([{}] * 12)}, {}, "cannot be read .*Object arrays.*; write arrays of numbers or text"),
])
def test_npz_that_cannot_be_used(tmp_path, changes, fields, words):
  write_npz(tmp_path / "own.npz", **changes)
  with pytest.raises((UserError, ValueError), match=words) as error:
    source("npz", tmp_path, file="own.npz", **fields)
  assert "\n" not in str(error.value)


def test_npz_that_is_damaged_or_missing(tmp_path):
  whole = write_npz(tmp_path / "own.npz").read_bytes()
  refused("none.npz does not exist; pass --data_dir=DIR", lambda: source("npz", tmp_path, file="none.npz"))
  for data in (b"", b"hello", whole[: len(whole) // 2], whole[:-30] + b"\0" * 30):
    (tmp_path / "own.npz").write_bytes(data)
    refused("own.npz (is no whole file of numpy.savez|cannot be read)", lambda: source("npz", tmp_path, file="own.npz"))


def test_arrays_in_memory_train_and_stand_in_the_manifest(tmp_path):
  x = RNG.normal(size=(60, 4)).astype(np.float32)
  data = Dataset.from_arrays((x, x.sum(axis=1) > 0), (x[:20], x[:20].sum(axis=1) > 0), name="signs")
  config = tiny_config(data__source={"name": "given"}, data__label_noise={}, data__subset=0, data__test_subset=0)
  results = training.run(config, tmp_path / "run", dataset=data)
  assert "test/accuracy" in results["members"][0]["metrics"]
  manifest = read_json(tmp_path / "run" / "manifest.json")
  [described] = manifest["data"]
  assert (described["name"], described["task"], described["outputs"]) == ("signs", "classification", ["0", "1"])
  assert described["splits"]["train"]["image"]["shape"] == [60, 4] and "signs" in manifest["checksums"]
  refused("'given', but no data set was given", lambda: training.run(config, tmp_path / "other"))
  refused("a data set was given, but config.data.source names another",
          lambda: training.run(tiny_config(), tmp_path / "other", dataset=data))
  other = Dataset.from_arrays((x, x.sum(axis=1) < 0), (x[:20], x[:20].sum(axis=1) > 0), name="signs")
  refused("signs has changed since the run", lambda: training.run(config, tmp_path / "run", dataset=other))


def test_arrays_of_any_task():
  x, y = RNG.normal(size=(8, 3)), RNG.normal(size=8)
  assert Dataset.from_arrays((x, y), (x, y), "regression").task == Regression(("output 0",))
  assert Dataset.from_arrays((x, y), (x, y), Regression(("height",))).task.outputs == ("height",)
  names = Dataset.from_arrays((x, list("abababab")), (x, list("aaaaaaaa")))
  assert names.task.outputs == ("a", "b") and names.test.label.tolist() == [0] * 8
  fields = {"image": x, "tokens": np.zeros((8, 2), int)}
  assert Dataset.from_arrays((fields, np.arange(8)), (fields, np.arange(8)), Pairs()).task == Pairs()
  renamed = Dataset.from_arrays((x, [0, 1] * 4), (x, [0, 1] * 4), outputs=("no", "yes"))
  assert renamed.task == Classification(("no", "yes"))


# Images.

def write_images(root, sizes=None, parts=("train", "test"), mode="RGB"):
  for part in parts:
    for name, shapes in (sizes or {"cat": [(6, 5)] * 4, "dog": [(6, 5)] * 4}).items():
      (root / part / name).mkdir(parents=True)
      for i, (width, height) in enumerate(shapes):
        pixels = RNG.integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(pixels).convert(mode).save(root / part / name / f"{i}.png")
  return root


def test_a_folder_of_images_is_read_by_class_and_name(tmp_path):
  write_images(tmp_path / "pets")
  (tmp_path / "pets" / "train" / "cat" / ".hidden").write_text("")
  data = source("image_folder", tmp_path, path="pets")
  assert data.task.outputs == ("cat", "dog") and data.train.label.tolist() == [0] * 4 + [1] * 4
  for i, (name, file) in enumerate([("cat", 0), ("cat", 1), ("cat", 2), ("cat", 3), ("dog", 0)]):
    stored = np.asarray(Image.open(tmp_path / "pets" / "train" / name / f"{file}.png"))
    np.testing.assert_array_equal(data.train.inputs["image"][i], stored)
  grey = source("image_folder", tmp_path, path="pets", channels=1, size=4)
  assert grey.train.inputs["image"].shape == (8, 4, 4, 1)
  checksum = dict(data.checksums)
  Image.new("RGB", (6, 5)).save(tmp_path / "pets" / "test" / "dog" / "0.png")
  assert source("image_folder", tmp_path, path="pets").checksums != checksum


def test_without_a_test_folder_a_share_is_held_out(tmp_path):
  write_images(tmp_path, {"cat": [(6, 5)] * 10, "dog": [(6, 5)] * 20}, parts=("pets",))
  data = source("image_folder", tmp_path, path="pets", test_share=0.2)
  assert np.bincount(data.test.label).tolist() == [2, 4] and len(data.train) == 24


@pytest.mark.parametrize("spoil, words", [
  (lambda root: Image.new("RGB", (7, 5)).save(root / "train/dog/3.png"),
   "dog/3.png has 7 x 5 pixels, and .*cat/0.png has 6 x 5; set config.data.source.size"),
  (lambda root: [Image.new("RGB", (3, 3)).save(file) for file in (root / "test").rglob("*.png")],
   "images of 6 x 5 and 3 x 3 pixels in train and test; set config.data.source.size"),
  (lambda root: (root / "train/dog/3.png").write_bytes(b"no image"), "3.png is no image that Pillow knows"),
  (lambda root: (root / "train/dog/3.png").write_bytes((root / "train/dog/2.png").read_bytes()[:60]),
   "3.png (cannot be read|is no image)"),
  (lambda root: (root / "train/dog/notes.txt").write_text(""), "notes.txt is no image by its name .*; move it out"),
  (lambda root: (root / "train/readme.png").write_text(""), "readme.png stands beside the folders of the classes"),
  (lambda root: (root / "train/emu").mkdir(), "train/emu has no images"),
  (lambda root: [f.rename(root / "test/dog" / f"x{f.name}") for f in (root / "test/cat").iterdir()] and
   (root / "test/cat").rmdir(), "has the class 'cat' in train and not in test; add it there"),
  (lambda root: (root / "test").rename(root.parent / "elsewhere"), "has the folder 'train' without the other"),
])
def test_folders_that_cannot_be_used(tmp_path, spoil, words):
  spoil(write_images(tmp_path / "pets"))
  refused(words, lambda: source("image_folder", tmp_path, path="pets"))


def test_folders_with_nothing_to_tell_apart(tmp_path):
  write_images(tmp_path / "one", {"cat": [(6, 5)] * 4})
  refused("train has one class, 'cat'; give a folder for each", lambda: source("image_folder", tmp_path, path="one"))
  refused("none is no folder; pass --data_dir", lambda: source("image_folder", tmp_path, path="none"))
  (tmp_path / "empty").mkdir()
  refused("empty is empty", lambda: source("image_folder", tmp_path, path="empty"))


# Tables.

ROWS = [
  {"width": f"{i}", "height": f"{i / 4}", "colour": ["blue", "red"][i % 2], "kind": "ab"[i % 2], "price": f"{3 * i}.5"}
  for i in range(20)
]


def write_csv(path, rows=ROWS, delimiter=",", names=None):
  with path.open("w", newline="") as file:
    writer = csv.DictWriter(file, names or list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
  return path


def test_a_table_of_classes(tmp_path):
  write_csv(tmp_path / "t.csv")
  data = source("csv", tmp_path, train="t.csv", label="kind", columns=("height", "colour"), one_hot=("colour",))
  assert data.task == Classification(("a", "b")) and data.train.inputs["image"].shape == (16, 3) and len(data.test) == 4
  by_hand = {(i / 4, float(i % 2 == 0), float(i % 2)): i % 2 for i in range(20)}
  for split in (data.train, data.test):
    for vector, label in zip(split.inputs["image"], split.label):
      assert by_hand[tuple(vector.tolist())] == label
  assert list(data.checksums) == ["t.csv"]


def test_a_table_of_numbers_with_a_test_file(tmp_path):
  write_csv(tmp_path / "a.csv", delimiter=";")
  write_csv(tmp_path / "b.csv", ROWS[:3], delimiter=";")
  fields = {"train": "a.csv", "test": "b.csv", "delimiter": ";", "task": "regression", "one_hot": ("colour", "kind")}
  data = source("csv", tmp_path, label=("price", "width"), **fields)
  assert data.task == Regression(("price", "width")) and data.test.label.tolist() == [[0.5, 0], [3.5, 1], [6.5, 2]]
  assert data.train.inputs["image"].shape == (20, 5) and set(data.checksums) == {"a.csv", "b.csv"}


@pytest.mark.parametrize("changes, fields, words", [
  ({}, {"label": "kynd"}, "t.csv has no column 'kynd'; did you mean 'kind'"),
  ({}, {"label": "kind"}, "has 'blue' for 'colour' in line 2, which is no number; mend it, name the .*one_hot"),
  ({}, {"label": "kind", "columns": ("width", "size")}, "no column 'size'"),
  ({}, {"label": "kind", "columns": ("width", "kind")}, "'kind' in its columns and as its label"),
  ({}, {"label": ("kind", "price")}, "label names 2 columns, and a class is one"),
  ({}, {"label": "kind", "columns": ("width",), "delimiter": ";"}, "has no column 'kind'"),
  ({}, {"label": "kind", "columns": ("width",), "delimiter": ""}, "delimiter is ''; give one character"),
  ({4: {"width": ""}}, {"label": "kind", "columns": ("width",)}, "no value of 'width' in line 6 .empty.; fill it in"),
  ({4: {"width": "nan"}}, {"label": "kind", "columns": ("width",)}, "no value of 'width' in line 6 .nan."),
  ({4: {"width": "inf"}}, {"label": "kind", "columns": ("width",)}, "'inf' for 'width' in line 6, which is no finite"),
  ({4: {"price": "1e39"}}, {"label": "price", "task": "regression", "columns": ("width",)}, "'1e39' for 'price' in li"),
  ({}, {"label": "kind", "columns": ("width",), "test": "none.csv"}, "none.csv does not exist"),
])
def test_tables_that_cannot_be_used(tmp_path, changes, fields, words):
  write_csv(tmp_path / "t.csv", [row | changes.get(i, {}) for i, row in enumerate(ROWS)])
  refused(words, lambda: source("csv", tmp_path, train="t.csv", **fields))


@pytest.mark.parametrize("text, words", [
  ("a,b\n1,2\n3\n", "has 1 values in line 3, and 2 columns"), ("a,a\n1,2\n", "two columns called 'a'"),
  ("a,b\n", "has 1 rows"), ("", "has 0 rows"), ('a,b\n1,"2\n', "cannot be read in line 2"), ("a,b\0\n1,2\n", "NUL"),
])
def test_texts_that_are_no_tables(tmp_path, text, words):
  (tmp_path / "t.csv").write_text(text)
  refused(words, lambda: source("csv", tmp_path, train="t.csv", label="b"))


def test_a_value_that_training_does_not_have(tmp_path):
  write_csv(tmp_path / "a.csv")
  write_csv(tmp_path / "b.csv", [ROWS[0] | {"colour": "green"}])
  fields = {"train": "a.csv", "test": "b.csv", "label": "kind", "columns": ("colour",), "one_hot": ("colour",)}
  words = "b.csv has 'green' for 'colour' in line 2, which no training example has"
  refused(words, lambda: source("csv", tmp_path, **fields))


# The Hugging Face hub.

@pytest.fixture
def hub(tmp_path, monkeypatch):
  datasets, pyarrow = pytest.importorskip("datasets"), pytest.importorskip("pyarrow")
  parquet = pytest.importorskip("pyarrow.parquet")
  monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
  monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
  features = datasets.Features({"img": datasets.Image(), "class": datasets.ClassLabel(names=["ant", "bee"])})
  (tmp_path / "own").mkdir()
  for part, count in (("train", 12), ("test", 4)):
    columns = {"img": [{"bytes": png(image), "path": "x.png"} for image in IMAGES[:count]],
               "class": [i % 2 for i in range(count)]}
    table = pyarrow.table(columns).replace_schema_metadata(
      {"huggingface": json.dumps({"info": {"features": features.to_dict()}})}
    )
    parquet.write_table(table, tmp_path / "own" / f"{part}.parquet")
  return tmp_path


def png(pixels):
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, "PNG")
  return file.getvalue()


def test_a_set_of_the_hub_from_a_folder(hub):
  data = load_section(hub, "huggingface:own")
  assert data.name == "huggingface:own" and data.task.outputs == ("ant", "bee") and len(data.test) == 4
  np.testing.assert_array_equal(data.train.inputs["image"], IMAGES)
  assert source("huggingface", hub, dataset="own", resize=4).train.inputs["image"].shape == (12, 4, 4, 3)
  refused("image is 'image', which huggingface:own does not have; .*known: class, img",
          lambda: source("huggingface", hub, dataset="own", image="image"))
  refused("split 'dev', cannot be read", lambda: source("huggingface", hub, dataset="own", test_split="dev"))
  refused("huggingface:none, split 'train', cannot be read .*; check its name, put the folder below --data_dir",
          lambda: source("huggingface", hub, dataset="none"))


def load_section(root, name):
  section = tiny_config(data__label_noise={}, data__subset=0, data__test_subset=0)["data"] | {"source": name}
  return load(section, root)


def test_without_the_package_the_extra_is_named(tmp_path, monkeypatch):
  monkeypatch.setitem(__import__("sys").modules, "datasets", None)
  refused("huggingface:own needs a package .*pip install 'nurture.huggingface.'",
          lambda: source("huggingface", tmp_path, dataset="own"))


def test_a_reader_describes_each_set_once(tmp_path):
  write_npz(tmp_path / "own.npz")
  reader = Reader(tmp_path)
  section = tiny_config(data__label_noise={}, data__subset=0, data__test_subset=0)["data"]
  section = section | {"source": {"name": "npz", "file": "own.npz"}}
  for seed in (0, 1):
    reader(section | {"seed": seed})
  assert len(reader.described) == 1 and reader.described[0]["name"] == "own"
  assert dataclasses.is_dataclass(DATASETS["csv"])
