"""Damage to the files of a run directory, and what the command that wrote it then makes of it."""

import contextlib
import io
import pathlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nurture import training
from nurture.core import UserError
from nurture.testing import shrink
from nurture.training.config import plain, put

STEPS, MIDDLE = 12, 9


def _flip(data: bytes) -> bytes:
  return data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 4]) + data[len(data) // 2 + 1 :] if data else b"\0"


def _to_folder(path: pathlib.Path) -> None:
  path.unlink()
  path.mkdir()


def _to_dead_link(path: pathlib.Path) -> None:
  path.unlink()
  path.symlink_to("nowhere")


# How a file is damaged: its name -> a function of the path.
DAMAGES: Mapping[str, Callable[[pathlib.Path], Any]] = {
  "removed": lambda path: path.unlink(),
  "empty": lambda path: path.write_bytes(b""),
  "cut in half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
  "last line lost": lambda path: path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1])),
  "twice": lambda path: path.write_bytes(path.read_bytes() * 2),
  "one bit": lambda path: path.write_bytes(_flip(path.read_bytes())),
  "{}": lambda path: path.write_text("{}\n"),
  "[]": lambda path: path.write_text("[]\n"),
  "null": lambda path: path.write_text("null\n"),
  "a folder": _to_folder,
  "a dead link": _to_dead_link,
}
COMPARED = ("metrics.jsonl", "results.json")


def config_of(**changes: Any) -> dict[str, Any]:
  """Returns a config of two cohorts that trains in a moment; changes are {path with "__" for ".": value}."""
  config = put(plain(shrink.load(shrink.ROOT / "configs/quickstart.py").get_config()), {
    "steps": STEPS, "batch_size": 32, "log_every": 3, "steps_per_dispatch": 3, "checkpoint.every": 3, "model.width": 8,
    "data.subset": 64, "data.test_subset": 32, "ensemble.seeds": 1, "ensemble.chunk": 2, "probes.test.every": 6,
    "probes.train.every": 6,
  })
  return put(config, {path.replace("__", "."): value for path, value in changes.items()})


def interrupt(workdir: pathlib.Path) -> None:
  """Makes of a finished run one that was killed in the middle of its last cohort."""
  (workdir / "results.json").unlink()
  for newest in (workdir / "checkpoints/cohort_001").glob("step_*"):
    if int(newest.name.removeprefix("step_")) > MIDDLE:
      shutil.rmtree(newest)


def student_of(teacher: pathlib.Path) -> dict[str, Any]:
  """Returns a config that learns from a member of a run."""
  references = {"teacher": {"model": config_of()["model"], "run": str(teacher), "member": 1}}
  losses = {"kd": {
    "name": "distillation", "weight": 1.0, "teachers": ("teacher",), "teacher_temperature": 1.0,
    "student_temperature": 1.0, "scale": "none",
  }}
  return config_of(references=references, losses=losses, ensemble__grid={}, steps=3)


def outcome(run: Callable[[], Any], workdir: pathlib.Path, expected: Mapping[str, bytes]) -> tuple[str, str]:
  """Returns ("=", "1", "X" or "T", what was said)."""
  try:
    with contextlib.redirect_stderr(io.StringIO()) as said:
      run()
  except training.Preempted:
    raise
  except UserError as error:
    return ("1" if "\n" not in str(error) else "T"), str(error)
  except Exception as error:  # noqa: BLE001  (which is what is looked for)
    return "T", f"{type(error).__name__}: {error}"
  same = all((workdir / name).is_file() and (workdir / name).read_bytes() == data for name, data in expected.items())
  return ("=" if same else "X"), said.getvalue()


def matrix(
  pristine: pathlib.Path, damaged: pathlib.Path, run: Callable[[], Any], workdir: pathlib.Path,
  expected: Mapping[str, bytes], progress: Callable[[str], None] = lambda file: None, damages: Sequence[str] = (),
) -> dict[str, dict[str, tuple[str, str]]]:
  """Damages every file of a directory in every way.

  Args:
    pristine: the directory as it should be.
    damaged: where copies of it are made.
    run: what is done with a copy.
    workdir: where the run writes, removed before each unless it is `damaged` itself.
    expected: {file: contents} of workdir after the undamaged run.
    progress: is told the file.
    damages: keys of DAMAGES; () takes all.

  Returns:
    {file: {damage: (outcome, what was said)}}.
  """
  files = sorted(path.relative_to(pristine) for path in pristine.rglob("*") if path.is_file())
  found: dict[str, dict[str, tuple[str, str]]] = {}
  for file in files:
    progress(str(file))
    for damage in damages or DAMAGES:
      for directory in {damaged, workdir}:
        shutil.rmtree(directory, ignore_errors=True)
      shutil.copytree(pristine, damaged)
      DAMAGES[damage](damaged / file)
      found.setdefault(str(file), {})[damage] = outcome(run, workdir, expected)
  return found
