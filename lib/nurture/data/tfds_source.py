"""Any image classification set of TensorFlow Datasets, read once and kept as one file of arrays."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nurture.core import UserError
from nurture.core.hints import Count
from nurture.core.trees import digest
from nurture.data.arrays import Dataset, Split
from nurture.data.checks import check_labels, check_memory
from nurture.data.folder import data_root, is_file, reason, shown
from nurture.data.tasks import Classification

_FORMAT = 1  # of the cached file; a file of another format is made anew


@dataclasses.dataclass(frozen=True)
class Tfds:
  """A set of TensorFlow Datasets that has an image and a class label.

  The first load reads the prepared set under the data directory, and prepares it (which may download) if
  it is not there. The arrays then go to `nurture-cache/tfds-*.npz` in the data directory, and later loads
  read that file and import neither tfds nor tensorflow. Delete the file to read the set again.

  The id of an example is its position in the stored order of its split (shuffle_files=False, one shard after
  the other). Preparation shuffles by a hash of the example keys, so the same version of a set has the same order
  everywhere. `checksums` has the sha256 of the arrays.

  Args:
    dataset: name as tfds writes it: "mnist", "cifar10:3.0.2", "cifar10_corrupted/fog_1".
    train_split: as tfds writes it, such as "train" or "train[:80%]".
    test_split: likewise.
    resize: side in pixels to which every image is resized (bilinear, aspect ratio not kept), or None, which needs
      images of one size.
  """

  dataset: str
  train_split: str = "train"
  test_split: str = "test"
  resize: Count | None = None

  def load(self, data_dir: str | os.PathLike) -> Dataset:
    """Returns the set.

    Raises:
      UserError: if it cannot be found or prepared, has no image or class label, has labels that are no classes (some
        splits have -1 everywhere) or images of several sizes, is stored as parquet, holds fewer or more rows than it
        declares, or is larger than the memory.
    """
    root = data_root(data_dir)
    cache = root / "nurture-cache" / self._file_name()
    arrays = _read_cache(cache)
    if arrays is None:
      arrays = read_builder(_builder(self.dataset, root), self.train_split, self.test_split, self.resize)
      _write_cache(cache, arrays)
    names, name = tuple(str(name) for name in arrays["class_names"]), f"tfds:{self.dataset}"
    splits = {}
    for part, split in (("train", self.train_split), ("test", self.test_split)):
      label = _check_labels(arrays[f"{part}_label"], len(names), self.dataset, part, split)
      splits[part] = Split.clean(arrays[f"{part}_image"], label)
    return Dataset.read(name, splits["train"], splits["test"], Classification(names), checksums={name: digest(arrays)})

  def _file_name(self) -> str:
    fields = json.dumps(dataclasses.asdict(self), sort_keys=True)
    readable = re.sub(r"[^A-Za-z0-9.]+", "-", self.dataset)[:80]
    return f"tfds-{readable}-{hashlib.sha256(fields.encode()).hexdigest()[:12]}.npz"


def read_builder(builder: Any, train_split: str, test_split: str, resize: int | None) -> dict[str, np.ndarray]:
  """Returns {"{train,test}_{image,label}", "class_names"} of a prepared tfds builder.

  Raises:
    UserError: as `Tfds.load`.
  """
  info = builder.info
  storage = getattr(info.file_format, "value", info.file_format)
  if storage == "parquet":
    # Reading parquet through tfds drops rows without a word.
    raise UserError(f"{info.name} is stored as parquet, which loses rows; prepare it with file_format='array_record'.")
  image_key, label_key = info.supervised_keys if _is_pair(info.supervised_keys) else ("image", "label")
  features = info.features
  if image_key not in features or label_key not in features or not hasattr(features[label_key], "names"):
    raise UserError(f"{info.name} has the features {sorted(features)}, but an image and a class label are needed.")
  arrays = {"class_names": np.array(features[label_key].names or [], str)}
  for part, split in (("train", train_split), ("test", test_split)):
    if split.split("[")[0] not in info.splits:
      known = ", ".join(sorted(info.splits))
      raise UserError(f"config.data.source.{part}_split is {split!r}; {info.name} has {known}.")
    expected = _declared(info, part, split)
    what = f"{expected} images of {split!r} of {info.name}"
    check_memory(expected * (resize or 0) ** 2, what, "lower config.data.source.resize")
    images, labels = [], []
    for row in _rows(builder, split, storage):
      images.append(_image(row[image_key], resize))
      labels.append(row[label_key])
      if len(images) == 1:  # twice: one by one, and as one array
        check_memory(2 * expected * images[0].nbytes, what, f"set config.data.source.{part}_split to a part of it")
    if len(labels) != expected:
      raise UserError(
        f"{info.name} declares {expected} examples in {split!r}, but {len(labels)} were read; prepare it again with "
        "file_format='array_record'."
      )
    arrays[f"{part}_image"] = _stack(images, info.name)
    arrays[f"{part}_label"] = _check_labels(np.array(labels), len(arrays["class_names"]), info.name, part, split)
  if len({arrays[f"{part}_image"].shape[1:] for part in ("train", "test")}) > 1:
    raise UserError(_SIZES.format(name=info.name))
  return arrays


_SIZES = "{name} has images of several sizes; set config.data.source.resize to one side in pixels."


def _declared(info: Any, part: str, split: str) -> int:
  try:
    count = info.splits[split].num_examples
  except Exception as error:  # tfds has several for what it cannot read
    path = f"config.data.source.{part}_split"
    raise UserError(f"{path} is {split!r}, which tfds cannot read ({reason(error)}).") from error
  if not count:
    raise UserError(f"config.data.source.{part}_split is {split!r}, which has no example; give a larger part.")
  return count


def _check_labels(labels: np.ndarray, num_classes: int, name: str, part: str, split: str) -> np.ndarray:
  fix = f"set config.data.source.{part}_split to another one (-1 stands for a label that was not published)"
  return check_labels(labels, num_classes, f"the split {split!r} of {name}", fix)


def _rows(builder: Any, split: str, storage: str) -> Iterator[Mapping[str, Any]]:
  """Yields the examples in stored order; needs tensorflow only for formats without random access."""
  if storage == "array_record":
    yield from builder.as_data_source(split)
    return
  import tensorflow_datasets as tfds  # noqa: PLC0415

  # One shard after the other: the default reads sixteen shards in turn.
  in_order = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)
  yield from tfds.as_numpy(builder.as_dataset(split, shuffle_files=False, read_config=in_order))


def _is_pair(keys: Any) -> bool:
  return isinstance(keys, tuple) and len(keys) == 2 and all(isinstance(key, str) for key in keys)


def _image(value: Any, resize: int | None) -> np.ndarray:
  image = np.asarray(value)
  image = image[..., None] if image.ndim == 2 else image
  if image.dtype != np.uint8 or image.ndim != 3:
    raise UserError(f"an image of type {image.dtype} and shape {image.shape} was read; uint8 [H, W, C] is needed.")
  if resize is None or image.shape[:2] == (resize, resize):
    return image
  from PIL import Image  # noqa: PLC0415

  scale = lambda channel: np.asarray(Image.fromarray(channel).resize((resize, resize), Image.Resampling.BILINEAR))
  return np.stack([scale(np.ascontiguousarray(image[..., c])) for c in range(image.shape[-1])], axis=-1)


def _stack(images: list[np.ndarray], name: str) -> np.ndarray:
  if len({image.shape for image in images}) > 1:
    raise UserError(_SIZES.format(name=name))
  return np.stack(images)


def _builder(dataset: str, root: Path) -> Any:
  """Returns the builder of a set that is prepared under `root`; prepares it if it is not there."""
  try:
    import tensorflow_datasets as tfds  # noqa: PLC0415
  except ImportError as error:
    raise UserError(f"{dataset!r} needs tensorflow_datasets ({error}); pip install tensorflow-datasets.") from error
  command = f"tfds build {dataset} --data_dir={root} --file_format=array_record"
  try:
    builder = tfds.builder(dataset, data_dir=root)
    if not builder.is_prepared():
      builder = tfds.builder(dataset, data_dir=root, file_format="array_record")
      builder.download_and_prepare()
  except tfds.core.registered.DatasetNotFoundError as error:
    raise UserError(
      f"config.data.source.dataset is {dataset!r}, which tfds does not know and which is not prepared under {root}; "
      "see tensorflow.org/datasets/catalog for the names."
    ) from error
  except Exception as error:  # whatever a download can raise: connections, checksums, disk, licences
    raise UserError(
      f"{dataset} is not prepared under {root} and preparing it failed ({type(error).__name__}: {reason(error)}); "
      f"with a network, run `{command}`."
    ) from error
  return builder


def _read_cache(path: Path) -> dict[str, np.ndarray] | None:
  """Returns the cached arrays; None if there are none, or of another format."""
  if not is_file(path):
    return None
  try:
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
      arrays = {key: file[key] for key in file.files}
    if int(arrays.pop("format")) != _FORMAT:
      return None
    counts = tuple(int(n) for n in arrays.pop("counts"))
    found = tuple(len(arrays[f"{part}_{field}"]) for part in ("train", "test") for field in ("image", "label"))
    arrays["class_names"].astype(str)
  except Exception as error:  # whatever zip, zlib and numpy can raise about bytes that are not theirs
    # A seek to before the start (EINVAL) is damage; any other error of the system says nothing about what is in it.
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)):
      raise UserError(f"{shown(path)} cannot be read ({reason(error)}); mend that, the file may be whole.") from error
    raise UserError(f"{shown(path)} is damaged ({reason(error)}); delete it, and the set is read again.") from error
  if found != counts:
    raise UserError(f"{shown(path)} holds {found} rows, but {counts} were written; delete it to read the set again.")
  return arrays


def _write_cache(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
  """Writes beside the path and renames, so that a kill at any moment leaves the whole file or none.

  Raises:
    UserError: if the file cannot be written; the disk is as before.
  """
  counts = [len(arrays[f"{part}_{field}"]) for part in ("train", "test") for field in ("image", "label")]
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name, suffix=".tmp", delete=False) as file:
      try:
        everything: dict[str, Any] = {"format": np.array(_FORMAT), "counts": np.array(counts), **arrays}
        np.savez(file, **everything)
        file.flush()
        os.fsync(file.fileno())
        os.replace(file.name, path)
      except BaseException:
        os.unlink(file.name)
        raise
  except OSError as error:
    raise UserError(
      f"{shown(path)} cannot be written ({reason(error)}), where the set is kept as arrays; make room there, "
      "or pass --data_dir=DIR for a folder that can be written."
    ) from error
