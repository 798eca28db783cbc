"""TensorBoard events: a run of its own for every member, resumed without a step twice, without TensorFlow."""

import os
import pathlib
import subprocess
import sys

import pytest

from nurture.core import UserError
from nurture.reporting import TensorBoard


def member(number, cohort=0, seed=0, **values):
  return {"member": number, "cohort": cohort, "seed": seed, "values": values}


def row(member, step, cohort=0, **more):
  return {"step": step, "cohort": cohort, "member": member, **more}


def shown(directory):
  """Returns {run: {tag: [(step, value), ...]}} as TensorBoard shows it, and {run: its hyper-parameters}."""
  multiplexer = pytest.importorskip("tensorboard.backend.event_processing.event_multiplexer").EventMultiplexer()
  from tensorboard.plugins.hparams import plugin_data_pb2  # noqa: PLC0415

  multiplexer.AddRunsFromDirectory(str(directory))
  multiplexer.Reload()
  curves, places = {}, {}
  for run, tags in multiplexer.Runs().items():
    curves[run] = {tag: [(e.step, e.value) for e in multiplexer.Scalars(run, tag)] for tag in tags["scalars"]}
    metadata = multiplexer.GetAccumulator(run).summary_metadata["_hparams_/session_start_info"]
    data = plugin_data_pb2.HParamsPluginData.FromString(metadata.plugin_data.content)
    values = {name: value for name, value in data.session_start_info.hparams.items()}
    places[run] = {name: getattr(value, value.WhichOneof("kind")) for name, value in values.items()}
  return curves, places


def test_a_package_that_is_not_installed_is_an_error_that_names_the_extra(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "tensorboard.compat.proto", None)
  with pytest.raises(UserError, match=r"not installed.*pip install \"nurture\[tensorboard\]\""):
    TensorBoard(tmp_path / "events", [member(0)])


def test_every_member_is_a_run_that_says_its_place_in_the_grid(tmp_path):
  pytest.importorskip("tensorboard")
  board = TensorBoard(tmp_path, [member(0, lam=3.0, arm="ELR"), member(1, seed=1, lam=3.0, arm="ELR"), member(2)])
  board.restart(0, -1, ())
  for step in (0, 50):
    for number in (0, 1, 2):
      board.add(row(number, step, **{"test/accuracy": step / 4, "per_class": [1.0], "text": "a", "nothing": None}))
  board.close(failed=False)
  curves, places = shown(tmp_path)
  assert curves == dict.fromkeys(
    ["lam=3.0, ELR/seed 0", "lam=3.0, ELR/seed 1", "seed 0"], {"test/accuracy": [(0, 0.0), (50, 12.5)]}
  )
  assert places["lam=3.0, ELR/seed 1"] == {"lam": 3.0, "arm": "ELR", "seed": 1.0}


@pytest.mark.parametrize("levels", [("a/b", "a_b"), ("x" * 300, "x" * 300 + "y"), ("ELR", "elr"), ("../..", "")])
def test_no_two_groups_share_a_folder_and_none_is_outside(tmp_path, levels):
  pytest.importorskip("tensorboard")
  members = [member(2 * i + seed, seed=seed, arm=level) for i, level in enumerate(levels) for seed in (0, 1)]
  board = TensorBoard(tmp_path / "events", members)
  for number in range(4):
    board.add(row(number, 0, loss=float(number)))
  board.close(failed=False)
  curves, _ = shown(tmp_path / "events")
  assert sorted(curve["loss"][0][1] for curve in curves.values()) == [0, 1, 2, 3]
  assert len({os.path.dirname(run).casefold() for run in curves}) == 2
  assert os.listdir(tmp_path) == ["events"]


def test_a_resumed_run_shows_no_step_twice_and_what_was_trained_before_it_was_asked_for(tmp_path):
  pytest.importorskip("tensorboard")
  members = [member(0), member(1, cohort=1, seed=1), member(2, cohort=2, seed=2)]
  board = TensorBoard(tmp_path, members)
  board.restart(0, -1, ())
  for step in (0, 10, 20, 30):
    for number in (0, 1, 2):
      board.add(row(number, step, number, loss=1.0))
  board.flush()
  event, = (tmp_path / "seed 1").iterdir()
  event.write_bytes(event.read_bytes()[:-5])  # killed while it wrote
  event, = (tmp_path / "seed 0").iterdir()
  event.rename(event.with_name("begun"))  # killed before its first rows were whole
  board = TensorBoard(tmp_path, members)
  board.restart(1, 10, [row(0, 0, loss=2.0), row(0, 10, loss=2.0), row(1, 0, 1, loss=3.0)])
  board.add(row(1, 20, 1, loss=4.0))
  board.add(row(2, 0, 2, loss=5.0))
  board.close(failed=True)
  curves, _ = shown(tmp_path)
  assert curves["seed 0"] == {"loss": [(0, 2.0), (10, 2.0)]}
  assert curves["seed 1"] == {"loss": [(0, 1.0), (10, 1.0), (20, 4.0)]}
  assert curves["seed 2"] == {"loss": [(0, 5.0)]}


def test_a_kill_leaves_no_file_that_has_but_some_of_its_rows(tmp_path, monkeypatch):
  pytest.importorskip("tensorboard")
  board = TensorBoard(tmp_path, [member(0)])
  board.add(row(0, 0, loss=1.0))

  def killed(self, target):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
    patch.setattr(pathlib.Path, "rename", killed)
    board.flush()
  assert os.listdir(tmp_path / "seed 0") == ["begun"]
  board = TensorBoard(tmp_path, [member(0)])
  board.restart(0, 0, [row(0, 0, loss=2.0)])
  board.close(failed=False)
  assert shown(tmp_path)[0] == {"seed 0": {"loss": [(0, 2.0)]}}
  assert "begun" not in os.listdir(tmp_path / "seed 0")


def test_no_file_stays_open_however_many_members_there_are(tmp_path):
  pytest.importorskip("tensorboard")
  board = TensorBoard(tmp_path / "events", [member(i, seed=i) for i in range(50)])
  before = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0
  for i in range(50):
    board.add(row(i, 0, loss=0.5))
  board.flush()
  assert len(os.listdir(tmp_path / "events")) == 50
  assert not before or len(os.listdir("/proc/self/fd")) <= before + 2


def test_a_directory_that_cannot_be_made_is_an_error_that_names_it(tmp_path):
  pytest.importorskip("tensorboard")
  (tmp_path / "file").write_text("")
  board = TensorBoard(tmp_path / "file" / "events", [member(0)])
  board.add(row(0, 0, loss=0.5))
  with pytest.raises(UserError, match=r"file/events/seed 0 cannot be written \(Not a directory\)"):
    board.flush()


def test_events_are_written_without_tensorflow(tmp_path):
  pytest.importorskip("tensorboard")
  code = f"""
import sys
from nurture.reporting import MetricsWriter, TensorBoard
board = TensorBoard({str(tmp_path / "events")!r}, [{{"member": 3, "cohort": 0, "seed": 3, "values": {{}}}}])
with MetricsWriter({str(tmp_path / "metrics.jsonl")!r}, [board]) as writer:
  writer.write([{{"step": 0, "cohort": 0, "member": 3, "loss": 0.25}}])
print("tensorflow" in sys.modules)
"""
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
  assert (done.stdout, done.returncode) == ("False\n", 0), done.stderr
  assert shown(tmp_path / "events")[0] == {"seed 3": {"loss": [(0, 0.25)]}}
