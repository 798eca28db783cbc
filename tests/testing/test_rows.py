"""Rows as the checks take them: configs, names, classes and objects."""

import dataclasses

import pytest

from nurture.core import UserError
from nurture.core.hints import Share
from nurture.testing.rows import read
from nurture.transforms import LOSSES


@dataclasses.dataclass(frozen=True)
class Half:
  share: Share = 0.5
  tasks = ("pairs",)

  def init(self, spec):
    return ()

  def apply(self, state, ctx):
    return self.share, state


class Loose(Half):
  def __init__(self, share=0.5):
    pass


@pytest.mark.parametrize("row, name, tasks", [
  ({"name": "huber", "delta": 1.0, "weight": 2.0, "start_step": 3}, "huber", ("regression",)),
  ("huber", "huber", ("regression",)),
  (Half, "Half", ("pairs",)),
  (Half(0.1), "Half", ("pairs",)),
])
def test_a_row_may_be_a_config_a_name_a_class_or_an_object(row, name, tasks):
  found = read(LOSSES, row, ("init", "apply"))
  assert (found.name, found.tasks, found.hint) == (name, tasks, "")
  assert getattr(found.built, "delta", 1.0) == 1.0  # and the trainer's words are no fields


@pytest.mark.parametrize("row, error, words", [
  ("hubr", UserError, "did you mean 'huber'"),
  ({"name": "huber", "delta": -1.0}, UserError, "delta is -1.0; give a number above 0"),
  ({"name": "nowhere.losses:Sce"}, UserError, "nowhere.losses cannot be imported"),
  (Loose, AssertionError, "Loose: the field 'share' has no type, so a config may set it to anything; annotate it"),
  (3, AssertionError, "int has no method 'init'; add it"),
])
def test_what_is_no_row_is_one_sentence(row, error, words):
  with pytest.raises(error, match=words):
    read(LOSSES, row, ("init", "apply"))


def test_a_row_of_no_known_task_does_not_pass_unchecked():
  with pytest.raises(AssertionError, match=r"serves \('pairs',\), of which no task is known; name some of regression"):
    read(LOSSES, Half, ("init", "apply")).serves(("regression",))
