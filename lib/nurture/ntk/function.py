"""The function whose kernel is asked for, checked once: what it returns, and that every sample stands for itself."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from nurture.core import UserError
from nurture.core.build import suggest
from nurture.core.hints import Count, check_argument
from nurture.ntk.factored import checked_logits

Array = jax.Array
Reduce = Literal["trace", "full", "pseudo"]
REDUCTIONS = ("trace", "full", "pseudo")
_JITTED = type(jax.jit(lambda: None))


class NetworkFunction(NamedTuple):
  """A function of variables and inputs, as part of the key of a compiled program.

  Attributes:
    apply: as for `ntk`, hashable.
    outputs: K.
    dtype: of the parameters.
    logits_dtype: of what apply returns.
  """

  apply: Callable[[Any, Array], Any]
  outputs: int
  dtype: jnp.dtype
  logits_dtype: jnp.dtype


def checked_function(
  apply: Callable, variables: Mapping[str, Any], x1: Array, x2: Array | None = None
) -> NetworkFunction:
  """Returns the network.

  Raises:
    UserError: for inputs or variables that cannot have a kernel, a network in training mode, or no logits [n, K].
  """
  if isinstance(apply, nn.Module) or not callable(apply):
    raise UserError(f"apply is a {type(apply).__name__}; give a function of variables and x, such as model.apply.")
  try:
    hash(apply)
  except TypeError:
    raise UserError(f"apply is a {type(apply).__name__} without a hash, by which compiled programs are kept; give a "
                    "function.") from None
  if not isinstance(variables, Mapping) or not jax.tree.leaves(variables.get("params", {})):
    raise UserError('variables hold no parameters; give {"params": ..., ...} as model.init returns them.')
  dtypes = [jnp.result_type(leaf) for leaf in jax.tree.leaves(variables["params"])]
  floating = [d for d in dtypes if jnp.issubdtype(d, jnp.floating)]
  if any(jnp.issubdtype(d, jnp.complexfloating) for d in dtypes):
    raise UserError("variables hold complex parameters, of which the NTK is not defined here; use real ones.")
  if not floating:
    raise UserError("variables hold no parameters of a floating type, so there is nothing to differentiate by.")
  for name, x in (("x1", x1), ("x2", x2)):
    if x is not None and (x.ndim < 1 or not len(x)):
      raise UserError(f"{name} is {list(x.shape)}; give at least one sample, along the first axis.")
  if x2 is not None and (x1.shape[1:], x1.dtype) != (x2.shape[1:], x2.dtype):
    raise UserError(f"x1 holds samples {list(x1.shape[1:])} of {x1.dtype} and x2 {list(x2.shape[1:])} of {x2.dtype}; "
                    "give both the same shape and type.")
  if isinstance(apply, _JITTED):
    apply = apply.__wrapped__  # type: ignore[attr-defined]  # within a jit of its own the parameters could not be followed
  logits = _logits.eval_shape(apply, variables, jax.ShapeDtypeStruct(x1.shape[1:], x1.dtype))
  dtype = functools.reduce(jnp.promote_types, floating, jnp.bfloat16)
  return NetworkFunction(apply, logits.shape[0], jnp.dtype(dtype), logits.dtype)


_logits = jax.jit(checked_logits, static_argnums=0)


def as_samples(x: Any, name: str) -> Array:
  """Returns x as an array.

  Raises:
    UserError: for what is none.
  """
  try:
    return jnp.asarray(x)
  except (TypeError, ValueError):
    raise UserError(f"{name} is a {type(x).__name__}; give an array of samples [n, ...].") from None


def check_block(block: Any, n: int | None = None) -> None:
  """Raises UserError unless block is None, or a whole number of at least 1, which divides n if that is given."""
  check_argument("block", block, Count | None, "a whole number of rows, at least 1, or None")
  if block is not None and n is not None and n % block:
    raise UserError(f"block is {block}, which does not divide {n} samples; give a divisor, or None.")


@contextlib.contextmanager
def forward_derivatives() -> Iterator[None]:
  """Turns JAX's complaint of functions that have a reverse derivative only into a sentence."""
  try:
    yield
  except TypeError as error:
    if "custom_vjp" not in str(error):
      raise
    raise UserError("the network has a function with a reverse derivative only (jax.custom_vjp), which products with "
                    'the kernel cannot use; take ntk with method="factored" or "jacobian".') from None


def float_params(variables: Mapping[str, Any]) -> list[Array]:
  """Returns the parameters that can be differentiated."""
  return [leaf for leaf in jax.tree.leaves(variables["params"]) if jnp.issubdtype(leaf.dtype, jnp.floating)]


def with_params(variables: Mapping[str, Any], params: list[Array]) -> dict[str, Any]:
  """Returns variables with other values of `float_params`."""
  leaves, tree = jax.tree.flatten(variables["params"])
  values = iter(params)
  leaves = [next(values) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf for leaf in leaves]
  return {**variables, "params": jax.tree.unflatten(tree, leaves)}


def check_word(value: str, known: tuple[str, ...], name: str) -> None:
  """Raises UserError for a value that is not among the known ones."""
  if value not in known:
    raise UserError(f"{name} is {value!r}; {suggest(value, known)}.")
