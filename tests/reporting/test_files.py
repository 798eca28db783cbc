"""Reading and replacing files, and names that no file can have."""

import builtins
import errno
import io
import os

import pytest

from nurture import reporting, terminal
from nurture.core import UserError
from nurture.reporting import files

LONG = "x" * 300


def test_a_link_in_the_place_of_the_temporary_file_is_not_followed(tmp_path):
  (tmp_path / "elsewhere").write_text("kept")
  (tmp_path / ".a.json.tmp").symlink_to(tmp_path / "elsewhere")
  reporting.write_json(tmp_path / "a.json", 1)
  assert (tmp_path / "elsewhere").read_text() == "kept" and reporting.read_json(tmp_path / "a.json") == 1
  assert sorted(os.listdir(tmp_path)) == ["a.json", "elsewhere"]


def test_a_failed_write_leaves_nothing_behind(tmp_path, monkeypatch):
  def full(descriptor):
    raise OSError(errno.ENOSPC, "No space left on device")

  monkeypatch.setattr(files.os, "fsync", full)
  with pytest.raises(UserError, match="cannot be written"):
    reporting.write_json(tmp_path / "a.json", 1)
  assert os.listdir(tmp_path) == []


def test_a_new_name_is_given_to_what_is_on_the_disk_already(tmp_path, monkeypatch):
  """A power cut leaves what fsync has seen: first all of the contents, then the directory that names them."""
  path, seen = tmp_path / "a.json", []
  monkeypatch.setattr(files.os, "fsync", lambda descriptor: seen.append((os.fstat(descriptor).st_size, path.exists())))
  reporting.replace_file(path, "0123456789")
  assert seen == [(10, False), (tmp_path.stat().st_size, True)]
  with reporting.MetricsWriter(tmp_path / "metrics.jsonl") as writer:
    writer.write([{"step": 0}])
  assert seen[2:] == [(len('{"step": 0}\n'), True)]


def test_a_pipe_is_not_waited_for(tmp_path):
  os.mkfifo(tmp_path / "metrics.jsonl")
  for read in (reporting.read_json, reporting.read_rows, reporting.MetricsWriter):
    with pytest.raises(UserError, match=r"metrics\.jsonl cannot be read \(Not a regular file\)"):
      read(tmp_path / "metrics.jsonl")


def test_what_is_there_and_what_is_not(tmp_path):
  (tmp_path / "b").write_text("")
  (tmp_path / "a").mkdir()
  (tmp_path / "c").symlink_to(tmp_path / "nowhere")
  assert [reporting.exists(tmp_path / name) for name in ("a", "b", "c", "d", "b/below")] == [True, True] + [False] * 3
  assert [reporting.is_directory(tmp_path / name) for name in ("a", "b", "c", "d")] == [True, False, False, False]


def test_what_to_do_is_said(tmp_path):
  with pytest.raises(UserError, match=r"x\.json does not exist; give the directory of a run, which holds it\.$"):
    reporting.read_json(tmp_path / "x.json")
  (tmp_path / "x.json").write_text("{")
  with pytest.raises(UserError, match=r"x\.json is not JSON \(.*\); restore it from a copy or remove it\.$"):
    reporting.read_json(tmp_path / "x.json")
  fix = "free space or give another directory, then run again"
  with pytest.raises(UserError, match=rf"below cannot be written \(File exists\); {fix}\.$"):
    reporting.replace_file(tmp_path / "x.json" / "below", "")


def denied(original, directory):
  """A call of the system as a user has it below a directory that is not theirs; root, which tests may be, has all."""
  def call(name, *arguments, **more):
    if str(name).startswith(str(directory)):
      raise PermissionError(errno.EACCES, "Permission denied")
    return original(name, *arguments, **more)

  return call


@pytest.mark.parametrize("read", [
  reporting.exists, reporting.is_directory, reporting.read_json, reporting.read_rows,
  reporting.read_results, reporting.read_config, reporting.read_manifest,
  lambda path: reporting.write_json(path / "a.json", 1), lambda path: reporting.write_json(path / "plots" / "a.png", 1),
  lambda path: reporting.MetricsWriter(path / "metrics.jsonl"),
  lambda path: terminal.config_of("config", ["train", f"--config={path}"]),
], ids=["exists", "is_directory", "read_json", "read_rows", "read_results", "read_config", "read_manifest",
        "write_json", "write_below", "MetricsWriter", "--config"])
@pytest.mark.parametrize("kind", ["too long", "below too long", "circle", "zero byte", "unsearchable"])
def test_a_name_that_cannot_be_looked_up_is_one_sentence(tmp_path, monkeypatch, read, kind):
  (tmp_path / "circle").symlink_to(tmp_path / "circle")
  names = {"too long": LONG, "below too long": f"{LONG}/run", "circle": "circle/run", "zero byte": "a\0b"}
  path = tmp_path / names.get(kind, "run")
  if kind == "unsearchable":
    for module, name in ((os, "stat"), (os, "listdir"), (os, "mkdir"), (io, "open"), (builtins, "open")):
      monkeypatch.setattr(module, name, denied(getattr(module, name), path))
  with pytest.raises(UserError, match=r"(cannot be (read|written) \(|does not exist|is not a finished run).*; .*\.$"):
    read(path)
  if kind == "unsearchable" and read in (reporting.exists, reporting.read_json, reporting.read_results):
    with pytest.raises(UserError, match=r"cannot be read \(Permission denied\); mend its permissions or give another"):
      read(path)
