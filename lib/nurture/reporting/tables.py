"""Tables for a terminal and for Markdown, and numbers with their standard errors."""

from __future__ import annotations

import csv
import io
import math
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

MISSING = "–"
# What is set to the right: a number, perhaps with its error, its power of ten, a unit or a count behind it.
_NUMBER = re.compile(r"\(?[+-]?[\d.,]+(e[+-]?\d+)?( ± [\d.e+-]+)?\)?(e[+-]?\d+)?( %| of \d+| \(n=\d+\))*|–")

# What LaTeX takes for something else (its own characters, a [ or * behind the end of a row) and what its fonts lack.
_LATEX = {character: f"\\{character}" for character in "&%$#_{}"} | {
  "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "[": "{[}", "*": "{*}", "\n": " ",
  MISSING: "--", "…": r"\dots{}", "±": r"$\pm$", "×": r"$\times$", "<": "$<$", ">": "$>$", "|": "$|$",
} | {
  letter: f"$\\{unicodedata.name(letter).split()[-1].lower().replace('lamda', 'lambda')}$"
  for letter in "αβγδεζηθικλμνξπρστυφχψω"
}


def markdown_table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
  """Returns a GitHub table whose source is aligned too; a column of numbers is set to the right."""
  cells = [[str(c).replace("|", "\\|").replace("\n", " ") for c in row] for row in [headers, *rows]]
  right = _numeric_columns(cells)
  widths = [max(3, *(len(row[i]) for row in cells)) for i in range(len(headers))]
  rule = ["-" * (w - 1) + ":" if r else "-" * w for w, r in zip(widths, right)]
  return "\n".join("| " + " | ".join(row) + " |" for row in _aligned([cells[0], rule, *cells[1:]], widths, right))


def plain_table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
  """Returns a table of aligned columns for the terminal."""
  cells = [[str(c) for c in row] for row in [headers, *rows]]
  widths = [max(len(row[i]) for row in cells) for i in range(len(headers))]
  lines = _aligned([cells[0], ["─" * w for w in widths], *cells[1:]], widths, _numeric_columns(cells))
  return "\n".join("  ".join(row).rstrip() for row in lines)


def csv_table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
  """Returns a table for programs: commas, quotes where a cell needs them, nothing for None, numbers in full."""
  text = io.StringIO()
  csv.writer(text, lineterminator="\n").writerows([headers, *rows])
  return text.getvalue()


def latex_table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
  """Returns a tabular with the rules of booktabs; a column of numbers is set to the right."""
  cells = [[str(c) for c in row] for row in [headers, *rows]]
  columns = "".join("r" if right else "l" for right in _numeric_columns(cells))
  lines = [" & ".join(map(_latex, row)) + r" \\" for row in cells]
  return "\n".join([
    r"% needs \usepackage{booktabs}", rf"\begin{{tabular}}{{{columns}}}", r"\toprule", lines[0], r"\midrule",
    *lines[1:], r"\bottomrule", r"\end{tabular}", "",
  ])


def _latex(cell: str) -> str:
  """Returns a cell as LaTeX prints it; a number gets a minus for its hyphen and a power of ten for its "e-07"."""
  text = "".join(_LATEX.get(character, character) for character in cell)
  if _NUMBER.fullmatch(cell):
    text = re.sub(r"e([+-]\d+)", lambda power: rf" $\times 10^{{{int(power[1])}}}$", text)
    text = re.sub(r"(^|[( ])-(?=\d)", r"\1$-$", text)
  return text


def format_mean_sem(mean: float | None, sem: float | None, n: int, digits: int = 2) -> str:
  """Returns "97.412 ± 0.083": the standard error with `digits` significant digits, the mean to the same place.

  One member (n = 1) has no standard error and gives its number with four significant digits; none gives a
  dash. Means below 1e-4 or from 1e6 on share one power of ten, "(1.230 ± 0.010)e-07". A standard error below the
  last digit of a float stands alone, "0.1 ± 6.9e-18".
  """
  if mean is None or n == 0 or not math.isfinite(mean):
    return MISSING
  if sem is None or n == 1 or not math.isfinite(sem):
    return f"{mean:.4g}"
  if sem == 0:
    return f"{mean:.4g} ± 0"
  if sem < 1e-14 * abs(mean):
    return f"{mean:.15g} ± {sem:.{digits - 1}e}"
  exponent = _exponent(max(abs(mean), sem), 1)
  if exponent < -4 or exponent >= 6:
    return f"({_to_same_place(mean / 10.0**exponent, sem / 10.0**exponent, digits)})e{exponent:+03d}"
  return _to_same_place(mean, sem, digits)


def _to_same_place(mean: float, sem: float, digits: int) -> str:
  decimals = max(0, digits - 1 - _exponent(sem, digits))
  return f"{mean:.{decimals}f} ± {sem:.{decimals}f}"


def _exponent(value: float, digits: int) -> int:
  """The power of ten after rounding to `digits` digits: 0.0996 with two is 1.0e-01."""
  return int(f"{value:.{digits - 1}e}".split("e")[1])


def _numeric_columns(cells: list[list[str]]) -> list[bool]:
  body = cells[1:]
  return [bool(body) and all(_NUMBER.fullmatch(row[i]) for row in body) for i in range(len(cells[0]))]


def _aligned(lines: list[list[str]], widths: list[int], right: list[bool]) -> list[list[str]]:
  return [[c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right)] for line in lines]
