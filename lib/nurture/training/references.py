"""Networks that transforms compare with: guides and teachers, trained or as initialized, frozen or following.

    config.references = {"teacher": {"model": {...}, "run": "runs/teacher", "member": 0}}

The variables of a frozen network travel to the step as an argument: nothing of them is compiled in. It is evaluated
with the defaults of the arguments that a schedule moves in training.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from nurture import models
from nurture.core import Batch, DataSpec, Outputs, UserError, build, memory, model_at, model_input, rng, trees
from nurture.core.hints import Seed, Whole
from nurture.core.taps import select
from nurture.reporting import read_config
from nurture.reporting.schema import ANY
from nurture.similarity import Gram, flatten, gram
from nurture.training.config import to_json
from nurture.training.run_directory import member_variables
from nurture.training.step import Parts, State, scheduled_values

Tree = Any

# Updates of batch statistics; at the usual momentum of 0.9 nothing is left of the initial ones.
_CALIBRATION_UPDATES = 100
_LARGEST = 8 * 2**30  # bytes of all Gram matrices together
_AT_ONCE = 4 * 2**30  # bytes of activations in host memory
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


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Arrays:
  """What a step needs of a reference: its variables, and what was computed of it before the run, if anything.

  Attributes:
    variables: of a frozen network; {} for the trained one with averaged parameters.
    row: [num_examples] int32, where the example of an id stands among the n training examples in what follows; None
      where nothing is kept.
    logits: [n, K].
    grams: [P, n, n], the Gram matrices of P taps' centred and normalized activations.
    taps: their P names.
  """

  variables: Tree
  row: Any = None
  logits: Any = None
  grams: Any = None
  taps: tuple[str, ...] = dataclasses.field(default=(), metadata={"static": True})

  def lookup(self, ids: jax.Array) -> Outputs:
    """Returns the outputs on the examples with these ids [B]; taps are `nurture.similarity.Gram` matrices [B, B]."""
    rows = self.row[ids]
    values = self.grams[:, rows[:, None], rows[None]]
    return Outputs(self.logits[rows], {name: Gram(values[i]) for i, name in enumerate(self.taps)})


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
  module: Any
  data: Mapping[str, Any]
  path: str

  @classmethod
  def read(cls, config: Mapping[str, Any], label: str, spec: DataSpec) -> Reference:
    """Reads an entry of a whole config.

    Raises:
      UserError: for a malformed entry.
    """
    path = f"config.references.{label}"
    taken = {"input": "the batch's own input", "init": "where the members begin"}
    if label in taken:
      raise UserError(f"{path} cannot be called {label!r}, which stands for {taken[label]}; give another label.")
    entry = build({"reference": Entry}, {"name": "reference", **config["references"][label]}, path=path)
    if entry.view == "unmixed" and not any(f.get("name") == "mixup" for f in config["data"]["augment"].values()):
      raise UserError(f"{path}.view is 'unmixed', but config.data.augment has no mixup; set it to ''.")
    if not entry.parameters:
      module = models.fitted(entry.model, f"{path}.model", spec.num_classes, spec.input_shape)
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
    self, parts: Parts, state: State, arrays: Arrays, batch: Batch, key: jax.Array, *, train: bool
  ) -> Outputs:
    """Returns the network's outputs on a batch whose input is ready for a model.

    Args:
      parts: of the experiment.
      state: of the member, for averaged parameters.
      arrays: of this reference.
      batch: of training or evaluation.
      key: for dropout, where it is active.
      train: whether it is of training, so that what is kept serves it.
    """
    if train and arrays.row is not None:
      return arrays.lookup(batch["id"])
    inputs = model_input(batch, parts.spec.inputs)
    if self.entry.view:
      inputs = batch.get(self.entry.view, inputs)
    if self.module is not None:
      return self._apply(self.module, arrays.variables, inputs, key)
    average = parts.parameters[self.entry.parameters]
    params = average.evaluation(state.parameter_states[self.entry.parameters], state.variables["params"])
    scheduled = scheduled_values(parts, state.step)
    return self._apply(parts.model, {**state.variables, "params": params}, inputs, key, **scheduled)

  def _apply(
    self, module: Any, variables: Tree, inputs: jax.Array, key: jax.Array, **scheduled: Any
  ) -> Outputs:
    with model_at(f"{self.path}.model" if self.module is not None else "config.model"):
      if self.entry.batch_norm != "batch":
        return module.apply(variables, inputs, train=False, **scheduled)
      outputs, _ = module.apply(
        variables, inputs, train=True, mutable=_collections(variables), rngs={"dropout": key}, **scheduled
      )
      return outputs

  def load(self, spec: DataSpec, inputs: Inputs, count: int) -> Arrays:
    """Loads or initializes the variables, into host memory; of what is kept of their outputs, the shapes.

    Args:
      spec: of the data.
      inputs: of the training split.
      count: its number of examples.

    Raises:
      UserError: for a run that is missing or unfinished or holds another model, and a cache that takes too much memory.
    """
    if self.module is None:
      return Arrays({})
    with model_at(f"{self.path}.model"):
      variables = self._variables(spec)
      if self.entry.batch_norm == "calibrated":
        variables = _calibrated(self.module, variables, inputs, self.path)
      variables = jax.device_get(variables)
      if not self.entry.cache:
        return Arrays(variables)
      one = jax.eval_shape(spec.example)
      return abstract(self._evaluated, variables, spec, one, count, self.entry.cache, self.path)

  def fill(self, arrays: Arrays, inputs: Inputs) -> Arrays:
    """Computes what is kept: slow, and large."""
    return arrays if arrays.row is None else fill(arrays, self._evaluated, inputs())

  def _evaluated(self, variables: Tree, x: jax.Array) -> Outputs:
    return self.module.apply(variables, x, train=False)

  def _variables(self, spec: DataSpec) -> Tree:
    # A stream of its own: an untrained guide must not start as the member with the same seed does.
    key = rng.stream(jax.random.key(self.entry.seed), "references.init")
    make = lambda key: self.module.init(key, spec.example())
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
    return variables

  def _check_data(self, theirs: Mapping[str, Any]) -> None:
    """Refuses a network that reads inputs on another scale, or has seen this run's validation examples."""
    for field in ("normalize", "normalize_labels"):
      there, here = (section.get(field, "none") for section in (theirs, self.data))
      if there != here:
        raise UserError(f"{self.path}.run was trained with config.data.{field}={there!r}, and this config has "
                        f"{here!r}; make them equal.")
    if not self.data["validation"] or theirs["source"] != to_json(self.data["source"]):
      return
    for field in ("seed", "validation"):
      if theirs[field] != self.data[field]:
        raise UserError(f"{self.path}.run was trained with config.data.{field}={theirs[field]}, so it has seen "
                        f"validation examples of this config, which has {self.data[field]}; make them equal.")


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


def abstract(
  apply: Callable[[Tree, jax.Array], Outputs],
  variables: Tree,
  spec: DataSpec,
  inputs: jax.ShapeDtypeStruct,
  count: int,
  which: str | tuple[str, ...],
  path: str,
) -> Arrays:
  """Returns variables with the shapes and dtypes of what `fill` computes of them, from a trace.

  Args:
    apply: (variables, input) -> outputs.
    variables: of the network.
    spec: of the data.
    inputs: shape of a batch of model inputs.
    count: n, the number of training examples.
    which: "logits", or taps as `select` takes them.
    path: of the reference's config, for error messages.

  Raises:
    UserError: for taps that do not exist, or Gram matrices that take more than 8 GiB.
  """
  outputs = jax.eval_shape(apply, variables, inputs)
  names = () if which == "logits" else tuple(select(outputs.taps, which))
  needed = 4 * count**2 * len(names)
  if needed > _LARGEST:
    raise UserError(f"{path}.cache would keep {len(names)} Gram matrices of {count} examples, "
                    f"{needed / 2**30:.0f} GiB; name fewer taps, set config.data.subset, or set the cache to ''.")
  return Arrays(
    variables,
    row=jax.ShapeDtypeStruct((spec.num_examples,), jnp.int32),
    logits=jax.ShapeDtypeStruct((count, *outputs.logits.shape[1:]), outputs.logits.dtype),
    grams=jax.ShapeDtypeStruct((len(names), count, count) if names else (0, 1, 1), jnp.float32),
    taps=names,
  )


def fill(
  arrays: Arrays, apply: Callable[[Tree, jax.Array], Outputs], inputs: Iterable[tuple[np.ndarray, jax.Array]]
) -> Arrays:
  """Runs a network over the training split and returns its arrays with the numbers of what is kept.

  Args:
    arrays: of `abstract`.
    apply: as there.
    inputs: (ids [B], model inputs [B, ...]) over the split.
  """
  batches, variables = list(inputs), jax.device_put(arrays.variables)
  ids = np.concatenate([ids for ids, _ in batches])

  def over_split(names):
    """Returns the logits, and the activations [n, D] of some taps by their names."""

    @jax.jit
    def read(variables, x):
      outputs = apply(variables, x)
      return outputs.logits, {name: flatten(outputs.taps[name]).astype(jnp.float32) for name in names}

    parts = [jax.tree.map(np.asarray, read(variables, x)) for _, x in batches]
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)

  taps = jax.eval_shape(apply, variables, batches[0][1]).taps
  sizes = {name: 4 * len(ids) * math.prod(taps[name].shape[1:]) for name in arrays.taps}
  grams, left = [], list(arrays.taps)
  logits, _ = over_split(())
  while left:  # as many taps in a pass as memory takes, one at least
    count = max(1, sum(total <= _AT_ONCE for total in np.cumsum([sizes[name] for name in left])))
    _, activations = over_split(tuple(left[:count]))
    grams += [jax.jit(gram)(activations.pop(name)).values for name in left[:count]]
    left = left[count:]
  row = np.zeros(arrays.row.shape, np.int32)
  row[ids] = np.arange(len(ids), dtype=np.int32)
  return dataclasses.replace(
    arrays,
    row=jnp.asarray(row),
    logits=jnp.asarray(logits),
    grams=jnp.stack(grams) if grams else jnp.zeros(arrays.grams.shape),
  )
