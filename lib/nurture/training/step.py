"""One training step, in the order in which the data flow:

    batch -> references -> targets -> forward -> loss -> gradients -> update -> parameters

Every function here is pure and knows one member; ensembles, scans and devices are added around it.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect as signatures
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from nurture import data
from nurture.core import Batch, Context, DataSpec, Outputs, Task, UserError, model_input, rng, trees
from nurture.core.schedules import Schedule

Tree = Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
  """The state of one member; an ensemble's has a leading member axis on every leaf.

  There is no key and no iterator in it: both are pure functions of (seed, step).

  Attributes:
    step: [] int32, number of steps taken.
    variables: the model's collections, "params" and whatever else it has ("batch_stats").
    opt_state: {"gradients": {label: state}, "optimizer": state}.
    loss_states: {label: state} of the loss terms.
    parameter_states: {label: state} of the parameter transforms.
    died_at: [] int32, the step at which the member diverged: its loss or gradient was not finite (or the norm of the
      gradient above the largest float32). From then on variables and opt_state are frozen; -1 before. The step before a
      checkpoint or a log, where parameters or what the optimizer keeps of them are not finite.
  """

  step: jax.Array
  variables: Tree
  opt_state: Tree
  loss_states: Tree
  parameter_states: Tree
  died_at: jax.Array


class WeightedTerm(NamedTuple):
  """A loss term and the schedule of its weight in the sum."""

  term: Any
  weight: Schedule


@dataclasses.dataclass(frozen=True)
class Parts:
  """The objects that a config describes, built for one member; labels are the config's."""

  spec: DataSpec
  steps: int
  preprocess: Any
  model: Any
  scheduled: Mapping[str, Schedule]
  references: Mapping[str, Any]
  targets: Mapping[str, Any]
  losses: Mapping[str, WeightedTerm]
  gradients: Mapping[str, optax.GradientTransformationExtraArgs]
  optimizer: optax.GradientTransformationExtraArgs
  parameters: Mapping[str, Any]


def init(parts: Parts, root: jax.Array, start: Mapping[str, Tree] | None = None) -> State:
  """Returns the state before the first step.

  Args:
    parts: the objects of the experiment.
    root: the member's root key.
    start: variables by their path, "params/head/kernel", that take the place of those from the key; some, all or none.
  """
  at = functools.partial(rng.stream, root)
  keys = {"params": at("init"), "dropout": at("init.dropout")}
  variables = parts.model.init(keys, parts.spec.example(), **scheduled_values(parts, jnp.int32(0)))
  if not variables.get("params"):
    raise UserError("config.model has no parameters, so there is nothing to train; choose another model.")
  if start:
    leaves = [start.get(name, leaf) for name, leaf in trees.named_leaves(variables)]
    variables = jax.tree.unflatten(jax.tree.structure(variables), leaves)
  params = variables["params"]
  return State(
    step=jnp.int32(0),
    variables=variables,
    opt_state={
      "gradients": {label: link.init(params) for label, link in parts.gradients.items()},
      "optimizer": parts.optimizer.init(params),
    },
    loss_states={label: entry.term.init(parts.spec) for label, entry in parts.losses.items()},
    parameter_states={label: transform.init(params) for label, transform in parts.parameters.items()},
    died_at=jnp.int32(-1),
  )


def update(
  parts: Parts, state: State, batch: Batch, root: jax.Array, references: Mapping[str, Tree]
) -> tuple[State, dict[str, jax.Array]]:
  """Takes one step.

  Args:
    parts: the active objects of the experiment; states of the others stay as they are.
    state: one member's state.
    batch: rows as gathered from the data set, neither augmented nor normalized.
    root: the member's root key.
    references: the arrays of the networks in parts.references, by label.

  Returns:
    The next state and {"loss", "loss/<label>" where there are several, "gradient_norm"}, all [] float32
    and all of the parameters before the update. An inactive term is 0 here, and is not logged.
  """
  at = functools.partial(rng.stream, root, step=state.step)
  params = state.variables["params"]
  (loss, (values, loss_states, changed, _)), gradient = loss_and_grad(parts, state, batch, root, references)
  gradient_norm = trees.norm(gradient)

  def elsewhere(params: Tree) -> tuple[tuple[jax.Array, Any], Tree]:
    """Returns the loss of this batch, and its gradient, at other parameters."""
    variables = {**state.variables, "params": params}
    return loss_and_grad(parts, dataclasses.replace(state, variables=variables), batch, root, references)

  def value_fn(params: Tree, step: Any = None, grad_fn: Any = None, key: Any = None) -> jax.Array:
    """Returns the loss elsewhere. A line search of optax hands on what it was given, and refuses what has no name."""
    del step, grad_fn, key
    return elsewhere(params)[0][0]

  offered = {
    "step": state.step, "value": loss, "grad": gradient, "value_fn": value_fn,
    "grad_fn": lambda params, *_: elsewhere(params)[1],
  }
  updates, gradient_states = gradient, dict(state.opt_state["gradients"])
  for label, link in parts.gradients.items():
    taken = {**offered, "key": at(f"gradients.{label}")}
    updates, gradient_states[label] = transformed(
      link, updates, state.opt_state["gradients"][label], params, taken
    )
  updates, optimizer_state = transformed(parts.optimizer, updates, state.opt_state["optimizer"], params, offered)
  new_params = optax.apply_updates(params, updates)
  parameter_states = {}
  for label, transform in parts.parameters.items():
    new_params, parameter_states[label] = transform.apply(
      state.parameter_states[label], new_params, state.step
    )

  # A member that diverged is frozen from then on. Its loss and parameter-transform states need no such care: nothing
  # reads them any more.
  finite = jnp.isfinite(loss) & jnp.isfinite(gradient_norm)
  alive = (state.died_at < 0) & finite
  variables = {**state.variables, **changed, "params": new_params}
  opt_state = {"gradients": gradient_states, "optimizer": optimizer_state}
  new_state = State(
    step=state.step + 1,
    variables=trees.select(alive, variables, dict(state.variables)),
    opt_state=trees.select(alive, opt_state, state.opt_state),
    loss_states={**state.loss_states, **loss_states},
    parameter_states=parameter_states,
    died_at=jnp.where((state.died_at < 0) & ~finite, state.step, state.died_at),
  )
  terms = {f"loss/{label}": values.get(label, jnp.float32(0.0)) for label in state.loss_states}
  return new_state, {"loss": loss, **(terms if len(terms) > 1 else {}), "gradient_norm": gradient_norm}


def transformed(
  transform: optax.GradientTransformation, updates: Tree, state: Tree, params: Tree, offered: Mapping[str, Any]
) -> tuple[Tree, Tree]:
  """Calls the update of a transformation with what it takes of the arguments that are offered."""
  known = signatures.signature(transform.update).parameters.values()
  if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in known):
    offered = {name: value for name, value in offered.items() if name in {parameter.name for parameter in known}}
  return transform.update(updates, state, params, **offered)


def loss_and_grad(
  parts: Parts, state: State, batch: Batch, root: jax.Array, references: Mapping[str, Tree]
) -> tuple[tuple[jax.Array, tuple[dict[str, jax.Array], dict[str, Tree], Tree, Outputs]], Tree]:
  """Returns ((loss, (value of each term, next states of the terms, changed collections, outputs)), gradient)."""
  at = functools.partial(rng.stream, root, step=state.step)
  batch = parts.preprocess.train_batch(at("augment"), batch)
  context = make_context(parts, state, batch, root, references, train=True)
  collections = [name for name in state.variables if name != "params"]

  def loss_of(params):
    outputs, changed = parts.model.apply(
      {**state.variables, "params": params},
      model_input(batch, parts.spec.inputs),
      train=True,
      rngs={"dropout": at("dropout")},
      mutable=collections,
      **scheduled_values(parts, state.step),
    )
    _check_predictions(outputs.logits, context.targets, parts.spec.task)
    total, values, states = compute_loss(parts, state, dataclasses.replace(context, outputs=outputs), root)
    return total, (values, states, changed, outputs)

  return jax.value_and_grad(loss_of, has_aux=True)(state.variables["params"])


def _check_predictions(logits: jax.Array, targets: jax.Array, task: Task) -> None:
  if logits.shape[:-1] == targets.shape[:-1] and logits.shape != targets.shape and task.num_outputs:
    raise UserError(f"config.model makes predictions {logits.shape}, but the data ask for {targets.shape}; give it "
                    f"{targets.shape[-1]} outputs: num_classes is that where config.model leaves it out.")
  if logits.shape != targets.shape:
    per = lambda array: "one for each position" if array.ndim == 3 else "one for each example"
    raise UserError(f"config.model makes predictions {logits.shape} ({per(logits)}), but the data ask for "
                    f"{targets.shape} ({per(targets)}); choose another model or data set, or {task.advice}.")


def inspect(
  parts: Parts, state: State, batch: Batch, root: jax.Array, references: Mapping[str, Tree]
) -> list[tuple[str, jax.Array]]:
  """Returns what a step computes on the way to its update, as (name, array) in the order of the data flow."""
  at = functools.partial(rng.stream, root, step=state.step)
  context = make_context(
    parts, state, parts.preprocess.train_batch(at("augment"), batch), root, references, train=True
  )
  (_, (values, _, _, outputs)), gradient = loss_and_grad(parts, state, batch, root, references)
  weights = {label: parts.losses[label].weight(state.step) for label in values}
  return [
    *((field, context.batch[field]) for field in parts.spec.inputs),
    *((f"logits of the reference {label}", one.logits) for label, one in context.references.items()),
    ("targets", context.targets),
    ("logits", outputs.logits),
    *((f"loss term {label}", value) for label, value in values.items()),
    *((f"weight of the loss term {label}", weight) for label, weight in weights.items()),
    *((f"loss term {label} times its weight", weights[label] * value) for label, value in values.items()),
    *((f"gradient of {name}", leaf) for name, leaf in trees.named_leaves(gradient)),
  ]


def evaluation_terms(
  parts: Parts, state: State, variables: Tree, batch: Batch, root: jax.Array, references: Mapping[str, Tree]
) -> dict[str, jax.Array]:
  """Returns the weighted terms of the loss of other variables on a batch, in evaluation mode; the state is only read.

  Padded examples (weight 0) do not count in terms of one value an example. Nothing is augmented.
  """
  context = evaluation_context(parts, state, batch, root, references)
  outputs = evaluate(parts, state, variables, model_input(context.batch, parts.spec.inputs))
  _, values, _ = compute_loss(parts, state, dataclasses.replace(context, outputs=outputs), root)
  return {label: parts.losses[label].weight(state.step) * value for label, value in values.items()}


def evaluation_context(
  parts: Parts, state: State, batch: Batch, root: jax.Array, references: Mapping[str, Tree]
) -> Context:
  """Returns the context of a batch as stored, in evaluation."""
  return make_context(parts, state, parts.preprocess.normalized(batch), root, references, train=False)


def evaluate(parts: Parts, state: State, variables: Tree, inputs: Any) -> Outputs:
  """Returns the model's outputs in evaluation mode, with what is scheduled as it stands at this step."""
  return parts.model.apply(variables, inputs, train=False, **scheduled_values(parts, state.step))


def make_context(
  parts: Parts, state: State, batch: Batch, root: jax.Array, references: Mapping[str, Tree], *, train: bool
) -> Context:
  """Runs the references and makes the targets: all that the loss needs except the model's outputs."""
  step = state.step
  outputs = {
    label: jax.lax.stop_gradient(reference.outputs(
      parts, state, references[label], batch, rng.stream(root, f"references.{label}", step), train=train
    ))
    for label, reference in parts.references.items()
  }
  context = Context(
    step=step,
    key=root,
    batch=batch,
    targets=data.mixed_targets(batch, parts.spec.task.targets(batch)),
    outputs=None,  # type: ignore[arg-type]  # the model has not run yet
    references=outputs,
    progress=step.astype(jnp.float32) / parts.steps,
  )
  for label, transform in parts.targets.items():
    key = rng.stream(root, f"targets.{label}", step)
    targets = transform(dataclasses.replace(context, key=key), context.targets)
    context = dataclasses.replace(context, targets=targets)
  return context


def compute_loss(
  parts: Parts, state: State, context: Context, root: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array], dict[str, Tree]]:
  """Returns the weighted sum of the loss terms, each term's own value, and the terms' next states."""
  total, values, states = jnp.float32(0.0), {}, {}
  weight = context.batch["weight"]
  for label, (term, term_weight) in parts.losses.items():
    key = rng.stream(root, f"losses.{label}", context.step)
    value, states[label] = term.apply(state.loss_states[label], dataclasses.replace(context, key=key))
    _check_value(label, value, weight.shape)
    if value.ndim:  # [B], one value an example
      value = jnp.sum(value * weight) / jnp.sum(weight)
    values[label] = value.astype(jnp.float32)
    total = total + term_weight(context.step) * values[label]
  return total, values, states


def _check_value(label: str, value: jax.Array, per_example: tuple[int, ...]) -> None:
  """Refuses what would be multiplied by the weights of the examples all the same, along another axis."""
  shape, dtype = jnp.shape(value), jnp.result_type(value)
  if shape not in ((), per_example):
    raise UserError(f"config.losses.{label} gives values of shape {shape}, and a term gives one for each example, "
                    f"{per_example}, or one for the batch, (); average those of a sequence with "
                    "nurture.transforms.losses.positions.per_example.")
  if not jnp.issubdtype(dtype, jnp.floating):
    raise UserError(f"config.losses.{label} gives values of type {dtype}, which have no gradient; return real numbers.")


def scheduled_values(parts: Parts, step: jax.Array) -> dict[str, Any]:
  """Returns the model arguments that change over training, as they stand at a step."""
  return {name: schedule(step) for name, schedule in parts.scheduled.items()}
