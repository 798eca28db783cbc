"""JSON files and summaries over members."""

import json
import math
import os
from fractions import Fraction
from statistics import stdev

import numpy as np
import pytest
from ml_collections import config_dict

from nurture.core import UserError
from nurture.reporting import files, label_of, read_json, summarize, without_rounding, write_json
from nurture.reporting.results import mean_and_sem


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


@pytest.mark.parametrize("value", [0.1, 0.7, 1 / 3, -0.1, 1e-300, 5e-324, 1.7e308, 0.0, 123456.789])
@pytest.mark.parametrize("n", [2, 3, 5, 7, 20])
def test_members_that_agree_have_their_number_and_no_error(value, n):
  assert summarize([value] * n) == {"mean": value, "sem": 0.0, "n": n, "dead": 0}
  mean, sem = mean_and_sem(np.array([[value, 1.0], [math.nan, 2.0], [value, 3.0]]))
  assert (mean[0], sem[0]) == (value, 0.0) and (mean[1], sem[1]) == (2.0, pytest.approx(1 / math.sqrt(3)))


@pytest.mark.parametrize("value", [0.1, 0.97, 1.0, 3e4, 1e-200, 1e200])
@pytest.mark.parametrize("bits", [1, 2, 1000])
def test_members_that_nearly_agree_keep_their_error(value, bits):
  """One v and three times v + d have the mean v + 3 d / 4, the variance d^2 / 4, and so the standard error d / 4."""
  other = value + bits * math.ulp(value)
  d = Fraction(other) - Fraction(value)
  for values in ([value, other, other, other], [other, other, value, other]):
    summary = summarize(values)
    assert summary["mean"] == float(Fraction(value) + 3 * d / 4)
    assert summary["sem"] == pytest.approx(float(d) / 4, rel=1e-12)


def test_the_mean_does_not_depend_on_the_order_of_members_that_nearly_agree():
  values = list(0.9 + 1e-12 * np.random.default_rng(0).normal(size=8))
  assert summarize(values)["sem"] == pytest.approx(summarize(values[::-1])["sem"], rel=1e-12)
  assert summarize(values)["sem"] == pytest.approx(float(stdev(map(Fraction, values))) / math.sqrt(8), rel=1e-9)


def test_differences_of_decimals_lose_what_float64_adds():
  first, second = np.array([0.93, 0.83, 0.53]), np.array([0.9, 0.8, 0.5])
  assert len(set(first - second)) > 1
  assert set(without_rounding(first - second, np.stack([first, second]))) == {0.03}
  assert set(without_rounding(1e6 * (first - second), 1e6 * first)) == {3e4}
  assert set(without_rounding(1e-9 * (first - second), 1e-9 * first)) == {3e-11}
  np.testing.assert_array_equal(without_rounding(np.zeros(2), np.zeros(2)), 0)
  np.testing.assert_allclose(without_rounding(np.array([1e-299]), np.array([1e-299])), 1e-299)  # 10^310 is no number
  near = np.array([1e-11, 2e-11])  # eleven digits below the numbers it is still a difference
  np.testing.assert_allclose(without_rounding(near, np.array([0.5, np.nan])), near, rtol=1e-9)


@pytest.mark.parametrize("values, label", [
  ({}, "all"), ({"lr": 0.1}, "lr=0.1"), ({"net": "relu", "lr": 0.1}, "relu, lr=0.1"), ({"norm": True}, "norm=True"),
])
def test_how_a_point_of_the_grid_is_called(values, label):
  assert label_of(values) == label


def test_one_member_has_no_standard_error_and_none_has_no_mean():
  assert summarize(np.float32([0.5])) == {"mean": 0.5, "sem": None, "n": 1, "dead": 0}
  assert summarize([None]) == {"mean": None, "sem": None, "n": 0, "dead": 1}
  json.dumps(summarize([1, 2]), allow_nan=False)


def test_the_standard_error_falls_as_the_root_of_n():
  values = np.random.default_rng(0).normal(size=40_000)
  assert summarize(values[:400])["sem"] / summarize(values)["sem"] == pytest.approx(10, rel=0.1)
