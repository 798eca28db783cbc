"""Trained networks, read back from a run directory with the data and all else that they were trained with."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Mapping
from typing import Any, Literal

import jax
import numpy as np

from nurture import data
from nurture.core import Batch, Network, Outputs, Task, UserError
from nurture.probes import ProbeSpec
from nurture.training.config import from_json, put
from nurture.training.experiment import Experiment, hyper_parameters
from nurture.training.grid import members_of
from nurture.training.probing import build_probe, check_probe, probe_key
from nurture.training.programs import batches_of
from nurture.training.run_directory import filled, stored_member
from nurture.training.step import State

Tree = Any

@dataclasses.dataclass(frozen=True, eq=False)
class TrainedNetwork:
  """One member of a run at one of its checkpoints.

  Attributes:
    config: of this member, as plain dicts.
    experiment: the config with its data and references.
    seed: of the member.
    step: number of updates that it has taken.
    state: everything that training keeps of it, such as the optimizer's state and the rows of loss terms.
    kept: the steps at which this member can be restored.
    network: the functions by which probes see it; `network.loss(variables, batch)` is the experiment's loss.
    variables: those that evaluation uses: the raw ones, or an average where config.evaluation.parameters says so.
  """

  config: dict[str, Any]
  experiment: Experiment
  seed: int
  step: int
  kept: tuple[int, ...]
  state: State
  network: Network
  variables: Tree

  @property
  def module(self) -> Any:
    """The model."""
    return self.network.model

  @property
  def task(self) -> Task:
    """What was asked of it."""
    return self.experiment.spec.task

  @property
  def data(self) -> data.Dataset:
    """The data set, with its splits and its noise."""
    return self.experiment.read()

  def batch(self, split: str = "test", limit: int = 0) -> Batch:
    """Returns the first examples of a split, all of them for a limit of 0, as one batch as stored."""
    examples = self.data.split(split)
    count = min(limit, len(examples)) if limit else len(examples)
    [batch] = data.padded_batches(examples.take(np.arange(count)), count)
    return jax.tree.map(jax.numpy.asarray, batch)

  def inputs(self, batch: Batch) -> Any:
    """Returns the model input of a batch as stored: normalized as in training, without augmentation."""
    return self.network.inputs(batch)

  @functools.cached_property
  def _apply(self) -> Any:
    return jax.jit(self.network.apply)

  def apply(self, inputs: Any) -> Outputs:
    """Returns the outputs in evaluation mode, with what is scheduled as it stood at this step."""
    return self._apply(self.variables, inputs)

  def predictions(self, split: str = "test") -> np.ndarray:
    """Returns what the network says of every example of a split, [n, ...], in its order: logits, or numbers."""
    examples, found = self.data.split(split), []
    for batch in data.padded_batches(examples, min(self.config["evaluation"]["batch_size"], len(examples))):
      logits = self.apply(self.inputs(jax.tree.map(jax.numpy.asarray, batch))).logits
      found.append(np.asarray(logits)[batch["weight"] > 0])
    return np.concatenate(found)

  def measure(self, probe: str | Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Returns what a probe measures: of the label of a probe in the config, or of the fields of another one.

    Raises:
      UserError: for a label that the config does not have, and for what is wrong with the fields.
    """
    label, fields = (probe, self.config["probes"].get(probe)) if isinstance(probe, str) else ("measured", probe)
    if fields is None:
      known = ", ".join(self.config["probes"]) or "none"
      raise UserError(f"the config has no probe {label!r} (known: {known}); give one of these, or its fields.")
    check_probe(label, {"every": 0, **fields}, self.data)
    built, experiment = build_probe(label, fields), self.experiment
    batches = lambda split, limit: jax.device_put(batches_of(experiment, split, limit))
    pieces = built.prepare(
      ProbeSpec(experiment.spec, batches, self.module), probe_key(self.config["seed"], label)
    )
    one = jax.jit(lambda variables, piece: built(self.network, variables, piece))
    sums = [one(self.variables, piece) for piece in pieces]
    return jax.device_get(built.finish(jax.tree.map(lambda *parts: sum(parts[1:], parts[0]), *sums)))


def restore(
  workdir: str | pathlib.Path,
  member: int = 0,
  step: int | Literal["best"] | None = None,
  *,
  data_dir: str | pathlib.Path = "data",
  dataset: data.Dataset | None = None,
) -> TrainedNetwork:
  """Returns one member of a run, finished or not, as it stood at a checkpoint.

  Args:
    workdir: the run directory; nothing in it is changed.
    member: its number, as results.json has it.
    step: a step whose checkpoint was kept; None takes the newest, "best" the best state by config.checkpoint.best.
    data_dir: where data sets that are not embedded lie.
    dataset: the set that the run was given, where its source is "given".

  Raises:
    UserError: if there is no such run, member or step, a checkpoint is damaged, or the run is of a version of nurture
      whose configs or states were others.
  """
  stored = stored_member(workdir, member, step)
  try:
    config = from_json(stored.config)
    of_member = members_of(config)[member]
    experiment = Experiment.of(put(config, of_member.assignments), data.Reader(data_dir, dataset))
    state = jax.tree.map(jax.numpy.asarray, filled(experiment.abstract_state(), stored.arrays, "state"))
  except UserError as error:
    raise UserError(f"{workdir} cannot be restored: {error}") from error
  hp = hyper_parameters(of_member.seed)
  phase = max(start for start in experiment.phases if start <= int(state.step))
  network, variables = experiment.network(state, hp, experiment.filled_arrays(), phase)
  return TrainedNetwork(
    experiment.config, experiment, of_member.seed, int(state.step), stored.kept, state, network, variables
  )
