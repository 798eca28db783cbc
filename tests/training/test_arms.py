"""Sweeps of arms: each with what it sets and with axes of its own."""

import pytest

from nurture import training
from nurture.core import UserError
from nurture.reporting import choose_level, read_arms, read_results
from nurture.training.grid import members_of
from tests.tiny import tiny_config

ELR = {"name": "elr", "weight": 1.0, "lam": 3.0}
CE = {"ce": {"name": "cross_entropy", "weight": 1.0}}
ARMS = {
  "cross-entropy": {},
  "ELR": {"set": {"losses": CE | {"elr": ELR}}, "grid": {"lam": {"path": "losses.elr.lam", "levels": (1.0, 3.0, 9.0)}}},
  "wide": {"set": {"model.width": 16}},
}


def config(arms=ARMS, **changes):
  return tiny_config(ensemble__grid={"method": {"arms": arms}, **changes.pop("grid", {})}, **changes)


def test_every_arm_has_its_own_points():
  members = members_of(config(grid={"lr": {"path": "optimizer.learning_rate", "levels": (0.1, 0.2)}}))
  values = [dict(member.values) for member in members]
  assert len(values) == 10 and values[0] == {"method": "cross-entropy", "lr": 0.1}
  assert values[2] == {"method": "ELR", "lam": 1.0, "lr": 0.1}
  assert [member.label for member in members[:3]] == ["cross-entropy, lr=0.1", "cross-entropy, lr=0.2",
                                                      "ELR, lam=1.0, lr=0.1"]
  assert members[2].assignments == {"losses": CE | {"elr": ELR}, "losses.elr.lam": 1.0, "optimizer.learning_rate": 0.1}


def test_arms_are_trained_and_what_varies_inside_one_is_one_program(tmp_path):
  results = training.run(config(ensemble__seeds=2), tmp_path / "run")
  assert [group["label"] for group in results["groups"]] == [
    "cross-entropy", "ELR, lam=1.0", "ELR, lam=3.0", "ELR, lam=9.0", "wide",
  ]
  cohorts = {}
  for member in results["members"]:
    cohorts.setdefault(member["cohort"], set()).add(member["values"]["method"])
  assert sorted(map(sorted, cohorts.values())) == [["ELR"], ["cross-entropy"], ["wide"]]
  alone = training.run(tiny_config(losses=CE | {"elr": ELR | {"lam": 9.0}}), tmp_path / "alone")
  [of_run] = [m for m in results["members"] if m["values"].get("lam") == 9.0 and m["seed"] == 0]
  assert of_run["metrics"]["loss"] == pytest.approx(alone["members"][0]["metrics"]["loss"], rel=1e-4)


def test_an_arm_without_the_axis_has_nothing_to_choose(tmp_path):
  training.run(config(ensemble__seeds=2), tmp_path / "run")
  arms = read_arms([tmp_path / "run"], "lam", ())
  assert {label: len(members) for label, members in arms.items()} == {"cross-entropy": 2, "ELR": 6, "wide": 2}
  level, edge, members = choose_level(arms["cross-entropy"], "lam", "test/accuracy")
  assert (level, edge, len(members)) == (None, False, 2)
  level, edge, members = choose_level(arms["ELR"], "lam", "test/accuracy")
  assert level in (1.0, 3.0, 9.0) and len(members) == 2
  with pytest.raises(UserError, match="has no axis 'lamda' in its grid; did you mean 'lam'"):
    read_arms([tmp_path / "run"], "lamda", ())
  assert read_results(tmp_path / "run")["groups"][1]["values"] == {"method": "ELR", "lam": 1.0}


@pytest.mark.parametrize("arms, words", [
  ({"a": {"set": {"losses.elr.lam": 1.0}}}, "config.losses.elr.lam does not exist: losses has no 'elr'"),
  ({"a": {"sett": {}}}, r"method.arms.a.sett does not exist; did you mean 'set'"),
  ({"a": {"grid": {"lam": {"path": "losses.elr.lam", "levels": (1.0,)}}}}, "config.losses.elr.lam does not exist"),
  ({"a": {"grid": {"lam": {"path": "losses.ce.weight", "levels": ()}}}}, r"a.grid.lam.levels is \(\); give a tuple"),
  ({"a": {"grid": {"method": {"path": "losses.ce.weight", "levels": (1.0,)}}}}, "has the name of the axis of the arms"),
  ({"a": {"set": {"steps": 3}}}, "'steps', which cannot differ between members"),
  ({"a": {"set": {"model.width": "big"}}}, "puts 'big' at model.width"),
  ({"a": 3}, "arms.a is 3; give a dict with 'set' and 'grid'"),
  ({}, "method.arms is {}; give a dict of arms by name"),
  ((), r"method.arms is \(\); give a dict of arms"),
])
def test_arms_that_say_nothing_sensible(arms, words):
  with pytest.raises(UserError, match=words) as error:
    members_of(config(arms))
  assert "\n" not in str(error.value)


def test_an_arm_and_an_axis_may_not_set_the_same_path():
  with pytest.raises(UserError, match="config.ensemble.grid.width and method both set model.width"):
    members_of(config(grid={"width": {"path": "model.width", "levels": (4, 8)}}))
  with pytest.raises(UserError, match="has arms and 'levels'; give it one of both"):
    members_of(tiny_config(ensemble__grid={"method": {"arms": ARMS, "levels": (1,)}}))
