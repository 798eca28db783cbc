"""Laws that every pure function of a step obeys, for any function and arguments; each failure is one sentence.

The sentence says which law is broken and what to do. The row's name, and where it was being checked, stand before it.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nurture.core import UserError, trees

Tree = Any

_TRACED = (
  jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError, jax.errors.TracerIntegerConversionError,
)
_AGAIN = "draw random numbers from the key that it is given alone, and keep what changes in its state, not in fields"
_SHARED = "reduce over the axes of its own arguments only, and choose with jnp.where"


class BrokenLaw(AssertionError):
  """A law that a row breaks.

  Args:
    sentence: the law and what to do, without the row's name.
    *places: the row and where it was being checked, from the outside to the inside.
  """

  def __init__(self, sentence: str, *places: str):
    super().__init__(f"{', '.join(places)}: {sentence}" if places else sentence)
    self.sentence, self.places = sentence, places


@contextlib.contextmanager
def during(place: str, hint: str = "") -> Iterator[None]:
  """Names the place in every failure, and makes one of whatever the code of a row raises.

  Args:
    place: the row, its task, the dtype.
    hint: a sentence that is put behind each failure.

  Raises:
    BrokenLaw: with the place before the sentence.
  """
  try:
    yield
  except BrokenLaw as error:
    raise BrokenLaw(_joined(error.sentence, hint), place, *error.places) from error.__cause__
  except _TRACED as error:
    sentence = ("it needs the plain value of an array that is traced; choose with jnp.where or jax.lax.cond instead of "
                "`if`, and leave out float(), int() and numpy.")
    raise BrokenLaw(_joined(sentence, hint), place) from error
  except UserError as error:
    raise BrokenLaw(_joined(str(error), hint), place) from error
  except Exception as error:
    words = str(error).strip().split("\n")[0].rstrip(".")
    raise BrokenLaw(_joined(f"it raises {type(error).__name__}: {words}.", hint), place) from error


def _joined(sentence: str, hint: str) -> str:
  return f"{sentence} {hint}" if hint and hint not in sentence else sentence


def require(condition: Any, law: str, fix: str) -> None:
  """Raises BrokenLaw, "law; fix.", if the condition does not hold."""
  if not condition:
    raise BrokenLaw(f"{law}; {fix}.")


def shapes(tree: Tree) -> tuple[Any, list[tuple[tuple[int, ...], Any]]]:
  """Returns the structure, shapes and dtypes of a tree of arrays, concrete or abstract, in a form that compares."""
  leaves, structure = jax.tree.flatten(tree)
  return structure, [(leaf.shape, leaf.dtype) for leaf in map(_abstract, leaves)]


def _abstract(leaf: Any) -> Any:
  return jax.eval_shape(lambda: jnp.asarray(leaf)) if not hasattr(leaf, "dtype") else leaf


def alike(new: Tree, old: Tree, what: str, fix: str) -> None:
  """Two trees have the same structure, shapes and dtypes. `what` needs a place for the difference: "... ({})"."""
  if shapes(new) == shapes(old):
    return
  named = [dict(trees.named_leaves(jax.tree.map(_abstract, tree))) for tree in (new, old)]
  kinds = [{name: f"{leaf.dtype}{list(leaf.shape)}" for name, leaf in one.items()} for one in named]
  changed = next((name for name in [*kinds[1], *kinds[0]] if kinds[0].get(name) != kinds[1].get(name)), None)
  words = "its containers are others"
  if changed is not None:
    after, before = (one.get(changed, "nothing") for one in kinds)
    words = f"{changed or 'it'} is {after} instead of {before}"
  raise BrokenLaw(f"{what.format(words)}; {fix}.")


def close(a: Tree, b: Tree, law: str, fix: str, tolerance: float = 1e-5) -> None:
  """Two trees have equal numbers, up to a relative and absolute tolerance; NaN equals NaN."""
  alike(a, b, f"{law} ({{}})", fix)
  for (name, x), y in zip(trees.named_leaves(a), jax.tree.leaves(b)):
    x, y = _numbers(x), _numbers(y)
    wrong = ~np.isclose(x, y, rtol=tolerance, atol=tolerance, equal_nan=True)
    if wrong.any():
      first = tuple(np.argwhere(wrong)[0])
      at = f"{name or 'the result'}{list(map(int, first)) if first else ''}"
      raise BrokenLaw(f"{law} ({at} is {x[first]:g} and {y[first]:g}); {fix}.")


def _numbers(leaf: Any) -> np.ndarray:
  return np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf, np.float64)


def finite(tree: Tree, what: str, fix: str) -> None:
  """All numbers of a tree are finite."""
  for name, leaf in trees.named_leaves(tree):
    require(np.isfinite(_numbers(leaf)).all(), f"{what} is not finite{f' ({name})' if name else ''}", fix)


def arrays(state: Tree, what: str) -> None:
  """All leaves of a state are arrays or numbers, so that a checkpoint keeps them and a program can carry them."""
  for name, leaf in trees.named_leaves(state):
    held = isinstance(leaf, (jax.Array, np.ndarray, np.number, int, float)) and getattr(leaf, "dtype", "") != "object"
    require(held, f"{what} holds {name or 'a value'} of the type {type(leaf).__name__}, which no checkpoint keeps",
            "make it of arrays, and keep plain facts in the fields of the row")


def pure(function: Callable[..., Any], *args: Any, tolerance: float = 1e-5) -> Any:
  """jit gives what running operation by operation gives, twice over, and eval_shape foresees it. Returns the result."""
  result = function(*args)
  alike(jax.eval_shape(function, *args), result, "the shapes under jit are others than without it ({})", _AGAIN)
  close(function(*args), result, "the same arguments give another result when it is called again", _AGAIN, tolerance=0)
  close(jax.jit(function)(*args), result, "jit gives another result than running operation by operation", _AGAIN,
        tolerance)
  return result


def retraces(function: Callable[..., Any], *args: Any) -> None:
  """Tracing again gives the same operations and constants: nothing is drawn or counted in Python. Costs no program."""
  one, other = (jax.make_jaxpr(lambda *args: function(*args))(*args) for _ in range(2))
  require(_program(one) == _program(other), "tracing it again gives another program", _AGAIN)


def _program(closed: Any) -> tuple[str, list[Any]]:
  """Returns the operations of a jaxpr without addresses of functions, and a fingerprint of its constants."""
  consts = [(c.shape, str(c.dtype), float(np.abs(_numbers(c)).sum())) for c in closed.consts if hasattr(c, "dtype")]
  return re.sub(r"0x[0-9a-f]+", "", str(closed.jaxpr)), consts


def maps(function: Callable[..., Any], *args: Any, tolerance: float = 1e-5) -> None:
  """vmap over two members gives what each gives alone."""
  args = jax.tree.map(on_host, args)
  other = jax.tree.map(_varied, args)
  stacked = jax.tree.map(lambda a, b: (jnp if _is_key(a) else np).stack([a, b]), args, other)
  together = jax.tree.map(on_host, jax.jit(jax.vmap(function))(*stacked))
  alone = jax.jit(function)
  for i, one in enumerate((args, other)):
    close(jax.tree.map(lambda leaf, i=i: leaf[i], together), alone(*one),
          "a member of an ensemble (vmap) gets another result than alone", _SHARED, tolerance)


def on_host(leaf: Any) -> Any:
  """Returns an array of numpy, of which a part can be taken without a program; a random key stays what it is."""
  return leaf if _is_key(leaf) else np.asarray(leaf)


def _is_key(leaf: Any) -> bool:
  return jnp.issubdtype(getattr(leaf, "dtype", np.float32), jax.dtypes.prng_key)


def _varied(leaf: Any) -> Any:
  """Returns other values of the same kind: keys and floating-point numbers change, integers stay."""
  if _is_key(leaf):
    return jax.random.fold_in(leaf, 1)
  return (leaf * 0.75).astype(leaf.dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf


def scans(function: Callable[..., Any], state: Tree, steps: int = 3, tolerance: float = 1e-5) -> None:
  """(state, step) -> state keeps the structure, and scanned gives what a loop gives."""
  keeps(jax.eval_shape(function, state, jnp.int32(0)), state)
  if not jax.tree.leaves(state):
    return
  scanned, _ = jax.jit(lambda s: jax.lax.scan(lambda s, t: (function(s, t), None), s, jnp.arange(steps)))(state)
  step, looped = jax.jit(function), state
  for t in range(steps):
    looped = step(looped, jnp.int32(t))
  close(scanned, looped, "steps that are scanned give another state than a loop of them", _AGAIN, tolerance)


def keeps(new: Tree, old: Tree) -> None:
  """A step leaves the structure, shapes and dtypes of a state as they are."""
  alike(new, old, "a step changes the form of its state ({})",
        "return a state of the names, shapes and dtypes that init makes, because the next step reads it")
