"""Weights & Biases: its calls, against a small stand-in, and its files, where the package is installed."""

import importlib.util
import json
import os
import re
import struct
import subprocess
import sys
import types

import pytest

from nurture import reporting
from nurture.core import UserError
from tests.wandb_cloud import Cloud

STEPS = 100
MEMBERS = [
  {"member": 2 * cohort + seed, "cohort": cohort, "seed": seed, "values": {"lam": lam}}
  for cohort, lam in enumerate((0.0, 3.0)) for seed in (0, 1)
]


@pytest.fixture
def cloud(monkeypatch):
  cloud = Cloud()
  monkeypatch.setitem(sys.modules, "wandb", cloud.module())
  return cloud


def row(member, step, **more):
  return {"step": step, "cohort": member // 2, "member": member, "loss": 1.0 / (1 + step), **more}


def cohort_rows(cohort, *steps):
  return [row(member, step) for step in steps for member in (2 * cohort, 2 * cohort + 1)]


def opened(workdir, steps=STEPS):
  config_of = lambda member: {"losses": {"elr": {"lam": MEMBERS[member]["values"]["lam"]}}, "seed": member % 2}
  return reporting.Wandb(workdir, MEMBERS, steps, config_of)


def start(workdir, cohort=0, position=None, rows=(), kill=False, steps=STEPS):
  """One start of a run, which goes on behind a position with these rows; returns the position behind the first half."""
  writer = reporting.MetricsWriter(workdir / "metrics.jsonl", [opened(workdir, steps)])
  writer.resume(position or reporting.NO_ROWS, cohort, position["step"] if position else -1)
  half = len(rows) // 2
  writer.write(rows[:half])
  writer.flush()
  position = writer.position | {"step": rows[half - 1]["step"] if half else -1}
  writer.write(rows[half:])
  if not kill:
    writer.close()
  return position


def test_every_member_is_a_run_of_one_group_with_its_config(cloud, tmp_path, capsys):
  workdir = tmp_path / "elr_digits"
  start(workdir, rows=[row(0, 0, accuracy=0.5, per_class=[1.0], text="a", nothing=None), *cohort_rows(1, 0)])
  arguments = [arguments for arguments, _ in cloud.inits]
  assert [a["name"] for a in arguments] == ["lam=0.0/seed 0", "lam=3.0/seed 0", "lam=3.0/seed 1"]
  group, = {a["group"] for a in arguments}
  name, group_id = group.split()
  assert name == "elr_digits" and [a["id"] for a in arguments] == [f"{group_id}-{i}" for i in (0, 2, 3)]
  assert arguments[2]["config"] == {"losses": {"elr": {"lam": 3.0}}, "seed": 1, "values": {"lam": 3.0}}
  assert {a["reinit"] for a in arguments} == {"create_new"} and {a["project"] for a in arguments} == {"nurture"}
  assert cloud.history[f"{group_id}-0"] == [(0, {"loss": 1.0, "accuracy": 0.5})]
  assert [run.code for _, run in cloud.inits] == [0, 0, 0]
  assert capsys.readouterr().err == "Weights & Biases: https://example.org/run\n"


def test_the_project_is_the_one_that_its_settings_name(cloud, tmp_path):
  cloud.settings.project = "mine"
  start(tmp_path / "a", rows=[row(0, 0)])
  assert cloud.inits[0][0]["project"] == "mine"


@pytest.mark.parametrize("mode", ["online", "offline"])
def test_killed_runs_go_on_without_a_gap_or_a_step_twice(cloud, tmp_path, mode):
  cloud.settings.mode = mode
  workdir = tmp_path / "run"
  counted = start(workdir, rows=cohort_rows(0, 0, 50), kill=True)
  start(workdir, 0, counted, cohort_rows(0, 50, STEPS))
  first = {run for run, steps in cloud.steps().items() if steps == [0, 50, STEPS]}
  assert len(first) == 2
  whole = reporting.MetricsWriter(workdir / "metrics.jsonl").position | {"step": -1}
  counted = start(workdir, 1, whole, cohort_rows(1, 0, 50, STEPS), kill=True)
  begun = len(cloud.inits)
  start(workdir, 1, counted, cohort_rows(1, 50, STEPS)[-3:])
  assert len(cloud.inits) == begun + 2  # those of the first cohort have ended
  folders = {path.name for path in (workdir / "wandb").glob("offline-run-*")}
  shown = {run: steps for run, steps in cloud.steps().items() if mode == "online" or run in folders}
  assert list(shown.values()) == [[0, 50, STEPS]] * 4
  resumes = {arguments["resume"] for arguments, _ in cloud.inits}
  assert resumes == ({"allow"} if mode == "online" else {None})  # a sync of a whole run replaces what there is


def test_what_was_trained_without_it_is_sent_by_the_next_start_and_an_end_is_an_end(cloud, tmp_path):
  with reporting.MetricsWriter(tmp_path / "metrics.jsonl") as writer:
    writer.write([*cohort_rows(0, 0, STEPS), *cohort_rows(1, 0, STEPS)])
  position = writer.position | {"step": STEPS}
  start(tmp_path, 1, position)
  assert list(cloud.steps().values()) == [[0, STEPS]] * 4
  start(tmp_path, 1, position)
  assert len(cloud.inits) == 4
  start(tmp_path, 1, position, cohort_rows(1, 150, 200), steps=200)  # it is to train on
  assert list(cloud.steps().values()) == [[0, STEPS]] * 2 + [[0, STEPS, 150, 200]] * 2


def test_a_run_that_fails_is_no_finished_one_and_the_cohorts_before_it_are(cloud, tmp_path):
  ended = lambda: json.loads((tmp_path / "wandb" / "nurture.json").read_text())["ended"]
  with pytest.raises(ZeroDivisionError), reporting.MetricsWriter(tmp_path / "m", [opened(tmp_path)]) as writer:
    writer.resume(reporting.NO_ROWS, 0, -1)
    writer.write(cohort_rows(0, STEPS))
    assert ended() == {}
    writer.write(cohort_rows(1, STEPS))
    assert ended() == {"0": STEPS, "1": STEPS}
    raise ZeroDivisionError
  assert [run.code for _, run in cloud.inits] == [0, 0, 1, 1] and ended() == {"0": STEPS, "1": STEPS}


def test_a_failure_while_members_train_is_one_line_and_the_next_start_sends_the_rest(cloud, tmp_path, capsys):
  writer = reporting.MetricsWriter(tmp_path / "metrics.jsonl", [opened(tmp_path)])
  writer.resume(reporting.NO_ROWS, 0, -1)
  writer.write(cohort_rows(0, 0))
  cloud.failures.append(ConnectionError("the service\nis gone."))
  writer.write(cohort_rows(0, 50))
  writer.write(cohort_rows(0, STEPS))
  writer.close()
  assert capsys.readouterr().err.splitlines()[1:] == [
    "Weights & Biases stopped (ConnectionError: the service is gone); training goes on, and the same command sends the "
    "rest."
  ]
  cloud.failures.clear()
  start(tmp_path, 0, writer.position | {"step": STEPS})
  assert list(cloud.steps().values()) == [[0, 50, STEPS]] * 2


def test_a_refusal_before_anything_is_trained_is_one_sentence_and_leaves_nothing(cloud, tmp_path):
  cloud.failures.append(ValueError("no API key"))
  with pytest.raises(UserError, match=r"cannot be used \(ValueError: no API key\); run `wandb login`, set WANDB_MODE"):
    start(tmp_path, rows=cohort_rows(0, 0))
  assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("found", [None, types.ModuleType("wandb")], ids=["nothing", "a folder of that name"])
def test_a_package_that_is_not_installed_is_an_error_that_names_the_extra(tmp_path, monkeypatch, found):
  monkeypatch.setitem(sys.modules, "wandb", found)
  with pytest.raises(UserError, match=r"not installed \(.*pip install \"nurture\[wandb\]\"`, or leave --wandb out"):
    opened(tmp_path)


def test_a_damaged_note_of_what_was_sent_is_named_with_the_fix(cloud, tmp_path):
  (tmp_path / "wandb").mkdir()
  (tmp_path / "wandb" / "nurture.json").write_text('{"id": 3}')
  with pytest.raises(UserError, match=r"wandb/nurture\.json: id is 3.*remove it to send everything to new runs"):
    start(tmp_path, rows=cohort_rows(0, 0))


def records(path):
  """Yields what W&B keeps offline: a log of records in blocks of 32 KiB, as LevelDB cuts them, behind seven bytes."""
  from wandb.proto.wandb_internal_pb2 import Record  # noqa: PLC0415

  data, at, whole = path.read_bytes(), 7, b""
  while at + 7 <= len(data):
    if 32768 - at % 32768 < 7:
      at += 32768 - at % 32768
      continue
    _, length, kind = struct.unpack("<IHB", data[at : at + 7])
    whole += data[at + 7 : at + 7 + length]
    at += 7 + length
    if kind in (1, 4):  # the whole record, or its last piece
      yield Record.FromString(whole)
      whole = b""


CODE = """
import os, pathlib, sys
from nurture import reporting
workdir = pathlib.Path(sys.argv[1])
members = [{"member": i, "cohort": 0, "seed": i, "values": {"lam": 0.0}} for i in (0, 1)]
config_of = lambda i: {"losses": {"elr": {"lam": 0.0}}, "seed": i}
writer = reporting.MetricsWriter(workdir / "metrics.jsonl", [reporting.Wandb(workdir, members, 100, config_of)])
rows = lambda *steps: [{"step": s, "cohort": 0, "member": i, "loss": 1 / (1 + s)} for s in steps for i in (0, 1)]
if sys.argv[2] == "killed":
  writer.resume(reporting.NO_ROWS, 0, -1)
  writer.write(rows(0, 50))
  writer.flush()
  os.kill(os.getpid(), 9)
writer.resume(writer.position, 0, 50)
writer.write(rows(100))
writer.close()
"""


@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="needs the extra wandb")
def test_the_package_keeps_offline_runs_that_a_kill_does_not_harm(tmp_path):
  environment = os.environ | {"WANDB_MODE": "offline"}
  for how, code in (("killed", -9), ("resumed", 0)):
    done = subprocess.run(
      [sys.executable, "-c", CODE, str(tmp_path), how], capture_output=True, text=True, timeout=120, env=environment,
    )
    assert done.returncode == code, done.stderr
    assert re.fullmatch(r"Weights & Biases: `wandb sync \S+` sends the runs when they have ended\n", done.stderr)
  files = sorted((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
  assert len(files) == 2
  for number, file in enumerate(sorted(files, key=lambda file: file.name)):
    found = list(records(file))
    run = next(record.run for record in found if record.HasField("run"))
    assert (run.display_name, run.run_group.split()[0]) == (f"lam=0.0/seed {number}", tmp_path.name)
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert config["losses"] == {"elr": {"lam": 0.0}} and config["seed"] == number
    steps = []
    for record in found:
      if record.HasField("history"):
        items = {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
        steps.append(items["_step"])
        assert items["loss"] == 1.0 / (1 + items["_step"])
    assert steps == [0, 50, 100]
