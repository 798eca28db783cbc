"""Sets of the Hugging Face hub that have an image and a class, through their own package."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
from typing import Any

import numpy as np

from nurture.core import UserError
from nurture.core.build import suggest
from nurture.core.hints import Count
from nurture.data.arrays import Dataset, Split
from nurture.data.checks import check_memory
from nurture.data.classes import labelled
from nurture.data.folder import data_root, reason
from nurture.data.tasks import Classification


@dataclasses.dataclass(frozen=True)
class HuggingFace:
  """A set of the Hugging Face hub that has a column of images and one of classes; needs the extra `huggingface`.

  A folder of this name below the data directory (written by `DatasetDict.save_to_disk`, or with data files in it) comes
  before the hub; from there the set is downloaded once, and later loads read the cache of the package, also without a
  network (HF_HUB_OFFLINE=1). The id of an example is its position in its split.

  Attributes:
    dataset: name as the hub has it, "ylecun/mnist", or a folder.
    config: of the set, where it has several.
    image, label: columns; "" takes the only one of images, and the only one of classes.
    train_split, test_split: as the package names them, such as "train[:80%]".
    resize: side in pixels to which every image is scaled (bilinear, without its proportions), or None, which needs
      images of one size.

  Raises:
    UserError: (in load) where the package is missing, the set cannot be found, or it has no such columns, labels that
      are no classes, or images of several sizes.
  """

  dataset: str
  config: str = ""
  image: str = ""
  label: str = ""
  train_split: str = "train"
  test_split: str = "test"
  resize: Count | None = None

  def load(self, data_dir: str | os.PathLike) -> Dataset:
    """Returns the set."""
    name, digest = f"huggingface:{self.dataset}", hashlib.sha256()
    parts = [self._read(split, data_root(data_dir), name) for split in (self.train_split, self.test_split)]
    image, label = self._columns(parts[0], name)
    arrays = [(self._images(part, image, name), np.array(part[label])) for part in parts]
    for images, labels in arrays:
      digest.update(np.ascontiguousarray(images).data)
      digest.update(repr(labels.tolist()).encode())
    (train_images, train_label), (test_images, test_label) = arrays
    names = getattr(parts[0].features[label], "names", None)
    task: Any = Classification(tuple(names)) if names else None
    if task is None:
      train_label, test_label, task = labelled("classification", train_label, test_label, (), name)
    train, test = Split.clean(train_images, train_label), Split.clean(test_images, test_label)
    return Dataset.read(name, train, test, task, checksums={name: digest.hexdigest()})

  def _read(self, split: str, root: pathlib.Path, name: str) -> Any:
    try:
      import datasets  # noqa: PLC0415
    except ImportError as error:
      raise UserError(f"{name} needs a package that is not installed ({error}); run `pip install "
                      "'nurture[huggingface]'`.") from error
    folder = root / self.dataset
    try:
      if (folder / "dataset_dict.json").exists():
        return datasets.load_from_disk(str(folder))[split]
      source = str(folder) if folder.is_dir() else self.dataset
      return datasets.load_dataset(source, self.config or None, split=split)
    except Exception as error:  # the package raises what its many file formats raise
      raise UserError(f"{name}, split {split!r}, cannot be read ({reason(error)}); check its name, put the folder "
                      "below --data_dir, or load it once with a network.") from error

  def _columns(self, part: Any, name: str) -> tuple[str, str]:
    features = part.features
    kinds = {column: type(feature).__name__ for column, feature in features.items()}
    found = []
    for field, wanted, kind in (("image", self.image, "Image"), ("label", self.label, "ClassLabel")):
      of_kind = [column for column, has in kinds.items() if has == kind]
      if wanted and wanted not in features:
        raise UserError(f"config.data.source.{field} is {wanted!r}, which {name} does not have; "
                        f"{suggest(wanted, features)}.")
      if not wanted and len(of_kind) != 1:
        listed = ", ".join(f"{column} ({has})" for column, has in kinds.items())
        raise UserError(f"{name} has {len(of_kind)} columns of type {kind}; name one in config.data.source.{field}: "
                        f"{listed}.")
      found.append(wanted or of_kind[0])
    return found[0], found[1]

  def _images(self, part: Any, column: str, name: str) -> np.ndarray:
    from PIL import Image  # noqa: PLC0415

    images: np.ndarray | None = None
    for i, picture in enumerate(part[column]):
      if not isinstance(picture, Image.Image):
        raise UserError(f"{name} has {type(picture).__name__} in {column!r} of example {i}, and no image; name another "
                        "column in config.data.source.image.")
      picture = picture if picture.mode in ("L", "RGB") else picture.convert("RGB")
      if self.resize:
        picture = picture.resize((self.resize, self.resize), Image.Resampling.BILINEAR)
      pixels = np.asarray(picture).reshape(picture.height, picture.width, -1)
      if images is None:
        check_memory(len(part) * pixels.nbytes, f"{len(part)} images of {name}", "set resize, or take fewer")
        images = np.empty((len(part), *pixels.shape), np.uint8)
      if pixels.shape != images.shape[1:]:
        raise UserError(f"{name} has an image {pixels.shape} in example {i} and {images.shape[1:]} before; set "
                        "config.data.source.resize, or convert them to one kind.")
      images[i] = pixels
    if images is None:
      raise UserError(f"{name} has no example in a split; name another one.")
    return images
