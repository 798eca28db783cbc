"""A grid becomes members, and members become programs."""

import types

import numpy as np
import pytest

from nurture import training
from nurture.core import UserError
from nurture.training import sweep
from nurture.training.grid import members_of
from nurture.training.programs import sharding_devices
from nurture.training.sweep import cohorts_of
from tests.tiny import tiny_config

ETA = {"path": "gradients.noise.eta", "levels": (0.0, 0.01)}
DEPTH = {"path": "model.depth", "levels": (1, 2), "names": ("shallow", "deep")}


@pytest.fixture
def planned(monkeypatch):
  """Returns config, most members at once -> cohorts, where two numbers may vary; an experiment is its config alone."""
  vary = ("gradients.noise.eta", "optimizer.learning_rate")
  monkeypatch.setattr(sweep, "can_vary", lambda _, points: tuple(path for path in points[0] if path in vary))

  def plan(config, most):
    monkeypatch.setattr(sweep, "members_at_once", lambda _, count: min(count, most))
    read = lambda inner: types.SimpleNamespace(config=inner)
    return cohorts_of(config, members_of(config), read)

  return plan


def test_members_are_every_seed_at_every_point_of_the_grid():
  members = members_of(tiny_config(seed=7, ensemble__seeds=3, ensemble__grid={"eta": ETA, "net": DEPTH}))
  assert len(members) == 12
  assert [m.index for m in members] == list(range(12))
  assert [m.seed for m in members[:4]] == [7, 8, 9, 7]
  assert members[3].label == "eta=0.0, deep"
  assert members[3].assignments == {"gradients.noise.eta": 0.0, "model.depth": 2}
  assert members_of(tiny_config())[0].label == "all"


def test_one_axis_may_move_several_paths():
  axis = {"path": ("model.depth", "model.width"), "levels": ((1, 8), (2, 4)), "names": ("a", "b")}
  members = members_of(tiny_config(ensemble__grid={"net": axis}))
  assert [m.assignments for m in members] == [
    {"model.depth": 1, "model.width": 8}, {"model.depth": 2, "model.width": 4},
  ]


def test_structural_values_start_programs_and_numbers_share_one(planned):
  config = tiny_config(ensemble__seeds=2, ensemble__grid={"eta": ETA, "net": DEPTH})
  cohorts = planned(config, 100)
  assert [len(c.members) for c in cohorts] == [4, 4]
  assert [c.experiment.config["model"]["depth"] for c in cohorts] == [1, 2]
  assert all(c.varying == ("gradients.noise.eta",) for c in cohorts)
  hp = cohorts[1].hyper_parameters()
  np.testing.assert_array_equal(hp["seed"], [0, 1, 0, 1])
  np.testing.assert_array_equal(hp["values"]["gradients.noise.eta"], np.float32([0, 0, 0.01, 0.01]))
  assert sorted(m.index for c in cohorts for m in c.members) == list(range(8))


def test_groups_are_cut_into_chunks_in_order(planned):
  config = tiny_config(ensemble__seeds=7)
  cohorts = planned(config, 3)
  assert [[m.seed for m in c.members] for c in cohorts] == [[0, 1, 2], [3, 4, 5], [6]]
  assert [c.index for c in cohorts] == [0, 1, 2]
  assert len({id(c.experiment) for c in cohorts}) == 1  # read and traced once


def test_members_spread_over_as_many_devices_as_hold_equal_shares():
  assert [sharding_devices(m, 8) for m in (1, 2, 7, 8, 12, 20, 40)] == [1, 2, 7, 8, 6, 5, 8]


@pytest.mark.parametrize(("axis", "message"), [
  ({"path": "gradients.noise.etaa", "levels": (0.0,)}, r"gradients\.noise has no 'etaa'; did you mean 'eta'"),
  ({"path": "seed", "levels": (0, 1)}, r"cannot differ between members; set config\.ensemble\.seeds"),
  ({"path": "steps", "levels": (1, 2)}, r"'steps', which cannot differ between members"),
  ({"path": "log_every", "levels": (1, 2)}, r"cannot differ between members"),
  ({"path": "ensemble.seeds", "levels": (1, 2)}, r"cannot differ between members"),
  ({"path": "gradients.noise.eta", "levels": ("a",)}, r"puts 'a' at gradients\.noise\.eta"),
  ({"path": "model.name", "levels": (1,)}, r"puts 1 at model\.name, where the config has 'mlp'"),
  ({"path": "gradients.noise.eta", "levels": ()}, r"give a tuple of at least one level"),
  ({"path": "gradients.noise.eta", "levels": 0.1}, r"give a tuple of at least one level"),
  ({"path": "gradients.noise.eta"}, r"grid\.x\.levels is missing"),
  ({"path": "gradients.noise.eta", "level": (0.1,)}, r"grid\.x\.level does not exist; did you mean 'levels'"),
  ({"path": ("model.depth", "model.width"), "levels": ((1,),)}, r"one value for each of the 2 paths"),
  ({"path": "model.depth", "levels": (1, 2), "names": ("a",)}, r"1 names for 2 levels"),
  (0.1, r"give a dict with 'path' and 'levels'"),
])
def test_a_bad_axis_is_one_sentence(axis, message):
  with pytest.raises(UserError, match=message):
    members_of(tiny_config(ensemble__grid={"x": axis}))


ALPHA = "targets.smoothing.alpha"


@pytest.mark.parametrize(("axis", "message"), [
  ({"levels": (0.1, 0.2, 0.1)}, r"calls levels\[0\] 0\.1 and levels\[2\] 0\.1, .*config\.ensemble\.seeds.*'names'"),
  ({"levels": (0.1, 0.2), "names": ("a", "a")}, r"calls levels\[0\] 'a' and levels\[1\] 'a', which would be one group"),
  ({"levels": (0.1, 0.2), "names": (0.1, "0.1")}, r"calls levels\[0\] 0\.1 and levels\[1\] '0\.1'"),
  ({"levels": (0.1, 0.2), "names": (True, 1)}, r"calls levels\[0\] True and levels\[1\] 1"),
  ({"levels": (1, 1.0)}, r"calls levels\[0\] 1 and levels\[1\] 1\.0"),
  ({"levels": (0.0, -0.0)}, r"calls levels\[0\] 0\.0 and levels\[1\] -0\.0"),
  ({"levels": (0.1,), "names": (None,)}, r"names\[0\] is None; give text or a finite number"),
  ({"levels": (0.1,), "names": (("a", 1),)}, r"names\[0\] is \('a', 1\)"),
  ({"levels": (0.1,), "names": (float("nan"),)}, r"names\[0\] is nan"),
])
def test_levels_that_would_be_pooled_are_one_sentence(axis, message):
  with pytest.raises(UserError, match=r"config\.ensemble\.grid\.x.*" + message):
    members_of(tiny_config(ensemble__grid={"x": {"path": ALPHA} | axis}))


def test_equal_levels_of_other_names_are_two_groups():
  members = members_of(tiny_config(ensemble__grid={"x": {"path": ALPHA, "levels": (0.1, 0.1), "names": ("a", "b")}}))
  assert [m.label for m in members] == ["a", "b"]


def test_points_that_are_written_the_same_are_one_sentence():
  grid = {"a": {"path": ALPHA, "levels": (0.1, 0.2), "names": ("p, q", "p")},
          "b": ETA | {"names": ("r", "q, r")}}
  with pytest.raises(UserError, match=r"two points that are called 'p, q, r'; give the levels names"):
    members_of(tiny_config(ensemble__grid=grid))


def test_a_level_that_json_cannot_hold_is_called_by_its_text():
  axis = {"path": "gradients.noise.eta", "levels": (0.5, float("inf"))}
  members = members_of(tiny_config(ensemble__grid={"eta": axis}))
  assert [m.values for m in members] == [{"eta": 0.5}, {"eta": "eta=inf"}]
  assert [m.label for m in members] == ["eta=0.5", "eta=inf"]


def test_two_axes_cannot_set_one_path():
  with pytest.raises(UserError, match=r"grid\.b and a both set gradients\.noise\.eta"):
    members_of(tiny_config(ensemble__grid={"a": ETA, "b": ETA}))


@pytest.mark.long
def test_a_word_may_give_way_to_a_number_where_the_field_takes_both(tmp_path):
  model = {"name": "vit", "patch": 4, "width": 4, "depth": 1, "heads": 1, "attention": "sigmoid",
           "attention_bias": "-log_n"}
  axis = {"path": "model.attention_bias", "levels": ("-log_n", 0.0)}
  config = tiny_config(model=model, ensemble__grid={"b": axis}, probes={}, steps=3)
  assert len(training.run(config, tmp_path / "run")["members"]) == 2
  bad = {"path": "model.attention", "levels": (1.0,)}
  with pytest.raises(UserError, match="config.model.attention is 1.0"):
    training.run(tiny_config(model=model, ensemble__grid={"b": bad}, probes={}, steps=3), tmp_path / "bad")
