"""Sweeps of arms: each with what it sets and with axes of its own."""

import pytest
from ml_collections import ConfigDict

from nurture import data, training
from nurture.core import UserError
from nurture.reporting import choose_levels, read_arms, read_results
from nurture.training.config import plain
from nurture.training.experiment import Experiment
from nurture.training.grid import members_of
from nurture.training.sweep import cohorts_of
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


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  directory = tmp_path_factory.mktemp("arms") / "run"
  training.run(config(ensemble__seeds=2), directory)
  return directory


def test_arms_are_trained_and_what_varies_inside_one_is_one_program(trained, tmp_path):
  results = read_results(trained)
  assert [group["label"] for group in results["groups"]] == [
    "cross-entropy", "ELR, lam=1.0", "ELR, lam=3.0", "ELR, lam=9.0", "wide",
  ]
  cohorts = {}
  for member in results["members"]:
    cohorts.setdefault(member["cohort"], set()).add(member["values"]["method"])
  assert sorted(map(sorted, cohorts.values())) == [["ELR"], ["cross-entropy"], ["wide"]]
  alone = training.run(tiny_config(losses=CE | {"elr": ELR | {"lam": 9.0}}), tmp_path / "alone")
  restored = training.restore(trained, member=5)
  assert restored.config["losses"]["elr"]["lam"] == 3.0 and restored.seed == 1
  [of_run] = [m for m in results["members"] if m["values"].get("lam") == 9.0 and m["seed"] == 0]
  assert of_run["metrics"]["loss"] == pytest.approx(alone["members"][0]["metrics"]["loss"], rel=1e-4)


def test_an_arm_without_the_axis_has_nothing_to_choose(trained):
  arms = read_arms([trained], ["lam"], ())
  assert {label: len(members) for label, members in arms.items()} == {"cross-entropy": 2, "ELR": 6, "wide": 2}
  levels, edges, members = choose_levels(arms["cross-entropy"], ["lam"], "test/accuracy")
  assert (levels, edges, len(members)) == ({}, (), 2)
  levels, _, members = choose_levels(arms["ELR"], ["lam"], "test/accuracy")
  assert levels["lam"] in (1.0, 3.0, 9.0) and len(members) == 2
  with pytest.raises(UserError, match="has no axis 'lamda' in its grid; did you mean 'lam'"):
    read_arms([trained], ["lamda"], ())
  assert read_results(trained)["groups"][1]["values"] == {"method": "ELR", "lam": 1.0}


def test_a_config_file_writes_paths_as_pairs():
  """A ConfigDict allows no dots in its keys."""
  axis = {"path": "optimizer.learning_rate", "levels": (0.1, 0.2)}
  by_path = {"a": {"set": {"losses.ce.weight": 2.0}, "grid": {"lr": axis}}, "b": {}}
  as_pairs = by_path | {"a": by_path["a"] | {"set": (("losses.ce.weight", 2.0),)}}
  written = ConfigDict({"method": {"arms": as_pairs}}).lock()
  assert list(written.method.arms) == ["a", "b"]
  grid = plain(written)["method"]["arms"]
  assert members_of(config(grid)) == members_of(config(by_path))
  assert members_of(config(grid))[0].assignments == {"losses.ce.weight": 2.0, "optimizer.learning_rate": 0.1}


def test_a_pair_may_go_into_what_an_earlier_one_has_put_there():
  changes = (("losses", CE | {"elr": ELR}), ("losses.elr.lam", 5.0))
  member, = members_of(config({"ELR": {"set": changes}}))
  assert member.assignments == dict(changes)


def test_one_arm_may_set_a_section_and_another_a_field_of_it():
  members = members_of(config({"a": {"set": {"losses.ce.weight": 2.0}}, "b": {"set": {"losses": {"elr": ELR}}}}))
  assert [dict(member.assignments) for member in members] == [{"losses.ce.weight": 2.0}, {"losses": {"elr": ELR}}]


def test_arms_may_stand_in_arms():
  inner = {"small": {}, "large": {"set": {"model.width": 32}}}
  members = members_of(config({"plain": {}, "deep": {"set": {"model.depth": 3}, "grid": {"size": {"arms": inner}}}}))
  assert [member.label for member in members] == ["plain", "deep, small", "deep, large"]
  assert members[2].assignments == {"model.depth": 3, "model.width": 32}


LR = {"path": "optimizer.learning_rate", "levels": (0.1, 0.2)}


@pytest.mark.parametrize("arms, words", [
  ({"a": {"set": {"losses.elr.lam": 1.0}}}, r"a.set is 'losses.elr.lam', but config.losses.elr.lam does not exist: "
   "losses has no 'elr'"),
  ({"a": {"set": {"losses.ce.q": 0.7}}}, "a.set is 'losses.ce.q', but .* losses.ce has no 'q'; known: name, weight"),
  ({"a": {"set": {"": 1.0}}}, r"a.set is ''; give a dotted config path such as 'optimizer.learning_rate'"),
  ({"a": {"set": {3: 1.0}}}, r"a.set is 3; give a dotted config path"),
  ({"a": {"set": ("model.width", 16)}}, r"a.set is \('model.width', 16\); give pairs of a config path and a value"),
  ({"a": {"set": "model.width"}}, "a.set is 'model.width'; give pairs"),
  ({"a": {"set": (("model.width", 1), ("model", {"name": "mlp"}))}}, "sets model behind model.width, and so undoes it"),
  ({"a": {"grid": {"lam": {"levels": (1.0,)}}}}, "a.grid.lam.path is missing; an axis needs a config path"),
  ({"a": LR}, "a.path does not exist; axes of an arm stand in its 'grid'"),
  ({"a": {"grid": {}}}, r"arms.a.grid is {}; give a dict of axes, or leave 'grid' out"),
  ({"a": {"grid": (1, 2)}}, r"arms.a.grid is \(1, 2\); give a dict of axes"),
  ({"a": {"grid": {"x": LR, "y": LR}}}, "a.grid.y and x both set optimizer.learning_rate; leave it to one"),
  ({"a": {}, "b": {"set": {}}}, "arms has 'a' and 'b' with the same settings; leave one out"),
  ({"a": {}, "c": {"set": {"model.width": 9}}, "b": {"set": {"losses": CE}}}, "arms has 'a' and 'b' with the same"),
  ({"a": {"grid": {"x": LR}}, "b": {"grid": {"y": LR}}}, "arms has 'a' and 'b' with the same settings"),
  ({"a": {"sett": {}}}, r"method.arms.a.sett does not exist; did you mean 'set'"),
  ({"a": {"grid": {"lam": {"path": "losses.elr.lam", "levels": (1.0,)}}}}, "config.losses.elr.lam does not exist"),
  ({"a": {"grid": {"lam": {"path": "losses.ce.weight", "levels": ()}}}}, r"a.grid.lam.levels is \(\); give a tuple"),
  ({"a": {"grid": {"method": {"path": "losses.ce.weight", "levels": (1.0,)}}}}, "is the name of the axis of the arms"),
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


def test_a_field_that_a_row_has_not_is_named_when_it_is_built():
  changed = config({"a": {}, "b": {"set": {"losses": {"elr": ELR | {"lamda": 1.0}}}}})
  with pytest.raises(UserError, match="config.losses.elr.lamda does not exist for 'elr'; did you mean 'lam'"):
    cohorts_of(changed, members_of(changed), lambda inner: Experiment.of(inner, data.Reader(None)))


@pytest.mark.parametrize("grid, words", [
  ({"lr": {"path": "losses.ce.weight", "levels": (1.0, 2.0)}, "method": {"arms": {"a": {}, "b": {"grid": {"lr": LR}}}}},
   "grid.method and lr both have an axis 'lr'; give one another name"),
  ({"w": {"path": "losses.ce.weight", "levels": (1.0, 2.0)}, "method": {"arms": ARMS}},
   "grid.method sets all of losses, and so undoes what w sets at losses.ce.weight; write method before w"),
  ({"method": {"arms": {"a": {}, "b": {"set": {"losses": {"elr": ELR}}}}},
    "w": {"path": "losses.ce.weight", "levels": (1.0, 2.0)}},
   "grid at 'b, w=1.0': config.losses.ce.weight does not exist: losses has no 'ce'"),
])
def test_axes_that_undo_each_other(grid, words):
  with pytest.raises(UserError, match=words):
    members_of(tiny_config(ensemble__grid=grid))


def test_an_arm_and_an_axis_may_not_set_the_same_path():
  with pytest.raises(UserError, match="config.ensemble.grid.width and method both set model.width"):
    members_of(config(grid={"width": {"path": "model.width", "levels": (4, 8)}}))
  with pytest.raises(UserError, match="has arms and 'levels'; give it one of both"):
    members_of(tiny_config(ensemble__grid={"method": {"arms": ARMS, "levels": (1,)}}))
