"""A run at the terminal, and where it may not write."""

import pytest

from nurture import reporting, training
from nurture.core import UserError
from tests.tiny import tiny_config


def test_the_bar_counts_the_steps_of_all_cohorts(tmp_path, monkeypatch):
  shown = []

  class Bar(reporting.Progress):
    def __init__(self, total, name, cohorts):
      super().__init__(total, name)
      shown.append((total, name, cohorts))

    def update(self, step, loss, metrics):
      shown.append(step)

  monkeypatch.setattr(reporting, "Progress", Bar)
  training.run(tiny_config(ensemble__seeds=2, ensemble__chunk=1, steps=6, probes={}), tmp_path / "run", name="mine")
  assert shown == [(12, "mine", 2), 3, 6, 9, 12]


def test_a_directory_that_cannot_be_made_is_one_sentence(tmp_path):
  (tmp_path / "file").write_text("of someone else")
  with pytest.raises(UserError, match="Not a directory") as caught:
    training.run(tiny_config(), tmp_path / "file" / "run")
  assert "\n" not in str(caught.value) and "file/run" in str(caught.value)
  assert (tmp_path / "file").read_text() == "of someone else"
