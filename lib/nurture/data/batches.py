"""Batches of a split on the device, augmented and normalized, as pure functions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nurture.core import Batch, UserError, build, lookup
from nurture.core.rng import stream
from nurture.data.arrays import Dataset, Split
from nurture.data.augment import AUGMENTATIONS, Augmentation
from nurture.data.normalize import NORMALIZATIONS

Fields = dict[str, jax.Array]


def device_fields(split: Split, input_name: str) -> Fields:
  """Returns a split on the device in its stored types: {input_name, "label", "true_label", "id"}, each [n, ...]."""
  return {name: jnp.asarray(field) for name, field in split.fields(input_name).items()}


def gather(fields: Fields, indices: jax.Array) -> Batch:
  """Returns the batch at positions [B] int32 of a split, as stored, with "weight" ones [B]."""
  batch = {name: field.at[indices].get(mode="clip") for name, field in fields.items()}
  return {**batch, "weight": jnp.ones(indices.shape, jnp.float32)}


@dataclasses.dataclass(frozen=True, eq=False)
class Preprocess:
  """Augments and normalizes batches of one data set. All methods but `inputs_in_order` can be traced.

  Attributes:
    input_name: "image" or "tokens".
    normalizer: stored image -> float32 image; not used for tokens.
    augmentations: label -> row of AUGMENTATIONS, in the order of the config.
  """

  input_name: str
  normalizer: Callable[[jax.Array], jax.Array]
  augmentations: Mapping[str, Augmentation]

  def inputs(self, batch: Batch) -> jax.Array:
    """Returns the model input of a batch as stored: normalized, not augmented; tokens as int32."""
    stored = batch[self.input_name]
    return stored.astype(jnp.int32) if self.input_name == "tokens" else self.normalizer(stored)

  def inputs_in_order(self, split: Split, size: int) -> Iterator[tuple[np.ndarray, jax.Array]]:
    """Yields a split in its order as (ids [B], model inputs [B, ...]); the last batch is what is left."""
    make = jax.jit(self.inputs)
    for start in range(0, len(split), size):
      rows = split.take(np.arange(start, min(start + size, len(split))))
      yield rows.id, make({self.input_name: jnp.asarray(rows.inputs)})

  def train_batch(self, key: jax.Array, batch: Batch) -> Batch:
    """Returns the batch augmented and normalized, its input ready for the model.

    Each augmentation draws from the stream of its label, so adding one leaves the draws of the others alone.
    """
    batch = self._augment(key, batch, "before")
    batch = {**batch, self.input_name: self.inputs(batch)}
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
  shape = input_shape(dataset)
  for label, piece in config["augment"].items():
    path = f"config.data.augment.{label}"
    augmentation = build(AUGMENTATIONS, piece, path=path, generate=dataset.generate)
    fits = augmentation.tokens if dataset.input_name == "tokens" else len(shape) == 3 or not augmentation.spatial
    if not fits:
      needs = "images [H, W, C]" if augmentation.spatial else "images or vectors"
      raise UserError(f"{path} needs {needs}, but {dataset.name} has {dataset.input_name} {shape}; remove it.")
    augmentations[label] = augmentation
  fit = lookup(NORMALIZATIONS, config["normalize"], path="config.data.normalize")
  normalizer = fit(dataset.train) if dataset.input_name == "image" else lambda tokens: tokens
  return Preprocess(dataset.input_name, normalizer, augmentations)


def input_shape(dataset: Dataset) -> tuple[int, ...]:
  """Returns the shape of one model input, without the batch axis: (H, W, C), (D,) or (T,)."""
  return dataset.train.inputs.shape[1:]
