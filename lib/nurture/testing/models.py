"""Check of models, on a batch of four images or of whatever a model reads."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import errors

from nurture.core import Outputs
from nurture.core.taps import kind
from nurture.models import ACTIVATIONS, MODELS, as_row, rows_for
from nurture.testing import laws
from nurture.testing.laws import BrokenLaw, alike, during, require
from nurture.testing.rows import read

Tree = Any

B, K = 4, 10  # examples, classes
_WIDE = ("logits", "embedding")  # taps that are float32 in any dtype
_RAW = "give parameters param_dtype=jnp.float32, which is flax's default, and cast the input to the model's dtype"


def images() -> jax.Array:
  """Returns [4, 8, 8, 1] normal numbers, what a model reads where nothing else is said."""
  return jax.random.normal(jax.random.key(5), (B, 8, 8, 1), jnp.float32)


def check_model(row: Any, inputs: Any = None, *, steps: int = 2) -> None:
  """Checks a model against every law that training relies on; see `nurture.testing`.

  It returns `Outputs`: float32 logits of the shape that the task asks for and taps of one row an example, named in call
  order, the same in training and evaluation. Parameters are float32, the collections keep their form, values and
  gradients are finite and not all 0. Each key is another network, and members of an ensemble do not mix. In evaluation
  nothing is drawn or changed, and no example of a batch depends on the others.

  Args:
    row: {"name": "my_project.models:Name", field: value}, the name alone, a class of linen, nnx, equinox or haiku, or a
      module. A row gets num_classes=10 (or num_outputs), and input_shape.
    inputs: what the model reads, with leading axis 4: an array, or {field: array}. None takes images [4, 8, 8, 1]; for
      tokens give integers [4, T]. Two fields are taken for the two views of the task "pairs", unless the logits have
      one for each class.
    steps: of training that are scanned and looped, in bfloat16 where the model has the field `dtype`; 0 leaves that
      out, which takes longest.

  Raises:
    AssertionError: names the law that is broken, and what to do.
  """
  x = images() if inputs is None else inputs
  table: Mapping[str, Any] = MODELS
  methods = ("init", "apply")
  if isinstance(row, (str, Mapping)):
    table = rows_for(MODELS, row)
  elif inspect.isclass(row) or not all(hasattr(row, method) for method in methods) and callable(row):
    table, row = {row.__name__: as_row(row)}, row.__name__
  shape = {name: field.shape[1:] for name, field in x.items()} if isinstance(x, Mapping) else x.shape[1:]
  subject = read(table, row, methods, num_classes=K, num_outputs=K, input_shape=shape)
  module = subject.built
  with during(subject.name):
    dtypes = ("float32", "bfloat16") if hasattr(module, "dtype") else ("float32",)
    for dtype in dtypes:
      with during(dtype):
        _check_shapes(_in_dtype(module, dtype), x, dtype)
    with during("evaluation"):
      _check_evaluation(module, x)
    with during("training"):
      _check_members(module, x)
      if steps:
        _check_scan(_in_dtype(module, dtypes[-1]), x, steps)
    with jax.enable_x64(True), during("64-bit numbers switched on"):
      _check_x64(module, x)


def _in_dtype(module: Any, dtype: str) -> Any:
  return module.clone(dtype=dtype) if hasattr(module, "dtype") else module


def _evaluated(module: Any, variables: Tree, x: Any) -> Any:
  """Returns what the model returns in evaluation mode, as training calls it: without keys, nothing may change."""
  try:
    return module.apply(variables, x, train=False)
  except (errors.InvalidRngError, errors.ModifyScopeVariableError) as error:
    does = "draws random numbers" if isinstance(error, errors.InvalidRngError) else "changes variables"
    raise BrokenLaw(f"the model {does} in evaluation; do so only if the argument train is set, as with "
                    "nn.Dropout(rate, deterministic=not train).") from error


def variables_of(module: Any, key: jax.Array, x: Any) -> Tree:
  """Returns the variables of a module under a key."""
  return module.init({"params": key, "dropout": key}, x)


def drawn(module: Any, x: Any) -> Tree:
  """Returns variables of which none stands at a value that hides it, such as a shift of 0; compiles nothing."""
  rng = np.random.default_rng(0)

  def draw(path: tuple[Any, ...], leaf: Any) -> jax.Array:
    if path[-1].key in ("scale", "var"):
      return jnp.asarray(rng.uniform(0.5, 1.5, leaf.shape), leaf.dtype)
    if path[-1].key == "lam":
      return jnp.ones(leaf.shape, leaf.dtype)  # the slope of a network that is only evaluated
    return jnp.asarray(rng.normal(size=leaf.shape) * np.prod(leaf.shape[:-1] or 9) ** -0.5, leaf.dtype)

  shapes = jax.eval_shape(lambda: variables_of(module, jax.random.key(0), x))
  return jax.tree_util.tree_map_with_path(draw, shapes)


def train(module: Any, variables: Tree, x: Any, key: jax.Array | None = None) -> tuple[Outputs, Tree]:
  """Returns (outputs in training mode, the collections that change)."""
  key = jax.random.key(1) if key is None else key
  collections = [name for name in variables if name != "params"]
  return module.apply(variables, x, train=True, rngs={"dropout": key}, mutable=collections)


def value_and_grad(module: Any, variables: Tree, x: Any) -> tuple[tuple[jax.Array, Tree], Tree]:
  """Returns ((the cross-entropy of class 0, the collections that change), the gradient of the parameters)."""

  def loss(params: Tree) -> tuple[jax.Array, Tree]:
    outputs, changed = train(module, {**variables, "params": params}, x)
    return -jax.nn.log_softmax(outputs.logits)[:, 0].mean(), changed

  return jax.value_and_grad(loss, has_aux=True)(variables["params"])


def _check_shapes(module: Any, x: Any, dtype: str) -> None:
  taken = inspect.signature(type(module).__call__).parameters
  require("train" in taken, "the call takes no argument train", "add train=False, and ignore it where nothing differs")
  variables = jax.eval_shape(lambda: variables_of(module, jax.random.key(0), x))
  require("params" in variables, "init makes no parameters", "make them in layers, or with self.param")
  wrong = {leaf.dtype for leaf in jax.tree.leaves(variables)} - {jnp.dtype("float32")}
  require(not wrong, f"init makes {', '.join(map(str, wrong))} variables", _RAW)
  order: list[str] = []

  def forward(variables: Tree) -> Outputs:
    outputs = _evaluated(module, variables, x)
    order[:] = getattr(outputs, "taps", ())
    return outputs

  outputs = jax.eval_shape(forward, variables)
  require(isinstance(outputs, Outputs), f"the call returns {type(outputs).__name__}",
          "return nurture.models.Taps().outputs(logits), or wrap the module with nurture.models.capture")
  width = getattr(module, "num_classes", K)
  size = jax.tree.leaves(x)[0].shape[0]
  right = [(size, width), *([(size, size)] if isinstance(x, dict) else [])]
  shape = (outputs.logits.shape[0], *outputs.logits.shape[-1:])
  require(outputs.logits.ndim in (2, 3) and shape in right,
          f"the logits have the shape {list(outputs.logits.shape)}",
          f"return [{size}, {width}], the field num_classes is their last axis, or [{size}, T, {width}] of a sequence")
  require(outputs.logits.dtype == jnp.float32, f"the logits are {outputs.logits.dtype}",
          "cast them to float32, as nurture.models.Taps().outputs does")
  require(order, "there is no tap, so that guidance and probes see nothing of the network",
          "note arrays by calling a nurture.models.Taps")
  require(order == sorted(order) == list(outputs.taps), f"the names of taps are not sorted in call order ({order})",
          "number them, '000_dense', as nurture.models.Taps does")
  for name, tap in outputs.taps.items():
    require(tap.shape[:1] == (size,), f"the tap {name} has the shape {list(tap.shape)}",
            f"keep the axis of the {size} examples first")
    wide = kind(name) in _WIDE or not hasattr(module, "dtype")
    require(wide or tap.dtype == dtype, f"the tap {name} is {tap.dtype} in a {dtype} network", _RAW)
  trained, changed = jax.eval_shape(lambda variables: train(module, variables, x), variables)
  alike(trained, outputs, "train=True returns other shapes or taps than train=False ({})", "note the same taps in both")
  laws.keeps(changed, {name: variables[name] for name in variables if name != "params"})


def _check_evaluation(module: Any, x: Any) -> None:
  evaluate = jax.jit(lambda variables, x: module.apply(variables, x))
  variables, others = drawn(module, x), jax.tree.map(_others, x)
  laws.retraces(module.apply, variables, x)
  outputs, beside = (jax.tree.map(laws.on_host, evaluate(variables, each)) for each in (x, others))
  laws.finite(outputs, "an output", "leave out what is divided by 0")
  alone = lambda outputs: (outputs.logits[0, :1] if _similarities(outputs, x) else outputs.logits[0],
                           {name: tap[0] for name, tap in outputs.taps.items()})
  laws.close(alone(beside), alone(outputs), "the outputs of an example depend on the others in the batch",
             "reduce over the axes of an example only, and normalize with running statistics unless train is set", 1e-4)
  functions: Mapping[str, Callable[[Any], Any]] = {**ACTIVATIONS, "annealed_relu": lambda x: x}  # the slope is 1
  names = sorted(outputs.taps)
  for before, name in zip(names, names[1:]):
    if kind(name) in functions:
      laws.close(functions[kind(name)](outputs.taps[before]), outputs.taps[name],
                 f"the tap {name} is not the activation of the tap before it, {before}",
                 "note what goes into an activation right before what comes out", 1e-6)


def _similarities(outputs: Outputs, x: Any) -> bool:
  return isinstance(x, dict) and outputs.logits.shape == (len(outputs.logits),) * 2


def _others(x: Any) -> np.ndarray:
  """Returns the inputs with all but the first example replaced by others of the batch, in another order and size."""
  x = np.asarray(x)
  return np.concatenate([x[:1], x[:0:-1] if jnp.issubdtype(x.dtype, jnp.integer) else (3 * x[:0:-1] + 1)])


def _check_members(module: Any, x: Any) -> None:
  """A member does not depend on its neighbours; values and gradients are finite and not all zero."""

  def member(key: jax.Array) -> tuple[jax.Array, Tree]:
    (value, _), gradient = value_and_grad(module, variables_of(module, key, x), x)
    return value, gradient

  keys = jax.random.split(jax.random.key(0), 2)
  members = jax.jit(jax.vmap(member))
  together, swapped = (jax.tree.map(laws.on_host, members(each)) for each in (keys, keys[::-1]))  # one compilation
  laws.finite(together, "a value or a gradient", "leave out what is divided by 0, and scale the initialization")
  laws.close(jax.tree.map(lambda leaf: leaf[::-1], together), swapped,
             "a member of an ensemble depends on its neighbours", "keep arrays apart that are not its own")
  require(any(np.any(leaf) for leaf in jax.tree.leaves(together[1])), "all gradients are 0",
          "leave out stop_gradient and argmax on the way to the logits")
  require(not np.allclose(together[0][0], together[0][1]), "two keys make the same network",
          "initialize with the key that init gets, through flax's layers or self.param")


def _check_scan(module: Any, x: Any, steps: int) -> None:
  """Steps keep the structure of the variables, in bfloat16 too, and a scan of them is a loop of them."""

  def step(variables: Tree, t: jax.Array) -> Tree:
    del t
    (_, changed), gradient = value_and_grad(module, variables, x)
    params = jax.tree.map(lambda p, g: p - 0.01 * g, variables["params"], gradient)
    return {**changed, "params": params}

  laws.scans(step, drawn(module, x), steps=steps, tolerance=1e-3)


def _check_x64(module: Any, x: Any) -> None:
  x = jax.tree.map(lambda leaf: leaf.astype({"f": jnp.float32, "i": jnp.int32}[leaf.dtype.kind]), x)
  variables = jax.eval_shape(lambda: variables_of(module, jax.random.key(0), x))
  wrong = {leaf.dtype for leaf in jax.tree.leaves(variables)} - {jnp.dtype("float32")}
  require(not wrong, f"init makes {', '.join(map(str, wrong))} variables", "name the dtype of every array that is made")
  (_, changed), gradient = jax.eval_shape(lambda v: value_and_grad(module, v, x), variables)
  laws.keeps({**changed, "params": gradient}, variables)
