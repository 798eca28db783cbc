"""Scalars for Weights & Biases: every member a run, all of them in one group."""

from __future__ import annotations

import pathlib
import secrets
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from nurture.core import UserError
from nurture.reporting import schema
from nurture.reporting.files import Path, exists
from nurture.reporting.json_files import read_json, write_json
from nurture.reporting.results import name_of

_INDICES = ("step", "cohort", "member")
_STATE = {"id": schema.TEXT, "ended": schema.Each(schema.COUNT)}
_PROJECT = "nurture"  # where neither WANDB_PROJECT nor W&B's settings name one


class Wandb:
  """Sends rows of metrics to W&B: online, to files for `wandb sync` or not at all, as WANDB_MODE and its settings say.

  What counts is metrics.jsonl. A start that goes on sends what W&B does not have of it, and no step twice. Online, W&B
  says up to where it has a run; a run that was kept offline and did not end is written anew from its beginning. So
  neither a kill nor a lost connection leaves a gap. A failure of W&B while members train is one line on the terminal,
  never the end of the training.

  wandb/nurture.json in the run directory has the id of the group, from which those of its runs are made, and the step
  at which each of them ended. Without that file everything is sent to new runs.

  Args:
    workdir: the run directory; the files of W&B itself lie in its folder wandb.
    members: all of the run, as manifest.json has them.
    steps: at which a member ends.
    config_of: number of a member -> its config, with its place in the grid put in.

  Raises:
    UserError: if the package wandb is not installed.
  """

  def __init__(
    self, workdir: Path, members: Sequence[Mapping[str, Any]], steps: int,
    config_of: Callable[[int], Mapping[str, Any]],
  ):
    try:
      from wandb import Settings, init, setup  # noqa: PLC0415
    except ImportError as error:  # also of a folder that W&B made where the program starts, an empty package to Python
      raise UserError(
        f"Weights & Biases needs a package that is not installed ({error}); "
        'run `pip install "nurture[wandb]"`, or leave --wandb out.'
      ) from error
    self._init, self._setup, self._settings = init, setup, Settings
    self._steps, self._config_of = steps, config_of
    self._workdir, self._folder = pathlib.Path(workdir), pathlib.Path(workdir) / "wandb"
    self._members = {member["member"]: member for member in members}
    self._id, self._ended = "", dict[int, int]()
    self._runs: dict[int, Any] = {}  # of the cohort whose rows come
    self._sent: dict[int, int] = {}  # member -> the last step that its run has
    self._seen: dict[int, int] = {}  # member -> the last step that came
    self._told, self._lost = False, False

  def restart(self, cohort: int, step: int, rows: Iterable[Mapping[str, Any]]) -> None:
    """Opens a run, to see that W&B takes it, and sends what W&B does not have of the rows.

    Raises:
      UserError: if W&B cannot be reached or refuses; nothing has been trained yet.
    """
    fresh = not exists(self._folder)
    self._read_state()
    open_ones = [member for member in self._members.values() if not self._has_ended(member["member"])]
    try:
      for member in sorted(open_ones, key=lambda member: member["cohort"])[:1]:  # the one whose rows come first
        self._open(member["member"])
    except Exception as error:  # its own, those of pydantic, of the network
      if fresh:
        shutil.rmtree(self._folder, ignore_errors=True)
      raise UserError(f"Weights & Biases cannot be used ({_words(error)}); run `wandb login`, set WANDB_MODE=offline, "
                      "or leave --wandb out.") from error
    for row in rows if open_ones else ():
      self.add(row)

  def add(self, row: Mapping[str, Any]) -> None:
    """Sends the scalars of one row; arrays, strings and nulls are left to the metrics file."""
    if self._lost or self._has_ended(row["member"]):
      return
    try:
      self._add(row)
    except Exception as error:
      self._lose(error)

  def flush(self) -> None:
    """Does nothing: W&B sends by itself."""

  def close(self, failed: bool) -> None:
    try:
      self._finish(failed)
    except Exception as error:
      self._lose(error)

  def _add(self, row: Mapping[str, Any]) -> None:
    member, step = row["member"], row["step"]
    if any(self._members[other]["cohort"] != self._members[member]["cohort"] for other in self._runs):
      self._finish(failed=False)  # cohorts come one after another
    if member not in self._runs:
      self._open(member)
    values = {name: value for name, value in row.items() if name not in _INDICES and schema.is_number(value)}
    self._seen[member] = step
    if values and step > self._sent[member]:
      self._runs[member].log(values, step=step, commit=True)
      self._sent[member] = step

  def _open(self, member: int) -> None:
    settings = self._setup().settings
    offline = settings.mode in ("offline", "dryrun")
    run_id, entry = f"{self._id}-{member}", self._members[member]
    for unfinished in self._folder.glob(f"offline-run-????????_??????-{run_id}"):
      shutil.rmtree(unfinished)
    run = self._init(
      id=run_id, name=name_of(entry), group=f"{self._workdir.resolve().name} {self._id}",
      project=settings.project or _PROJECT, dir=str(self._workdir), reinit="create_new",
      config={**self._config_of(member), "values": dict(entry["values"])},
      resume=None if offline else "allow",  # a sync of the whole run replaces what there is
      settings=self._settings(console="off", silent=True, disable_git=True, x_disable_stats=True),
    )
    if not self._told and not run.disabled:
      place = f"`wandb sync {self._folder}/offline-run-*` sends the runs when they have ended" if offline else run.url
      print(f"Weights & Biases: {place}", file=sys.stderr)
      self._told = True
    self._runs[member], self._sent[member] = run, run.starting_step - 1 if run.resumed else -1

  def _finish(self, failed: bool) -> None:
    """Ends the runs that are open, and notes those that are complete."""
    for run in self._runs.values():
      run.finish(exit_code=int(failed))
    complete = {member: self._seen.get(member, -1) for member, run in self._runs.items() if not run.disabled}
    if complete and not failed:
      self._ended |= complete
      write_json(self._folder / "nurture.json", {"id": self._id, "ended": self._ended})
    self._runs.clear()

  def _has_ended(self, member: int) -> bool:
    return self._ended.get(member, -1) >= self._steps

  def _read_state(self) -> None:
    path = self._folder / "nurture.json"
    if not exists(path):
      write_json(path, {"id": secrets.token_hex(4), "ended": {}})  # before W&B knows of it
    state = read_json(path, _STATE, "remove it to send everything to new runs")
    self._id, self._ended = state["id"], {int(member): step for member, step in state["ended"].items()}

  def _lose(self, error: Exception) -> None:
    if not self._lost:
      print(f"Weights & Biases stopped ({_words(error)}); training goes on, and the same command sends the rest.",
            file=sys.stderr)
    self._lost = True


def _words(error: Exception) -> str:
  return " ".join(f"{type(error).__name__}: {error}".split()).rstrip(".")
