"""The pages of the documentation: their blocks, and their commands."""

import pathlib
import re
import shlex

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "RESULTS.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page, *kinds):
  """Returns the fenced blocks of a page that are of one of these kinds."""
  found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
  return [block for kind, block in found if kind in kinds]


def prose(page):
  """Returns a page without its fenced blocks."""
  return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def commands(page):
  """Returns the commands of a page, as lists of words: the lines of its blocks, and those within a line of text."""
  lines = [line for block in blocks(page, "sh") for line in block.replace("\\\n", " ").splitlines()]
  lines += [code.replace("\n", " ") for code in re.findall(r"`((?:python -m|make|pip install) [^`]+)`", prose(page))]
  return [shlex.split(line) for line in lines if line.strip()]


def files(page):
  """Returns {path: text} of the blocks that the reader puts into files: their first line names the path."""
  found = [re.match(r"# file: (\S+)\n", block) for block in blocks(page, "python")]
  return {match[1]: match.string for match in found if match}
