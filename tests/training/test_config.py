"""The config's own rules: what must be there, in which order it counts, and how two of them differ."""

import json
import math

import pytest
from ml_collections import ConfigDict, FieldReference

from nurture.core import UserError
from nurture.training.config import check, differences, fingerprint, from_json, get, plain, put, to_json
from tests.tiny import tiny_config


def test_order_as_written_survives_a_config_dict():
  config = ConfigDict({"losses": {"z": {"b": 1, "a": (1, [2])}, "a": {}}, "gradients": {"noise": 1, "clip": 2}})
  config.gradients.add = 3
  assert list(plain(config)["losses"]) == ["z", "a"]
  assert list(plain(config)["losses"]["z"]) == ["b", "a"]
  assert list(plain(config)["gradients"]) == ["noise", "clip", "add"]
  assert plain(config)["losses"]["z"]["a"] == (1, (2,))


def test_references_resolve_so_that_one_seed_moves_all():
  seed = FieldReference(0)
  config = ConfigDict({"seed": seed, "data": {"seed": seed}})
  config.seed = 5
  assert plain(config) == {"seed": 5, "data": {"seed": 5}}


def test_a_sound_config_passes():
  check(tiny_config())


@pytest.mark.parametrize(("changes", "message"), [
  ({"steps": 0}, r"config\.steps is 0; give a whole number of at least 1"),
  ({"steps": 1.5}, r"config\.steps is 1\.5 \(float\), but a whole number is needed"),
  ({"steps": True}, r"config\.steps is True"),
  ({"log_every": 0}, r"config\.log_every is 0"),
  ({"losses": {}}, r"config\.losses is empty"),
  ({"losses": {"ce": "cross_entropy"}}, r"config\.losses\.ce is 'cross_entropy'; give a dict with a 'name'"),
  ({"ensemble__map": "pmap"}, r"config\.ensemble\.map is 'pmap'; give 'vmap' or 'map'"),
  ({"seed": 2**32}, r"config\.seed is 4294967296; give a whole number from 0 to 4294967295"),
  ({"seed": 2**32 - 1, "ensemble__seeds": 2}, r"more than 32 bits"),
  ({"data__augment": {"flip": "flip"}}, r"config\.data\.augment\.flip is 'flip'; give a dict"),
  ({"evaluation__parameters": "avrage"}, r"did you mean 'average'"),
])
def test_mistakes_name_path_and_fix(changes, message):
  with pytest.raises(UserError, match=message):
    check(tiny_config(**changes))


def test_missing_and_unknown_sections_are_named():
  config = tiny_config()
  with pytest.raises(UserError, match=r"config\.optimiser does not exist; did you mean 'optimizer'"):
    check({**config, "optimiser": {}})
  del config["probes"]
  with pytest.raises(UserError, match=r"config\.probes is missing"):
    check(config)
  with pytest.raises(UserError, match=r"config\.checkpoint\.evry does not exist; did you mean 'every'"):
    check({**tiny_config(), "checkpoint": {"evry": 1, "keep": 2}})


def test_the_order_of_transforms_is_part_of_the_config_and_that_of_fields_is_not():
  old = to_json(tiny_config())
  parts = tiny_config()["gradients"]
  swapped = to_json(tiny_config(gradients={"noise": parts["noise"], "clip": parts["clip"]}))
  assert differences(old, swapped) == ["gradients: order clip, noise -> noise, clip"]
  assert differences(old, {name: old[name] for name in reversed(old)}) == []


def test_the_order_of_a_grid_is_part_of_the_config():
  lr, wd = {"path": "optimizer.learning_rate", "levels": (0.1, 0.2)}, {"path": "model.width", "levels": (4, 8)}
  parts = {"ce": {"name": "cross_entropy"}, "elr": {"name": "elr"}}
  level = lambda losses: {"l": {"path": "losses", "levels": (losses,)}}
  turned = lambda fields: {name: fields[name] for name in reversed(fields)}
  grids = [
    ({"a": lr, "b": wd}, {"b": wd, "a": lr}, "ensemble.grid: order a, b -> b, a"),
    ({"m": {"arms": {"x": {}, "y": {"grid": {"a": lr}}}}}, {"m": {"arms": {"y": {"grid": {"a": lr}}, "x": {}}}},
     "ensemble.grid.m.arms: order x, y -> y, x"),
    (level(parts), level(turned(parts)), "ensemble.grid.l.levels: "),
  ]
  for old, new, words in grids:
    [line] = differences(to_json(tiny_config(ensemble__grid=old)), to_json(tiny_config(ensemble__grid=new)))
    assert line.startswith(words)
  ones, floats = ({"a": {"path": "model.width", "levels": (number,)}} for number in (1, 1.0))
  assert differences(to_json(tiny_config(ensemble__grid=ones)), to_json(tiny_config(ensemble__grid=floats))) == []


def test_put_copies_and_get_explains():
  config = tiny_config()
  changed = put(config, {"optimizer.learning_rate": 0.5, "model.kernel_init": "zeros"})
  assert (get(changed, "optimizer.learning_rate"), get(config, "optimizer.learning_rate")) == (0.5, 0.1)
  assert changed["losses"] is config["losses"]
  with pytest.raises(UserError, match=r"gradients\.noise has no 'etaa'; did you mean 'eta'"):
    put(config, {"gradients.noise.etaa": 1.0})
  with pytest.raises(UserError, match=r"config\.seed\.x does not exist"):
    get(config, "seed.x")


def test_differences_name_each_path_once_and_know_infinity():
  old = to_json(tiny_config(gradients__clip__max_norm=math.inf))
  assert differences(old, to_json(tiny_config(gradients__clip__max_norm=math.inf))) == []
  assert differences(old, to_json(tiny_config(steps=24))) == ["steps: 12 -> 24", "gradients.clip.max_norm: inf -> 10.0"]
  added = tiny_config(gradients__clip__max_norm=math.inf, targets={})
  assert differences(old, to_json(added)) == [f"targets.smoothing: {old['targets']['smoothing']} -> (absent)"]


@pytest.mark.parametrize("path", ["init", "stopping", "checkpoint.best"])
def test_what_may_be_left_out_is_the_same_as_empty(path):
  """A run of a config without the section goes on with one that has it, empty."""
  config, other = to_json(tiny_config()), to_json(tiny_config(**{path.replace(".", "__"): {}}))
  assert config != other and differences(config, other) == differences(other, config) == []
  assert fingerprint(config) == fingerprint(other)
  used = to_json(tiny_config(**{path.replace(".", "__"): {"metric": "loss"}}))
  assert differences(config, used) == [f"{path}: (absent) -> {{'metric': 'loss'}}"]
  assert fingerprint(used) != fingerprint(config)


def test_a_config_comes_back_from_json():
  """Infinity is written as text there; a level may be called so."""
  axis = {"path": "gradients.clip.max_norm", "levels": (1.0, math.inf), "names": ("1", "inf")}
  config = tiny_config(gradients__clip__max_norm=-math.inf, ensemble__grid={"clip": axis})
  assert from_json(json.loads(json.dumps(to_json(config)))) == config
