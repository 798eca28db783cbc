"""An experiment: a config whose mistakes have been found, as functions that are pure in a member's hyper-parameters."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.interpreters import partial_eval

from nurture import data, models
from nurture.core import DataSpec, Network, UserError, build, hints, memory, trees
from nurture.core.build import suggest
from nurture.core.extensions import is_extension
from nurture.core.hints import NonNegative
from nurture.core.schedules import as_schedule
from nurture.core.task import check_served
from nurture.probes import PROBES
from nurture.training import phases
from nurture.training import step as steps
from nurture.training.config import Config, check, put
from nurture.training.initial import INIT, start_variables
from nurture.training.probing import check_probe
from nurture.training.references import Arrays, Reference
from nurture.training.selection import rules_of
from nurture.training.step import Parts, State
from nurture.transforms.gradients import GRADIENTS
from nurture.transforms.losses import LOSSES
from nurture.transforms.optimizers import build_optimizer
from nurture.transforms.parameters import PARAMETERS
from nurture.transforms.targets import TARGETS

Tree = Any

# A member's hyper-parameters: {"seed": [] uint32, "values": {config path: [] float32}}. Every function of an
# Experiment is pure in them, so members that differ in nothing else run as one program under vmap.
HyperParameters = dict[str, Any]


def hyper_parameters(seed: int, values: Mapping[str, float] | None = None) -> HyperParameters:
  """Returns one member's hyper-parameters as arrays."""
  return {
    "seed": jnp.uint32(seed),
    "values": {path: jnp.float32(value) for path, value in (values or {}).items()},
  }


@dataclasses.dataclass(frozen=True, eq=False)
class Experiment:
  """A config whose mistakes have been found, and the facts that all members of a program share.

  The objects of the config are built inside the traced step with the member's values put in, so any number of any
  method can be swept with no code of its own.

  Attributes:
    config: the whole config as plain dicts (see nurture.training.config).
    spec: static facts of the data.
    num_train: number of training examples.
    read: () -> the data set; it is not kept here, for there may be many experiments.
    references: networks to compare with, by label.
    arrays: what the step needs of each, in host memory, what is kept of outputs by its shapes; under `initial.INIT` the
      variables that config.init begins with.
    has_convolution: whether there is a convolution anywhere in the step.
    largest_array: bytes of the largest array that the step computes.
  """

  config: Config
  spec: DataSpec
  num_train: int
  read: Callable[[], data.Dataset]
  references: Mapping[str, Reference]
  arrays: Mapping[str, Arrays]
  has_convolution: bool = False
  largest_array: int = 0

  @classmethod
  def of(cls, config: Config, read: Callable[[Config], data.Dataset]) -> Experiment:
    """Reads what a config needs, traces its step once and finds its mistakes.

    Args:
      config: as plain dicts, with the values of a member put in.
      read: data section -> data set, such as a `nurture.data.Reader`.

    Raises:
      UserError: for whatever is wrong with the config, its data or its references.
    """
    check(config)
    section = phases.at(config, None)["data"]
    dataset = read(section)
    if config["batch_size"] > len(dataset.train):
      raise UserError(
        f"config.batch_size is {config['batch_size']}, but the training split of {dataset.name} has "
        f"{len(dataset.train)} examples; give a batch of at most that."
      )
    spec = DataSpec(dataset.task, dataset.num_examples, config["batch_size"], dataset.input_shapes)
    for place, table in (("targets", TARGETS), ("losses", LOSSES), ("probes", PROBES)):
      for label, fields in config[place].items():
        if fields.get("name") in table or is_extension(fields.get("name")):  # others are refused where they are built
          check_served(table, fields, spec.task.name, dataset.name, f"config.{place}.{label}")
    references = {label: Reference.read(config, label, spec) for label in config["references"]}
    bare = cls(config, spec, len(dataset.train), functools.partial(read, section), references, {})
    arrays = {label: one.load(spec, bare.inputs_in_order, len(dataset.train)) for label, one in references.items()}
    if start := start_variables(config, bare.abstract_state().variables):
      arrays[INIT] = Arrays(start)
    bare = dataclasses.replace(bare, arrays=arrays)
    jaxprs = bare.jaxprs()
    for label, fields in config["probes"].items():
      check_probe(label, fields, dataset)
    rules_of(config)
    experiment = dataclasses.replace(
      bare,
      has_convolution="conv_general_dilated" in str(jaxprs),
      largest_array=max(map(memory.largest_array, jaxprs)),
    )
    experiment.check_memory(1)
    return experiment

  @property
  def phases(self) -> tuple[int, ...]:
    """The steps at which phases begin; the first is 0."""
    return phases.starts(self.config)

  @property
  def checksums(self) -> dict[str, str]:
    """A sha256 of the variables of every frozen reference, and of those that config.init names, by config path."""
    path = lambda label: "config.init" if label == INIT else f"config.references.{label}"
    return {path(label): trees.digest(one.variables) for label, one in self.arrays.items() if one.variables}

  def inputs_in_order(self) -> Iterable[tuple[np.ndarray, Any]]:
    """Returns the training split in its order as batches of (ids [B], model inputs [B, ...])."""
    dataset = self.read()
    preprocess = data.preprocess(phases.at(self.config, None)["data"], dataset)
    return preprocess.inputs_in_order(dataset.train, self.config["evaluation"]["batch_size"])

  def filled_arrays(self) -> dict[str, Arrays]:
    """Returns `arrays` with the numbers of what is kept: slow, and large."""
    filled = {label: one.fill(self.arrays[label], self.inputs_in_order) for label, one in self.references.items()}
    return {**self.arrays, **filled}

  def parts(self, values: Mapping[str, Any] | None = None, phase: int | None = None) -> Parts:
    """Builds the objects of the config, with values put in at their paths.

    Args:
      values: {config path: number}.
      phase: a step of the phase whose parts are wanted (see nurture.training.phases); None builds every part.

    Raises:
      UserError: if a part of the config does not describe an object, naming its path.
    """
    config = phases.at(put(self.config, values or {}), phase)
    built = lambda table, section: {
      label: build(table, fields, path=f"config.{section}.{label}") for label, fields in config[section].items()
    }
    losses = {}
    for label, fields in config["losses"].items():
      fields = dict(fields)
      if "weight" not in fields:
        raise UserError(f"config.losses.{label}.weight is missing; give the term's weight in the loss, such as 1.0.")
      weight = as_schedule(fields.pop("weight"), path=f"config.losses.{label}.weight", hint=NonNegative)
      losses[label] = steps.WeightedTerm(build(LOSSES, fields, path=f"config.losses.{label}"), weight)
    model = models.fitted(config["model"], "config.model", self.spec.num_classes, self.spec.input_shape)
    parts = Parts(
      spec=self.spec,
      steps=config["steps"],
      preprocess=data.preprocess(config["data"], self.read()),
      model=model,
      scheduled=_scheduled(config["scheduled"], model, config["model"]["name"]),
      references=self.references,
      targets=built(TARGETS, "targets"),
      losses=losses,
      gradients=built(GRADIENTS, "gradients"),
      optimizer=build_optimizer(config["optimizer"], path="config.optimizer"),
      parameters=built(PARAMETERS, "parameters"),
    )
    if phase is not None:
      _check_mixup(config, f" at step {phase}" if len(self.phases) > 1 else "")
    return parts

  def init(self, hp: HyperParameters, arrays: Mapping[str, Arrays] | None = None) -> State:
    """Returns a member's state before the first step; `arrays` may be given as arguments of a trace."""
    start = _start(self.arrays if arrays is None else arrays)
    return steps.init(self.parts(hp["values"]), jax.random.key(hp["seed"]), start)

  def step(
    self, state: State, hp: HyperParameters, rows: jax.Array, fields: data.Fields, arrays: Mapping[str, Arrays],
    phase: int = 0,
  ) -> tuple[State, dict[str, jax.Array]]:
    """Takes one step of one member, with the parts that are active in a phase; see nurture.training.step.update.

    Args:
      state: of the member.
      hp: its hyper-parameters.
      rows: [B] int32, the batch's positions in the training split.
      fields: the training split on the device.
      arrays: of the references.
      phase: a step of the phase.
    """
    parts = self.parts(hp["values"], phase)
    return steps.update(parts, state, data.gather(fields, rows), jax.random.key(hp["seed"]), arrays)

  def inspect(
    self, state: State, hp: HyperParameters, rows: jax.Array, fields: data.Fields, arrays: Mapping[str, Arrays],
    phase: int = 0,
  ) -> list[tuple[str, jax.Array]]:
    """Returns what `step` computes on the way; see nurture.training.step.inspect."""
    parts = self.parts(hp["values"], phase)
    return steps.inspect(parts, state, data.gather(fields, rows), jax.random.key(hp["seed"]), arrays)

  def network(
    self, state: State, hp: HyperParameters, arrays: Mapping[str, Arrays], phase: int = 0
  ) -> tuple[Network, Tree]:
    """Returns the member as probes see it, and the variables that evaluation uses (raw, or say an EMA)."""
    parts, root = self.parts(hp["values"], phase), jax.random.key(hp["seed"])
    variables, averaged = state.variables, self.config["evaluation"]["parameters"]
    if averaged:
      params = parts.parameters[averaged].evaluation(state.parameter_states[averaged], variables["params"])
      variables = {**variables, "params": params}
    terms = lambda variables, batch: steps.evaluation_terms(parts, state, variables, batch, root, arrays)
    network = Network(
      model=parts.model,
      inputs=parts.preprocess.inputs,
      apply=lambda variables, inputs: steps.evaluate(parts, state, variables, inputs),
      loss=lambda variables, batch: cast(jax.Array, sum(terms(variables, batch).values())),
      terms=terms,
      references=lambda batch: steps.evaluation_context(parts, state, batch, root, arrays).references,
      loss_states=state.loss_states,
      initial=lambda: steps.init(parts, root, _start(arrays)).variables,
      task=self.spec.task,
    )
    return network, variables

  def abstract_state(self) -> State:
    """Returns the shapes of a member's state."""
    return jax.eval_shape(self.init, jax.eval_shape(lambda: hyper_parameters(0)))

  def abstract_fields(self) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the shapes of the training split on the device."""
    dataset = self.read()
    one = jax.eval_shape(lambda: data.device_fields(dataset.train.take(np.arange(1))))
    return {n: jax.ShapeDtypeStruct((self.num_train, *field.shape[1:]), field.dtype) for n, field in one.items()}

  def abstract_rows(self) -> jax.ShapeDtypeStruct:
    """Returns the shape of a batch's positions in the training split."""
    return jax.ShapeDtypeStruct((self.spec.batch_size,), jnp.int32)

  def jaxprs(self) -> list[Any]:
    """Returns the jaxpr of the step in each phase, without what no result needs: a reference that nobody reads."""
    hp, rest = jax.eval_shape(lambda: hyper_parameters(0)), (self.abstract_rows(), self.abstract_fields(), self.arrays)
    state = self.abstract_state()
    found = []
    for phase in self.phases:
      jaxpr = jax.make_jaxpr(functools.partial(self.step, phase=phase))(state, hp, *rest).jaxpr
      found.append(partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))[0])
    return found


  def check_memory(self, num_members: int, num_devices: int = 1) -> None:
    """Refuses members that cannot be trained at once, before anything is allocated.

    What is counted is there in any case: states, data, references, and of all that a step computes the largest array.
    What else a step needs depends on the compiler.

    Args:
      num_members: at once.
      num_devices: that share them equally.

    Raises:
      UserError: if they need more memory than is free; names the section of the config that needs most.
    """
    state, side_by_side = self.abstract_state(), self.config["ensemble"]["map"] == "vmap"
    members = num_members if jax.default_backend() == "cpu" else num_members // num_devices  # cores share one memory
    best = {"config.checkpoint.best": members * trees.num_bytes(state)} if self.config["checkpoint"].get("best") else {}
    needs = {
      # What optimizers and averages keep is as large as the model.
      "config.model": members * trees.num_bytes((state.variables, state.opt_state, state.parameter_states)),
      "config.losses": members * trees.num_bytes(state.loss_states),
      "config.batch_size and the largest array of a step": (members if side_by_side else 1) * self.largest_array,
      "config.data": trees.num_bytes(self.abstract_fields()),
      "config.references": trees.num_bytes(self.arrays),
      **best,
    }
    at_once = "training" if num_members == 1 else f"training {num_members} members at once"
    remedy = "make that smaller" + (", or set config.ensemble.chunk to fewer members" if num_members > 1 else "")
    memory.check(needs, memory.free_bytes(), at_once, remedy)


def _start(arrays: Mapping[str, Arrays]) -> Tree:
  """Returns the variables that members begin with in place of their own, {} for none."""
  return arrays[INIT].variables if INIT in arrays else {}


def _scheduled(config: Config, model: Any, name: str) -> dict[str, Any]:
  """Returns the schedules of the arguments of a model that move while it trains."""
  known = [n for n in inspect.signature(type(model).__call__).parameters if n not in ("self", "x", "train")]
  hint = hints.of(type(model).__call__).get
  found = {n: as_schedule(v, path=f"config.scheduled.{n}", hint=hint(n, float)) for n, v in config.items()}
  for argument in config:
    if argument not in known:
      raise UserError(f"config.scheduled.{argument} is no argument of the model {name!r}; {suggest(argument, known)}.")
  return found


def _check_mixup(config: Config, when: str) -> None:
  """Refuses two mixups at once, of which targets could follow one only.

  Args:
    config: of one phase.
    when: names the phase, where there are several.
  """
  mixing = [label for label, fields in config["data"]["augment"].items() if fields.get("name") == "mixup"]
  if len(mixing) > 1:
    raise UserError(
      f"config.data.augment mixes twice{when} ({', '.join(mixing)}), and targets can follow one; remove one."
    )
