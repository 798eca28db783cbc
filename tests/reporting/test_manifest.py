"""The manifest: its entries, and its history, which survives."""

import datetime
import json
import pathlib
import platform
import subprocess

import jax
import numpy as np
import pytest

from nurture.core import UserError
from nurture.reporting import collect, manifest, read_json, start, stop


def git(directory, *arguments):
  who = ["-c", "user.name=a", "-c", "user.email=a@b"]
  subprocess.run(["git", "-C", directory, *who, *arguments], check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path):
  (tmp_path / "lib" / "nurture").mkdir(parents=True)
  (tmp_path / "lib" / "nurture" / "__init__.py").write_text("one = 1\n")
  git(tmp_path, "init")
  git(tmp_path, "add", ".")
  git(tmp_path, "commit", "-m", "first")
  return tmp_path


def test_a_clean_checkout_has_a_revision_and_no_diff(repository):
  state = manifest.git_state(repository)
  head = subprocess.run(["git", "-C", repository, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
  assert state == {"revision": head, "diff": "", "untracked": []}


def test_changes_and_new_files_are_seen_staged_or_not(repository):
  (repository / "lib" / "nurture" / "__init__.py").write_text("two = 2\n")
  (repository / "new.py").write_text("")
  git(repository, "add", "lib")
  state = manifest.git_state(repository)
  assert "-one = 1\n+two = 2\n" in state["diff"] and state["untracked"] == ["new.py"]


def test_a_hundred_new_files_are_listed(repository):
  for i in range(101):
    (repository / f"{i:03d}.py").write_text("")
  assert manifest.git_state(repository)["untracked"] == [f"{i:03d}.py" for i in range(100)]


def test_a_long_diff_is_cut_with_a_note(repository, monkeypatch):
  monkeypatch.setattr(manifest, "DIFF_LIMIT", 100)
  (repository / "lib" / "nurture" / "__init__.py").write_text("x\n" * 500)
  diff = manifest.git_state(repository)["diff"]
  assert len(diff) < 160 and diff.endswith("more characters are not kept]\n")


def test_no_checkout_is_none_even_inside_another_repository(repository, tmp_path):
  inner = repository / "site-packages"
  (inner / "lib" / "nurture").mkdir(parents=True)
  (inner / "lib" / "nurture" / "__init__.py").write_text("")
  assert manifest.git_state(inner) is None


def test_the_manifest_says_what_ran_on_what(monkeypatch):
  devices = jax.devices()  # before the flags change: XLA reads them once
  monkeypatch.setenv("XLA_FLAGS", f"--xla_dump_to={pathlib.Path.home()}/dump")
  argv = [str(manifest.ROOT / "experiments" / "train.py"), f"--workdir={pathlib.Path.home() / 'runs'}"]
  with jax.default_matmul_precision("highest"):
    found = collect({"steps": 3}, {"mnist": "abc"}, np.arange(2), argv)
  assert found["argv"] == ["experiments/train.py", "--workdir=~/runs"]
  assert found["seeds"] == [0, 1] and found["checksums"] == {"mnist": "abc"}
  assert found["xla_flags"] == "--xla_dump_to=~/dump"
  assert found["versions"]["jax"] == jax.__version__ and found["versions"]["python"] == platform.python_version()
  assert set(found["versions"]) == {"python", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy"}
  assert found["device"] == {"backend": "cpu", "kind": devices[0].device_kind, "count": 2}
  assert (found["matmul_precision"], found["x64"]) == ("highest", False)


def test_the_manifest_names_neither_user_nor_machine(monkeypatch):
  monkeypatch.setattr(manifest, "git_state", lambda: None)  # the diff may hold any text
  monkeypatch.setattr(pathlib.Path, "home", lambda: pathlib.Path("/home/someone"))
  text = json.dumps(collect({}, {}, [0], ["/home/someone/train.py"]))
  assert "someone" not in text and platform.node() not in text


def test_the_digest_follows_the_config():
  digests = [collect(c, {}, [], [])["config_sha256"] for c in ({"a": 1}, {"a": 1}, {"a": 2})]
  assert digests[0] == digests[1] != digests[2]


def test_history_of_start_stop_and_resume(tmp_path):
  first = {"git": {"revision": "abc"}, "seeds": [0], "members": [{"member": 0}]}
  start(tmp_path, first)
  stop(tmp_path, "interrupted", 40, 1.23456)
  returned = start(tmp_path, first | {"git": {"revision": "def"}})
  stored = read_json(tmp_path / "manifest.json")
  assert stored == returned
  assert {k: v for k, v in stored.items() if k != "history"} == first
  times = [datetime.datetime.fromisoformat(entry.pop("time")) for entry in stored["history"]]
  assert stored["history"] == [
    {"event": "start"},
    {"event": "stop", "reason": "interrupted", "step": 40, "seconds": 1.235},
    {"event": "resume", "changed": {"git": {"revision": "def"}}},
  ]
  assert all(t.utcoffset() == datetime.timedelta(0) for t in times) and times == sorted(times)


def test_stop_without_a_start_is_an_error_that_names_the_file(tmp_path):
  with pytest.raises(UserError, match=r"manifest\.json does not exist"):
    stop(tmp_path, "finished", 1, 1.0)
