"""A notebook or a test may import several binaries: flags of one name must not refuse each other."""

import ast
import collections
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[2]


def flags_of(source):
  """Yields (name, whether it is defined with **terminal.SHARED) of every flag that a source defines."""
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr.startswith("DEFINE"):
      yield node.args[0].value, any(keyword.arg is None for keyword in node.keywords)


def test_flags_of_one_name_are_shared():
  found = collections.defaultdict(list)
  for path in sorted((ROOT / "experiments").rglob("*.py")):
    for name, shared in flags_of(path.read_text()):
      found[name].append((path.name, shared))
  assert len(found) > 50
  alone = {name: [file for file, shared in uses if not shared] for name, uses in found.items()}
  assert not {name: files for name, files in alone.items() if len(found[name]) > 1 and files}
