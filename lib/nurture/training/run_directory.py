"""The run directory: whose it is, that only one process writes to it, and what of a finished run can be read back.

    config.json  manifest.json  metrics.jsonl  results.json  lock
    checkpoints/cohort_000/step_0000000300/...    see nurture.training.checkpoint

results.json is written last: it is what makes a run a finished one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from nurture import reporting
from nurture.core import UserError, trees
from nurture.reporting.files import take_back
from nurture.training.checkpoint import Checkpoints
from nurture.training.config import Config, differences, fingerprint, to_json
from nurture.training.signals import Diverged

Tree = Any

# What a start may have left behind that was killed before it wrote its config.
_BEFORE_CONFIG = {"lock", reporting.temporary_of(pathlib.Path("config.json")).name}
# What a start writes before it trains, in the order in which it is taken back: without its config it would be no run.
_OF_A_START = (
  *(reporting.temporary_of(pathlib.Path(name)).name for name in ("config.json", "manifest.json", "metrics.jsonl")),
  "metrics.jsonl", "manifest.json", "config.json", "lock",
)


@contextlib.contextmanager
def claimed(workdir: pathlib.Path, config: Config) -> Iterator[None]:
  """Holds a run directory for this process. A start that is refused before it has trained leaves nothing.

  Raises:
    UserError: if it belongs to another config, to another process, or to something that is no run.
  """
  _, missing = _check_whose(workdir, config)
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    held = lock(workdir / "lock")
  except BlockingIOError:
    raise UserError(f"another process is training in {workdir}; wait for it or give another --workdir.") from None
  except OSError as error:
    take_back(workdir, (), missing)
    if error.errno == errno.ELOOP:
      raise UserError(f"{workdir}/lock is a symbolic link; remove it.") from error
    raise UserError(f"{workdir} cannot be written ({error.strerror}); give another --workdir.") from error
  fresh = False
  try:
    names, _ = _check_whose(workdir, config)  # another process may have had it in between
    fresh = "config.json" not in names
    yield
  except BaseException as error:
    refused = isinstance(error, UserError) and not isinstance(error, Diverged)
    with contextlib.suppress(OSError):
      metrics = workdir / "metrics.jsonl"
      trained = metrics.exists() and metrics.stat().st_size > 0
      if fresh and not trained and (refused or not (workdir / "config.json").exists()):
        take_back(workdir, _OF_A_START, missing)
    raise
  finally:
    os.close(held)


def _check_whose(workdir: pathlib.Path, config: Config) -> tuple[set[str], list[pathlib.Path]]:
  """Refuses a directory of another config, or of something that is no run.

  Returns:
    The names of what is in it, and what of its path is missing, innermost first.
  """
  try:
    names = set(os.listdir(workdir)) if workdir.exists() else set()
    missing = [path for path in (workdir, *workdir.parents) if not path.exists()]
  except NotADirectoryError:
    names, missing = {workdir.name}, []
  except OSError as error:
    raise UserError(f"{workdir} cannot be read ({error.strerror}); give another --workdir.") from error
  if "config.json" in names:
    changed = differences(reporting.read_config(workdir), to_json(config))
    if changed:
      more = f" (and {len(changed) - 3} more)" if len(changed) > 3 else ""
      longer = [line.partition(":")[0] for line in changed] == ["steps"]
      on = f", and config.init = {{'run': '{workdir}', 'take': 'all'}} to go on from its end" if longer else ""
      raise UserError(f"{workdir} belongs to another config: {'; '.join(changed[:3])}{more}; give another "
                      f"--workdir{on}.")
  elif names - _BEFORE_CONFIG:
    raise UserError(f"{workdir} exists and is not a run directory; give another --workdir or remove it.")
  return names, missing


def lock(path: pathlib.Path) -> int:
  """Returns a descriptor of a file that no other process has locked; the file is made if needed and never written to.

  Raises:
    OSError: BlockingIOError if another process has it.
  """
  while True:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    try:
      fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
      with contextlib.suppress(FileNotFoundError):
        if os.path.samestat(os.fstat(descriptor), os.stat(path)):
          return descriptor
    except BaseException:
      os.close(descriptor)
      raise
    os.close(descriptor)  # a start that was refused has just removed this file


def member_variables(workdir: pathlib.Path, member: int) -> Tree:
  """Returns the variables of one member of a finished run, as nested dicts of numpy arrays.

  Raises:
    UserError: if the directory is not a finished run, has no such member, or its checkpoint is damaged or another's.
  """
  entries = reporting.read_results(workdir)["members"]
  if not 0 <= member < len(entries):
    raise UserError(f"{workdir} has {len(entries)} members, numbered from 0; member {member} does not exist.")
  if entries[member]["died_at"] is not None:
    raise UserError(f"member {member} of {workdir} diverged at step {entries[member]['died_at']}; "
                    "choose another one.")
  cohort = entries[member]["cohort"]
  position = [entry["member"] for entry in entries if entry["cohort"] == cohort].index(member)
  variables: dict[str, Any] = {}
  for name, array in checkpoints_of(workdir, cohort).read().items():
    parts = name.split("/")
    if parts[:2] == ["state", "variables"]:
      inner = variables
      for part in parts[2:-1]:
        inner = inner.setdefault(part, {})
      inner[parts[-1]] = array[position]
  if trees.digest(variables["params"]) != entries[member]["params_sha256"]:
    raise UserError(f"the newest checkpoint of {workdir} holds other parameters of member {member} than its "
                    "results.json names; run the command of that run again, or restore both from a copy.")
  return variables


class Stored(NamedTuple):
  """One member of a run at one of its checkpoints.

  Attributes:
    number: its number among the members.
    seed: of the member.
    config: of the run, as JSON has it.
    step: of the checkpoint.
    kept: the steps of all that are there.
    arrays: of the member by their path in the checkpoint, such as "state/variables/params/head/kernel".
    digest: a sha256 of the checkpoint.
  """

  number: int
  seed: int
  config: dict[str, Any]
  step: int
  kept: tuple[int, ...]
  arrays: dict[str, np.ndarray]
  digest: str

  @property
  def died_at(self) -> int:
    """The step at which the member diverged, -1 if it did not."""
    return int(self.arrays["state/died_at"])


def stored_member(workdir: str | pathlib.Path, member: int, step: int | str | None = None) -> Stored:
  """Reads one member of a run; see `stored_members`."""
  [found] = stored_members(workdir, [member], step)
  return found


def stored_members(
  workdir: str | pathlib.Path, members: Sequence[int], step: int | str | None = None
) -> list[Stored]:
  """Reads members of a run, finished or not; every checkpoint is read once.

  Args:
    workdir: the run directory; nothing in it is changed.
    members: their numbers, as results.json has them.
    step: a step whose checkpoint was kept; None takes the newest, "best" the best state that the newest one keeps.

  Raises:
    UserError: if there is no such run, member or step, or a checkpoint is damaged.
  """
  workdir = pathlib.Path(workdir)
  config = reporting.read_config(workdir, unchanged=True)
  entries = reporting.read_manifest(workdir)["members"]
  for member in members:
    if not 0 <= member < len(entries):
      raise UserError(f"{workdir} has {len(entries)} members, numbered from 0; member {member} does not exist.")
  found: dict[int, Stored] = {}
  for cohort in dict.fromkeys(entries[member]["cohort"] for member in members):
    others = [entry for entry in entries if entry["cohort"] == cohort]
    owner = owner_of(config, cohort, [entry["seed"] for entry in others])
    checkpoints = Checkpoints(cohort_directory(workdir, cohort), 1, owner)
    kept = checkpoints.steps()
    if isinstance(step, int) and step not in kept:
      known = ", ".join(map(str, kept)) or "none"
      raise UserError(f"{workdir} has no checkpoint of step {step} (kept: {known}); name one of these, or train with a "
                      "larger config.checkpoint.keep.")
    arrays = checkpoints.read(step if isinstance(step, int) else None)
    if step == "best":
      arrays = {name.removeprefix("best/"): array for name, array in arrays.items() if name.startswith("best/state/")}
      if not arrays:
        raise UserError(f"{workdir} keeps no best state; train with config.checkpoint.best = {{'metric': "
                        "'validation/accuracy', 'mode': 'max'}}, or name a step.")
    number = step if isinstance(step, int) else kept[-1]
    digest = checkpoints.digest(number)
    for position, entry in enumerate(others):
      if entry["member"] in members:
        of_member = {name: array[position] for name, array in arrays.items()}
        found[entry["member"]] = Stored(entry["member"], entry["seed"], config, number, tuple(kept), of_member, digest)
  return [found[member] for member in members]


def filled(like: Tree, arrays: Mapping[str, np.ndarray], prefix: str) -> Tree:
  """Returns a tree of some shapes out of the arrays of a checkpoint.

  Args:
    like: its structure, shapes and dtypes; abstract arrays do.
    arrays: by their path.
    prefix: where the tree stands in the checkpoint, such as "state".

  Raises:
    UserError: for an array that is missing or of another shape.
  """
  leaves = []
  for name, leaf in trees.named_leaves({prefix: like}):
    found = arrays.get(name)
    if found is None or found.shape != leaf.shape or found.dtype != leaf.dtype:
      there = "missing" if found is None else f"{found.dtype} {found.shape}"
      raise UserError(f"{name} is {there} in the checkpoint, and {leaf.dtype} {leaf.shape} is needed; read the "
                      "run by the config and the version of nurture that wrote it.")
    leaves.append(found)
  return jax.tree.unflatten(jax.tree.structure(like), leaves)


def checkpoints_of(workdir: pathlib.Path, cohort: int) -> Checkpoints:
  """Returns the checkpoints of a cohort of a run that has a results.json, for reading."""
  seeds = [entry["seed"] for entry in reporting.read_results(workdir)["members"] if entry["cohort"] == cohort]
  owner = owner_of(reporting.read_config(workdir, unchanged=True), cohort, seeds)
  return Checkpoints(cohort_directory(workdir, cohort), 1, owner)


def owner_of(config: Mapping[str, Any], cohort: int, seeds: Sequence[int]) -> dict[str, Any]:
  """Returns what a checkpoint says of whose it is.

  Args:
    config: of the run, as `to_json` gives it.
    cohort: its index.
    seeds: of its members, in order.
  """
  return {"config": fingerprint(config), "cohort": cohort, "seeds": list(seeds)}


def cohort_directory(workdir: pathlib.Path, cohort: int) -> pathlib.Path:
  """Returns where the checkpoints of a cohort lie."""
  return workdir / "checkpoints" / f"cohort_{cohort:03d}"
