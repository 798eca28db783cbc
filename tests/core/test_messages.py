"""The name of a field of the config in messages: its whole path, as the command line takes it."""

import ast
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2] / "lib" / "nurture"
FIELDS = "source|label_noise|augment|normalize|validation|subset|test_subset|noisy_validation"
BARE = re.compile(rf"(?<!config\.)\bdata\.({FIELDS})\b|(?<!config\.)\bdata\.$")
# Paths that are read, not shown.
PATHS = {"training/config.py", "training/phases.py", "training/places.py", "testing/damage.py", "testing/shrink.py"}


def test_messages_about_the_data_name_the_whole_path():
  found = []
  for file in sorted(ROOT.rglob("*.py")):
    tree = ast.parse(file.read_text())
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    if str(file.relative_to(ROOT)) not in PATHS:
      found += [
        f"{file.name}:{node.lineno}: {node.value}" for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs
        and BARE.search(node.value)
      ]
  assert not found
