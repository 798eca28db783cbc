"""Facts of data that nobody has read, for tests of rows that are told them."""

from __future__ import annotations

from nurture.core import DataSpec
from nurture.data.tasks import Classification


def class_spec(
  num_examples: int, num_classes: int, input_shape: tuple[int, ...], batch_size: int, field: str = "image"
) -> DataSpec:
  """Returns the facts of a classification with one input field, whose classes are called by their numbers."""
  return DataSpec(Classification(tuple(map(str, range(num_classes)))), num_examples, batch_size, {field: input_shape})
