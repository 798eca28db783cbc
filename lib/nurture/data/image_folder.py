"""Images of one's own: a folder a class."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import pathlib
from typing import Annotated, Any, Literal

import numpy as np

from nurture.core import UserError
from nurture.core.hints import Range
from nurture.data.arrays import Dataset, Split
from nurture.data.checks import check_memory
from nurture.data.classes import held_out
from nurture.data.folder import data_root, reason, shown
from nurture.data.tasks import Classification

_IMAGES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_MODES = {1: "L", 3: "RGB"}


@dataclasses.dataclass(frozen=True)
class ImageFolder:
  """Images of one's own, in a folder for each class, whose name is the folder's:

      <path>/train/<class>/*.png        <path>/test/<class>/*.png
      <path>/<class>/*.png              where a share of all is held out for testing

  Files whose names begin with a dot are passed over. Classes are sorted by name, files by class and name.

  Attributes:
    path: below the data directory, or absolute.
    size: pixels of each side, to which images are scaled (bilinear, without their proportions); 0 leaves them, and then
      all must have one size.
    channels: 3 for colour, 1 for grey; images of the other kind are converted.
    test_share: of each class, held out by a fixed draw where there are no folders train and test.

  Raises:
    UserError: (in load) for folders without images, fewer than two classes, images of several sizes, and files that are
      no images or are damaged.
  """

  path: str
  size: Annotated[int, Range(least=0, most=8192)] = 0
  channels: Literal[1, 3] = 3
  test_share: Annotated[float, Range(above=0, below=1)] = 0.2

  def load(self, data_dir: str | os.PathLike) -> Dataset:
    """Returns the set."""
    root = data_root(data_dir) / self.path
    where = shown(root)
    if not root.is_dir():
      raise UserError(f"{where} is no folder; pass --data_dir=DIR for a folder DIR that holds {shown(self.path)}.")
    parts = [root / part for part in ("train", "test") if (root / part).is_dir()]
    if len(parts) == 1:
      raise UserError(f"{where} has the folder {parts[0].name!r} without the other of 'train' and 'test'; add it, or "
                      "move the classes up and set config.data.source.test_share.")
    listed = [_classes(part) for part in parts or [root]]
    names = tuple(listed[0])
    for folder, classes in zip(parts[1:], listed[1:]):
      for name in sorted(set(classes) ^ set(names)):
        here, there = ("test", "train") if name in classes else ("train", "test")
        raise UserError(f"{shown(folder.parent)} has the class {name!r} in {here} and not in {there}; add it there.")
    if len(names) < 2:
      raise UserError(f"{shown((parts or [root])[0])} has one class, {names[0]!r}; give a folder for each of at least "
                      "two.")
    digest = hashlib.sha256()
    read = [self._read(classes, digest) for classes in listed]
    if len({images.shape[1:] for images, _ in read}) > 1:
      sizes = " and ".join(f"{images.shape[2]} x {images.shape[1]}" for images, _ in read)
      raise UserError(f"{where} has images of {sizes} pixels in train and test; set config.data.source.size.")
    if len(read) == 1:
      [(images, label)] = read
      testing = held_out(label, self.test_share, "classification")
      read = [(images[~testing], label[~testing]), (images[testing], label[testing])]
    train, test = (Split.clean(images, label) for images, label in read)
    return Dataset.read(root.name, train, test, Classification(names), checksums={self.path: digest.hexdigest()})

  def _read(self, classes: dict[str, list[pathlib.Path]], digest: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns (images [n, H, W, C] uint8, labels [n]) of the files of each class."""
    files = [(file, label) for label, name in enumerate(classes) for file in classes[name]]
    images: np.ndarray | None = None
    for i, (file, _) in enumerate(files):
      pixels = self._image(file, digest)
      if images is None:
        count = f"{len(files)} images of {pixels.shape[1]} x {pixels.shape[0]} pixels"
        check_memory(len(files) * pixels.nbytes, count, "set a smaller config.data.source.size, or give fewer")
        images = np.empty((len(files), *pixels.shape), np.uint8)
      if pixels.shape != images.shape[1:]:
        raise UserError(
          f"{shown(file)} has {pixels.shape[1]} x {pixels.shape[0]} pixels, and {shown(files[0][0])} has "
          f"{images.shape[2]} x {images.shape[1]}; set config.data.source.size, to which all are scaled."
        )
      images[i] = pixels
    assert images is not None
    return images, np.array([label for _, label in files], np.int32)

  def _image(self, file: pathlib.Path, digest: Any) -> np.ndarray:
    from PIL import Image, UnidentifiedImageError  # noqa: PLC0415  (only this row needs it)

    try:
      data = file.read_bytes()
      digest.update(f"{file.parent.name}/{file.name} {len(data)}\n".encode())
      digest.update(data)
      with Image.open(io.BytesIO(data)) as stored:
        image = stored.convert(_MODES[self.channels])
      if self.size:
        image = image.resize((self.size, self.size), Image.Resampling.BILINEAR)
      return np.asarray(image).reshape(image.height, image.width, self.channels)
    except UnidentifiedImageError as error:
      raise UserError(f"{shown(file)} is no image that Pillow knows; mend it, or move it out.") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
      raise UserError(f"{shown(file)} cannot be read ({reason(error)}); mend it, or move it out.") from error


def _classes(folder: pathlib.Path) -> dict[str, list[pathlib.Path]]:
  """Returns {class: its files} of a folder, both sorted."""
  visible = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
  if loose := [path for path in visible if not path.is_dir()]:
    raise UserError(f"{shown(loose[0])} stands beside the folders of the classes; move it into one, or out.")
  if not visible:
    raise UserError(f"{shown(folder)} is empty; give it a folder for each class.")
  classes = {}
  for path in visible:
    files = sorted(file for file in path.iterdir() if not file.name.startswith("."))
    if not files:
      raise UserError(f"{shown(path)} has no images; add some, or remove the folder.")
    for file in files:
      if file.suffix.lower() not in _IMAGES:
        raise UserError(f"{shown(file)} is no image by its name ({', '.join(_IMAGES)}); move it out.")
    classes[path.name] = files
  return classes
