"""Changes: the operators of cosmic-ray, and four of our own for what it leaves alone.

A place is a piece of source that can be changed, in one way or in many (each comparison into every other). Places are
sampled first and then one change of each, so that no operator outweighs the others by its number of variants.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import pathlib
import random
import tomllib
from collections.abc import Iterable, Iterator, Mapping

import parso
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Operator
from cosmic_ray.operators.provider import OperatorProvider

EQUIVALENT = pathlib.Path(__file__).parent / "equivalent.toml"

# Calls that can be left out: what is left has the same shape and type, or fails at once.
_TRANSPARENT = frozenset({
  "abs", "asarray", "astype", "ceil", "clip", "exp", "expm1", "flip", "floor", "isfinite", "log", "log1p", "max",
  "maximum", "min", "minimum", "negative", "normalize", "round", "select", "sort", "sorted", "sqrt", "square",
  "stop_gradient", "tuple", "where",
})
# Which arguments can stand for the call; the first, if it is not listed.
_ARGUMENTS = {"max": (0, 1), "maximum": (0, 1), "min": (0, 1), "minimum": (0, 1), "where": (1, 2), "select": (1, 2)}


class KeepArgument(Operator):
  """max(a, b) -> a: a call is replaced by one of its arguments."""

  def mutation_positions(self, node):
    for _ in self._candidates(node):
      yield node.start_pos, node.end_pos

  def mutate(self, node, index):
    return parso.parse(f"{_prefix(node)}({self._candidates(node)[index].get_code().strip()})")

  def _candidates(self, node):
    if node.type not in ("atom_expr", "power") or node.children[-1].type != "trailer":
      return []
    *callee, trailer = node.children
    name = callee[-1].children[-1] if callee[-1].type == "trailer" else callee[-1]
    if trailer.children[0].value != "(" or getattr(name, "value", "") not in _TRANSPARENT:
      return []
    arguments = [a for a in _arguments(trailer) if a.type != "argument"]
    indices = _ARGUMENTS.get(name.value, (0,))
    return [arguments[i] for i in indices if i < len(arguments) and len(arguments) > (1 if len(indices) > 1 else 0)]

  @classmethod
  def examples(cls):
    return ()


class DropKeyword(Operator):
  """f(a, b=c) -> f(a): a keyword argument is left to its default."""

  def mutation_positions(self, node):
    for argument in self._keywords(node):
      yield argument.start_pos, argument.end_pos

  def mutate(self, node, index):
    dropped = self._keywords(node)[index]
    kept = [a.get_code().strip() for a in _arguments(node) if a is not dropped]
    return parso.parse(f"({', '.join(kept)})")

  def _keywords(self, node):
    if node.type != "trailer" or node.children[0].value != "(":
      return []
    return [a for a in _arguments(node) if a.type == "argument" and getattr(a.children[1], "value", "") == "="]

  @classmethod
  def examples(cls):
    return ()


class DropStatement(Operator):
  """A call for its effect, a raise, or a change of something that exists already is left out."""

  def mutation_positions(self, node):
    if node.type == "simple_stmt" and self._droppable(node.children[0]):
      yield node.children[0].start_pos, node.children[0].end_pos

  def mutate(self, node, index):
    node.children[0] = parso.parse(f"{_prefix(node.children[0])}pass")
    return node

  def _droppable(self, statement):
    if statement.type == "raise_stmt" or statement.type in ("atom_expr", "power"):
      return True
    if statement.type != "expr_stmt":
      return False
    target, operator = statement.children[0], statement.children[1]
    if operator.type == "annassign":
      return False
    if getattr(operator, "value", "") != "=" or target.type in ("atom_expr", "power"):  # += or a[i] = or a.b =
      return True
    # x = f(x); a new name would only be missing
    names = lambda tree: {leaf.value for leaf in ast_nodes(tree) if leaf.type == "name"}
    return bool(names(target) & names(statement.children[-1]))

  @classmethod
  def examples(cls):
    return ()


class DropTerm(Operator):
  """a - b -> a and a * b -> b: one side of an operation is left out."""

  def mutation_positions(self, node):
    if node.type in ("arith_expr", "term") and len(node.children) == 3:
      for _ in range(2):
        yield node.start_pos, node.end_pos

  def mutate(self, node, index):
    return parso.parse(f"{_prefix(node)}({node.children[2 * index].get_code().strip()})")

  @classmethod
  def examples(cls):
    return ()


def _prefix(node) -> str:
  return node.get_first_leaf().prefix


def _arguments(trailer) -> list:
  inner = trailer.children[1:-1]
  if inner and inner[0].type == "arglist":
    inner = inner[0].children
  return [node for node in inner if getattr(node, "value", "") != ","]


_ARITHMETIC = ("Add", "Sub", "Mul", "Div", "FloorDiv", "Mod", "Pow")


def _is_telling(name: str) -> bool:
  """Whether an operator of cosmic-ray is used. Left out is what needs arguments of its own, what compares by identity
  instead of value, and bitwise operations in the place of arithmetic, which fail at once on floats."""
  kind, before, after = [*name.split("_"), "", ""][:3]
  if kind == "ReplaceBinaryOperator":
    return (before in _ARITHMETIC) == (after in _ARITHMETIC)
  if kind == "ReplaceComparisonOperator":
    return (before in ("Is", "IsNot")) == (after in ("Is", "IsNot"))
  return kind not in ("VariableReplacer", "VariableInserter")


_provider = OperatorProvider()
OPERATORS: dict[str, Operator] = {
  **{name: _provider[name]() for name in _provider if _is_telling(name)},
  **{kind.__name__: kind() for kind in (KeepArgument, DropKeyword, DropStatement, DropTerm)},
}


@dataclasses.dataclass(frozen=True)
class Mutant:
  """One change of one file.

  Attributes:
    file: relative to the root.
    line: where the changed piece begins, from 1.
    operator: a name in OPERATORS.
    occurrence: the number of the change among those of its operator in the file.
  """

  file: str
  line: int
  operator: str
  occurrence: int

  def source(self, root: pathlib.Path) -> str:
    """Returns the changed text of the file."""
    return mutate_code((root / self.file).read_text(), OPERATORS[self.operator], self.occurrence)

  def changed_lines(self, root: pathlib.Path) -> list[str]:
    """Returns the lines that a diff marks with - and +."""
    before, after = (root / self.file).read_text().splitlines(), self.source(root).splitlines()
    lines = difflib.unified_diff(before, after, n=0, lineterm="")
    return [line for line in lines if line[0] in "-+" and line[:3] not in ("---", "+++")]

  def __str__(self) -> str:
    return f"{self.file}:{self.line}:{self.operator}"


def places(root: pathlib.Path, file: str) -> dict[tuple, list[Mutant]]:
  """Returns {position of a changeable piece: the changes of it} of one file."""
  found: dict[tuple, list[Mutant]] = {}
  tree = get_ast((root / file).read_text())
  counts = dict.fromkeys(OPERATORS, 0)
  for node in _walk(tree):
    for name, operator in OPERATORS.items():
      for position in operator.mutation_positions(node):
        if not _is_annotation(node):
          found.setdefault(position, []).append(Mutant(file, position[0][0], name, counts[name]))
        counts[name] += 1
  return found


def _walk(node) -> Iterator:
  yield node
  for child in getattr(node, "children", ()):
    yield from _walk(child)


def _is_annotation(node) -> bool:
  """Whether a node stands in a type annotation, which changes nothing when the program runs."""
  while node.parent is not None:
    parent = node.parent
    if parent.type == "annassign" and node is parent.children[1]:
      return True
    if parent.type == "tfpdef" and node is parent.children[-1]:
      return True
    if parent.type == "funcdef" and node is parent.annotation:
      return True
    node = parent
  return False


def sample(root: pathlib.Path, files: Iterable[str], count: int, seed: int) -> list[Mutant]:
  """Returns one change of each of `count` places, drawn from a seed; of all of them if `count` is 0.

  A change that is no Python, or that the compiler does not see, is drawn again.
  """
  draw = random.Random(seed)
  everywhere = [mutants for file in files for _, mutants in sorted(places(root, file).items())]
  draw.shuffle(everywhere)
  chosen = []
  for mutants in everywhere:
    if count and len(chosen) == count:
      break
    draw.shuffle(mutants)
    chosen.extend(next(([mutant] for mutant in mutants if _is_program(root, mutant)), []))
  return sorted(chosen, key=lambda mutant: (mutant.file, mutant.line))


def _is_program(root: pathlib.Path, mutant: Mutant) -> bool:
  try:
    return ast.dump(ast.parse(mutant.source(root))) != ast.dump(ast.parse((root / mutant.file).read_text()))
  except SyntaxError:
    return False


def equivalents(path: pathlib.Path = EQUIVALENT) -> list[Mapping[str, str]]:
  """Returns the changes that no test can find; each has "file", "before", "after" and "reason"."""
  return tomllib.loads(path.read_text()).get("mutant", []) if path.exists() else []


def reason_of_equivalence(root: pathlib.Path, mutant: Mutant, known: Iterable[Mapping[str, str]]) -> str | None:
  """Returns why a change changes nothing, or None. It is known by its text, which outlasts the numbers of its lines."""
  lines = mutant.changed_lines(root)
  before, after = (" ".join(line[1:].strip() for line in lines if line[0] == sign) for sign in "-+")
  for entry in known:
    if (entry["file"], entry["before"], entry["after"]) == (mutant.file, before, after):
      return entry["reason"]
  return None
