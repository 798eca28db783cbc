"""Checks of arrays before anything is trained on them; each fault is one sentence."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from nurture.core import UserError, memory


def as_int32(values: np.ndarray, what: str) -> np.ndarray:
  """Returns whole numbers as int32, of which none is changed: 1.0 becomes 1, and 0.5, NaN and 2^31 are refused."""
  values = np.asarray(values)
  if values.dtype == np.int32:
    return values
  if values.dtype.kind not in "biuf":
    raise UserError(f"{what} have the type {values.dtype}; give whole numbers.")
  with np.errstate(invalid="ignore"):
    whole = values.astype(np.int32)
  wrong = np.argwhere(whole != values)
  if len(wrong):
    value = values[tuple(wrong[0])]
    raise UserError(f"{what} hold {value} in example {wrong[0][0]}; give whole numbers of 32 bits.")
  return whole


def check_labels(labels: np.ndarray, num_classes: int, where: str, fix: str, unasked: bool = False) -> np.ndarray:
  """Returns the labels as int32.

  Args:
    labels: [n], or [n, T] for sequences.
    num_classes: K.
    where: the file or the split, for the message.
    fix: what to do about it, for the message.
    unasked: whether -1 is a label too, which says that nothing is asked at this position.

  Raises:
    UserError: if a label is not from 0 to K - 1; names the first one.
  """
  labels = as_int32(labels, f"the labels of {where}")
  least = -1 if unasked else 0
  if labels.size and not (least <= labels.min() and labels.max() < num_classes):
    first = np.argwhere((labels < least) | (labels >= num_classes))[0]
    also = ", or are -1 where nothing is asked" * unasked
    raise UserError(
      f"{where} gives example {first[0]} the label {labels[tuple(first)]}, but labels go from 0 to {num_classes - 1}"
      f"{also}; {fix}."
    )
  return labels


def check_inputs(inputs: np.ndarray, tokens: bool, where: str) -> None:
  """Raises UserError for inputs that no model reads.

  Images are uint8 or floating point, and then finite: a normalization takes any other type for fractions. Tokens are
  not negative; how many there are is the model's matter.
  """
  if tokens:
    if inputs.dtype.kind not in "iu" or inputs.ndim != 2:
      raise UserError(f"{where} has inputs of type {inputs.dtype} and shape {inputs.shape}; give integers [n, T].")
    if inputs.size and inputs.min() < 0:
      first = np.argwhere(inputs < 0)[0]
      raise UserError(f"{where} gives example {first[0]} the token {inputs[tuple(first)]}; tokens start at 0.")
    return
  floating = jnp.issubdtype(inputs.dtype, jnp.floating)
  if not (floating or inputs.dtype == np.uint8) or inputs.ndim not in (2, 4):
    raise UserError(
      f"{where} has inputs of type {inputs.dtype} and shape {inputs.shape}; give uint8 or floating-point images "
      "[n, H, W, C] or vectors [n, D]."
    )
  if floating and inputs.size and not np.isfinite([float(inputs.min()), float(inputs.max())]).all():
    first = np.argwhere(~np.isfinite(inputs))[0]
    raise UserError(
      f"{where} has an input that is not finite ({inputs[tuple(first)]} in example {first[0]}); leave the example out."
    )


def check_memory(needed: int, what: str, fix: str) -> None:
  """Raises UserError if arrays of so many bytes are more than this machine has free, before they are made."""
  free = memory.host_bytes()
  if needed > free:
    raise UserError(f"{what} would take about {memory.in_words(needed)}, but {memory.in_words(free)} of memory are "
                    f"free; {fix}.")
