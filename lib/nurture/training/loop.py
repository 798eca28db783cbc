"""The training of one cohort from its newest checkpoint to its last step.

At every boundary: log, probe, save, and only then take the next steps. Rows reach the disk before the
checkpoint that counts on them, so a kill at any moment leaves neither a gap nor a duplicate.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from nurture.core import UserError, rng, trees
from nurture.reporting import MetricsWriter, Progress
from nurture.training.checkpoint import Checkpoints, Restored
from nurture.training.dispatch import Programs, next_boundary
from nurture.training.ensemble import Cohort
from nurture.training.experiment import HyperParameters
from nurture.training.phases import losses_at_work
from nurture.training.preemption import Preempted, StopSignal
from nurture.training.profiling import Profiler
from nurture.training.state import State

Tree = Any

_FLUSH_SECONDS = 2.0


class NotFinite(UserError):
  """Training left the finite numbers; the message names the step and the tensor."""


@dataclasses.dataclass(frozen=True)
class AttachedProbe:
  """A probe with its data.

  Attributes:
    measure: (states, hp, references, pieces, phase) -> {name: [M, ...]}.
    pieces: fixed data on the device.
    every: steps between measurements; 0 measures after the last step only.
  """

  measure: Any
  pieces: Sequence[Tree]
  every: int


@dataclasses.dataclass
class Loop:
  """Trains one cohort.

  Attributes:
    cohort: its members.
    programs: compiled for it.
    hp: hyper-parameters, [M] leaves.
    fields: the training split on the device, {name: [n, ...]}.
    references: what the steps need of each, by label.
    probes: by label.
    per_dispatch: steps in one call of the device.
    writer, checkpoints, progress, stop, profiler: the outside world.
    last: its "step" is kept at the number of steps taken.
    is_ensemble: whether the run has other members, which a dead one must not stop.
  """

  cohort: Cohort
  programs: Programs
  hp: HyperParameters
  fields: Mapping[str, jax.Array]
  references: Mapping[str, Tree]
  probes: Mapping[str, AttachedProbe]
  per_dispatch: int
  writer: MetricsWriter
  checkpoints: Checkpoints
  progress: Progress
  stop: StopSignal
  profiler: Profiler
  last: dict[str, int]
  is_ensemble: bool

  def __post_init__(self):
    config = self.cohort.config
    self.total = config["steps"]
    self.log_every = config["log_every"]
    self.save_every = config["checkpoint"]["every"]
    self.intervals = intervals_of(config)
    self.phases = self.programs.experiment.phases
    self.flushed = time.monotonic()
    self.loss = None  # the last one logged, for the progress bar
    self.saved = None  # the step of the newest checkpoint

  def run(self, restored: Restored | None) -> State:
    """Trains to the last step.

    Args:
      restored: what `Checkpoints.restore` gave; None to start from the beginning.

    Returns:
      The final states.

    Raises:
      Preempted: after SIGTERM or Ctrl-C, with the state saved.
      NotFinite: if the only member of the run has left the finite numbers.
    """
    if restored is None:
      step = 0
      states = self.programs.init(self.hp)
      self._trace_probes(states)
      sums = self.programs.zeros(self.programs.abstract_sums(self.hp, self.fields, self.references))
      self._record(step, states, {})
      self.writer.flush()
    else:
      step = self.saved = restored.step
      states, sums = jax.device_put((restored.tree["state"], restored.tree["sums"]), self.programs.by_member)
    self.last["step"] = step
    while step < self.total:
      if self.stop.received:
        self._check_alive(states)
        self._save(step, states, sums)
        raise Preempted(self.stop.received, step)
      length = next_boundary(step, self.per_dispatch, self.intervals, self.total, self.phases) - step
      states, sums = self._take_steps(states, sums, step, length)
      self.last["step"] = step = step + length
      logged = {}
      if step % self.log_every == 0 or step == self.total:
        count = (step - 1) % self.log_every + 1
        logged = {
          name: np.asarray(value) / np.float32(count)
          for name, value in sums.items() if self._is_whole(name, step - count, step - 1)
        }
        sums = self.programs.zeros(sums)
        self._check_alive(states)
      self._record(step, states, logged)
      if step == self.total or (self.save_every and step % self.save_every == 0):
        self._check_alive(states)
        self._save(step, states, sums)
      self.progress.update(self.cohort.index * self.total + step, self.loss)
    return states

  def _trace_probes(self, states: State) -> None:
    """Traces every probe in every phase that it measures, so that its mistakes are found before training."""
    for probe in self.probes.values():
      for phase in self.phases if probe.every else self.phases[-1:]:
        measure = functools.partial(probe.measure, phase=phase)
        jax.eval_shape(measure, states, self.hp, self.references, probe.pieces)

  def _take_steps(self, states: State, sums: Tree, step: int, length: int) -> tuple[State, Tree]:
    phase = self._phase(step)
    return self.profiler.watch(
      lambda: self.programs.steps(states, sums, self.hp, self.fields, self.references, length=length, phase=phase)
    )

  def _phase(self, step: int) -> int:
    """Returns the beginning of the phase that takes this step; after the last step, of the last phase."""
    return max(start for start in self.phases if start <= step)

  def _is_whole(self, name: str, first: int, last: int) -> bool:
    """Whether a metric has a value of each of these steps; that of a loss term that was not at work has none."""
    label = name.removeprefix("loss/")
    return label == name or label in losses_at_work(self.cohort.config, first, last)

  def _record(self, step: int, states: State, logged: Mapping[str, np.ndarray]) -> None:
    """Writes the rows of this step: what was logged over the steps before it, and the probes that are due."""
    values = dict(logged)
    for label, probe in self.probes.items():
      if step == self.total or (probe.every and step % probe.every == 0):
        measured = probe.measure(states, self.hp, self.references, probe.pieces, self._phase(step))
        values.update({f"{label}/{name}": np.asarray(value) for name, value in measured.items()})
    if not values:
      return
    if "loss" in values:
      finite = values["loss"][np.isfinite(values["loss"])]
      self.loss = float(finite.mean()) if len(finite) else float("nan")
    # A dead member stands still at its last finite weights; numbers of those would look like a result.
    alive = np.asarray(states.died_at) < 0
    values = {n: np.where(alive.reshape(-1, *[1] * (v.ndim - 1)), v, np.float32(np.nan)) for n, v in values.items()}
    self.writer.write(
      {"step": step, "cohort": self.cohort.index, "member": member.index} | {n: v[i] for n, v in values.items()}
      for i, member in enumerate(self.cohort.members)
    )
    if time.monotonic() - self.flushed > _FLUSH_SECONDS:  # for whoever watches the run; a resume needs only _save's
      self.writer.flush()
      self.flushed = time.monotonic()

  def _save(self, step: int, states: State, sums: Tree) -> None:
    if step == self.saved:  # a signal that comes right behind a checkpoint must not put the only one at stake
      return
    self.writer.flush()
    self.checkpoints.save(step, {"state": states, "sums": sums}, self.writer.position)
    self.saved = step

  def _check_alive(self, states: State) -> None:
    """Stops a run of one network that has left the finite numbers; an ensemble marks the member and goes on."""
    step = int(states.died_at[0])
    if self.is_ensemble or step < 0:
      return
    self.writer.flush()
    whole = self.checkpoints.steps()
    kept = f"the checkpoint of step {whole[-1]} is kept" if whole else "there is no checkpoint yet"
    raise NotFinite(f"{self._not_finite_tensor(states, step)} is not finite at step {step}; {kept}; lower the learning "
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
    experiment = self.programs.experiment
    rows = self.programs.indices(jax.tree.map(lambda leaf: leaf[None], hp), np.int32(step), length=1)[0, 0]
    phase = self._phase(step)
    batch = experiment.parts(hp["values"], phase).preprocess.gather(self.fields, rows)
    for name, leaf in experiment.inspect(state, batch, hp, self.references, phase):
      if not np.isfinite(np.asarray(leaf, np.float32)).all():
        return f"the {name}"
    return "the norm of the gradient"


def intervals_of(config: Mapping[str, Any]) -> dict[str, int]:
  """Returns the steps between the events of a run, by name; 0 means never before the end."""
  probes = {label: fields["every"] for label, fields in config["probes"].items()}
  return {"log_every": config["log_every"], "checkpoint": config["checkpoint"]["every"], **probes}


def probe_key(seed: int, label: str) -> jax.Array:
  """Returns the key from which a probe draws its fixed data: the same for every member."""
  return rng.stream(jax.random.key(np.uint32(seed)), f"probes.{label}")
