"""JSON files and summaries over members."""

import json
import math
import os

import numpy as np
import pytest
from ml_collections import config_dict

from lib.core import UserError
from lib.reporting import files, read_json, summarize, write_json


def test_json_keeps_order_and_indents_by_one(tmp_path):
  path = tmp_path / "new" / "results.json"
  write_json(path, {"b": np.float32(0.1), "a": (1, None), "nan": math.nan})
  assert path.read_text() == '{\n "b": 0.1,\n "a": [\n  1,\n  null\n ],\n "nan": null\n}\n'
  assert read_json(path) == {"b": 0.1, "a": [1, None], "nan": None}


def test_a_config_is_written_as_a_dict(tmp_path):
  config = config_dict.ConfigDict({"z": {"name": "x"}, "a": (1, 2)}, sort_keys=False)
  write_json(tmp_path / "config.json", config)
  assert list(read_json(tmp_path / "config.json").items()) == [("z", {"name": "x"}), ("a", [1, 2])]


def test_a_failed_write_leaves_the_old_file_whole(tmp_path, monkeypatch):
  path = tmp_path / "results.json"
  write_json(path, {"old": 1})
  with pytest.raises(TypeError):
    write_json(path, {"new": object()})
  assert read_json(path) == {"old": 1}

  def full(descriptor):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(files.os, "fsync", full)
  with pytest.raises(UserError, match=r"results\.json cannot be written \(No space left on device\)"):
    write_json(path, {"new": 1})
  assert read_json(path) == {"old": 1}


def test_the_data_is_on_the_disk_before_the_name_is(tmp_path, monkeypatch):
  order = []
  fsync, replace = os.fsync, os.replace
  monkeypatch.setattr(files.os, "fsync", lambda fd: (order.append("sync"), fsync(fd)))
  monkeypatch.setattr(files.os, "replace", lambda a, b: (order.append("rename"), replace(a, b)))
  write_json(tmp_path / "a.json", 1)
  assert order == ["sync", "rename", "sync"]


@pytest.mark.parametrize("prepare, message", [
  (lambda p: None, "does not exist"),
  (lambda p: p.write_text("{"), "is not JSON"),
  (lambda p: p.mkdir(), "cannot be read"),
])
def test_a_file_that_cannot_be_read_is_named(tmp_path, prepare, message):
  prepare(tmp_path / "x.json")
  with pytest.raises(UserError, match=rf"x\.json {message}"):
    read_json(tmp_path / "x.json")


def test_mean_and_standard_error():
  # 1, 2, 3, 4: mean 5/2, variance (9/4 + 1/4) * 2 / 3 = 5/3, so sem = sqrt(5/3 / 4).
  assert summarize([1, 2, 3, 4]) == {"mean": 2.5, "sem": pytest.approx(math.sqrt(5 / 12), rel=1e-14), "n": 4, "dead": 0}


def test_members_that_died_are_counted_and_numbers_that_are_not_finite_are_left_out():
  assert summarize([1.0, None, 3.0, None]) == summarize([1.0, 3.0]) | {"dead": 2}
  assert summarize([1.0, math.nan, 3.0, None, math.inf]) == summarize([1.0, 3.0]) | {"dead": 1}


def test_one_member_has_no_standard_error_and_none_has_no_mean():
  assert summarize(np.float32([0.5])) == {"mean": 0.5, "sem": None, "n": 1, "dead": 0}
  assert summarize([None]) == {"mean": None, "sem": None, "n": 0, "dead": 1}
  json.dumps(summarize([1, 2]), allow_nan=False)


def test_the_standard_error_falls_as_the_root_of_n():
  values = np.random.default_rng(0).normal(size=40_000)
  assert summarize(values[:400])["sem"] / summarize(values)["sem"] == pytest.approx(10, rel=0.1)
