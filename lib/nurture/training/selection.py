"""The best state of each member by a metric, and early stopping.

    config.checkpoint.best = {"metric": "validation/accuracy", "mode": "max"}
    config.stopping = {"metric": "validation/loss", "mode": "min", "patience": 5}

Both look at a metric whenever it is recorded. What they have seen travels in every checkpoint, so a run that is killed
and started again chooses the same states and stops at the same steps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from nurture.core import UserError, build, trees
from nurture.core.build import suggest
from nurture.core.hints import Count, NonNegative
from nurture.training.config import Config
from nurture.training.probing import build_probe
from nurture.training.step import State

Tree = Any


@dataclasses.dataclass(frozen=True)
class Best:
  """Keeps the state of every member at the step where a metric was best, beside the newest one.

  Attributes:
    metric: one that is recorded during training, a number, such as "validation/accuracy" or "loss".
    mode: whether the largest or the smallest is best.
  """

  metric: str
  mode: Literal["max", "min"]


@dataclasses.dataclass(frozen=True)
class Stopping:
  """Stops a member when a metric has not improved for some records; the others of its cohort go on.

  Attributes:
    metric, mode: as for `Best`.
    patience: records without an improvement after which the member stops.
    least: what an improvement must be larger than.
  """

  metric: str
  mode: Literal["max", "min"]
  patience: Count
  least: NonNegative = 0.0


def rules_of(config: Config) -> tuple[Best | None, Stopping | None]:
  """Returns what a config says of the best state and of stopping, None where it says nothing.

  Raises:
    UserError: for a rule that is malformed, or a metric that is not recorded during training, or is of the test split.
  """
  places = {"checkpoint.best": (Best, config["checkpoint"].get("best")), "stopping": (Stopping, config.get("stopping"))}
  found: list[Any] = []
  for place, (rule, fields) in places.items():
    path = f"config.{place}"
    built = build({"rule": rule}, {**fields, "name": "rule"}, path=path) if fields else None
    if built is not None:
      _check_metric(config, built.metric, f"{path}.metric")
    found.append(built)
  return found[0], found[1]


def _check_metric(config: Config, metric: str, path: str) -> None:
  label, _, quantity = metric.partition("/")
  if metric in ("loss", "gradient_norm") or (label == "loss" and quantity in config["losses"]):
    return
  if label not in config["probes"]:
    known = ("loss", "gradient_norm", *(f"{name}/..." for name in config["probes"]))
    raise UserError(f"{path} is {metric!r}, which this config does not record; {suggest(metric, known)}.")
  fields = config["probes"][label]
  if not fields.get("every"):
    raise UserError(f"{path} is {metric!r}, but config.probes.{label} measures at the end only; set its 'every'.")
  if getattr(build_probe(label, fields), "split", None) == "test":
    raise UserError(f"{path} is {metric!r}, which is measured on the test split, and what is chosen by that says "
                    "nothing about new data; set config.data.validation and measure on 'validation'.")


def check_recorded(config: Config, recorded: Mapping[str, Any]) -> None:
  """Refuses a rule whose metric nobody records, or that is several numbers.

  Args:
    config: of the run.
    recorded: {metric: [M, ...] array or its shape}.

  Raises:
    UserError: names the nearest metric.
  """
  for path, rule in zip(("config.checkpoint.best.metric", "config.stopping.metric"), rules_of(config)):
    metric = rule.metric if rule is not None else "loss"
    if metric not in recorded:
      raise UserError(f"{path} is {metric!r}, which this config does not record; {suggest(metric, recorded)}.")
    if recorded[metric].ndim != 1:
      raise UserError(f"{path} is {metric!r}, which is several numbers; name a metric that is one.")


class Selection:
  """The best metrics and states of the members of a cohort so far, and which members have stopped.

  Attributes:
    best, stopping: the rules, None where there is none.
    stopped_at: [M] int32, the step at which each member stopped; -1 before.
  """

  def __init__(self, config: Config, num_members: int):
    self.best, self.stopping = rules_of(config)
    self._best_value = np.full(num_members, np.nan, np.float32)
    self._best_state: State | None = None
    self._value = np.full(num_members, np.nan, np.float32)
    self._since = np.zeros(num_members, np.int32)
    self.stopped_at = np.full(num_members, -1, np.int32)
    self._where = jax.jit(jax.vmap(trees.select))

  @property
  def stopped(self) -> np.ndarray | None:
    """[M] bool, who has stopped; None in a run without such a rule."""
    return None if self.stopping is None else self.stopped_at >= 0

  @property
  def best_steps(self) -> np.ndarray | None:
    """[M] int32, the step of each member's best state; None without such a rule."""
    return None if self._best_state is None else np.asarray(self._best_state.step)

  @property
  def all_stopped(self) -> bool:
    """True if every member has stopped."""
    return bool(np.all(self.stopped_at >= 0))

  def tree(self) -> dict[str, Tree]:
    """Returns what a checkpoint keeps of it, {} without rules."""
    found: dict[str, Tree] = {}
    if self.best is not None:
      found["best"] = {"state": self._best_state, "value": self._best_value}
    if self.stopping is not None:
      found["stopping"] = {"value": self._value, "since": self._since, "at": self.stopped_at}
    return found

  def is_over(self, tree: Mapping[str, Tree]) -> bool:
    """Returns whether by what a checkpoint kept every member has stopped."""
    return self.stopping is not None and bool(np.all(tree["stopping"]["at"] >= 0))

  def take(self, tree: Mapping[str, Tree], place: Any) -> None:
    """Goes on from what a checkpoint kept.

    Args:
      tree: of a checkpoint, with the entries of `tree`.
      place: of the states on the devices.
    """
    if self.best is not None:
      self._best_state = jax.device_put(tree["best"]["state"], place)
      self._best_value = np.array(tree["best"]["value"])
    if self.stopping is not None:
      self._value, self._since, self.stopped_at = (np.array(tree["stopping"][n]) for n in ("value", "since", "at"))

  def update(self, step: int, states: State, values: Mapping[str, np.ndarray]) -> np.ndarray:
    """Looks at what was recorded at a step.

    Args:
      step: number of updates that the members have taken.
      states: of the members at this step.
      values: {metric: [M, ...]}; nan where a member has none, which is never an improvement.

    Returns:
      [M] bool, the members that stop here.
    """
    running = self.stopped_at < 0
    if self.best is not None:
      if self._best_state is None:  # until a metric is recorded; a copy, because the next step takes the states' memory
        self._best_state = self._where(np.ones_like(running), states, states)
      if self.best.metric in values:
        better = running & _better(values[self.best.metric], self._best_value, self.best.mode)
        if better.any():
          self._best_state = self._where(better, states, self._best_state)
          self._best_value = np.where(better, values[self.best.metric], self._best_value).astype(np.float32)
    if self.stopping is None or self.stopping.metric not in values:
      return np.zeros_like(running)
    value = values[self.stopping.metric]
    better = _better(value, self._value, self.stopping.mode, self.stopping.least)
    self._value = np.where(better, value, self._value).astype(np.float32)
    self._since = np.where(better, 0, self._since + 1).astype(np.int32)
    stops = running & (self._since >= self.stopping.patience)
    self.stopped_at = np.where(stops, step, self.stopped_at).astype(np.int32)
    return stops


def selection_shapes(config: Config, states: State, num_members: int) -> dict[str, Tree]:
  """Returns the shapes of what `Selection.tree` gives for states of these shapes."""
  best, stopping = rules_of(config)
  column = lambda dtype: jax.ShapeDtypeStruct((num_members,), dtype)
  found: dict[str, Tree] = {}
  if best is not None:
    found["best"] = {"state": states, "value": column(jnp.float32)}
  if stopping is not None:
    found["stopping"] = {"value": column(jnp.float32), "since": column(jnp.int32), "at": column(jnp.int32)}
  return found


def _better(value: np.ndarray, than: np.ndarray, mode: str, least: float = 0.0) -> np.ndarray:
  """Returns where a finite value is better than the one before by more than `least`, or the first one."""
  gain = value - than if mode == "max" else than - value
  return np.isfinite(value) & (np.isnan(than) | (gain > least))
