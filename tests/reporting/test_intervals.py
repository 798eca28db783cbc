"""Groups side by side: what is drawn."""

import matplotlib.figure
import numpy as np
import pytest

from nurture.reporting import Intervals, intervals
from nurture.reporting.style import COLORS


@pytest.fixture
def figure(monkeypatch):
  """The last figure drawn."""
  drawn = []
  original = matplotlib.figure.Figure.savefig
  monkeypatch.setattr(
    matplotlib.figure.Figure, "savefig", lambda self, *a, **k: (drawn.append(self), original(self, *a, **k))[1]
  )
  return lambda: drawn[-1]


def bars(axes):
  """Returns [(mean, from, to)] of the error bars, from the top row down."""
  return [
    (float(bar.lines[0].get_xdata()[0]), *bar.lines[2][0].get_segments()[0][:, 0]) for bar in axes.containers
  ]


def test_every_member_is_a_dot_and_every_group_a_mean_with_its_error(tmp_path, figure):
  values = {"a": [1.0, 3.0, np.nan, None], "b": [5.0], "c": []}
  path = intervals(tmp_path / "plots" / "x.png", [Intervals("t", "share", values)])
  axes, = figure().axes
  assert path.read_bytes()[:4] == b"\x89PNG"
  dots = [line for line in axes.lines if line.get_marker() == "o" and line.get_alpha() == 0.25]
  assert [(list(d.get_xdata()), list(d.get_ydata()), d.get_color()) for d in dots] == [
    ([1, 3], [0, 0], COLORS[0]), ([5], [1], COLORS[1]),
  ]
  assert [bar.lines[0].get_marker() for bar in axes.containers] == ["o", "o"]  # of a single point a line shows nothing
  assert bars(axes) == [(2, 1, 3), (5, 5, 5)]  # of 1 and 3 the standard deviation is sqrt(2), the error 1
  assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c"]
  assert axes.get_ylim() == (2.5, -0.5)  # the first row on top
  assert (axes.get_xscale(), axes.get_xlabel(), axes.get_title(loc="left")) == ("linear", "share", "t")


def test_errors_of_members_that_are_not_independent_are_given(tmp_path, figure):
  panel = Intervals("t", "x", {"a": [1.0, 3.0], "b": [1.0, 3.0]}, errors={"a": 0.25, "b": None}, zero=True, log_x=True)
  intervals(tmp_path / "x.png", [panel])
  axes, = figure().axes
  assert bars(axes) == [(2, 1.75, 2.25), (2, 1, 3)]
  assert axes.get_xscale() == "log"
  assert [list(line.get_xdata()) for line in axes.lines if line.get_color() == "#999999"] == [[0, 0]]


def test_panels_stand_four_to_a_line_and_the_first_of_each_names_the_rows(tmp_path, figure):
  intervals(tmp_path / "x.png", [Intervals(str(i), "x", {"a": [float(i)]}) for i in range(6)])
  axes = figure().axes
  assert [[label.get_text() for label in axis.get_yticklabels()] for axis in axes] == [
    ["a"], [""], [""], [""], ["a"], [""],
  ]
  assert not any(line.get_color() == "#999999" for axis in axes for line in axis.lines)  # no line at 0 unless asked for
  assert [axis.get_subplotspec().get_geometry()[:3] for axis in axes] == [(2, 4, i) for i in range(6)]
