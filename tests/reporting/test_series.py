"""Metrics over training, out of the rows of a run."""

import matplotlib.figure
import numpy as np
import pytest

from nurture import reporting
from nurture.core import UserError

ROWS = [
  {"member": member, "step": step, "w/std": (1 + member) * 2.0 * step, "loss": 1.0}
  for step in (0, 10, 20) for member in (0, 1, 2)
] + [{"member": 0, "step": 30, "w/std": 1.0}, {"member": 1, "step": 40}]


def test_a_series_has_the_members_asked_for_at_the_steps_with_a_value():
  steps, values = reporting.series(ROWS, "w/std", [1, 0])
  np.testing.assert_array_equal(steps, [0, 10, 20, 30])
  np.testing.assert_array_equal(values, [[0, 40, 80, np.nan], [0, 20, 40, 1]])


def test_groups_are_drawn_as_mean_and_standard_error():
  axes = matplotlib.figure.Figure().subplots()
  reporting.draw_means(axes, ROWS, "w/std", [{"label": "all", "members": [0, 1, 2]}, {"label": "one", "members": [0]}])
  *thin, first, second = axes.lines  # of one member there are none
  assert len(thin) == 3
  assert (first.get_label(), second.get_label(), axes.get_title(loc="left")) == ("all", "one", "W: std")
  np.testing.assert_allclose(first.get_ydata(), [0, 40, 80, 1])
  band = axes.collections[0].get_paths()[0].vertices
  np.testing.assert_allclose(band[:, 1].max(), 80 + 40 / np.sqrt(3))
  at_the_end = band[band[:, 0] == 20, 1]
  np.testing.assert_allclose([at_the_end.min(), at_the_end.max()], 80 + np.array([-1, 1]) * 40 / np.sqrt(3))


def test_members_without_a_value_and_metrics_without_a_number():
  steps, values = reporting.series(ROWS, "w/std", [7])
  assert values.shape == (1, 0) and steps.shape == (0,)
  assert reporting.series(ROWS, "loss", [])[1].shape == (0, 0)
  rows = [{"member": 0, "step": 0, "loss": 1.0}, {"member": 0, "step": 5, "loss": None}]
  np.testing.assert_array_equal(reporting.series(rows, "loss", [0])[1], [[1, np.nan]])
  for value, shown in (([1.0, 2.0], "a list of 2"), ("high", '"high"'), (True, "true")):
    wrong = [{"member": 3, "step": 5, "loss": value}]
    with pytest.raises(UserError, match=f"'loss' of member 3 at step 5 is {shown} and no number; give another metric"):
      reporting.series(wrong, "loss", [3])
    assert reporting.series(wrong, "loss", [0])[1].size == 0
