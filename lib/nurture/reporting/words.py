"""Metrics in words: what stands above a picture and beside its axis instead of a name such as test/accuracy."""

from __future__ import annotations

import dataclasses
import re

_SPLITS = {"train": "training", "validation": "validation", "test": "test"}
_EXAMPLES, _SEQUENCES = "fraction of examples", "fraction of sequences"
_WRONG, _CLEAN = "fraction of wrong labels", "fraction of clean labels"
# Quantities of probes: in words, and what their axis says; "" takes the words.
_QUANTITIES = {
  "accuracy": ("accuracy", _EXAMPLES),
  "sequence_accuracy": ("sequence accuracy", _SEQUENCES),
  "loss": ("loss", "cross-entropy (nats)"),
  "nll": ("log loss", "nats"),
  "ece": ("expected calibration error", ""),
  "brier": ("Brier score", ""),
  "wrong_memorized": ("wrong labels memorized", _WRONG),
  "wrong_correct": ("wrong labels seen through", _WRONG),
  "wrong_other": ("wrong labels, another class", _WRONG),
  "clean_correct": ("clean labels learned", _CLEAN),
  "clean_other": ("clean labels, another class", _CLEAN),
  "largest": ("largest eigenvalue", ""),
  "smallest": ("smallest eigenvalue", ""),
}
_TAP = re.compile(r"^0*(\d+)_")  # the number of a tap: what is measured of it is the probe's
_AXES = {"lr": "learning rate", "T": "temperature"}  # of a grid
_ALONE = {"loss": "Training loss", "gradient_norm": "Gradient norm"}  # what the step itself measures


@dataclasses.dataclass(frozen=True)
class Words:
  """A metric in words.

  Attributes:
    title: "Test accuracy".
    axis: quantity and unit, "fraction of examples".
    fraction: whether it lies in [0, 1].
  """

  title: str
  axis: str
  fraction: bool = False


def words_of(metric: str) -> Words:
  """Returns a metric's words: "test/accuracy" is "Test accuracy", "kernel/effective_rank" "Kernel: effective rank"."""
  if metric in _ALONE:
    return Words(_ALONE[metric], _ALONE[metric].lower())
  probe, _, quantity = metric.partition("/")
  if not quantity:
    return Words(_sentence(_spaced(probe)), _spaced(probe))
  if probe == "loss":
    return Words(f"Training loss, term {quantity}", "loss")
  words, axis = _QUANTITIES.get(quantity, (_spaced(_layered(quantity)), _spaced(probe) if _TAP.match(quantity) else ""))
  if probe in _SPLITS and quantity in ("accuracy", "sequence_accuracy", "loss"):
    title = f"{_SPLITS[probe]} {words}"
  else:
    title = words if probe == quantity else f"{_SPLITS.get(probe, _spaced(probe))}: {words}"
  return Words(_sentence(title), axis or words, axis.startswith("fraction"))


def axis_of(name: str) -> str:
  """Returns the axis of a grid in words: "lr" is "learning rate"."""
  return _AXES.get(name, _spaced(name))


def _layered(quantity: str) -> str:
  """Returns a quantity of a tap, "002_block0.attention", as "layer 2, block0 attention"."""
  layered = _TAP.sub(r"layer \1, ", quantity)
  return layered.replace("/", " ").replace(".", " ")


def _spaced(name: str) -> str:
  return name.replace("_", " ")


def _sentence(text: str) -> str:
  return text[:1].upper() + text[1:]
