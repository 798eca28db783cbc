"""Optimizers: optax's own, by optax's names and with optax's arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import optax

from nurture.core import UserError, build, fields_of, hints, lookup
from nurture.core.build import suggest
from nurture.core.hints import Memory, NonNegative, Positive, Range, Share, Whole
from nurture.core.schedules import as_schedule
from nurture.transforms.matrices import matrices

# What optax's arguments mean, and so where they may lie; a number that is divided by must not be 0.
_DTYPE = Literal["float32", "bfloat16", "float16"]
_RANGES: dict[str, Any] = dict(
  **dict.fromkeys(("b1", "b2", "b3", "decay", "rho"), Memory),
  **dict.fromkeys(("eps_root", "initial_accumulator_value", "initial_scale", "min_norm"), NonNegative),
  **dict.fromkeys(("mu_dtype", "accumulator_dtype"), _DTYPE | None),
  clipping_threshold=Positive | None,
  decay_offset=Annotated[int, Range(most=0)],  # a later start of the count than step 0 is a power of a negative number
  decay_rate=Share,
  dtype_momentum=_DTYPE,
  eps=Positive,
  learning_rate=float | Callable[..., Any],  # a number's range is checked where it becomes a schedule
  min_dim_size_to_factor=Whole,
  momentum=Memory | None,
  threshold=Annotated[float, Range(least=4)],  # of degrees of freedom, below which RAdam's rectification is no number
  trust_coefficient=NonNegative,
  weight_decay=NonNegative,
  weight_decay_rate=NonNegative | None,
)


def _ranged(function: Callable[..., Any], **types: Any) -> Callable[..., Any]:
  return hints.annotate(function, **_RANGES | types)


# Left out: what needs more than a gradient (line searches, per-example clipping), and noisy_sgd, whose key would be
# the same for every member; the gradient transform annealed_noise before sgd is that method.
OPTIMIZERS = {
  "adabelief": _ranged(optax.adabelief),
  "adadelta": _ranged(optax.adadelta),
  "adafactor": _ranged(optax.adafactor),
  "adagrad": _ranged(optax.adagrad, eps=NonNegative),
  "adam": _ranged(optax.adam),
  "adamax": _ranged(optax.adamax),
  "adamaxw": _ranged(optax.adamaxw),
  "adamw": _ranged(optax.adamw),
  "adan": _ranged(optax.adan),
  "amsgrad": _ranged(optax.amsgrad),
  "fromage": _ranged(optax.fromage),
  "lamb": _ranged(optax.lamb),
  "lars": _ranged(optax.lars, eps=NonNegative),
  "lion": _ranged(optax.lion),
  "nadam": _ranged(optax.nadam),
  "nadamw": _ranged(optax.nadamw),
  "novograd": _ranged(optax.novograd),
  "radam": _ranged(optax.radam),
  "rmsprop": _ranged(optax.rmsprop),
  "sgd": _ranged(optax.sgd),
  "sign_sgd": _ranged(optax.sign_sgd),
  "yogi": _ranged(optax.yogi),
}
# Arguments that are functions; a config says `decay` instead.
MASKS = ("mask", "weight_decay_mask")


def build_optimizer(config: Mapping[str, Any], path: str = "optimizer") -> optax.GradientTransformationExtraArgs:
  """Builds a row of OPTIMIZERS.

      {"name": "adamw", "learning_rate": 1e-3, "weight_decay": 0.05, "decay": "matrices"}

  Args:
    config: the row and its arguments. `learning_rate` is a number, which may be traced, or a schedule (a dict with
      a "name", see nurture.core.schedules). `decay` chooses what a row with weight decay applies it to: "all" leaves,
      or "matrices", those of two or more axes; without it the row's own default holds.
    path: where the config stands in the whole, for error messages.

  Raises:
    UserError: for an unknown name or argument, a value of the wrong type, or a number out of range.
  """
  if not isinstance(config, Mapping) or "name" not in config or "learning_rate" not in config:
    raise UserError(f"{path} needs 'name' (one of {', '.join(OPTIMIZERS)}) and 'learning_rate'.")
  config = dict(config)
  rate = as_schedule(config["learning_rate"], path=f"{path}.learning_rate", hint=NonNegative)
  if isinstance(config["learning_rate"], Mapping):
    config["learning_rate"] = rate
  fields = fields_of(lookup(OPTIMIZERS, config["name"], path=path))
  for name in config:
    if name in MASKS:
      raise UserError(f"{path}.{name} cannot be written in a config; give {path}.decay, 'all' or 'matrices'.")
  if "decay" in config and "decay" not in fields:
    mask = next((name for name in MASKS if name in fields), None)
    if mask is None:
      raise UserError(f"{path}.decay does not exist for {config['name']!r}; {suggest('decay', fields)}.")
    chosen = config.pop("decay")
    if chosen not in ("all", "matrices"):
      raise UserError(f"{path}.decay is {chosen!r}; give 'all' or 'matrices'.")
    config[mask] = matrices if chosen == "matrices" else None
  return optax.with_extra_args_support(build(OPTIMIZERS, config, path=path))
