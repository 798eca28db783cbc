"""Absurd numbers in every field of two configs: a sentence or a sound experiment. The whole is the binary itself."""

import collections
import math

import pytest

from nurture.core import UserError
from nurture.testing import fuzz, shrink
from nurture.training.config import put
from nurture.training.grid import members_of
from tests.tiny import read, tiny_config


@pytest.fixture(scope="module", params=["quickstart", "elr/digits.py"])
def results(request):
  """[(case, result)] of every case of a config, built and not traced; deterministic."""
  done, base = [], None
  for case in fuzz.cases([request.param]):
    base = base or read(put(case.config, members_of(case.config)[0].assignments), case.root)
    done.append((case, fuzz.attempt(fuzz.build, case.changed(), base, case.root)))
  return done


def test_every_case_is_a_sentence_or_a_run(results):
  assert len(results) > 300
  assert {result["outcome"] for _, result in results} == {"run", "sentence"}, [
    (case.place, case.value, result) for case, result in results if result["outcome"] not in ("run", "sentence")]


def test_nothing_negative_or_not_finite_passes(results):
  passed = collections.defaultdict(set)
  for case, result in results:
    if result["outcome"] == "run":
      passed[case.value].add(".".join(map(str, case.place)))
  for value in ("negative", "NaN", "inf", "a word", "a tuple"):
    assert not passed[value], (value, passed[value])
  assert passed["0"] and passed["32 bits"] and passed["1e-30"]


def test_a_sentence_names_the_place(results):
  for case, result in results:
    if result["outcome"] == "sentence" and case.place[0] in ("losses", "gradients", "optimizer", "probes", "steps"):
      assert "config." + ".".join(map(str, case.place)) in result["message"], result["message"]


LAM = {"path": "losses.elr.lam", "levels": (1, 2, 3), "names": ("a", "b", "c")}
ARMS = {
  "plain": {},
  "ELR": {"set": {"losses": {"elr": {"name": "elr", "lam": 3, "weight": 1}}}, "grid": {
    "lam": LAM, "lr": {"path": "optimizer.learning_rate", "levels": (0.1, 0.2)},
  }},
  "wide": {"set": (("model.width", 8),)},
}


@pytest.mark.parametrize("place, grid, kind", [
  (("lr", "levels", 1), {"lr": {"path": "optimizer.learning_rate", "levels": (0.1, -1)}},
   "grid of optimizer.learning_rate () negative"),
  (("method", "arms", "ELR", "grid", "lam", "levels", 1), {"method": {"arms": {"ELR": {
    "set": ARMS["ELR"]["set"], "grid": {"lam": LAM | {"levels": (1, -1), "names": ("a", "b")}},
  }}}}, "grid of losses.elr.lam () negative"),
  (("method", "arms", "ELR", "set", "losses", "elr", "lam"),
   {"method": {"arms": {"ELR": {"set": {"losses": {"elr": {"name": "elr", "lam": -1, "weight": 1}}}}}}},
   "arm ('set', 'losses', 'elr', 'lam') negative"),
  (("method", "arms", "wide", "set", 0, 1), {"method": {"arms": {"wide": {"set": (("model.width", -1),)}}}},
   "arm ('set', 0, 1) negative"),
])
def test_a_number_of_the_grid_stays_with_what_has_to_do_with_it(place, grid, kind):
  axis = {"path": "optimizer.learning_rate", "levels": (0.1, 0.2, 0.3)}
  config = tiny_config(ensemble__grid={"lr": axis, "method": {"arms": ARMS}})
  assert ("ensemble", "grid", *place) in set(fuzz.numbers(config))
  case = fuzz.Case(0, "x", config, None, ("ensemble", "grid", *place), "negative")
  assert case.changed()["ensemble"]["grid"] == grid and case.kind == kind


def test_a_grid_is_made_small_in_its_arms_too():
  batch = {"path": "batch_size", "levels": (64, 128), "names": ("s", "l")}
  grid = {"batch": batch, "method": {"arms": {"plain": {}, "ELR": {"grid": {"lam": LAM, "batch": batch}}}}}
  small = {"path": "batch_size", "levels": (4,), "names": ("s",)}
  assert shrink.with_axes(grid, shrink.small) == {
    "batch": small, "method": {"arms": {"plain": {}, "ELR": {"grid": {"lam": LAM, "batch": small}}}},
  }
  assert shrink.one_point({"method": {"arms": {"ELR": {"grid": {"lam": LAM}}, "plain": {}}}}) == {
    "method": {"arms": {"ELR": {"grid": {"lam": LAM | {"levels": (1,), "names": ("a",)}}}}},
  }


def test_failures_are_told_apart():
  def fail(error):
    raise error

  outcome = lambda error: fuzz.attempt(fail, error)["outcome"]
  assert [outcome(error) for error in (
    UserError("one."), UserError("two\nlines."), UserError("no end"), ValueError("defect"), TimeoutError(),
  )] == ["sentence", "lines", "lines", "traceback", "too long"]
  assert fuzz.attempt(lambda: None)["outcome"] == "run"


def test_every_number_is_found_and_replaced():
  config = {"a": 1, "b": {"c": (2.0, True, "x", (3, None))}, "ensemble": {"grid": {}}}
  places = list(fuzz.numbers(config))
  assert places == [("a",), ("b", "c", 0), ("b", "c", 3, 0)]
  assert fuzz.replaced(config, places[2], 7)["b"]["c"] == (2.0, True, "x", (7, None))
  assert math.isnan(fuzz.VALUES["NaN"])
