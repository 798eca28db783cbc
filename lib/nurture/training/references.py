"""Networks that transforms compare with: guides and teachers, trained or as initialized, frozen or following.

    config.references = {"teacher": {"model": {...}, "run": "runs/teacher", "member": 0}}

The variables of a frozen network travel to the step as an argument: nothing of them is compiled in. It is evaluated
with the defaults of the arguments that a schedule moves in training.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from nurture import models
from nurture.core import Batch, DataSpec, Outputs, UserError, build, memory, model_at, rng, trees
from nurture.core.hints import Seed, Whole
from nurture.reporting import read_config, read_results
from nurture.reporting.schema import ANY
from nurture.training import reference_cache
from nurture.training.checkpoint import Checkpoints
from nurture.training.config import fingerprint, to_json
from nurture.training.reference_cache import Cache
from nurture.training.state import State
from nurture.training.step import Parts, input_dtype, scheduled_values

Tree = Any

# Updates of batch statistics; at the usual momentum of 0.9 nothing is left of the initial ones.
_CALIBRATION_UPDATES = 100
# What is read of the config of the run that a reference comes from.
_DATA = {"data": {"normalize": ANY, "source": ANY, "seed": ANY, "validation": ANY}}


@dataclasses.dataclass(frozen=True)
class Entry:
  """One entry of config.references.

  Attributes:
    model: config of the network; {} for the one that is trained, with averaged parameters (see `parameters`).
    run: a finished run directory whose member's variables are used; empty, they are initialized from the seed.
    member: of the run.
    seed: of the initialization.
    batch_norm: "running" normalizes by the running statistics, which in an untrained network are mean 0 and variance
      1, so that normalization does nothing; "batch" is training mode, statistics of the batch
      (in evaluation with the padding of the last one) and dropout included;
      "calibrated" fills the running statistics from training batches before the run.
    cache: what is computed of all training examples before the run and looked up in the step: "logits", or taps as
      `nurture.core.taps.select` takes them ("pre"), of which the Gram matrices [n, n] are kept, and the logits. Inputs
      must never change: no augmentation.
    parameters: label of a parameter transform (an EMA) with whose parameters the trained network is run, a mean
      teacher; empty for a frozen network.
    view: what it sees, "" the model input; "unmixed" the one before mixup.
  """

  model: Mapping[str, Any]
  run: str = ""
  member: Whole = 0
  seed: Seed = 0
  batch_norm: Literal["running", "batch", "calibrated"] = "running"
  cache: str | tuple[str, ...] = ""
  parameters: str = ""
  view: Literal["", "unmixed"] = ""


Inputs = Callable[[], Iterable[tuple[np.ndarray, jax.Array]]]  # () -> (ids [B], model inputs [B, ...]) of batches


class Loaded(NamedTuple):
  """What a reference needs in a step: its variables, and what was computed of it before the run, if anything."""

  variables: Tree
  cache: Cache | None


@dataclasses.dataclass(frozen=True)
class Reference:
  """A network to compare with.

  Attributes:
    entry: its config.
    module: of a frozen network; None for the trained one with averaged parameters.
    data: section of the config.
    path: of the entry, for error messages.
  """

  entry: Entry
  module: nn.Module | None
  data: Mapping[str, Any]
  path: str

  @classmethod
  def read(cls, config: Mapping[str, Any], label: str, spec: DataSpec) -> Reference:
    """Reads an entry of a whole config.

    Raises:
      UserError: for a malformed entry.
    """
    path = f"config.references.{label}"
    if label == "input":
      raise UserError(f"{path} cannot be called 'input', which stands for the batch's own input; give another label.")
    entry = build({"reference": Entry}, {"name": "reference", **config["references"][label]}, path=path)
    if entry.view == "unmixed" and not any(f.get("name") == "mixup" for f in config["data"]["augment"].values()):
      raise UserError(f"{path}.view is 'unmixed', but config.data.augment has no mixup; set it to ''.")
    if not entry.parameters:
      with model_at(f"{path}.model"):
        module = build(models.MODELS, entry.model, path=f"{path}.model", num_classes=spec.num_classes)
      if entry.cache and config["data"]["augment"]:
        changing = ", ".join(config["data"]["augment"])
        raise UserError(f"{path}.cache keeps what the network says of inputs that never change, but "
                        f"config.data.augment has {changing}; remove that, or set the cache to ''.")
      if entry.cache and entry.batch_norm == "batch":
        raise UserError(f"{path}.cache knows no batches, but its batch_norm is 'batch'; set that to 'running' or "
                        "'calibrated', or the cache to ''.")
      return cls(entry, module, config["data"], path)
    if entry.parameters not in config["parameters"]:
      known = ", ".join(config["parameters"]) or "none"
      raise UserError(f"{path}.parameters is {entry.parameters!r}, which config.parameters does not have (known: "
                      f"{known}); add an ema there.")
    if entry.model or entry.run or entry.cache or entry.batch_norm == "calibrated":
      raise UserError(f"{path} runs the trained network with the parameters of {entry.parameters!r}; leave its model "
                      "{}, its run and cache empty, and batch_norm 'running' or 'batch'.")
    return cls(entry, None, config["data"], path)

  def outputs(
    self, parts: Parts, state: State, loaded: Loaded, batch: Batch, key: jax.Array, *, train: bool
  ) -> Outputs:
    """Returns the network's outputs on a batch whose input is ready for a model.

    Args:
      parts: of the experiment.
      state: of the member, for averaged parameters.
      loaded: of this reference.
      batch: of training or evaluation.
      key: for dropout, where it is active.
      train: whether it is of training, so that the cache knows it.
    """
    if train and loaded.cache is not None:
      return loaded.cache.outputs(batch["id"])
    inputs = batch[parts.spec.input_name]
    if self.entry.view:
      inputs = batch.get(self.entry.view, inputs)
    if self.module is not None:
      return self._apply(self.module, loaded.variables, inputs, key)
    average = parts.parameters[self.entry.parameters]
    params = average.evaluation(state.parameter_states[self.entry.parameters], state.variables["params"])
    scheduled = scheduled_values(parts, state.step)
    return self._apply(parts.model, {**state.variables, "params": params}, inputs, key, **scheduled)

  def _apply(
    self, module: nn.Module, variables: Tree, inputs: jax.Array, key: jax.Array, **scheduled: jax.Array
  ) -> Outputs:
    with model_at(f"{self.path}.model" if self.module is not None else "config.model"):
      if self.entry.batch_norm != "batch":
        return module.apply(variables, inputs, train=False, **scheduled)
      outputs, _ = module.apply(
        variables, inputs, train=True, mutable=_collections(variables), rngs={"dropout": key}, **scheduled
      )
      return outputs

  def load(self, spec: DataSpec, inputs: Inputs, count: int) -> Loaded:
    """Loads or initializes the variables; of what is kept of them, the shapes.

    Args:
      spec: of the data.
      inputs: of the training split.
      count: its number of examples.

    Raises:
      UserError: for a run that is missing or unfinished or holds another model, and a cache that takes too much memory.
    """
    if self.module is None:
      return Loaded({}, None)
    with model_at(f"{self.path}.model"):
      variables = self._variables(spec)
      if self.entry.batch_norm == "calibrated":
        variables = _calibrated(self.module, variables, inputs, self.path)
      if not self.entry.cache:
        return Loaded(variables, None)
      one = jax.ShapeDtypeStruct((1, *spec.input_shape), input_dtype(spec))
      return Loaded(variables, reference_cache.abstract_cache(
        self._evaluated, variables, spec, one, count, self.entry.cache, self.path
      ))

  def filled(self, loaded: Loaded, inputs: Inputs) -> Loaded:
    """Computes what is kept: slow, and large."""
    if loaded.cache is None:
      return loaded
    return Loaded(
      loaded.variables, reference_cache.filled(loaded.cache, self._evaluated, loaded.variables, inputs())
    )

  def _evaluated(self, variables: Tree, x: jax.Array) -> Outputs:
    return self.module.apply(variables, x, train=False)

  def _variables(self, spec: DataSpec) -> Tree:
    # A stream of its own: an untrained guide must not start as the member with the same seed does.
    key = rng.stream(jax.random.key(self.entry.seed), "references.init")
    make = lambda key: self.module.init(key, jnp.zeros((1, *spec.input_shape), input_dtype(spec)))
    if not self.entry.run:
      make = jax.jit(make)
      size = trees.num_bytes(jax.eval_shape(make, key))
      memory.check({f"{self.path}.model": size}, memory.free_bytes(), "a reference")
      return make(key)
    run = pathlib.Path(self.entry.run)
    variables = member_variables(run, self.entry.member)
    self._check_data(read_config(run, _DATA)["data"])
    expected, found = (
      {jax.tree_util.keystr(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
      for tree in (jax.eval_shape(make, key), variables)
    )
    if expected != found:
      name = next(name for name in {**expected, **found} if expected.get(name) != found.get(name))
      there, here = (shapes.get(name, "missing") for shapes in (found, expected))
      raise UserError(f"{self.path}.run is {self.entry.run}, whose network is not the one of {self.path}.model on "
                      f"these data: {name} is {there} there and {here} here; copy the model section of that run's "
                      "config.json, with its num_classes, and use inputs of its shape.")
    return jax.tree.map(jnp.asarray, variables)


  def _check_data(self, theirs: Mapping[str, Any]) -> None:
    """Refuses a network that reads inputs on another scale, or has seen this run's validation examples."""
    if theirs["normalize"] != self.data["normalize"]:
      raise UserError(f"{self.path}.run was trained with config.data.normalize={theirs['normalize']!r}, and this "
                      f"config has {self.data['normalize']!r}; make them equal.")
    if not self.data["validation"] or theirs["source"] != to_json(self.data["source"]):
      return
    for field in ("seed", "validation"):
      if theirs[field] != self.data[field]:
        raise UserError(f"{self.path}.run was trained with config.data.{field}={theirs[field]}, so it has seen "
                        f"validation examples of this config, which has {self.data[field]}; make them equal.")


def load(config: Mapping[str, Any], spec: DataSpec, inputs: Inputs, count: int) -> dict[str, Loaded]:
  """Returns {label: what its steps need} for the references of a config, caches by their shapes only."""
  return {label: Reference.read(config, label, spec).load(spec, inputs, count) for label in config["references"]}


def filled(
  config: Mapping[str, Any], spec: DataSpec, loaded: Mapping[str, Loaded], inputs: Inputs
) -> dict[str, Loaded]:
  """Returns the same with the numbers of the caches."""
  return {label: Reference.read(config, label, spec).filled(one, inputs) for label, one in loaded.items()}


def _collections(variables: Tree) -> list[str]:
  return [name for name in variables if name != "params"]


def _calibrated(module: nn.Module, variables: Tree, inputs: Any, path: str) -> Tree:
  """Returns the variables with batch statistics of the training split."""
  if "batch_stats" not in variables:
    raise UserError(f"{path}.batch_norm is 'calibrated', but the network has no batch statistics; set it to 'running'.")

  @jax.jit
  def update(variables, x):
    _, changed = module.apply(
      variables, x, train=True, mutable=_collections(variables), rngs={"dropout": jax.random.key(0)}
    )
    return {**variables, "batch_stats": changed["batch_stats"]}

  batches = [x for _, x in inputs()]
  whole = [x for x in batches if len(x) == len(batches[0])]  # the last one may be too small for a variance
  for i in range(_CALIBRATION_UPDATES):
    variables = update(variables, whole[i % len(whole)])
  return variables


def member_variables(workdir: pathlib.Path, member: int) -> Tree:
  """Returns the variables of one member of a finished run, as nested dicts of numpy arrays.

  Raises:
    UserError: if the directory is not a finished run, has no such member, or its checkpoint is damaged or another's.
  """
  entries = read_results(workdir)["members"]
  if not 0 <= member < len(entries):
    raise UserError(f"{workdir} has {len(entries)} members, numbered from 0; member {member} does not exist.")
  if entries[member]["died_at"] is not None:
    raise UserError(f"member {member} of {workdir} left the finite numbers at step {entries[member]['died_at']}; "
                    "choose another one.")
  cohort = entries[member]["cohort"]
  position = [entry["member"] for entry in entries if entry["cohort"] == cohort].index(member)
  variables: dict[str, Any] = {}
  for name, array in checkpoints_of(workdir, cohort).read().items():
    parts = name.split("/")
    if parts[:2] == ["state", "variables"]:
      inner = variables
      for part in parts[2:-1]:
        inner = inner.setdefault(part, {})
      inner[parts[-1]] = array[position]
  if trees.digest(variables["params"]) != entries[member]["params_sha256"]:
    raise UserError(f"the newest checkpoint of {workdir} holds other parameters of member {member} than its "
                    "results.json names; run the command of that run again, or restore both from a copy.")
  return variables


def checkpoints_of(workdir: pathlib.Path, cohort: int) -> Checkpoints:
  """Returns the checkpoints of a cohort of a run that has a results.json, for reading."""
  seeds = [entry["seed"] for entry in read_results(workdir)["members"] if entry["cohort"] == cohort]
  owner = owner_of(read_config(workdir, unchanged=True), cohort, seeds)
  return Checkpoints(cohort_directory(workdir, cohort), 1, owner)


def owner_of(config: Mapping[str, Any], cohort: int, seeds: Sequence[int]) -> dict[str, Any]:
  """Returns what a checkpoint says of whose it is.

  Args:
    config: of the run, as `to_json` gives it.
    cohort: its index.
    seeds: of its members, in order.
  """
  return {"config": fingerprint(config), "cohort": cohort, "seeds": list(seeds)}


def cohort_directory(workdir: pathlib.Path, cohort: int) -> pathlib.Path:
  """Returns where the checkpoints of a cohort lie."""
  return workdir / "checkpoints" / f"cohort_{cohort:03d}"
