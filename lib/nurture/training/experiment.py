"""An experiment: a config and the facts of its data, as functions that are pure in a member's hyper-parameters."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.interpreters import partial_eval

from nurture import models
from nurture.core import Batch, DataSpec, Network, UserError, build, hints
from nurture.core.build import suggest
from nurture.core.hints import NonNegative
from nurture.core.schedules import as_schedule
from nurture.training import phases
from nurture.training import step as steps
from nurture.training.config import Config, put
from nurture.training.references import Reference
from nurture.training.state import State
from nurture.transforms.gradients import GRADIENTS
from nurture.transforms.losses import LOSSES
from nurture.transforms.optimizers import build_optimizer
from nurture.transforms.parameters import PARAMETERS
from nurture.transforms.targets import TARGETS

Tree = Any

# A member's hyper-parameters: {"seed": [] uint32, "values": {config path: [] float32}}. Every function of an
# Experiment is pure in them, so members that differ in nothing else run as one program under vmap.
HyperParameters = dict[str, Any]

# What tracing raises where a value must be known before the program runs.
_NOT_TRACEABLE = (
  UserError, TypeError, ValueError, jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError,
)


def hyper_parameters(seed: int, values: Mapping[str, float] | None = None) -> HyperParameters:
  """Returns one member's hyper-parameters as arrays."""
  return {
    "seed": jnp.uint32(seed),
    "values": {path: jnp.float32(value) for path, value in (values or {}).items()},
  }


@dataclasses.dataclass(frozen=True)
class Experiment:
  """One experiment, ready to be traced.

  The objects of the config are built inside the traced function with the member's values put in, so any
  number of any method can be swept with no code of its own.

  Attributes:
    config: the whole config as plain dicts (see nurture.training.config).
    spec: static facts of the data.
    make_preprocess: data section -> the object that gathers, augments and normalizes batches.
  """

  config: Config
  spec: DataSpec
  make_preprocess: Callable[[Config], Any]

  def parts(self, values: Mapping[str, jax.Array] | None = None, phase: int | None = None) -> steps.Parts:
    """Builds the objects of the config, with values put in at their paths.

    Args:
      values: {config path: number}.
      phase: a step of the phase whose parts are wanted (see nurture.training.phases); None builds every part.

    Raises:
      UserError: if a part of the config does not describe an object, naming its path.
    """
    config = phases.at(put(self.config, values or {}), phase)
    supplied = {"num_classes": self.spec.num_classes}
    losses = {}
    for label, fields in config["losses"].items():
      fields = dict(fields)
      if "weight" not in fields:
        raise UserError(f"config.losses.{label}.weight is missing; give the term's weight in the loss, such as 1.0.")
      weight = as_schedule(fields.pop("weight"), path=f"config.losses.{label}.weight", hint=NonNegative)
      losses[label] = steps.WeightedTerm(build(LOSSES, fields, path=f"config.losses.{label}"), weight)
    model = build(models.MODELS, config["model"], path="config.model", **supplied)
    moved = hints.of(type(model).__call__).get
    parts = steps.Parts(
      spec=self.spec,
      steps=config["steps"],
      preprocess=self.make_preprocess(config["data"]),
      model=model,
      scheduled={
        n: as_schedule(v, path=f"config.scheduled.{n}", hint=moved(n, float)) for n, v in config["scheduled"].items()
      },
      references={label: Reference.read(config, label, self.spec) for label in config["references"]},
      targets={n: build(TARGETS, v, path=f"config.targets.{n}") for n, v in config["targets"].items()},
      losses=losses,
      gradients={n: build(GRADIENTS, v, path=f"config.gradients.{n}") for n, v in config["gradients"].items()},
      optimizer=build_optimizer(config["optimizer"], path="config.optimizer"),
      parameters={n: build(PARAMETERS, v, path=f"config.parameters.{n}") for n, v in config["parameters"].items()},
    )
    if phase is not None:
      _check_mixup(config, f" at step {phase}" if len(self.phases) > 1 else "")
    _check_scheduled(parts.model, config)
    return parts

  def init(self, hp: HyperParameters) -> State:
    """Returns a member's state before the first step."""
    return steps.init(self.parts(hp["values"]), jax.random.key(hp["seed"]))

  def step(
    self, state: State, batch: Batch, hp: HyperParameters, references: Mapping[str, Tree], phase: int = 0
  ) -> tuple[State, dict[str, jax.Array]]:
    """Takes one step of one member, with the parts that are at work in a phase; see nurture.training.step.update."""
    return steps.update(self.parts(hp["values"], phase), state, batch, jax.random.key(hp["seed"]), references)

  def inspect(
    self, state: State, batch: Batch, hp: HyperParameters, references: Mapping[str, Tree], phase: int = 0
  ) -> list[tuple[str, jax.Array]]:
    """Returns what a step computes on the way; see nurture.training.step.inspect."""
    return steps.inspect(self.parts(hp["values"], phase), state, batch, jax.random.key(hp["seed"]), references)

  def network(
    self, state: State, hp: HyperParameters, references: Mapping[str, Tree], phase: int = 0
  ) -> tuple[Network, Tree]:
    """Returns the member as probes see it, and the variables that evaluation uses (raw, or say an EMA)."""
    parts, root = self.parts(hp["values"], phase), jax.random.key(hp["seed"])
    variables, averaged = state.variables, self.config["evaluation"]["parameters"]
    if averaged:
      params = parts.parameters[averaged].evaluation(state.parameter_states[averaged], variables["params"])
      variables = {**variables, "params": params}
    terms = lambda variables, batch: steps.evaluation_terms(parts, state, variables, batch, root, references)
    network = Network(
      model=parts.model,
      inputs=parts.preprocess.inputs,
      apply=lambda variables, inputs: steps.evaluate(parts, state, variables, inputs),
      loss=lambda variables, batch: sum(terms(variables, batch).values()),
      terms=terms,
      references=lambda batch: steps.evaluation_context(parts, state, batch, root, references).references,
      loss_states=state.loss_states,
      initial=lambda: steps.init(parts, root).variables,
    )
    return network, variables

  def check(self, batch: Batch, references: Mapping[str, Tree], values: Iterable[str] = ()) -> Any:
    """Traces init and one step of every phase on abstract arrays, with the values at some paths unknown.

    Args:
      batch: a gathered batch, abstract or not.
      references: what the steps need of each, by label, abstract or not.
      values: config paths whose values the trace must not know.

    Returns:
      The jaxprs of the step, one a phase.

    Raises:
      Whatever the config's mistakes raise.
    """
    hp = jax.eval_shape(lambda: hyper_parameters(0, dict.fromkeys(values, 0.0)))
    state = jax.eval_shape(self.init, hp)
    step_in = lambda phase: lambda *args: self.step(*args, phase)
    return [_used(jax.make_jaxpr(step_in(phase))(state, batch, hp, references)) for phase in self.phases]

  @property
  def phases(self) -> tuple[int, ...]:
    """The steps at which phases begin; the first is 0."""
    return phases.starts(self.config)

  def can_vary(self, batch: Batch, references: Mapping[str, Tree], paths: Iterable[str]) -> tuple[str, ...]:
    """Returns those of the paths whose values may differ between members of one program.

    These are the values that initialization or the step reads and need not know beforehand. The others are
    structural: each of their values needs a program of its own (a depth, a dropout rate that the layer compares
    with zero), or data or references of its own (a batch size, a noise rate), which are made outside the program.
    The config itself must be sound: `check` it first.
    """

    def read(chosen):
      try:
        return self._values_read(batch, references, chosen)
      except _NOT_TRACEABLE:
        return None

    paths = tuple(paths)
    together = read(paths)
    if together is None:  # one of them stops the trace: ask for each by itself
      together = {path for path in paths if read((path,))}
    return tuple(path for path in paths if path in together)

  def _values_read(self, batch: Batch, references: Mapping[str, Tree], paths: Iterable[str]) -> set[str]:
    """Returns those of the paths whose values are an operand somewhere in initialization or the step."""
    hp = jax.eval_shape(lambda: hyper_parameters(0, dict.fromkeys(paths, 0.0)))
    state = jax.eval_shape(self.init, hp)
    of_init = lambda values: self.init(hyper_parameters(0) | {"values": values})
    step_in = lambda phase: lambda values, state, batch, references: self.step(
      state, batch, hyper_parameters(0) | {"values": values}, references, phase
    )
    used = set()
    for function, rest in ((of_init, ()), *((step_in(phase), (state, batch, references)) for phase in self.phases)):
      jaxpr = jax.make_jaxpr(function)(hp["values"], *rest).jaxpr
      operands = {id(v) for v in jaxpr.outvars} | {id(v) for equation in jaxpr.eqns for v in equation.invars}
      names = sorted(hp["values"])  # the order in which a dict is flattened
      used |= {name for name, variable in zip(names, jaxpr.invars) if id(variable) in operands}
    return used


def _used(closed: Any) -> Any:
  """Returns a jaxpr without what no result needs, as the compiler will see it: a reference that nobody reads."""
  used, _ = partial_eval.dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars))
  return used


def uses_convolution(jaxprs: Any) -> bool:
  """Whether a convolution stands anywhere in a jaxpr or in several, nested ones included."""
  return "conv_general_dilated" in str(jaxprs)


def _check_mixup(config: Config, when: str) -> None:
  """Mixed images with unmixed targets, or the reverse, would train silently on something else.

  Args:
    config: of one phase.
    when: names the phase, where there are several.
  """
  mixing = lambda section: [label for label, fields in section.items() if fields.get("name") == "mixup"]
  images, targets = mixing(config["data"]["augment"]), mixing(config["targets"])
  if len(images) > 1:
    raise UserError(
      f"config.data.augment mixes twice{when} ({', '.join(images)}), and targets can follow one; remove one."
    )
  if images and not targets:
    raise UserError(
      f"config.data.augment.{images[0]} mixes images{when} but config.targets does not mix their labels; "
      "add the target transform {'name': 'mixup'}."
    )
  if targets and not images:
    raise UserError(
      f"config.targets.{targets[0]} mixes labels{when} but config.data.augment mixes no images; "
      "add the augmentation {'name': 'mixup', 'alpha': ...}, or remove it."
    )


def _check_scheduled(model: Any, config: Config) -> None:
  known = [name for name in inspect.signature(type(model).__call__).parameters if name not in ("self", "x", "train")]
  for name in config["scheduled"]:
    if name not in known:
      raise UserError(f"config.scheduled.{name} is no argument of the model {config['model']['name']!r}; "
                      f"{suggest(name, known)}.")
