"""Lists the models that a config can name: parameters, multiplications and shapes; or the layers of one of them.

  python -m experiments.models
  python -m experiments.models --name=my_nets:Net --input_shape=8,8,1
  python -m experiments.models --name=resnet50 [--num_classes=10] [--input_shape=64,64,3] [--set=width=32,norm=none]

Nothing is computed but shapes. MACs are the multiplications of one example in evaluation mode, in millions: those of
convolutions (zero padding included) and matrix products as papers count them, and elementwise ones. jax's own cost
analysis, which --name shows beside them, leaves out the padding, takes a scan for one step and counts additions as
well. Of a model with a deployed form, "deployed" is the number of parameters in that form, the rest is of training.
"""

import ast
import dataclasses
import math
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags
from flax import linen as nn
from jax.interpreters import partial_eval

from nurture import models, reporting, terminal
from nurture.core import Outputs, Preset, UserError, fields_of
from nurture.core.build import suggest
from nurture.core.extensions import is_extension
from nurture.models.native import native
from nurture.reporting.tables import MISSING
from nurture.terminal.values import evaluated

_NAME = flags.DEFINE_string("name", None, "Model whose layers are shown. Default: the table of all.", **terminal.SHARED)
_FILTER = flags.DEFINE_string("filter", "", "Part of the names that the table shows, such as vit.")
_CLASSES = flags.DEFINE_integer("num_classes", None, "Classes, or tokens of a language model.", lower_bound=1)
_SHAPE = flags.DEFINE_string("input_shape", None, "One input, such as 32,32,3 or 256 (tokens). Default: as published.")
_SET = flags.DEFINE_multi_string("set", [], "Fields, such as depth=3,width=64 or \"blocks=(2,2,2),norm=none\".")

_WIDTH = 120  # columns of a terminal


@dataclasses.dataclass(frozen=True)
class Description:
  """Shapes of a model: its variables, what it returns for one example, and the multiplications on the way."""

  module: nn.Module
  example: jax.ShapeDtypeStruct  # [1, ...]
  variables: Mapping[str, Any]
  outputs: Outputs
  macs: int
  deployed: int | None  # parameters of the deployed form

  @property
  def input_shape(self) -> tuple[int, ...]:
    """Shape of one input."""
    return self.example.shape[1:]


def main(argv: Sequence[str]) -> None:
  del argv
  given = parse_shape(_SHAPE.value), _CLASSES.value, parse_fields(_SET.value)
  print(layers_of(_NAME.value, describe(_NAME.value, *given)) if _NAME.value else table(_FILTER.value, *given))


def describe(
  name: str, input_shape: tuple[int, ...] | None = None, num_classes: int | None = None,
  fields: Mapping[str, Any] | None = None,
) -> Description:
  """Returns the shapes of a row of MODELS or of code of one's own, with native input and classes where none are given.

  Raises:
    UserError: for an unknown name, or fields or shapes that the model refuses.
  """
  if name not in models.MODELS and not is_extension(name):
    raise UserError(f"--name={name} is no model; {suggest(name, models.MODELS)}.")
  row, fields = models.rows_for(models.MODELS, name)[name], dict(fields or {})
  for field in ("name", "num_classes"):
    if field in fields:
      raise UserError(f"--set={field}=... is a flag of its own; give --{field}.")
  known = {"num_classes", "num_outputs", "input_shape", *fields, *(row.arguments if isinstance(row, Preset) else ())}
  missing = [key for key, p in fields_of(row).items() if p.default is p.empty and key not in known]
  if missing:
    raise UserError(f"{name} has no {missing[0]} of its own; give --set=\"{missing[0]}=...\".")
  native_shape, native_classes = native(name)
  shape = input_shape or native_shape
  module = models.fitted({"name": name, **fields}, "config.model", num_classes or native_classes, shape)
  tokens = len(shape) == len(native_shape) == 1
  x = jax.ShapeDtypeStruct((1, *shape), jnp.int32 if tokens else jnp.float32)
  variables = _variables(module, x)
  jaxpr, outputs = jax.make_jaxpr(module.apply, return_shape=True)(variables, x)
  deployed = getattr(module, "deployed", None)
  merged = _size(_variables(deployed(), x)["params"]) if deployed else None
  needed, _ = partial_eval.dce_jaxpr(jaxpr.jaxpr, [True] * len(jaxpr.jaxpr.outvars))  # nnx initializes in every trace
  return Description(module, x, variables, outputs, multiplications(needed), merged)


def _variables(module: nn.Module, x: jax.ShapeDtypeStruct) -> Mapping[str, Any]:
  return jax.eval_shape(lambda x: module.init(dict.fromkeys(("params", "dropout"), jax.random.key(0)), x), x)


def multiplications(jaxpr: Any) -> int:
  """Returns the multiplications of floating-point numbers in a jaxpr; a loop of unknown length counts once.

  XLA's own count of operations takes a scan for one step and leaves out what meets the zero padding.
  """
  total = 0
  for equation in jaxpr.eqns:
    kind, out = equation.primitive.name, equation.outvars[0].aval if equation.outvars else None
    if kind == "dot_general":
      (contracted, _), _ = equation.params["dimension_numbers"]
      total += out.size * math.prod(equation.invars[0].aval.shape[i] for i in contracted)
    elif kind == "conv_general_dilated":
      kernel, (features, *_) = equation.invars[1].aval, equation.params["dimension_numbers"].rhs_spec
      total += out.size * kernel.size // kernel.shape[features]
    elif kind == "mul" and jnp.issubdtype(out.dtype, jnp.floating):
      total += out.size
    else:
      inner = [multiplications(j) for value in equation.params.values() for j in _jaxprs(value)]
      total += max(inner, default=0) if kind == "cond" else sum(inner) * equation.params.get("length", 1)
  return total


def _jaxprs(value: Any) -> list[Any]:
  if isinstance(value, (tuple, list)):
    return [jaxpr for inner in value for jaxpr in _jaxprs(inner)]
  value = getattr(value, "jaxpr", value)
  return [value] if hasattr(value, "eqns") else []


def table(part: str, *given: Any) -> str:
  """Returns the table of all rows whose names contain `part`, and below it what stands against the others.

  Raises:
    UserError: if no name contains `part`, or no row can be built.
  """
  names = [name for name in models.MODELS if part in name]
  if not names:
    raise UserError(f"--filter={part} fits no model; {suggest(part, models.MODELS)}.")
  rows, notes = [], []
  with reporting.Progress(len(names), "models") as bar:
    for i, name in enumerate(names):
      try:
        rows.append([name, *_cells(describe(name, *given))])
      except UserError as error:
        rows.append([name, *[MISSING] * 5])
        notes.append(str(error) if str(error).startswith(f"{name} ") else f"{name}: {error}")
      bar.update(i + 1)
  if len(notes) == len(names):
    raise UserError(notes[0])
  text = reporting.plain_table(["model", "parameters", "deployed", "MACs / 1e6", "input", "output"], rows)
  return "\n".join([text, *([""] if notes else []), *(_wrapped(note) for note in notes)])


def _cells(d: Description) -> list[str]:
  deployed = MISSING if d.deployed is None else f"{d.deployed:,}"
  shapes = _by(d.input_shape), _by(d.outputs.logits.shape[1:])
  return [f"{_size(d.variables['params']):,}", deployed, f"{d.macs / 1e6:,.2f}", *shapes]


def layers_of(name: str, d: Description) -> str:
  """Returns the taps of a model in call order, its parameters by submodule, and its other variables."""
  parameters, deployed, macs, shape, logits = _cells(d)
  head = (f"{name} ({type(d.module).__name__}): {shape} -> {logits}, {parameters} parameters, {macs} million MACs\n"
          f"({cost_analysis(d) / 2e6:,.2f} by jax's cost analysis, half of its operations)")
  taps = [[tap, _by(array.shape[1:])] for tap, array in sorted(d.outputs.taps.items())]
  sections = [head, reporting.plain_table(["tap", "shape"], [*taps, ["logits", logits]])]
  for collection in ("params", *(c for c in d.variables if c != "params")):
    rows = [[module, f"{count:,}", line] for module, count, lines in _submodules(d.variables[collection])
            for count, line in zip([count, *[""] * len(lines)], lines)]
    total = _size(d.variables[collection])
    sections.append(reporting.plain_table([collection, "numbers", "shapes"], [*rows, ["total", f"{total:,}", ""]]))
  if d.deployed is not None:
    sections.append(f"The deployed form has {deployed} parameters.")
  return "\n\n".join(sections)


def cost_analysis(d: Description) -> float:
  """Returns the operations of one example in evaluation mode as XLA counts them, before it optimizes."""
  return jax.jit(lambda v, x: d.module.apply(v, x).logits).lower(d.variables, d.example).cost_analysis()["flops"]


def _submodules(variables: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, int, list[str]]]:
  """Yields (path, numbers, lines of shapes) of every module that has variables of its own."""
  own = {name: leaf for name, leaf in variables.items() if not isinstance(leaf, Mapping)}
  if own:
    shapes = [f"{name} {_by(leaf.shape)}" for name, leaf in sorted(own.items(), key=lambda item: -len(item[1].shape))]
    yield "/".join(path), _size(own), textwrap.wrap(", ".join(shapes), 75, break_on_hyphens=False)
  for name in sorted(variables.keys() - own.keys(), key=_natural):
    yield from _submodules(variables[name], (*path, name))


def _natural(name: str) -> list[Any]:
  """Sorts block2 before block10."""
  return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _size(tree: Any) -> int:
  return sum(leaf.size for leaf in jax.tree.leaves(tree))


def _by(shape: Sequence[int]) -> str:
  return "x".join(map(str, shape)) or "1"


def _wrapped(note: str) -> str:
  return textwrap.fill(note, _WIDTH, initial_indent="- ", subsequent_indent="  ", break_long_words=False)


def parse_shape(text: str | None) -> tuple[int, ...] | None:
  """Returns (32, 32, 3) for "32,32,3".

  Raises:
    UserError: if these are no whole numbers of at least 1.
  """
  if text is None:
    return None
  parts = [part.strip() for part in text.strip("() ").rstrip(",").split(",")]
  if not all(re.fullmatch(r"[1-9]\d*", part) for part in parts):
    raise UserError(f"--input_shape={text} is no shape; give whole numbers of at least 1, such as 32,32,3.")
  return tuple(map(int, parts))


def parse_fields(texts: Sequence[str]) -> dict[str, Any]:
  """Returns {"depth": 3, "norm": "batch"} for ["depth=3,norm=batch"]; words are strings, the rest Python's literals.

  Raises:
    UserError: if a text is something else.
  """
  fields = {}
  for text in texts:
    try:
      call = ast.parse(f"fields({text})", mode="eval").body
      if not isinstance(call, ast.Call) or call.args or not call.keywords or not all(k.arg for k in call.keywords):
        raise ValueError("not only fields")
      fields |= {keyword.arg: evaluated(keyword.value) for keyword in call.keywords}
    except (SyntaxError, ValueError) as error:
      raise UserError(f"--set={text} is no list of fields; write it such as --set=depth=3,width=64 or "
                      "--set=\"blocks=(2,2,2),norm=none\", tuples in parentheses.") from error
  return fields


if __name__ == "__main__":
  terminal.run(main)
