"""A whole run: from a config and a directory to trained members, their metrics and their results.

Cohorts are trained one after another into one directory. Running the same command again goes on where the
last one stopped, and gives the same results if nothing is left to do.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from nurture import data, reporting
from nurture.core import UserError, extensions, trees
from nurture.reporting.files import remove_file
from nurture.training.checkpoint import Checkpoints
from nurture.training.config import Config, check, plain, put, to_json
from nurture.training.experiment import Experiment
from nurture.training.grid import Member, members_of
from nurture.training.initial import check_continues, continued
from nurture.training.loop import Loop
from nurture.training.profiling import Profiler
from nurture.training.programs import Programs, steps_per_dispatch
from nurture.training.run_directory import claimed, cohort_directory, owner_of
from nurture.training.selection import Selection
from nurture.training.signals import Diverged, Preempted, StopSignal
from nurture.training.step import State
from nurture.training.sweep import Cohort, cohorts_of

Results = dict[str, Any]


def run(
  config: Any,
  workdir: str | pathlib.Path,
  *,
  name: str = "run",
  data_dir: str | pathlib.Path = "data",
  argv: Sequence[str] = (),
  profile: bool = False,
  tensorboard: bool = False,
  wandb: bool = False,
  dataset: data.Dataset | None = None,
) -> Results:
  """Trains every member of a config, or what is left of it, and writes the run directory.

  Args:
    config: an experiment (see nurture.training.config), as a ConfigDict or plain dicts.
    workdir: the run directory; made if needed, continued if it belongs to this config.
    name: what the run is called in tables.
    data_dir: where data sets that are not embedded lie.
    argv: the command line, for the manifest.
    profile: whether to write a jax.profiler trace of a few dispatches to workdir/profile.
    tensorboard: whether to write TensorBoard events to workdir/tensorboard, also of what was trained without it.
    wandb: whether to send the metrics to Weights & Biases, likewise.
    dataset: the one that config.data.source = {"name": "given"} means, such as a `nurture.data.Dataset.from_arrays`.

  Returns:
    What results.json holds: the summary of every group and the final metrics of every member.

  Raises:
    UserError: for a mistake in the config, the data or the directory, and when the only member diverges.
    Preempted: after SIGTERM or Ctrl-C, with the state saved.
  """
  config, workdir = plain(config), pathlib.Path(workdir)
  check(config)
  members = members_of(config)
  if dataset is not None and config["data"]["source"] not in ("given", {"name": "given"}):
    raise UserError("a data set was given, but config.data.source names another; set it to {'name': 'given'}.")
  read_data = data.Reader(data_dir, dataset)
  with claimed(workdir, config):
    cohorts = cohorts_of(config, members, functools.partial(Experiment.of, read=read_data))
    checksums = _checksums(cohorts, {**read_data.checksums, **check_continues(config, members)})
    entries = _entries(cohorts)
    sinks: list[reporting.Sink] = []
    if tensorboard:
      sinks.append(reporting.TensorBoard(workdir / "tensorboard", entries))
    if wandb:
      config_of = lambda i: to_json(put(config, members[i].assignments)) | {"seed": members[i].seed}
      sinks.append(reporting.Wandb(workdir, entries, config["steps"], config_of))
    _start(workdir, config, checksums, entries, read_data.described, argv)
    last = {"step": 0}
    with reporting.recorded(workdir, lambda: last["step"], _reason):
      finals = _train(config, cohorts, workdir, name, last, profile, sinks)
      results = _results(config, name, cohorts, finals, workdir)
      reporting.write_json(workdir / "results.json", results)
      last["step"] = config["steps"]
  return results


def _entries(cohorts: Sequence[Cohort]) -> list[dict[str, Any]]:
  """Returns the members as manifest.json has them, by their numbers."""
  members = [(member, cohort) for cohort in cohorts for member in cohort.members]
  members.sort(key=lambda pair: pair[0].index)
  return [
    {"member": member.index, "cohort": cohort.index, "seed": member.seed, "values": dict(member.values)}
    for member, cohort in members
  ]


def _start(
  workdir: pathlib.Path, config: Config, checksums: Mapping[str, str], entries: Sequence[Mapping[str, Any]],
  described: Sequence[Mapping[str, Any]], argv: Sequence[str],
) -> None:
  """Writes config.json and the manifest, or notes the resume in it.

  Args:
    workdir, config, argv: of the run.
    checksums: of all that it reads.
    entries: of all members.
    described: what the data are.

  Raises:
    UserError: if the data are not those that the run began with.
  """
  if reporting.exists(workdir / "manifest.json"):
    old = reporting.read_manifest(workdir)["checksums"]
    for file in sorted({*old, *checksums}):
      if old.get(file) != checksums.get(file):
        what = "it"
        if file.startswith("config."):  # without a run, it is a product of the machine
          what = "the run that it comes from, the versions and the kind of device"
        raise UserError(f"{file} has changed since the run in {workdir} began; restore {what}, or give another "
                        "--workdir.")
  reporting.write_json(workdir / "config.json", to_json(config))
  manifest = reporting.collect(to_json(config), checksums, [entry["seed"] for entry in entries], argv)
  manifest["data"], manifest["extensions"] = described, extensions.sources(config)
  manifest["members"] = entries
  reporting.start(workdir, manifest)


def _checksums(cohorts: Sequence[Cohort], others: Mapping[str, str]) -> dict[str, str]:
  """Returns the checksums of what the run reads, with those of its references.

  Under one label, a grid may have several networks: all are named, so that none can take the place of another.
  """
  checksums = dict(others)
  for cohort in cohorts:
    for path, digest in cohort.experiment.checksums.items():
      checksums[path] = " ".join(dict.fromkeys([*checksums.get(path, "").split(), digest]))
  return checksums


def _train(
  config: Config,
  cohorts: Sequence[Cohort],
  workdir: pathlib.Path,
  name: str,
  last: dict[str, int],
  profile: bool,
  sinks: Sequence[reporting.Sink],
) -> list[Final]:
  """Trains the cohorts; returns for each how its members ended."""
  total, finals, resumed, rows = config["steps"], [], False, reporting.NO_ROWS
  profiler = Profiler(workdir / "profile" if profile else None)
  all_checkpoints = [
    Checkpoints(
      cohort_directory(workdir, cohort.index), config["checkpoint"]["keep"],
      owner_of(to_json(config), cohort.index, [member.seed for member in cohort.members]),
    )
    for cohort in cohorts
  ]
  with (
    StopSignal() as stop,
    reporting.MetricsWriter(workdir / "metrics.jsonl", sinks) as writer,
    reporting.Progress(total * len(cohorts), name, cohorts=len(cohorts)) as progress,
    contextlib.closing(profiler),
  ):
    programs = None
    for cohort in cohorts:
      checkpoints, later = all_checkpoints[cohort.index], all_checkpoints[cohort.index + 1 :]
      if programs is None or (programs.experiment, programs.num_members) != (cohort.experiment, len(cohort.members)):
        if programs is not None:
          programs.release()
        programs = Programs(cohort.experiment, len(cohort.members), cohort.varying)
      hp = jax.device_put(cohort.hyper_parameters(), programs.by_member)
      selection = Selection(cohort.experiment.config, len(cohort.members))
      restored = checkpoints.restore(programs.shapes)
      step = restored.step if restored else -1
      is_over = step == total or bool(restored and selection.is_over(restored.tree))
      if not restored and not resumed:
        _check_nothing_behind(workdir, checkpoints, later)
        _trace_probes(programs, cohorts[cohort.index :])
      if restored and not resumed:
        rows = restored.metrics
        if not writer.holds(rows):
          raise UserError(
            f"{workdir}/metrics.jsonl no longer begins with the {rows['bytes']} bytes that the checkpoint of step "
            f"{step} counts on; restore it from a copy, or remove {checkpoints.directory}/step_{step:010d} to train "
            "again from the one before it."
          )
      if not resumed and (not is_over or cohort is cohorts[-1]):  # the first cohort with something left to do
        if not is_over:
          remove_file(workdir / "results.json")  # it is what makes a run a finished one
        writer.resume(rows, cohort.index, step)
        for other in later:  # their rows are gone
          other.clear()
        resumed = True
      loop = Loop(
        cohort=cohort,
        programs=programs,
        hp=hp,
        per_dispatch=steps_per_dispatch(cohort.experiment),
        writer=writer,
        checkpoints=checkpoints,
        progress=progress,
        stop=stop,
        profiler=profiler,
        last=last,
        is_ensemble=sum(len(other.members) for other in cohorts) > 1,
        selection=selection,
        continued=None if restored else continued(config, cohort.members, programs.shapes),
      )
      finals.append(_final(loop.run(restored), selection))
  return finals


def _trace_probes(first: Programs, cohorts: Sequence[Cohort]) -> None:
  """Finds the mistakes of the probes of all cohorts before any is trained: a tap may be missing in one network only.

  Args:
    first: the programs of the first cohort, which keep their probes.
    cohorts: that are left.
  """
  others = {id(cohort.experiment): cohort for cohort in cohorts if cohort.experiment is not first.experiment}
  for cohort in others.values() if first.experiment.config["probes"] else ():
    programs = Programs(cohort.experiment, len(cohort.members), cohort.varying)
    programs.trace_probes()
    programs.release()  # before the next lies on the devices
  first.trace_probes()


def _check_nothing_behind(workdir: pathlib.Path, checkpoints: Checkpoints, later: Sequence[Checkpoints]) -> None:
  """Refuses to train a cohort from the beginning that was trained: no kill removes checkpoints, somebody did."""
  behind = [other.directory for other in later if other.steps()]
  if reporting.exists(workdir / "results.json"):
    behind.append(workdir / "results.json")
  if behind:
    raise UserError(
      f"{checkpoints.directory} has no checkpoint, but {behind[0]} is there, which comes after it; restore the "
      "checkpoint from a copy, or remove what comes after it (the folders of later cohorts and results.json) to train "
      "all of that again."
    )


class Final(NamedTuple):
  """The members of a cohort at the end of their training.

  Attributes:
    digests: the sha256 of each one's parameters.
    died_at: [M], the step at which each diverged, -1 if it did not.
    steps: [M], the steps that each has taken.
    best_steps: [M], the step of each one's best state; None where no rule keeps any.
  """

  digests: list[str]
  died_at: np.ndarray
  steps: np.ndarray
  best_steps: np.ndarray | None


def _final(states: State, selection: Selection) -> Final:
  params = jax.device_get(states.variables["params"])
  died_at, steps = np.asarray(states.died_at), np.asarray(states.step)
  digests = [trees.digest(trees.member(params, i)) for i in range(len(died_at))]
  return Final(digests, died_at, steps, selection.best_steps)


def _results(
  config: Config, name: str, cohorts: Sequence[Cohort], finals: Sequence[Final], workdir: pathlib.Path
) -> Results:
  """Joins the rows of metrics.jsonl where members ended, or were best, with the digests into members and groups."""
  rows = {(row["member"], row["step"]): row for row in reporting.read_rows(workdir / "metrics.jsonl")}
  entries: dict[int, dict[str, Any]] = {}
  groups: dict[str, list[Member]] = {}
  for cohort, final in zip(cohorts, finals):
    for position, member in enumerate(cohort.members):
      step, died_at = int(final.steps[position]), int(final.died_at[position])
      if (member.index, step) not in rows:
        raise UserError(f"{workdir}/metrics.jsonl has no final row of member {member.index}; restore the file from a "
                        "copy, or give another --workdir to train again.")
      metrics = _measured(rows[member.index, step])
      if final.best_steps is not None:
        best = int(final.best_steps[position])
        metrics |= {"best/step": best} | {f"best/{k}": v for k, v in _measured(rows.get((member.index, best))).items()}
      entries[member.index] = {
        "member": member.index,
        "cohort": cohort.index,
        "seed": member.seed,
        "values": dict(member.values),
        "died_at": died_at if died_at >= 0 else None,
        **({"stopped_at": step if step < config["steps"] else None} if config.get("stopping") else {}),
        "params_sha256": final.digests[position],
        "metrics": metrics,
      }
      groups.setdefault(member.label, []).append(member)
  if any(final.best_steps is not None for final in finals):  # other probes may have been due where others were best
    names = dict.fromkeys(name for entry in entries.values() for name in entry["metrics"])
    for entry in entries.values():
      entry["metrics"] = {name: entry["metrics"].get(name) for name in names}
  summaries = []
  for label, group in groups.items():
    metrics = entries[group[0].index]["metrics"]
    summaries.append({
      "label": label,
      "values": dict(group[0].values),
      "members": [m.index for m in group],
      "dead": [m.index for m in group if entries[m.index]["died_at"] is not None],
      "metrics": {
        metric: reporting.summarize(reporting.metric_of(entries[m.index], metric) for m in group)
        for metric, value in metrics.items()
        if not isinstance(value, (list, str))
      },
    })
  members = [entries[index] for index in sorted(entries)]
  digest = hashlib.sha256("".join(entry["params_sha256"] for entry in members).encode()).hexdigest()
  return {"name": name, "steps": config["steps"], "params_sha256": digest, "groups": summaries, "members": members}


def _measured(row: Mapping[str, Any] | None) -> dict[str, Any]:
  return {name: value for name, value in (row or {}).items() if name not in ("step", "cohort", "member")}


def _reason(error: BaseException) -> str:
  if isinstance(error, Preempted):
    return "stopped by a signal"
  if isinstance(error, Diverged):
    return "not finite"
  return reporting.reason_of(error)
