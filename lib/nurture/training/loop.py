"""The training of one cohort from its newest checkpoint to its last step.

At every boundary: log, probe, save, and only then take the next steps. Rows reach the disk before the
checkpoint that counts on them, so a kill at any moment leaves neither a gap nor a duplicate.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from nurture.core import trees
from nurture.reporting import MetricsWriter, Progress
from nurture.training.checkpoint import Checkpoints, Restored
from nurture.training.experiment import HyperParameters
from nurture.training.initial import Continued
from nurture.training.phases import active_losses
from nurture.training.profiling import Profiler
from nurture.training.programs import AttachedProbe, Programs, intervals_of, next_boundary
from nurture.training.selection import Selection
from nurture.training.signals import Diverged, Preempted, StopSignal
from nurture.training.step import State
from nurture.training.sweep import Cohort

Tree = Any

_FLUSH_SECONDS = 2.0


@dataclasses.dataclass
class Loop:
  """Trains one cohort.

  Attributes:
    cohort: its members.
    programs: compiled for it, with what they read on the device.
    hp: hyper-parameters, [M] leaves.
    per_dispatch: steps in one call of the device.
    writer, checkpoints, progress, stop, profiler: the outside world.
    last: its "step" is kept at the number of steps taken.
    is_ensemble: whether the run has other members, which one that diverged must not stop.
    selection: what the rules for the best state and for stopping have seen.
    continued: where another run left off, if this one goes on with it.
  """

  cohort: Cohort
  programs: Programs
  hp: HyperParameters
  per_dispatch: int
  writer: MetricsWriter
  checkpoints: Checkpoints
  progress: Progress
  stop: StopSignal
  profiler: Profiler
  last: dict[str, int]
  is_ensemble: bool
  selection: Selection
  continued: Continued | None = None

  def __post_init__(self):
    config = self.cohort.experiment.config
    self.total = config["steps"]
    self.log_every = config["log_every"]
    self.save_every = config["checkpoint"]["every"]
    self.intervals = intervals_of(config)
    self.phases = self.cohort.experiment.phases
    self.flushed = time.monotonic()
    self.loss = None  # the last one logged, for the progress bar
    self.shown: dict[str, float] = {}  # the last of config.report.metrics and the loss, means over living members
    self.saved = None  # the step of the newest checkpoint

  def run(self, restored: Restored | None) -> State:
    """Trains to the last step, or until every member has stopped.

    Args:
      restored: what `Checkpoints.restore` gave; None to start from the beginning.

    Returns:
      The final states.

    Raises:
      Preempted: after SIGTERM or Ctrl-C, with the state saved.
      Diverged: if the run has one member, and it diverged.
    """
    if restored is not None:
      step = self.saved = restored.step
      states, sums = jax.device_put((restored.tree["state"], restored.tree["sums"]), self.programs.by_member)
      self.selection.take(restored.tree, self.programs.by_member)
    elif self.continued is not None:
      step, tree = self.continued.step, self.continued.tree
      states, sums = jax.device_put((tree["state"], tree["sums"]), self.programs.by_member)
      self.writer.write({"step": row["step"], "cohort": self.cohort.index, **row} for row in self.continued.rows)
      self.selection.update(step, states, {})
      self._save(step, states, sums)
    else:
      step = 0
      states = self.programs.init(self.hp)
      sums = self.programs.zeros(self.programs.shapes["sums"])
      self._record(step, states, {}, sums)
      self.writer.flush()
    self.last["step"] = step
    while step < self.total and not self.selection.all_stopped:
      if self.stop.received:
        self._check_alive(states)
        self._save(step, states, sums)
        raise Preempted(self.stop.received, step)
      length = next_boundary(step, self.per_dispatch, self.intervals, self.total, self.phases) - step
      arguments = states, sums, self.hp, self.programs.fields, self.programs.arrays
      stopped = {} if self.selection.stopped is None else {"stopped": self.selection.stopped}
      self.profiler.before()
      states, sums = self.programs.steps(*arguments, length=length, phase=self._phase(step), **stopped)
      self.profiler.after(states)
      self.last["step"] = step = step + length
      logged = {}
      if step % self.log_every == 0 or step == self.total:
        logged = self._means(step, sums)
        self._check_alive(states)
      self._record(step, states, logged, sums)
      if step % self.log_every == 0:
        sums = self.programs.zeros(sums)
      done = step == self.total or self.selection.all_stopped
      if done or (self.save_every and step % self.save_every == 0):
        self._check_alive(states)
        self._save(step, states, sums)
      made = self.cohort.index * self.total + (self.total if done else step)
      self.progress.update(made, self.loss, metrics=self.shown)
    return states

  def _means(self, step: int, sums: Tree) -> dict[str, np.ndarray]:
    """Returns the metrics of the steps since the last multiple of log_every."""
    count = (step - 1) % self.log_every + 1
    return {
      name: np.asarray(value) / np.float32(count)
      for name, value in sums.items() if self._is_whole(name, step - count, step - 1)
    }

  def _phase(self, step: int) -> int:
    """Returns the beginning of the phase that takes this step; after the last step, of the last phase."""
    return max(start for start in self.phases if start <= step)

  def _is_whole(self, name: str, first: int, last: int) -> bool:
    """Returns whether a metric was computed at each of these steps; an inactive loss term is not computed."""
    label = name.removeprefix("loss/")
    return label == name or label in active_losses(self.cohort.experiment.config, first, last)

  def _record(self, step: int, states: State, logged: Mapping[str, np.ndarray], sums: Tree) -> None:
    """Writes the rows of this step: what was logged over the steps before it, and the probes that are due.

    A member that stops here has its last row here, with everything that the end of a run has.
    """
    running = self.selection.stopped_at < 0
    values = dict(logged) | self._probed(step, states, lambda probe: (
      step == self.total or bool(probe.every and step % probe.every == 0)
    ))
    # A member that diverged is frozen at its last finite weights; numbers of those would look like a result.
    alive = np.asarray(states.died_at) < 0
    hidden = lambda found: {
      n: np.where(alive.reshape(-1, *[1] * (v.ndim - 1)), v, np.float32(np.nan)) for n, v in found.items()
    }
    if "loss" in values:
      finite = values["loss"][np.isfinite(values["loss"])]
      self.loss = float(finite.mean()) if len(finite) else float("nan")
    values = hidden(values)
    for name in (*self.cohort.experiment.config["report"]["metrics"], "loss"):
      if name in values and values[name].ndim == 1 and np.isfinite(values[name]).any():
        self.shown[name] = float(np.mean(values[name], where=np.isfinite(values[name])))
    stops = self.selection.update(step, states, values)
    everything = values
    if stops.any() and step < self.total:
      missing = lambda probe: not (probe.every and step % probe.every == 0)
      more = {} if logged else self._means(step, sums)
      everything = values | hidden(more | self._probed(step, states, missing))
    rows = [
      {"step": step, "cohort": self.cohort.index, "member": member.index} | {n: v[i] for n, v in found.items()}
      for i, member in enumerate(self.cohort.members)
      if running[i] and (found := everything if stops[i] else values)
    ]
    if not rows:
      return
    self.writer.write(rows)
    if time.monotonic() - self.flushed > _FLUSH_SECONDS:  # for whoever watches the run; a resume needs only _save's
      self.writer.flush()
      self.flushed = time.monotonic()

  def _probed(self, step: int, states: State, wanted: Callable[[AttachedProbe], bool]) -> dict[str, np.ndarray]:
    """Returns what some of the probes measure at this step."""
    values = {}
    for label, probe in self.programs.probes.items():
      if wanted(probe):
        measured = probe.measure(states, self.hp, self.programs.arrays, probe.pieces, self._phase(step))
        values.update({f"{label}/{name}": np.asarray(value) for name, value in measured.items()})
    return values

  def _save(self, step: int, states: State, sums: Tree) -> None:
    if step == self.saved:  # a signal that comes right behind a checkpoint must not put the only one at stake
      return
    self.writer.flush()
    self.checkpoints.save(step, {"state": states, "sums": sums, **self.selection.tree()}, self.writer.position)
    self.saved = step

  def _check_alive(self, states: State) -> None:
    """Stops a run of one network that diverged; an ensemble marks the member and goes on."""
    step = int(states.died_at[0])
    if self.is_ensemble or step < 0:
      return
    self.writer.flush()
    whole = self.checkpoints.steps()
    kept = f"the checkpoint of step {whole[-1]} is kept" if whole else "there is no checkpoint yet"
    raise Diverged(f"{self._not_finite_tensor(states, step)} is not finite at step {step}; {kept}; lower the learning "
                   "rate or clip the gradient, and start again in another --workdir.")

  def _not_finite_tensor(self, states: State, step: int) -> str:
    """Computes the fatal step again, outside the compiled program, and names the first tensor that is not finite."""
    state, hp = trees.member((states, self.hp), 0)
    state = dataclasses.replace(state, step=np.int32(step))
    for name, leaf in trees.named_leaves(state.variables):
      if not np.isfinite(np.asarray(leaf, np.float32)).all():
        return f"the variable {name}"
    for name, leaf in trees.named_leaves(state.opt_state):
      if np.ndim(leaf) and not trees.is_finite(leaf):
        return f"the state {name}"
    rows = self.programs.rows(jax.tree.map(lambda leaf: leaf[None], hp), np.int32(step), length=1)[0, 0]
    arguments = state, hp, rows, self.programs.fields, self.programs.arrays, self._phase(step)
    for name, leaf in self.cohort.experiment.inspect(*arguments):
      if not np.isfinite(np.asarray(leaf, np.float32)).all():
        return f"the {name}"
    return "the norm of the gradient"

