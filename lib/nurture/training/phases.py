"""Phases: stretches of a run in which the same parts of its config are active.

A loss term, target transform, gradient link or augmentation may carry "start_step" and "stop_step":

    config.losses = {
      "ce": {"name": "cross_entropy", "weight": 1.0},
      "guide": {"name": "guidance", "weight": 1.0, ..., "stop_step": 300},    # steps 0 to 299
    }

Each phase is a program of its own, in which what is inactive does not exist: nothing is computed and multiplied by
zero. Its state stays as it is.
"""

from __future__ import annotations

import math

import jax

from nurture.core import UserError
from nurture.training.config import Config, get, put

SECTIONS = ("data.augment", "targets", "losses", "gradients")
_FIELDS = ("start_step", "stop_step")


def starts(config: Config) -> tuple[int, ...]:
  """Returns the steps at which a phase begins, in order; the first is 0.

  Raises:
    UserError: for a window that is malformed or empty.
  """
  steps = {0}
  for section in SECTIONS:
    for label, fields in get(config, section).items():
      window = _window(fields, f"config.{section}.{label}")
      steps.update(int(step) for step in window if step < config["steps"])
  return tuple(sorted(steps))


def active_losses(config: Config, first: int, last: int) -> set[str]:
  """Returns the labels of the loss terms that are active in every step from `first` to `last`."""
  windows = {label: _window(fields, f"config.losses.{label}") for label, fields in config["losses"].items()}
  return {label for label, (start, stop) in windows.items() if start <= first and last < stop}


def at(config: Config, step: int | None) -> Config:
  """Returns the config without its windows, and without the parts that are inactive at a step.

  Args:
    config: a whole config.
    step: a number of updates already made; None keeps every part.
  """
  changes = {}
  for section in SECTIONS:
    parts = {}
    for label, fields in get(config, section).items():
      if step is not None:
        start, stop = _window(fields, f"config.{section}.{label}")
        if not start <= step < stop:
          continue
      parts[label] = {name: value for name, value in fields.items() if name not in _FIELDS}
    changes[section] = parts
  if not changes["losses"]:
    raise UserError(f"config.losses has no active term at step {step}; widen the window of one of them.")
  return put(config, changes)


def _window(fields: Config, path: str) -> tuple[int, float]:
  """Returns the first step of a part, and the one after its last; infinity where it has none."""
  for name in _FIELDS:
    value = fields.get(name, 0)
    if isinstance(value, jax.core.Tracer):  # the comparison below says that it must be known
      continue
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not number or value < 0 or value != int(value):
      raise UserError(f"{path}.{name} is {value!r}; give a whole number of steps, or leave it out.")
  start, stop = fields.get("start_step", 0), fields.get("stop_step", math.inf)
  if not start < stop:
    raise UserError(f"{path} is active from step {start} until step {stop}, which is no step at all; give a later "
                    "stop_step, or remove the part.")
  return start, stop
