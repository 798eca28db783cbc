"""Jacobians in factored form: one backward pass a sample, and of each layer only its inputs and output cotangents.

Every parameter is accounted for once, and by proof. A call of a layer is recognized only if the very arrays of the
parameters enter it, and a rule is used only if, in the traced program, the layer's parameters reach the outputs through
recognized calls and nothing else. All other parameters (those of modules without a rule, tied ones, those within
nn.scan, nn.remat or jax.jit) are differentiated as they are, sample by sample.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.extend
import jax.numpy as jnp
from flax import linen as nn
from flax.core import tracers

from nurture.core import Outputs, UserError
from nurture.ntk.contraction import Factor, Values, accumulator
from nurture.ntk.layers import RULES, Call, refuse_chance, refuse_training

Array = jax.Array
Apply = Callable[[Any, Array], Any]


class Plan(NamedTuple):
  """Which parameters have a rule.

  Attributes:
    shapes: output of each recognized call on one sample.
    groups: for each factor, the calls that it joins.
    free: indices of the parameters that are differentiated as they are.
  """

  shapes: tuple[jax.ShapeDtypeStruct, ...]
  groups: tuple[tuple[int, ...], ...]
  free: tuple[int, ...]


def logits_of(apply: Apply, variables: Any, x: Array) -> Array:
  """Returns f(x), [K], of one input without a batch axis.

  Raises:
    UserError: if apply does not return logits [n, K], or `Outputs` with such.
  """
  with jax.default_matmul_precision("highest"):
    out = apply(variables, x[None])
  logits = out.logits if isinstance(out, Outputs) else out
  shape = getattr(logits, "shape", None)
  if (shape is None or len(shape) != 2 or shape[0] != 1 or not shape[1]
      or not jnp.issubdtype(logits.dtype, jnp.floating)):
    what = f"an array {list(shape)} of {logits.dtype}" if shape is not None else f"a {type(logits).__name__}"
    raise UserError(f"apply(variables, x) returns {what} for one input, but an NTK needs logits [n, K]; wrap apply, as "
                    "in lambda variables, x: model.apply(variables, x).logits[:, -1].")
  return logits[0]


def _recognized(module: nn.Module, args: tuple, kwargs: Mapping[str, Any], index: Mapping[int, int]) -> Call | None:
  rule = RULES.get(type(module))
  if rule is None:
    return None
  params: dict[str, Any] = {name: module.get_variable("params", name) for name in rule.parameters}
  present = {name: id(value) for name, value in params.items() if value is not None}
  if not present or not all(leaf in index for leaf in present.values()):
    return None
  leaves = {name: index[leaf] for name, leaf in present.items()}
  state = {name: value for name, value in module.variables.items() if name != "params"}
  call = Call(module, leaves, state, args, kwargs)
  return call if rule.recognizes(call) else None


def _intercepted(
  apply: Apply, variables: Any, x: Array, replace: Callable[[int, Array], Array] = lambda i, y: y
) -> tuple[Array, list[Call], list[Array]]:
  """Returns f(x), the recognized calls and their outputs before `replace(number of the call, output)`."""
  leaves = jax.tree.leaves(variables["params"])
  times = collections.Counter(map(id, leaves))
  index = {id(leaf): i for i, leaf in enumerate(leaves) if times[id(leaf)] == 1}
  calls, outputs, outside = [], [], tracers.current_trace()

  def note(next_function, args, kwargs, context):
    call = None
    if context.method_name == "__call__":
      refuse_training(context.module, args, kwargs)
      # Within an inner program or map, even one that closes over the parameters, a call may happen many times; and an
      # interceptor of apply's own, between this one and the layer, may change what enters it and leaves it.
      if tracers.current_trace() == outside and next_function is context.orig_method:
        call = _recognized(context.module, args, kwargs, index)
    y = next_function(*args, **kwargs)
    refuse_chance(context.module)
    if call is None:
      return y
    calls.append(call)
    outputs.append(y)
    return replace(len(calls) - 1, y)

  with nn.intercept_methods(note):
    return logits_of(apply, variables, x), calls, outputs


def make_plan(apply: Apply, variables: Any, x: Array) -> Plan:
  """Returns which parameters the rules cover, from the program that one input x (without a batch axis) makes.

  The program is traced with every recognized call's output replaced by zeros. A parameter that still reaches the
  logits or the input of a recognized call has a way around the rules.
  """
  leaves, tree = jax.tree.flatten(variables["params"])
  seen = []

  def cut(leaves):
    variables_ = {**variables, "params": jax.tree.unflatten(tree, leaves)}
    logits, calls, outputs = _intercepted(apply, variables_, x, lambda i, y: jnp.zeros(y.shape, y.dtype))
    seen.append(([_signature(call) for call in calls], [jax.ShapeDtypeStruct(y.shape, y.dtype) for y in outputs]))
    arrays = jax.tree.leaves([(call.args, dict(call.kwargs), call.state) for call in calls])
    return logits, [a for a in arrays if isinstance(a, jax.Array)]

  program = jax.make_jaxpr(cut)(leaves)
  signatures, shapes = seen[-1]
  around = _reaching(program.jaxpr)
  of_leaf = collections.defaultdict(set)
  for signature in signatures:
    for leaf in signature[1]:
      of_leaf[leaf].add(signature)
  joined = collections.defaultdict(list)
  for i, signature in enumerate(signatures):
    if all(len(of_leaf[leaf]) == 1 and leaf not in around for leaf in signature[1]):
      joined[signature].append(i)
  covered = {leaf for signature in joined for leaf in signature[1]}
  free = (around | set(of_leaf)) - covered
  differentiable = [i for i in sorted(free) if jnp.issubdtype(leaves[i].dtype, jnp.floating)]
  return Plan(tuple(shapes), tuple(map(tuple, joined.values())), tuple(differentiable))


def _signature(call: Call) -> tuple:
  """Calls with the same signature add up in one factor; two signatures on one parameter exclude a factor."""
  kind = type(call.module)
  return kind, tuple(call.leaves[name] for name in sorted(call.leaves)), RULES[kind].joins(call)


def _reaching(jaxpr: Any) -> set[int]:
  """Returns the indices of the inputs from which some output may depend; an inner program counts as one step."""
  sources = {variable: 1 << i for i, variable in enumerate(jaxpr.invars)}
  of = lambda atoms: _union(0 if isinstance(a, jax.extend.core.Literal) else sources.get(a, 0) for a in atoms)
  for equation in jaxpr.eqns:
    mask = of(equation.invars)
    for variable in equation.outvars:
      sources[variable] = mask
  mask = of(jaxpr.outvars)
  return {i for i in range(len(jaxpr.invars)) if mask >> i & 1}


def _union(masks) -> int:
  total = 0
  for mask in masks:
    total |= mask
  return total


def everything_free(variables: Any) -> Plan:
  """Returns the plan that uses no rules."""
  leaves = jax.tree.leaves(variables["params"])
  return Plan((), (), tuple(i for i, leaf in enumerate(leaves) if jnp.issubdtype(leaf.dtype, jnp.floating)))


def factors(apply: Apply, variables: Any, x: Array, seeds: Array, plan: Plan) -> list[Factor]:
  """Returns the Jacobian of seeds f in factored form.

  Args:
    apply: (variables, x [1, ...]) -> logits [1, K].
    variables: with the collection "params".
    x: [n, ...].
    seeds: [S, K], combinations of the outputs.
    plan: of `make_plan`.

  Returns:
    One factor for each group and one for each free parameter; all arrays have a first axis n.
  """
  leaves, tree = jax.tree.flatten(variables["params"])
  tapped = sorted(i for group in plan.groups for i in group)
  of_call = {call: place for place, call in enumerate(tapped)}

  def one(x):
    calls: list[Call] = []

    def f(zeros, free):
      chosen = dict(zip(plan.free, free))
      params = jax.tree.unflatten(tree, [chosen.get(i, leaf) for i, leaf in enumerate(leaves)])
      tap = lambda i, y: y + zeros[of_call[i]] if i in of_call else y
      logits, found, _ = _intercepted(apply, {**variables, "params": params}, x, tap)
      calls[:] = found
      return logits, [RULES[type(found[i].module)].keeps(found[i]) for i in tapped]

    zeros = [jnp.zeros(plan.shapes[i].shape, plan.shapes[i].dtype) for i in tapped]
    logits, pull, kept = jax.vjp(f, zeros, [leaves[i] for i in plan.free], has_aux=True)
    cotangents, gradients = jax.vmap(pull)(seeds.astype(logits.dtype))
    return [*_grouped(plan, of_call, calls, kept, cotangents), *map(_as_values, gradients)]

  return jax.vmap(one)(x)


def _grouped(
  plan: Plan, of_call: Mapping[int, int], calls: Sequence[Call], kept: Sequence[Any], cotangents: Sequence[Array]
) -> list[Factor]:
  grouped = []
  for group in plan.groups:
    places = [of_call[i] for i in group]
    rule = RULES[type(calls[group[0]].module)]
    grouped.append(rule.factor([calls[i] for i in group], [kept[i] for i in places], [cotangents[i] for i in places]))
  return grouped


def _as_values(gradient: Array) -> Values:
  return Values(gradient.reshape(gradient.shape[0], -1).astype(accumulator(gradient)))


def checked_logits(apply: Apply, variables: Any, x: Array) -> Array:
  """Returns f(x), [K], of one input.

  Raises:
    UserError: as `logits_of`, and for a network in training mode.
  """
  return _intercepted(apply, variables, x)[0]
