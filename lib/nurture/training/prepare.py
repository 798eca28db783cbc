"""From a config to what training needs in hand: data, frozen references, and an experiment that was traced once."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nurture import data
from nurture.core import Batch, DataSpec, UserError, build, hints, trees
from nurture.core.hints import Whole
from nurture.probes import PROBES, ProbeSpec
from nurture.training import dispatch, phases, references
from nurture.training.config import Config, check, to_json
from nurture.training.experiment import Experiment
from nurture.training.loop import AttachedProbe, intervals_of, probe_key

Tree = Any


@dataclasses.dataclass(frozen=True)
class Prepared:
  """One config with its data read and its mistakes found.

  Attributes:
    experiment: built from the config.
    dataset: its data.
    abstract_references: what the steps need of each, by label, with the shapes of what is kept of its outputs.
    jaxprs: of one training step, one a phase.
  """

  experiment: Experiment
  dataset: data.Dataset
  abstract_references: Mapping[str, Tree]
  jaxprs: Any
  _programs: dict[int, dispatch.Programs] = dataclasses.field(default_factory=dict, repr=False)
  _probes: dict[int, dict[str, AttachedProbe]] = dataclasses.field(default_factory=dict, repr=False)

  @property
  def config(self) -> Config:
    return self.experiment.config

  @functools.cached_property
  def fields(self) -> dict[str, jax.Array]:
    """The training split on the device."""
    return self.experiment.parts().preprocess.device_fields(self.dataset.train)

  @functools.cached_property
  def references(self) -> dict[str, Tree]:
    """What the steps need of each reference, by label; its outputs are computed here, only if somebody trains."""
    inputs = functools.partial(_training_inputs, self.experiment, self.dataset)
    return references.filled(self.config, self.experiment.spec, self.abstract_references, inputs)

  def can_vary(self, points: Sequence[Mapping[str, float]]) -> tuple[str, ...]:
    """Returns the paths whose values may differ between members of one program.

    Args:
      points: {path: value} of each kind of member. Each is built with its plain values first, because checks of a
        value's range cannot see it inside a trace.
    """
    for point in points:
      self.experiment.parts(point)
    paths = tuple(points[0])
    batch = _abstract_batch(self.experiment, self.dataset)
    return self.experiment.can_vary(batch, self.abstract_references, paths)

  def members_at_once(self, count: int) -> int:
    """Returns how many of `count` members to train at once.

    Raises:
      UserError: if as many as the config asks for do not fit into the memory.
    """
    at_once = min(count, dispatch.members_that_fit(self.experiment, self.config["ensemble"]["chunk"], self.jaxprs))
    if at_once > 1:  # one was checked when it was prepared
      self.check_memory(at_once)
    return at_once

  def check_memory(self, num_members: int) -> None:
    """Refuses members that cannot be trained at once; see nurture.training.dispatch.check_memory."""
    data, mode = self.dataset.train.fields(self.dataset.input_name), self.config["ensemble"]["map"]
    dispatch.check_memory(self.experiment, data, self.abstract_references, self.jaxprs, num_members, mode)

  def steps_per_dispatch(self) -> int:
    """Returns how many steps to take in one call of the device."""
    intervals = [self.config["steps"], *intervals_of(self.config).values()]
    return dispatch.steps_per_dispatch(self.config["steps_per_dispatch"], self.jaxprs, intervals)

  def programs(self, num_members: int) -> dispatch.Programs:
    """Returns the programs for a number of members; chunks of one size share them, compiled once."""
    if num_members not in self._programs:
      mode = self.config["ensemble"]["map"]
      if num_members > 1:  # one was checked when it was prepared
        self.check_memory(num_members)
      self._programs[num_members] = dispatch.Programs(self.experiment, len(self.dataset.train), num_members, mode)
    return self._programs[num_members]

  def probes(self, programs: dispatch.Programs) -> dict[str, AttachedProbe]:
    """Returns the probes of the config for these programs, with their data on the device."""
    if programs.num_members not in self._probes:
      self._probes[programs.num_members] = self._attach(programs)
    return self._probes[programs.num_members]

  def _attach(self, programs: dispatch.Programs) -> dict[str, AttachedProbe]:
    @functools.cache  # several probes of one split share its arrays
    def batches(split: str, limit: int) -> list[Batch]:
      examples = self.dataset.split(split)
      examples = examples.take(np.arange(min(limit, len(examples)))) if limit else examples
      size = min(self.config["evaluation"]["batch_size"], len(examples))
      return jax.device_put(data.padded_batches(examples, size, self.dataset.input_name), programs.replicated)

    spec, attached = ProbeSpec(self.experiment.spec, batches, self.experiment.parts().model), {}
    for label, fields in self.config["probes"].items():
      fields = dict(fields)
      every = fields.pop("every")
      probe = build(PROBES, fields, path=f"config.probes.{label}")
      pieces = probe.prepare(spec, probe_key(self.config["seed"], label))
      attached[label] = AttachedProbe(programs.measure(probe), pieces, every)
    return attached


class Preparer:
  """Prepares configs, reading each data set and tracing each experiment once.

  Attributes:
    checksums: of every data file and every reference read so far.
  """

  def __init__(self, data_dir: str | os.PathLike):
    self.data_dir = data_dir
    self.checksums: dict[str, str] = {}
    self._datasets: dict[str, data.Dataset] = {}
    self._prepared: dict[str, Prepared] = {}

  def __call__(self, config: Config) -> Prepared:
    """Returns the prepared config.

    Raises:
      UserError: for whatever is wrong with the config or its data.
    """
    return _cached(self._prepared, config, lambda: self._prepare(config))

  def _prepare(self, config: Config) -> Prepared:
    check(config)  # with what the grid has put in
    section = phases.at(config, None)["data"]
    dataset = _cached(self._datasets, section, lambda: data.load(section, self.data_dir))
    self.checksums.update(dataset.checksums)
    if config["batch_size"] > len(dataset.train):
      raise UserError(
        f"config.batch_size is {config['batch_size']}, but the training split of {dataset.name} has "
        f"{len(dataset.train)} examples; give a batch of at most that."
      )
    spec = DataSpec(
      num_examples=dataset.num_examples,
      num_classes=dataset.num_classes,
      input_shape=data.input_shape(dataset),
      batch_size=config["batch_size"],
      input_name=dataset.input_name,
      class_names=tuple(dataset.class_names),
    )
    experiment = Experiment(config, spec, lambda section: data.preprocess(section, dataset))
    inputs = functools.partial(_training_inputs, experiment, dataset)
    loaded = references.load(config, spec, inputs, len(dataset.train))
    for label, one in loaded.items():
      if one.variables:  # under one label, a grid may have several: none may take the place of another
        known = self.checksums.get(f"config.references.{label}", "").split()
        self.checksums[f"config.references.{label}"] = " ".join(dict.fromkeys([*known, trees.digest(one.variables)]))
    jaxprs = experiment.check(_abstract_batch(experiment, dataset), loaded)
    for label, fields in config["probes"].items():
      check_probe(label, fields, dataset)
    prepared = Prepared(experiment, dataset, loaded, jaxprs)
    prepared.check_memory(1)
    return prepared


def check_probe(label: str, fields: Mapping[str, Any], dataset: data.Dataset) -> None:
  """Finds a probe's mistakes before training starts instead of after it.

  Raises:
    UserError: for a field of the probe that is wrong, or a split that the data do not have.
  """
  path = f"config.probes.{label}"
  if "every" not in fields:
    raise UserError(f"{path}.every is missing; give the steps between measurements, or 0 for the end.")
  hints.check(f"{path}.every", fields["every"], Whole)
  build(PROBES, {name: value for name, value in fields.items() if name != "every"}, path=path)
  if "split" in fields:
    dataset.split(fields["split"])


def _training_inputs(experiment: Experiment, dataset: data.Dataset) -> Iterator[tuple[np.ndarray, jax.Array]]:
  """Yields the training split in its order as (ids [B], model inputs [B, ...]); the last batch is what is left."""
  make = jax.jit(experiment.parts().preprocess.inputs)
  size = experiment.config["evaluation"]["batch_size"]
  for start in range(0, len(dataset.train), size):
    rows = dataset.train.take(np.arange(start, min(start + size, len(dataset.train))))
    yield rows.id, make({dataset.input_name: jnp.asarray(rows.inputs)})


def _abstract_batch(experiment: Experiment, dataset: data.Dataset) -> Batch:
  preprocess = experiment.parts().preprocess
  fields = jax.eval_shape(lambda: preprocess.device_fields(dataset.train.take(np.arange(1))))
  return jax.eval_shape(preprocess.gather, fields, jax.ShapeDtypeStruct((experiment.spec.batch_size,), jnp.int32))


def _cached(cache: dict[str, Any], config: Any, make: Any) -> Any:
  """Returns what was made of an equal config, keeping the last two: a sweep over data must not fill the memory."""
  key = json.dumps(to_json(config))
  if key not in cache:
    while len(cache) > 1:
      del cache[next(iter(cache))]
    cache[key] = make()
  return cache[key]
