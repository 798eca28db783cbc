"""Optimizers: optax's own, by optax's names and with optax's arguments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optax

from lib.core import UserError, build, fields_of, lookup
from lib.core.build import suggest
from lib.core.schedules import as_schedule
from lib.transforms.matrices import matrices

# Left out: what needs more than a gradient (line searches, per-example clipping), and noisy_sgd, whose key would be
# the same for every member; the gradient transform annealed_noise before sgd is that method.
OPTIMIZERS = {
  "adabelief": optax.adabelief,
  "adadelta": optax.adadelta,
  "adafactor": optax.adafactor,
  "adagrad": optax.adagrad,
  "adam": optax.adam,
  "adamax": optax.adamax,
  "adamaxw": optax.adamaxw,
  "adamw": optax.adamw,
  "adan": optax.adan,
  "amsgrad": optax.amsgrad,
  "fromage": optax.fromage,
  "lamb": optax.lamb,
  "lars": optax.lars,
  "lion": optax.lion,
  "nadam": optax.nadam,
  "nadamw": optax.nadamw,
  "novograd": optax.novograd,
  "radam": optax.radam,
  "rmsprop": optax.rmsprop,
  "sgd": optax.sgd,
  "sign_sgd": optax.sign_sgd,
  "yogi": optax.yogi,
}
_MASKS = ("mask", "weight_decay_mask")


def build_optimizer(config: Mapping[str, Any], path: str = "optimizer") -> optax.GradientTransformationExtraArgs:
  """Builds a row of OPTIMIZERS.

      {"name": "adamw", "learning_rate": 1e-3, "weight_decay": 0.05, "decay": "matrices"}

  Args:
    config: the row and its arguments. `learning_rate` is a number, which may be traced, or a schedule (a dict with
      a "name", see lib.core.schedules). `decay` chooses what a row with weight decay applies it to: "all" leaves,
      or "matrices", those of two or more axes; without it the row's own default holds.
    path: where the config stands in the whole, for error messages.

  Raises:
    UserError: for an unknown name or argument, or a value of the wrong type.
  """
  if not isinstance(config, Mapping) or "name" not in config or "learning_rate" not in config:
    raise UserError(f"{path} needs 'name' (one of {', '.join(OPTIMIZERS)}) and 'learning_rate'.")
  config = dict(config)
  rate = as_schedule(config["learning_rate"], path=f"{path}.learning_rate")
  if isinstance(config["learning_rate"], Mapping):
    config["learning_rate"] = rate
  fields = fields_of(lookup(OPTIMIZERS, config["name"], path=path))
  for name in config:
    if name in _MASKS:
      raise UserError(f"{path}.{name} cannot be written in a config; give {path}.decay, 'all' or 'matrices'.")
  if "decay" in config and "decay" not in fields:
    mask = next((name for name in _MASKS if name in fields), None)
    if mask is None:
      raise UserError(f"{path}.decay does not exist for {config['name']!r}; {suggest('decay', fields)}.")
    chosen = config.pop("decay")
    if chosen not in ("all", "matrices"):
      raise UserError(f"{path}.decay is {chosen!r}; give 'all' or 'matrices'.")
    config[mask] = matrices if chosen == "matrices" else None
  return optax.with_extra_args_support(build(OPTIMIZERS, config, path=path))
