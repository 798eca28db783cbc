"""Hooks of mkdocs: RESULTS.md becomes a page of the site, and links that leave this folder become plain text.

The pages are written to be read in the repository, where a link may lead to any of its files. mkdocs loads this file,
and so does griffe, which reads the docstrings.
"""

import os
import pathlib
import re

import griffe
from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).resolve().parents[1]
RESULTS = "results/index.md"  # the page that RESULTS.md becomes
LINK = re.compile(r"(?<!!)\[((?:[^\[\]`]|`[^`]*`)+)\]\(([^()\s]+)\)")


def on_files(files, config):
  """Adds RESULTS.md as a page, with its links as seen from there."""
  text = (ROOT / "RESULTS.md").read_text()
  files.append(File.generated(config, RESULTS, content=rebased(text, ROOT, pathlib.Path(RESULTS).parent)))
  return files


def on_page_markdown(markdown, page, config, files):
  """Returns a page whose links lead to pages of the site."""
  place = pathlib.Path(page.file.src_uri).parent
  return rebased(markdown, ROOT / "docs" / place, place)


def rebased(text: str, folder: pathlib.Path, place: pathlib.Path) -> str:
  """Returns a text of a folder of the repository as it stands in a folder of the site, such as results."""

  def link(found: re.Match) -> str:
    words, (path, *anchor) = found[1], found[2].split("#", 1)
    if ":" in path or not path:
      return found[0]
    target = pathlib.Path(os.path.relpath(folder / path, ROOT / "docs"))
    if target == pathlib.Path("../RESULTS.md"):
      target = pathlib.Path(RESULTS)
    if target.parts[0] == "..":
      return words
    return f"[{words}]({'#'.join([os.path.relpath(target, place), *anchor])})"

  return LINK.sub(link, text)


class OwnNames(griffe.Extension):
  """Shows every name in the module that defines it, and not again where a package exports it."""

  def on_package(self, *, pkg: griffe.Module, **kwargs) -> None:
    """Forgets what the packages export."""
    packages = [pkg]
    for package in packages:
      package.exports = None
      packages += [module for module in package.modules.values() if not module.is_alias]
