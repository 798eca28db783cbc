"""Batches of a split on the device, augmented and normalized, as pure functions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nurture.core import Batch, UserError, build, lookup, model_input
from nurture.core.rng import stream
from nurture.core.task import check_served
from nurture.core.types import is_tokens
from nurture.data.arrays import Dataset, Split
from nurture.data.augment import AUGMENTATIONS, Augmentation
from nurture.data.normalize import NORMALIZATIONS

Fields = dict[str, jax.Array]


def device_fields(split: Split) -> Fields:
  """Returns a split on the device in its stored types: inputs, "label", "true_label" and "id", each [n, ...]."""
  return {name: jnp.asarray(field) for name, field in split.fields.items()}


def gather(fields: Fields, indices: jax.Array) -> Batch:
  """Returns the batch at positions [B] int32 of a split, as stored, with "weight" ones [B]."""
  batch = {name: field.at[indices].get(mode="clip") for name, field in fields.items()}
  return {**batch, "weight": jnp.ones(indices.shape, jnp.float32)}


@dataclasses.dataclass(frozen=True, eq=False)
class Preprocess:
  """Augments and normalizes batches of one data set. All methods but `inputs_in_order` can be traced.

  Attributes:
    normalizers: field that the model reads -> map of its stored values, [B, ...] each.
    augmentations: label -> row of AUGMENTATIONS, in the order of the config.
  """

  normalizers: Mapping[str, Callable[[jax.Array], jax.Array]]
  augmentations: Mapping[str, Augmentation]

  def normalized(self, batch: Batch) -> Batch:
    """Returns a batch as stored with its inputs ready for the model: normalized, not augmented; tokens as int32."""
    return {**batch, **{field: normalizer(batch[field]) for field, normalizer in self.normalizers.items()}}

  def inputs(self, batch: Batch) -> Any:
    """Returns the model input of a batch as stored; see `normalized`."""
    return model_input(self.normalized(batch), self.normalizers)

  def inputs_in_order(self, split: Split, size: int) -> Iterator[tuple[np.ndarray, Any]]:
    """Yields a split in its order as (ids [B], model inputs [B, ...]); the last batch is what is left."""
    make = jax.jit(self.inputs)
    for start in range(0, len(split), size):
      rows = split.take(np.arange(start, min(start + size, len(split))))
      yield rows.id, make(jax.tree.map(jnp.asarray, dict(rows.inputs)))

  def train_batch(self, key: jax.Array, batch: Batch) -> Batch:
    """Returns the batch augmented and normalized, its input ready for the model.

    Each augmentation draws from the stream of its label, so adding one leaves the draws of the others alone.
    """
    batch = self.normalized(self._augment(key, batch, "before"))
    return self._augment(key, batch, "after")

  def _augment(self, key: jax.Array, batch: Batch, stage: str) -> Batch:
    for label, augmentation in self.augmentations.items():
      if augmentation.stage == stage:
        batch = augmentation(stream(key, label), batch)
    return batch


def preprocess(config: Mapping[str, Any], dataset: Dataset) -> Preprocess:
  """Builds the preprocessing that the data section of a config describes.

  Cheap enough to be built inside a trace, where a number of an augmentation may be traced: the moments of the
  training split are computed on the host once and kept with it.

  Args:
    config: needs the keys "normalize" and "augment".
    dataset: the set; only its training split and shapes are read.

  Raises:
    UserError: for an unknown row, or an augmentation that does not fit the inputs.
  """
  augmentations = {}
  for label, piece in config["augment"].items():
    path = f"config.data.augment.{label}"
    augmentation = build(AUGMENTATIONS, piece, path=path, generate=dataset.generate)
    check_served(AUGMENTATIONS, piece, dataset.task.name, dataset.name, path)
    if not _fits(augmentation, dataset):
      needs = "images [H, W, C]" if augmentation.spatial else "images or vectors"
      shapes = ", ".join(f"{field} {shape}" for field, shape in dataset.input_shapes.items())
      raise UserError(f"{path} needs {needs}, but {dataset.name} has {shapes}; remove it.")
    augmentations[label] = augmentation
  fit = lookup(NORMALIZATIONS, config["normalize"], path="config.data.normalize")
  normalizers = {
    field: _whole if is_tokens(field) else fit(dataset.train, field) for field in dataset.train.inputs
  }
  return Preprocess(normalizers, augmentations)


def _whole(tokens: jax.Array) -> jax.Array:
  return tokens.astype(jnp.int32)


def _fits(augmentation: Augmentation, dataset: Dataset) -> bool:
  """Tells if a data set has what an augmentation changes: the field "image", or any of tokens."""
  image = dataset.input_shapes.get("image")
  if image is None:
    return augmentation.tokens
  return len(image) == 3 or not augmentation.spatial
