"""Tables and numbers with their standard errors."""

import csv
import io
import re

import numpy as np
import pytest

from nurture.reporting import format_mean_sem, markdown_table, plain_table
from nurture.reporting.tables import csv_table, latex_table


@pytest.mark.parametrize("mean, sem, text", [
  (97.4123, 0.0834, "97.412 ± 0.083"),
  (0.97412, 0.0008, "0.97412 ± 0.00080"),
  (12.3, 4.56, "12.3 ± 4.6"),
  (1234.5, 67.8, "1234 ± 68"),       # no digit behind the point, and round half to even
  (0.5, 0.0996, "0.50 ± 0.10"),      # rounds up to the next power of ten
  (-0.25, 0.011, "-0.250 ± 0.011"),
  (1.23e-7, 1e-9, "(1.230 ± 0.010)e-07"),
  (2.5e8, 3e6, "(2.500 ± 0.030)e+08"),
  (0.125, 0.0, "0.125 ± 0"),
  (0.1, 6.94e-18, "0.1 ± 6.9e-18"),  # members one bit apart
  (-0.1, 0.99e-15, "-0.1 ± 9.9e-16"),
  (0.1, 1.25e-15, "0.1000000000000000 ± 0.0000000000000012"),
  (0.0, 2e-20, "(0.0 ± 2.0)e-20"),
  (123456.0, 12.0, "123456 ± 12"),
  (1234567.0, 12.0, "(1.234567 ± 0.000012)e+06"),
  (0.0001234, 0.0000021, "0.0001234 ± 0.0000021"),
  (0.00001234, 0.0000021, "(1.23 ± 0.21)e-05"),
])
def test_two_digits_of_the_standard_error(mean, sem, text):
  assert format_mean_sem(mean, sem, 5) == text


def test_digits_can_be_chosen():
  assert format_mean_sem(97.4123, 0.0834, 5, digits=1) == "97.41 ± 0.08"


def test_one_member_and_none():
  assert format_mean_sem(0.974123, None, 1) == "0.9741"
  assert format_mean_sem(0.974123, 0.1, 1) == "0.9741"
  assert format_mean_sem(None, None, 0) == "–"
  assert format_mean_sem(0.5, 0.1, 0) == format_mean_sem(np.nan, 0.1, 3) == format_mean_sem(np.inf, 0.1, 3) == "–"
  assert format_mean_sem(0.5, None, 2) == format_mean_sem(0.5, np.inf, 2) == "0.5"


@pytest.mark.parametrize("cell, right", [
  ("0.5", True), ("-0.5 ± 0.1", True), ("(1.23 ± 0.21)e-05", True), ("(-1.2 ± 0.2)e-05", True),
  ("0.1 ± 6.9e-18", True), ("5 of 8", True),
  ("0.5 (n=2)", True), ("97 %", True), ("1,024", True), ("–", True), ("60 ± 10 (1 dead)", False), ("relu", False),
])
def test_a_column_of_numbers_is_set_to_the_right(cell, right):
  last = markdown_table(["a very long header"], [[cell]]).splitlines()[-1]
  assert last.startswith("|  ") == right


def test_rounding_loses_less_than_a_tenth_of_the_standard_error():
  generator = np.random.default_rng(0)
  for mean, exponent in zip(generator.normal(size=300), generator.uniform(-3.5, 0, 300)):
    sem = 10**exponent
    shown_mean, shown_sem = map(float, re.fullmatch(r"(\S+) ± (\S+)", format_mean_sem(mean, sem, 9)).groups())
    assert abs(shown_mean - mean) <= 0.1 * sem and abs(shown_sem - sem) <= 0.051 * sem


def test_markdown_is_aligned_and_pipes_are_escaped():
  assert markdown_table(["run", "loss"], [["a|b", 0.5], ["long name", 12.25]]).splitlines() == [
    "| run       |  loss |",
    "| --------- | ----: |",
    r"| a\|b      |   0.5 |",
    "| long name | 12.25 |",
  ]


def test_one_word_sets_a_column_to_the_left():
  assert markdown_table(["a long header"], [["1"], ["relu"]]).splitlines()[2] == "| 1             |"


def test_a_cell_is_one_line():
  assert markdown_table(["a"], [["x\ny"]]).splitlines()[-1] == "| x y |"


def test_a_markdown_table_without_rows_still_has_its_header():
  assert markdown_table(["a", "b"], []) == "| a   | b   |\n| --- | --- |"


def test_terminal_table():
  assert plain_table(["run", "n"], [["mnist", 10], ["x", 5]]) == "run     n\n─────  ──\nmnist  10\nx       5"


@pytest.mark.parametrize("cell, text", [
  ("a_b & 5% #1 $x {y}", r"a\_b \& 5\% \#1 \$x \{y\}"),
  ("C:\\x~y^z", r"C:\textbackslash{}x\textasciitilde{}y\textasciicircum{}z"),
  ("a < b > c|d", "a $<$ b $>$ c$|$d"),
  ("[0.9, 0.99]", "{[}0.9, 0.99]"),  # behind the end of a row it would be a length
  ("*", "{*}"),
  ("two\nlines…", r"two lines\dots{}"),
  ("λ=3.0, αβ", r"$\lambda$=3.0, $\alpha$$\beta$"),
  ("0.9100 ± 0.0058", r"0.9100 $\pm$ 0.0058"),
  ("-0.5 ± 0.1", r"$-$0.5 $\pm$ 0.1"),
  ("(-1.230 ± 0.010)e-07", r"($-$1.230 $\pm$ 0.010) $\times 10^{-7}$"),
  ("2.5e+08", r"2.5 $\times 10^{8}$"),
  ("0.1 ± 6.9e-18 (n=2)", r"0.1 $\pm$ 6.9 $\times 10^{-18}$ (n=2)"),
  ("97 %", r"97 \%"),
  ("–", "--"),
  ("one-two, e-3", "one-two, e-3"),  # text keeps its hyphens
])
def test_latex_prints_every_cell_as_it_is(cell, text):
  header, _, row = latex_table(["x_1", cell], [["a", cell]]).splitlines()[3:6]
  assert (header, row) == (rf"x\_1 & {text} \\", rf"a & {text} \\")


def test_a_latex_table_has_the_rules_of_booktabs_and_its_numbers_to_the_right():
  assert latex_table(["run", "n"], [["a", 3], ["b", "2 of 3"]]).splitlines() == [
    r"% needs \usepackage{booktabs}", r"\begin{tabular}{lr}", r"\toprule", r"run & n \\", r"\midrule", r"a & 3 \\",
    r"b & 2 of 3 \\", r"\bottomrule", r"\end{tabular}",
  ]


def test_every_greek_letter_has_its_name():
  names = re.findall(r"\$\\(\w+)\$", latex_table(["αβγδεζηθικλμνξπρστυφχψω"], []))
  assert len(names) == 23 and {"alpha", "lambda", "xi", "omega"} <= set(names)


def test_a_csv_reads_back_and_keeps_every_digit():
  rows = [["a, \"b\"\nc", 0.1 + 0.2, None], ["", 5, True]]
  read = list(csv.reader(io.StringIO(csv_table(["run", "x", "y"], rows), newline="")))
  assert read == [["run", "x", "y"], ["a, \"b\"\nc", "0.30000000000000004", ""], ["", "5", "True"]]
