"""metrics.jsonl: bytes, truncation, damage, disk errors; what the sinks beside it are told."""

import json
import math
import os

import jax.numpy as jnp
import numpy as np
import pytest

from nurture.core import UserError
from nurture.reporting import NO_ROWS, MetricsWriter, read_rows


def row(cohort, step, member=0, **more):
  return {"step": step, "cohort": cohort, "member": member, **more}


@pytest.fixture
def path(tmp_path):
  return tmp_path / "metrics.jsonl"


def written(path, *rows):
  with MetricsWriter(path) as writer:
    writer.write(rows)
  return path.read_text()


def test_a_row_is_one_line_of_json_in_the_order_given(path):
  assert written(path, row(0, 100, loss=0.5), row(0, 200, loss=0.25)) == (
    '{"step": 100, "cohort": 0, "member": 0, "loss": 0.5}\n{"step": 200, "cohort": 0, "member": 0, "loss": 0.25}\n'
  )


def test_nothing_is_written_before_flush_and_nothing_twice(path):
  writer = MetricsWriter(path)
  writer.write([row(0, 1)])
  assert not path.exists()
  writer.flush()
  writer.flush()
  assert len(read_rows(path)) == 1


@pytest.mark.parametrize("make", [np.float32, jnp.float32], ids=["numpy", "jax"])
def test_float32_is_written_in_its_shortest_form_and_reads_back_the_same(path, make):
  bits = np.random.default_rng(0).integers(0, 2**32, 2000, dtype=np.uint32).view(np.float32)
  values = bits[np.isfinite(bits)]
  text = written(path, *(row(0, i, x=make(v)) for i, v in enumerate(values[:200])), row(0, 0, all=values))
  rows = [json.loads(line) for line in text.splitlines()]
  np.testing.assert_array_equal(np.float32([r["x"] for r in rows[:-1]]), values[:200])
  np.testing.assert_array_equal(np.float32(rows[-1]["all"]), values)
  assert all(repr(x) == repr(float(str(v))) for x, v in zip(rows[-1]["all"], values))
  assert '"x": 0.1}' in written(path, {"step": 0, "x": make(0.1)})


def test_low_precision_and_whole_numbers_and_arrays(path):
  values = {"b": jnp.bfloat16(1.5), "i": np.int32(7), "t": np.bool_(True), "a": jnp.arange(3), "m": np.ones((1, 2))}
  assert written(path, values) == '{"b": 1.5, "i": 7, "t": true, "a": [0, 1, 2], "m": [[1.0, 1.0]]}\n'


@pytest.mark.parametrize("value", [math.nan, math.inf, -np.float32(np.inf), jnp.nan])
def test_what_is_not_finite_becomes_null(path, value):
  assert written(path, {"step": 0, "x": value, "a": np.asarray([1.0, value])}) == (
    '{"step": 0, "x": null, "a": [1.0, null]}\n'
  )


def test_an_object_is_refused_and_not_written_as_its_repr(path):
  with pytest.raises(TypeError, match="no form in JSON"):
    written(path, {"step": 0, "x": object()})


def test_resuming_cuts_the_file_where_it_stood(path):
  first, second, third = [row(0, 0), row(0, 10)], [row(1, 0)], [row(1, 10), row(2, 0)]
  with MetricsWriter(path) as writer:
    assert writer.position == NO_ROWS
    positions = []
    for rows in (first, second, third):
      writer.write(rows)
      writer.flush()
      positions.append(writer.position)
  assert [position["bytes"] for position in positions][-1] == path.stat().st_size
  with MetricsWriter(path) as writer:
    assert writer.position == positions[-1] and all(writer.holds(p) for p in (NO_ROWS, *positions))
    writer.resume(positions[1], 1, 5)
    assert writer.position == positions[1] and not writer.holds(positions[2])
    writer.write([row(1, 10)])
  assert read_rows(path) == [*first, *second, row(1, 10)]
  with MetricsWriter(path) as writer:
    writer.resume(NO_ROWS, 0, -1)
  assert path.read_bytes() == b""


@pytest.mark.parametrize("change", [
  lambda lines: lines[:-1], lambda lines: lines[1:], lambda lines: lines[:1] + lines[2:],
  lambda lines: [lines[0].replace(b"0", b"1"), *lines[1:]], lambda lines: [lines[1], lines[0], *lines[2:]],
  lambda lines: [],
])
def test_a_file_that_lost_or_changed_rows_does_not_hold_them(path, change):
  written(path, *(row(0, step) for step in (0, 10, 20)))
  position = MetricsWriter(path).position
  assert MetricsWriter(path).holds(position)
  path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))
  assert not MetricsWriter(path).holds(position)
  path.unlink()
  assert not MetricsWriter(path).holds(position)


def test_a_killed_and_resumed_run_leaves_the_same_bytes(path, tmp_path):
  rows = [row(c, s, loss=np.float32(1 / (s + 1))) for c in range(2) for s in range(0, 50, 10)]
  whole = written(tmp_path / "whole.jsonl", *rows)
  counted = written(path, *(r for r in rows if (r["cohort"], r["step"]) <= (1, 20)))
  position = MetricsWriter(path).position
  for cut in range(len(counted), len(whole), 7):  # killed anywhere after the checkpoint at step 20
    path.write_text(whole[:cut])
    with MetricsWriter(path) as writer:
      assert writer.holds(position)
      writer.resume(position, 1, 20)
      writer.write(r for r in rows if (r["cohort"], r["step"]) > (1, 20))
    assert path.read_text() == whole


def test_resuming_forgets_what_was_not_flushed(path):
  writer = MetricsWriter(path)
  writer.write([row(0, 0)])
  writer.resume(NO_ROWS, 0, -1)
  writer.flush()
  assert read_rows(path) == []


def test_the_directory_is_made(tmp_path):
  written(tmp_path / "new" / "run" / "metrics.jsonl", row(0, 0))
  assert len(read_rows(tmp_path / "new" / "run" / "metrics.jsonl")) == 1


def test_cutting_replaces_the_file_and_never_edits_it(path):
  written(path, row(0, 0), row(0, 1))
  before = os.open(path, os.O_RDONLY)
  MetricsWriter(path).resume(NO_ROWS, 0, -1)
  assert os.pread(before, 1000, 0).count(b"\n") == 2
  os.close(before)
  assert os.listdir(path.parent) == ["metrics.jsonl"]


def test_a_half_written_last_line_is_passed_over_and_mended(path):
  text = written(path, row(0, 0), row(0, 1))
  path.write_text(text[:-5])
  assert read_rows(path) == [row(0, 0)]
  assert written(path, row(0, 1)) == text


def test_a_damaged_line_before_the_last_is_an_error_that_names_it(path):
  text = written(path, row(0, 0), row(0, 1), row(0, 2)).splitlines(keepends=True)
  path.write_text("".join([text[0], text[1][:5] + "\n", text[2]]))
  with pytest.raises(UserError, match=r"metrics\.jsonl, line 2 is not JSON .*restore the file from a copy"):
    read_rows(path)


def test_an_empty_line_ends_nothing(path):
  path.write_text("\n\n".join(written(path, row(0, 0), row(0, 1)).splitlines()))
  assert read_rows(path) == [row(0, 0), row(0, 1)]


def test_a_missing_file_is_an_error_that_names_it(path):
  with pytest.raises(UserError, match=r"metrics\.jsonl does not exist"):
    read_rows(path)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs the device that is always full")
def test_a_full_disk_is_an_error_that_names_the_file_and_the_fix(path):
  writer = MetricsWriter(path)
  writer.write([row(0, 0)])
  path.symlink_to("/dev/full")
  with pytest.raises(UserError, match=r"metrics\.jsonl cannot be written \(No space left.*free space"):
    writer.flush()


def test_a_flush_that_failed_and_is_made_again_doubles_nothing(path, monkeypatch):
  def full(descriptor):
    raise OSError(28, "No space left on device")

  writer = MetricsWriter(path)
  writer.write([row(0, 0), row(0, 10)])
  with monkeypatch.context() as patch:
    patch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left"):
      writer.flush()
  writer.close()
  assert read_rows(path) == [row(0, 0), row(0, 10)] and writer.position["bytes"] == path.stat().st_size


def test_a_directory_that_cannot_be_made_is_an_error_that_names_the_file(tmp_path):
  (tmp_path / "file").write_text("")
  writer = MetricsWriter(tmp_path / "file" / "metrics.jsonl")
  with pytest.raises(UserError, match=r"file/metrics\.jsonl cannot be written"):
    writer.flush()


class Recorder:
  """A sink that notes what it is told."""

  def __init__(self):
    self.told = []

  def restart(self, cohort, step, rows):
    self.told.append((cohort, step, list(rows)))

  def add(self, row):
    self.told.append(row)

  def flush(self):
    self.told.append("flush")

  def close(self, failed):
    self.told.append(f"close, failed={failed}")


def test_sinks_get_rows_as_json_has_them_and_know_where_a_run_goes_on(path):
  sink = Recorder()
  with MetricsWriter(path, [sink]) as writer:
    writer.resume(NO_ROWS, 0, -1)
    writer.write([row(0, 0, loss=np.float32(0.1), x=math.nan)])
    writer.flush()
    position = writer.position
    writer.write([row(0, 10)])
  assert sink.told == [(0, -1, []), row(0, 0, loss=0.1, x=None), "flush", row(0, 10), "flush", "close, failed=False"]
  sink.told.clear()
  with pytest.raises(ZeroDivisionError), MetricsWriter(path, [sink]) as writer:
    writer.resume(position, 0, 0)
    raise ZeroDivisionError
  assert sink.told == [(0, 0, [row(0, 0, loss=0.1, x=None)]), "close, failed=True"]
