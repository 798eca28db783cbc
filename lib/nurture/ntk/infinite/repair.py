"""Repair of neural-tangents for today's JAX, by which `nurture.ntk.infinite` imports it.

neural-tangents 0.6.5, the last release, was written for JAX 0.4. It imports and works on 0.10 to 0.12 with this:

* While it is imported, and only then, views of `jax.core`, `jax.interpreters.ad` and `jax.util` stand in their places.
  They have the names that JAX has since moved or dropped. JAX itself stays as it was.
* `neural_tangents.experimental`, which loads tensorflow, is an empty module. It stays in sys.modules.
* Inside neural-tangents, for good:
  structured derivatives (empirical NTK, implementation 3), which read JAX's own linearization, get it from the public
  `jax.linearize` and `jax.make_jaxpr`; primitives without a transpose rule of the old form get `jax.linear_transpose`;
  the choice of an implementation (AUTO, 0) reads the costs of a program, which XLA now returns as a dict;
  `predict.max_learning_rate` gives SciPy's `eigvalsh` its present argument;
  `predict.gradient_descent_mse` takes kernels and ridges that are traced;
  arrays no longer go to `jnp.dtype`, nor shapes without values to `jnp.size`, which are about to refuse them.

Nothing of `jax._src` is used. The tables `primitive_transposes` and `primitive_jvps` of `jax.interpreters.ad`, and
jaxprs as such (`jax.extend.core`), may change in any release.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.metadata
import importlib.util
import math
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.extend
import jax.extend.core
import jax.interpreters.ad
import jax.numpy as jnp

from nurture.core import UserError

PACKAGE = "neural_tangents"
# What code that has lost its footing raises: an import, an attribute, an argument, a rule, an invariant.
_BROKEN = (ImportError, AttributeError, TypeError, KeyError, ValueError, AssertionError, NotImplementedError)


@functools.cache
def neural_tangents() -> types.ModuleType:
  """Returns the package neural_tangents, repaired.

  Raises:
    UserError: if it is not installed, or if this JAX lacks what the repair needs. Calls after a failure try again.
  """
  if importlib.util.find_spec(PACKAGE) is None:
    raise UserError('neural-tangents is not installed; run pip install "neural-tangents>=0.6.5,<0.7".')
  before = set(sys.modules)
  try:
    sys.modules.setdefault(f"{PACKAGE}.experimental", _without_tensorflow())
    with _replaced(_views()):
      package = importlib.import_module(PACKAGE)
    _mend()
    _check(package)
  except _BROKEN as error:
    for name in set(sys.modules) - before:
      if name.partition(".")[0] == PACKAGE:
        del sys.modules[name]
    raise UserError(
      f"neural-tangents {importlib.metadata.version('neural-tangents')} does not work with jax {jax.__version__} "
      f"({type(error).__name__}: {error}); install the jax that requirements.txt names, or use "
      "nurture.ntk.empirical and nurture.ntk.deep, which do without it."
    ) from error
  return package


def rank_promotion():
  """Returns the context in which arrays of different ranks may meet, as they do in neural-tangents."""
  return jax.numpy_rank_promotion("allow")


def _without_tensorflow() -> types.ModuleType:
  module = types.ModuleType(f"{PACKAGE}.experimental", "Left empty: it would load tensorflow.")
  module.__path__ = []
  return module


class _View(types.ModuleType):
  """A module with some names added; all others are the module's own."""

  def __init__(self, module: types.ModuleType, names: Mapping[str, Any]):
    super().__init__(module.__name__, f"{module.__name__} as neural-tangents knew it.")
    self.__dict__.update(names, _module=module)

  def __getattr__(self, name: str) -> Any:
    return getattr(self._module, name)


def _views() -> dict[str, types.ModuleType]:
  """Returns what neural-tangents is to find under the names of three modules of JAX."""
  moved = ("Jaxpr", "JaxprEqn", "Literal", "Primitive", "Var")
  core = {name: getattr(jax.extend.core, name) for name in moved}
  core["DShapedArray"] = type("DShapedArray", (), {})  # JAX has no arrays of a size known at run time any more
  ad = {
    "zeros_like_p": jax.extend.core.Primitive("zeros_like"),  # the key of a rule; JAX does not make it any more
    "config": types.SimpleNamespace(jax_enable_checks=False),  # the checks need functions that are gone
    # Puts names of operations into profiles.
    "source_info_util": types.SimpleNamespace(transform_name_stack=lambda name: contextlib.nullcontext()),
  }
  util = {
    "safe_map": lambda f, *xs: list(map(f, *_of_one_length(xs))),
    "safe_zip": lambda *xs: list(zip(*_of_one_length(xs))),
  }
  return {
    "jax.core": _View(jax.core, core),
    "jax.interpreters.ad": _View(jax.interpreters.ad, ad),
    "jax.util": _View(types.ModuleType("jax.util"), util),
  }


def _of_one_length(xs: Iterable[Iterable]) -> list[list]:
  xs = [list(x) for x in xs]
  if len({len(x) for x in xs}) > 1:
    raise ValueError(f"lengths differ: {[len(x) for x in xs]}")
  return xs


@contextlib.contextmanager
def _replaced(modules: Mapping[str, types.ModuleType]) -> Iterator[None]:
  """Puts modules in the place of others, in sys.modules and as attributes of their packages, until the end."""
  absent = object()
  saved = []
  try:
    for name, module in modules.items():
      package, _, last = name.rpartition(".")
      for table, key in ((sys.modules, name), (vars(sys.modules[package]), last)):
        saved.append((table, key, table.get(key, absent)))
        table[key] = module
    yield
  finally:
    for table, key, value in saved:
      if value is absent:
        del table[key]
      else:
        table[key] = value


def _mend() -> None:
  """Replaces what does not work inside neural-tangents."""
  empirical = importlib.import_module(f"{PACKAGE}._src.empirical")
  empirical._get_primals_out_and_pullback = functools.partial(_linearize, empirical._backward_pass)
  empirical._eqn_vjp_fn = _equation_vjp
  empirical._get_flops = _flops
  empirical.jnp = _View(jnp, {
    "shape": _shape,
    "size": lambda x: math.prod(_shape(x)),
    "dtype": lambda x: x.dtype if hasattr(x, "dtype") else jnp.dtype(x),
  })
  predict = importlib.import_module(f"{PACKAGE}._src.predict")
  predict.sp = _scipy()
  predict.jax = _View(jax, {"core": _View(jax.core, {"eval_context": contextlib.nullcontext})})
  for name in ("_get_cho_solve", "_get_fns_in_eigenbasis"):
    setattr(predict, name, _at_once(getattr(predict, name)))


def _linearize(
  backward_pass: Callable, fn: Callable, mode: Any, j_rules: bool, s_rules: bool, forward: bool | None, *primals: Any
) -> tuple[Any, Callable]:
  """Returns fn(*primals), and the function from cotangents to what neural-tangents collects on the way back.

  The jaxpr has the tangents of the primals as inputs, and as constants the values at this point, which may be traced.
  """
  flat, structure = jax.tree.flatten(primals)
  structures = []

  def flat_fn(*leaves):
    outputs, structure_out = jax.tree.flatten(fn(*jax.tree.unflatten(structure, leaves)))
    structures.append(structure_out)
    return outputs

  with jax.disable_jit():  # calls of jitted functions would hide their equations
    outputs, tangent_map = jax.linearize(flat_fn, *flat)
    closed = jax.make_jaxpr(tangent_map)(*flat)

  def pullback(*cotangents):
    unknown = [jax.interpreters.ad.UndefinedPrimal(v.aval) for v in closed.jaxpr.invars]
    collected = backward_pass(
      closed.jaxpr, mode=mode, consts=closed.consts, primals_in=unknown,
      cotangents_in=tuple(jax.tree.leaves(cotangents)), _j_rules=j_rules, _s_rules=s_rules, _fwd=forward,
    )
    return jax.tree.unflatten(structure, collected)

  return jax.tree.unflatten(structures[-1], outputs), pullback


def _equation_vjp(equation: Any, cotangent: Any, *inputs: Any) -> Any:
  """Returns the cotangents of an equation's inputs, None for those that are known; no equation is the identity."""
  if equation is None:
    return (cotangent,)
  primitive = equation.primitive
  rule = jax.interpreters.ad.primitive_transposes.get(primitive) or functools.partial(_linear_transpose, primitive)
  return rule(cotangent, *inputs, **equation.params)


def _linear_transpose(primitive: Any, cotangent: Any, *inputs: Any, **params: Any) -> list[Any]:
  ad = jax.interpreters.ad
  linear = [i for i, value in enumerate(inputs) if ad.is_undefined_primal(value)]
  cotangents: list[Any] = [None] * len(inputs)
  if isinstance(cotangent, ad.Zero):
    return cotangents

  def apply(*values):
    arguments = list(inputs)
    for i, value in zip(linear, values):
      arguments[i] = value
    return primitive.bind(*arguments, **params)

  shapes = [jax.ShapeDtypeStruct(inputs[i].aval.shape, inputs[i].aval.dtype) for i in linear]
  for i, value in zip(linear, jax.linear_transpose(apply, *shapes)(cotangent)):
    cotangents[i] = value
  return cotangents


def _flops(f: Callable, optimize: bool, *args: Any, **kwargs: Any) -> float:
  lowered = jax.jit(f).lower(*args, **kwargs)
  costs = (lowered.compile() if optimize else lowered).cost_analysis()
  costs = costs[0] if isinstance(costs, (list, tuple)) else costs
  return (costs or {}).get("flops", math.inf)


def _shape(x: Any) -> tuple[int, ...]:
  return tuple(x.shape) if hasattr(x, "shape") else jnp.shape(x)


def _at_once(function: Callable) -> Callable:
  """Returns the function so that it runs at once, inside jit too, unless an argument is traced itself."""

  @functools.wraps(function)
  def run(*args):
    traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(args))
    with contextlib.nullcontext() if traced else jax.core.eval_context():
      return function(*args)

  return run


def _scipy() -> types.ModuleType:
  """Returns SciPy, its `eigvalsh` with the range of eigenvalues under its old name too."""
  import scipy.linalg  # noqa: PLC0415  (not before neural-tangents needs it)

  def eigvalsh(a, *args, eigvals=None, **kwargs):
    return scipy.linalg.eigvalsh(a, *args, **kwargs, **({} if eigvals is None else {"subset_by_index": eigvals}))

  return _View(scipy, {"linalg": _View(scipy.linalg, {"eigvalsh": eigvalsh})})


def _check(package: types.ModuleType) -> None:
  """Traces a structured derivative and a kernel, so that a JAX that has moved on fails here and not in a study."""
  init, apply, kernel = package.stax.serial(package.stax.Dense(1), package.stax.Relu(), package.stax.Dense(1))
  _, params = jax.eval_shape(lambda key: init(key, (2, 1)), jax.random.key(0))
  ntk = package.empirical_ntk_fn(apply, implementation=package.NtkImplementation.STRUCTURED_DERIVATIVES)
  x = jax.ShapeDtypeStruct((2, 1), jnp.float32)
  jax.eval_shape(lambda x, params: (ntk(x, None, params), kernel(x, None, "ntk")), x, params)
