"""The run directory of a study: its files, and how its end or crash is recorded."""

import pytest

from nurture.core import UserError
from nurture.reporting import read_json, study


def history(workdir):
  return [(e["event"], e.get("reason"), e.get("step")) for e in read_json(workdir / "manifest.json")["history"]]


def test_a_study_leaves_its_settings_its_results_and_its_end(tmp_path):
  with study(tmp_path / "run", {"n": 3}, range(2)) as running:
    running.done += 2
    assert running.write({"a": 1}) == tmp_path / "run" / "results.json"
    assert running.picture("x") == tmp_path / "run" / "plots" / "x.png"
  assert read_json(tmp_path / "run" / "config.json") == {"n": 3}
  assert read_json(tmp_path / "run" / "results.json") == {"a": 1}
  assert read_json(tmp_path / "run" / "manifest.json")["seeds"] == [0, 1]
  assert history(tmp_path / "run") == [("start", None, None), ("stop", "finished", 2)]
  assert 0 <= running.seconds < 60


@pytest.mark.parametrize("error, reason", [
  (UserError("a mistake."), "error"), (ZeroDivisionError(), "defect: ZeroDivisionError"),
  (KeyboardInterrupt(), "stopped by a signal"),
])
def test_a_crash_is_recorded_and_leaves_no_results(tmp_path, error, reason):
  with study(tmp_path, {}) as running:
    running.write({})
  with pytest.raises(type(error)), study(tmp_path, {}) as running:
    running.done = 1
    raise error
  assert history(tmp_path)[2:] == [("resume", None, None), ("stop", reason, 1)]
  assert not (tmp_path / "results.json").exists()


def test_a_manifest_that_cannot_be_written_does_not_hide_the_reason(tmp_path):
  with pytest.raises(ZeroDivisionError), study(tmp_path, {}):
    (tmp_path / "manifest.json").unlink()
    raise ZeroDivisionError


def test_the_directory_of_a_training_run_is_refused(tmp_path):
  (tmp_path / "metrics.jsonl").write_text("")
  with pytest.raises(UserError, match="of a training run; give another --workdir"), study(tmp_path, {}):
    pass
  assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_first_start_that_is_refused_leaves_nothing_behind(tmp_path):
  with pytest.raises(UserError), study(tmp_path / "new/run", {}):
    raise UserError("a mistake.")
  (tmp_path / "run").mkdir()
  with pytest.raises(UserError), study(tmp_path / "run", {}):
    raise UserError("a mistake.")
  assert [path.name for path in tmp_path.rglob("*")] == ["run"]
  with pytest.raises(UserError), study(tmp_path / "run", {}) as running:
    running.write({})
    raise UserError("a mistake behind a result.")
  assert (tmp_path / "run/results.json").exists() and history(tmp_path / "run")[-1] == ("stop", "error", 0)
