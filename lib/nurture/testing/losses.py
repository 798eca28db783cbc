"""Checks of target transforms and of loss terms."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nurture.core import Context
from nurture.core.task import CLASSES
from nurture.data.tasks import TASKS
from nurture.testing import laws
from nurture.testing.contexts import IDS, SPECS, B, K, context, in_dtype, logits_of, outputs_of, tasks_to_check
from nurture.testing.laws import alike, during, finite, require
from nurture.testing.rows import read
from nurture.transforms import LOSSES, TARGETS

_LOGITS = "work on log-probabilities (jax.nn.log_softmax) instead of probabilities, and leave out what is divided by 0"


def check_target(row: Any, task: str | None = None) -> None:
  """Checks a target transform against every law that training relies on; see `nurture.testing`.

  Targets keep shape and dtype; those of classes stay probabilities, and those of a position without prediction stay 0.
  The transform is pure, and maps over the members of an ensemble.

  Args:
    row: {"name": "my_project.targets:Name", field: value}, the name alone, or an object. References are named
      "teacher" or "guide".
    task: of the data; None checks all that the row names, or "classification" and "per_position".

  Raises:
    AssertionError: names the law that is broken, and what to do.
  """
  subject = read(TARGETS, row, ("__call__",))
  known = ("classification", "per_position") if subject.tasks is None else TASKS
  for name in tasks_to_check(subject.serves(known), task):
    with during(subject.name), during(name, subject.hint):
      _check_target(subject.built, name)


def _check_target(transform: Any, task: str) -> None:
  ctx = _before_the_model(context(logits_of(task), task))
  soft = 0.5 * ctx.targets + 0.5 * ctx.targets.sum(axis=-1, keepdims=True) / K
  for targets in (ctx.targets, soft):
    new = laws.pure(transform, ctx, targets)
    _keeps_targets(new, targets)
    if task not in CLASSES:
      continue
    require(np.min(new) >= 0, f"targets become negative ({np.min(new):g})", "they are probabilities")
    mass, before = (np.asarray(each.sum(axis=-1)) for each in (new, targets))
    off = np.abs(mass - before) > 1e-6
    require(not off[before == 0].any(), "a position without prediction, whose targets are all 0, gets targets",
            "multiply what is added by targets.sum(axis=-1, keepdims=True)")
    require(not off.any(), f"the targets of an example add up to {mass[off][0] if off.any() else 1:g} instead of 1",
            "take away what is added elsewhere")
  laws.maps(transform, ctx, soft)
  with jax.enable_x64(True), during("64-bit numbers switched on"):
    ctx = _before_the_model(in_dtype(context(logits_of(task), task), jnp.float32))
    _keeps_targets(jax.eval_shape(transform, ctx, ctx.targets), ctx.targets)


def _before_the_model(ctx: Context) -> Context:
  return dataclasses.replace(ctx, outputs=None)  # type: ignore[arg-type]


def _keeps_targets(new: Any, targets: Any) -> None:
  alike(new, targets, "targets change shape or dtype ({})", "return an array like the one that is given, and make "
        "new arrays with dtype=targets.dtype")


def check_loss(row: Any, task: str | None = None, *, gradient: bool = True, whole: bool = False) -> None:
  """Checks a loss term against every law that training relies on; see `nurture.testing`.

  The value is float32, one for each example or one for the batch, and finite with its gradient for any logits in any
  dtype. The state consists of arrays and keeps its form. The term is pure, maps over the members of an ensemble, and
  padded examples of an evaluation batch (weight 0, id -1) have no influence on the others.

  Args:
    row: {"name": "my_project.losses:Name", field: value}, the name alone, or an object. References are named "teacher"
      or "guide".
    task: of the data; None checks all that the row serves.
    gradient: False for a term that only counts, whose value is a constant.
    whole: True for a measurement of the batch as a whole, such as CKA, in which padded examples count too.

  Raises:
    AssertionError: names the law that is broken, and what to do.
  """
  subject = read(LOSSES, row, ("init", "apply"))
  for name in tasks_to_check(subject.serves(TASKS), task):
    with during(subject.name), during(name, subject.hint):
      for dtype in (jnp.float32, jnp.bfloat16):
        with during(f"{dtype.__name__} logits"):
          _check_values(subject.built, name, dtype, gradient, whole)
      with jax.enable_x64(True), during("64-bit numbers switched on"):
        for dtype in ("float32", "bfloat16", "float64"):
          _check_x64(subject.built, name, jnp.dtype(dtype))


def _check_values(term: Any, task: str, dtype: Any, gradient: bool, whole: bool) -> None:
  spec, logits = SPECS[task], logits_of(task, dtype)
  state = term.init(spec)
  laws.arrays(state, "the state")
  again = "make it of the facts in spec and of constants alone"
  alike(jax.eval_shape(lambda: term.init(spec)), state, "init makes another state under jit ({})", again)
  laws.close(term.init(spec), state, "init makes another state each time", again)

  def run(state: Any, logits: jax.Array, weight: jax.Array, ids: jax.Array) -> Any:
    return term.apply(state, context(logits, task, weight, ids))

  def train(state: Any, *arguments: jax.Array) -> Any:
    def total(logits: jax.Array) -> Any:
      value, new = run(state, logits, *arguments[1:])
      return value.sum(), (value, new)

    slope, (value, new) = jax.grad(total, has_aux=True)(arguments[0])
    return value, new, slope

  arguments = logits, jnp.ones(B), jnp.asarray(IDS)
  # Operation by operation, as without jit, in one dtype: the operations are those of the other, and each is compiled.
  check = laws.pure if dtype == jnp.float32 else jax.eval_shape
  result = check(run, state, *arguments)
  require(isinstance(result, tuple) and len(result) == 2, "apply returns something else than (value, state)",
          "return both, and the state as it is where there is none")
  value, new = result
  laws.keeps(new, state)
  require(value.shape in ((), (B,)), f"the value of a batch of {B} has the shape {list(value.shape)}",
          "return one number for each example, or one for the batch; of a sequence its mean over positions, "
          "nurture.transforms.losses.positions.per_example")
  require(value.dtype == jnp.float32, f"the value is {value.dtype}", "start from logits.astype(jnp.float32)")
  value, new, slope = jax.jit(train)(state, *arguments)
  finite((value, new), "the value or the state", _LOGITS)
  finite(slope, "the gradient", _LOGITS)
  require(slope.dtype == dtype, f"the gradient of logits is {slope.dtype}", "cast logits with astype only")
  require(np.any(slope) or not gradient, "no gradient flows into the logits", "leave out stop_gradient and argmax on "
          "the way to the value; for a term that only counts, check_loss(..., gradient=False)")
  laws.maps(train, state, *arguments)
  laws.scans(lambda state, t: run(state, *arguments)[1], state)
  if dtype == jnp.float32:
    with during("logits of +-10000"):
      value, _, slope = jax.jit(train)(state, _extreme(logits), *arguments[1:])
      finite(value, "the value", _LOGITS)
      finite(slope, "the gradient", _LOGITS)
    if not whole:
      with during("a padded batch"):
        _check_padding(lambda z, *padding: jax.jit(train)(state, z, *padding)[0], logits, task)


def _extreme(logits: jax.Array) -> jax.Array:
  """Returns predictions that are as sure as can be, each example of another class."""
  width = logits.shape[-1]
  largest = jax.nn.one_hot(jnp.arange(B) % width, width).reshape(B, *[1] * (logits.ndim - 2), width) > 0
  return jnp.broadcast_to(jnp.where(largest, 1e4, -1e4), logits.shape)


def _check_padding(value_of: Any, logits: jax.Array, task: str) -> None:
  last = jnp.arange(B) == B - 1
  padding = jnp.where(last, 0.0, 1.0), jnp.where(last, -1, IDS)
  hit = last[:, None] | last[None] if task == "pairs" else last.reshape(-1, *[1] * (logits.ndim - 1))
  values = [value_of(z, *padding) for z in (logits, jnp.where(hit, 3 - logits, logits))]
  finite(values, "the value", "read a table with .at[id].get(mode='fill'), which does not fail for ids outside of it")
  values = [jnp.where(last, 0.0, value) if value.ndim else value for value in values]
  laws.close(values[1], values[0], "an example of weight 0 has an influence on the others",
             "multiply by ctx.batch['weight'], or return one value for each example; for a measurement of the batch as "
             "a whole, check_loss(..., whole=True)")


def _check_x64(term: Any, task: str, dtype: Any) -> None:
  """Values are float32, or float64 for such logits; states keep their dtypes; gradients are in that of the logits."""
  ctx = in_dtype(context(jnp.zeros_like(logits_of(task), dtype), task), dtype)

  def run(state: Any, logits: jax.Array) -> Any:
    return term.apply(state, dataclasses.replace(ctx, outputs=outputs_of(logits)))

  def train(state: Any, logits: jax.Array) -> Any:
    (_, new), gradient = jax.value_and_grad(lambda z: (run(state, z)[0].sum(), run(state, z)[1]), has_aux=True)(logits)
    return new, gradient

  state = term.init(SPECS[task])
  fix = "name the dtype of every array that is made, such as jnp.zeros(n, jnp.float32)"
  value, new = jax.eval_shape(run, state, ctx.outputs.logits)
  require(value.dtype in (jnp.float32, dtype) and value.dtype != jnp.bfloat16,
          f"the value of {dtype} logits is {value.dtype}", fix)
  require(all(leaf.dtype != jnp.float64 for leaf in jax.tree.leaves(state)), "a state is float64", fix)
  laws.keeps(new, state)
  scanned, gradients = jax.eval_shape(lambda s, z: jax.lax.scan(train, s, z), state, ctx.outputs.logits[None])
  laws.keeps(scanned, state)
  require(gradients.dtype == dtype, f"the gradient of {dtype} logits is {gradients.dtype}", fix)
