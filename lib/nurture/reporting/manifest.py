"""The manifest of a run: code, versions, device, data and seeds, and when it started and stopped."""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import os
import pathlib
import platform
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from nurture.core import UserError
from nurture.reporting.files import Path, exists, json_form
from nurture.reporting.json_files import read_json, write_json
from nurture.reporting.run_directory import HISTORY, RESTORE, digest

ROOT = pathlib.Path(__file__).resolve().parents[3]  # the repository, where this is no installed package
DIFF_LIMIT = 200_000  # characters; a checkout with a data file in its diff must not fill the disk
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def collect(
  config: Mapping[str, Any], checksums: Mapping[str, str], seeds: Sequence[int], argv: Sequence[str]
) -> dict[str, Any]:
  """Returns what is needed to run an experiment again, without the name of a user or a machine.

  Args:
    config: the experiment's config; its sha256 is kept, its text is config.json's matter.
    checksums: file or data set -> checksum.
    seeds: one seed a member.
    argv: the command line; the paths of the home directory and of this repository are shortened.
  """
  import jax  # noqa: PLC0415

  devices = jax.devices()
  return json_form({
    "git": git_state(),
    "config_sha256": digest(json_form(config)),
    "argv": [_shortened(argument) for argument in argv],
    "seeds": seeds,
    "checksums": checksums,
    "versions": {"python": platform.python_version()} | {package: _version(package) for package in PACKAGES},
    "device": {"backend": jax.default_backend(), "kind": devices[0].device_kind, "count": len(devices)},
    "machine": {"platform": f"{platform.system()} {platform.machine()}", "cpu_count": os.cpu_count()},
    "xla_flags": _shortened(os.environ.get("XLA_FLAGS", "")),
    "matmul_precision": jax.config.jax_default_matmul_precision,  # type: ignore[attr-defined]
    "x64": jax.config.jax_enable_x64,  # type: ignore[attr-defined]
  })


def git_state(root: Path = ROOT) -> dict[str, Any] | None:
  """Returns {"revision", "diff", "untracked"} of the repository that tracks root/lib/nurture, or None if there is none.

  `diff` is `git diff HEAD`, cut after DIFF_LIMIT characters with a note; `untracked` lists the new files,
  whose contents the diff does not show.
  """
  if _git(root, "ls-files", "--error-unmatch", "lib/nurture/__init__.py") is None:
    return None
  revision = _git(root, "rev-parse", "HEAD")
  diff = _git(root, "diff", "--no-color", "--no-ext-diff", "HEAD")
  if revision is None or diff is None:
    return None
  if len(diff) > DIFF_LIMIT:
    diff = f"{diff[:DIFF_LIMIT]}\n[{len(diff) - DIFF_LIMIT} more characters are not kept]\n"
  untracked = _git(root, "ls-files", "--others", "--exclude-standard") or ""
  return {"revision": revision.strip(), "diff": diff, "untracked": untracked.splitlines()[:100]}


def start(workdir: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
  """Writes manifest.json with a "start" in its history; in a directory that has one already, adds a "resume".

  The manifest of the first start stays; a resume lists under "changed" the fields that differ now, such as
  the git revision or the device.

  Returns:
    The manifest as it stands on the disk.

  Raises:
    UserError: if it cannot be written, or the one that is there is damaged.
  """
  path = pathlib.Path(workdir) / "manifest.json"
  manifest = json_form(manifest)
  if exists(path):
    stored = read_json(path, HISTORY, RESTORE)
    changed = {k: v for k, v in manifest.items() if stored.get(k) != v}
    stored["history"] = [*stored.get("history", []), {"event": "resume", "time": _now(), "changed": changed}]
  else:
    stored = {**manifest, "history": [{"event": "start", "time": _now()}]}
  write_json(path, stored)
  return stored


def stop(workdir: Path, reason: str, step: int, seconds: float) -> None:
  """Adds a "stop" to the history: why ("finished", "interrupted", ...), after which step, after how many seconds.

  Raises:
    UserError: if there is no manifest or it is damaged, or cannot be written.
  """
  path = pathlib.Path(workdir) / "manifest.json"
  stored = read_json(path, HISTORY, RESTORE)
  entry = {"event": "stop", "time": _now(), "reason": reason, "step": step, "seconds": round(seconds, 3)}
  stored["history"] = [*stored.get("history", []), entry]
  write_json(path, stored)


def reason_of(error: BaseException) -> str:
  """Returns why an error stopped a run, as the history has it."""
  if isinstance(error, KeyboardInterrupt):
    return "stopped by a signal"
  return "error" if isinstance(error, UserError) else f"defect: {type(error).__name__}"


@contextlib.contextmanager
def recorded(
  workdir: Path, step: Callable[[], int], reason: Callable[[BaseException], str] = reason_of
) -> Iterator[None]:
  """Adds a "stop" to the history when the block ends: "finished", or the reason of what it raises, which goes on.

  Args:
    workdir: of a run whose manifest is written.
    step: () -> the last step that is done.
    reason: error -> why the run stopped.
  """
  began = time.monotonic()
  try:
    yield
  except BaseException as error:
    with contextlib.suppress(UserError):  # a full disk must not hide the reason
      stop(workdir, reason(error), step(), time.monotonic() - began)
    raise
  stop(workdir, "finished", step(), time.monotonic() - began)


def _now() -> str:
  return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _git(root: Path, *arguments: str) -> str | None:
  command = ["git", "-C", os.fspath(root), *arguments]
  try:
    done = subprocess.run(command, capture_output=True, timeout=30, env=os.environ | {"GIT_OPTIONAL_LOCKS": "0"})
  except (OSError, subprocess.TimeoutExpired):
    return None
  return done.stdout.decode(errors="replace") if done.returncode == 0 else None


def _version(package: str) -> str | None:
  try:
    return importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    return None


def _shortened(text: str) -> str:
  """Paths name users: those of the repository become relative, those of the home directory start with ~."""
  return str(text).replace(f"{ROOT}{os.sep}", "").replace(str(pathlib.Path.home()), "~")
