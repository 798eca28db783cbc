"""The compiled programs of a cohort: several steps of all members in one call, and probes over all members."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nurture import data
from nurture.core import Batch, rng, trees
from nurture.probes import ProbeSpec
from nurture.training.config import Config
from nurture.training.experiment import Experiment, HyperParameters
from nurture.training.probing import build_probe, probe_key
from nurture.training.references import Arrays
from nurture.training.selection import check_recorded, selection_shapes
from nurture.training.step import State, evaluate

Tree = Any

# A dispatch should last long enough to hide its own cost and short enough to be interrupted.
_MOST_STEPS = 100
# Bytes of states that are trained at once on CPU: states that stay in cache beat wider batches. It makes 8 members of
# the 20 x 50 network (350 kB); experiments.benchmarks.ensemble has what they and one alone take.
_CPU_CACHE = 3 * 2**20


@dataclasses.dataclass(frozen=True)
class AttachedProbe:
  """A probe with its data.

  Attributes:
    measure: (states, hp, arrays, pieces, phase) -> {name: [M, ...]}.
    pieces: fixed data on the device.
    every: steps between measurements; 0 measures after the last step only.
  """

  measure: Callable[..., dict[str, jax.Array]]
  pieces: Sequence[Tree]
  every: int


class Programs:
  """What a cohort runs on the device, and what it reads there.

  States, hyper-parameters and metrics have a leading member axis M, which is spread over the devices.

  Args:
    experiment: the cohort's experiment.
    num_members: M.
    varying: config paths whose values differ between the members.
  """

  def __init__(self, experiment: Experiment, num_members: int, varying: tuple[str, ...] = ()):
    self.experiment = experiment
    self.num_members = num_members
    self.varying = varying
    # "vmap" runs the members side by side, spread over the devices; "map" one after another on one device. A member
    # under "map" is bit-identical to the same member trained alone, unless a swept number goes through arithmetic that
    # Python does in float64 where it is constant (1 - b1 in Adam).
    self.mode = experiment.config["ensemble"]["map"]
    count = _num_devices(num_members, self.mode)
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()[:count]), ("members",))
    self.by_member = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("members"))
    self.replicated = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    self._init = jax.jit(self._initial, out_shardings=self.by_member)
    self.steps = jax.jit(self._steps, static_argnames=("length", "phase"), donate_argnames=("states", "sums"))
    self.rows = jax.jit(self._rows, static_argnames="length")

  @functools.cached_property
  def fields(self) -> data.Fields:
    """The training split on the devices."""
    dataset = self.experiment.read()
    return jax.device_put(data.device_fields(dataset.train), self.replicated)

  @functools.cached_property
  def arrays(self) -> dict[str, Arrays]:
    """What the step needs of the references, on the devices."""
    return jax.device_put(self.experiment.filled_arrays(), self.replicated)

  @functools.cached_property
  def probes(self) -> dict[str, AttachedProbe]:
    """The probes of the config by label, with their data on the devices."""
    experiment, config = self.experiment, self.experiment.config

    @functools.cache  # several probes of one split share its arrays
    def batches(split: str, limit: int) -> list[Batch]:
      return jax.device_put(batches_of(experiment, split, limit), self.replicated)

    spec, attached = ProbeSpec(experiment.spec, batches, experiment.parts().model), {}
    for label, fields in config["probes"].items():
      probe, key = build_probe(label, fields), probe_key(config["seed"], label)
      attached[label] = AttachedProbe(self.measure(probe), probe.prepare(spec, key), fields["every"])
    return attached

  def release(self) -> None:
    """Gives back what lies on the devices. (Compiled methods refer to this object, so it does not go with its name.)"""
    for name in ("fields", "arrays", "probes"):
      self.__dict__.pop(name, None)

  def init(self, hp: HyperParameters) -> State:
    """Returns the states of the members before the first step."""
    return self._init(hp, self.arrays)

  def _initial(self, hp: HyperParameters, arrays: Mapping[str, Arrays]) -> State:
    return self._over_members(functools.partial(self.experiment.init, arrays=arrays))(hp)

  @functools.cached_property
  def shapes(self) -> dict[str, Tree]:
    """The shapes of what a checkpoint holds: {"state": of the members, "sums": of their metrics}, and what the rules of
    `selection` have seen."""

    def metrics(states, hp, rows, fields, arrays):
      step = functools.partial(self.experiment.step, fields=fields, arrays=arrays)
      return self._over_members(step)(states, hp, rows)[1]

    hp = self._abstract_hyper_parameters()
    states = jax.eval_shape(self._initial, hp, self.experiment.arrays)
    rows = jax.ShapeDtypeStruct((self.num_members, self.experiment.spec.batch_size), jnp.int32)
    fields = self.experiment.abstract_fields()
    sums = jax.eval_shape(metrics, states, hp, rows, fields, self.experiment.arrays)
    return {"state": states, "sums": sums, **selection_shapes(self.experiment.config, states, self.num_members)}

  def trace_probes(self) -> None:
    """Traces every probe in every phase that it measures, so that its mistakes are found before training.

    Raises:
      UserError: for what is wrong with one, or a metric that a rule of the config looks at and nobody records.
    """
    states, hp = self.shapes["state"], self._abstract_hyper_parameters()
    recorded = dict(self.shapes["sums"])
    for label, probe in self.probes.items():
      for phase in self.experiment.phases if probe.every else self.experiment.phases[-1:]:
        measure = functools.partial(probe.measure, phase=phase)
        measured = jax.eval_shape(measure, states, hp, self.experiment.arrays, probe.pieces)
        recorded |= {f"{label}/{name}": value for name, value in measured.items()}
    check_recorded(self.experiment.config, recorded)

  def _abstract_hyper_parameters(self) -> HyperParameters:
    column = lambda dtype: jax.ShapeDtypeStruct((self.num_members,), dtype)
    return {"seed": column(jnp.uint32), "values": dict.fromkeys(self.varying, column(jnp.float32))}

  def _over_members(self, function: Callable[..., Tree]) -> Callable[..., Tree]:
    """Lifts a function of one member's trees to trees with a member axis."""
    if self.num_members == 1:
      return lambda *trees_: jax.tree.map(lambda leaf: leaf[None], function(*trees.member(trees_, 0)))
    if self.mode == "map":
      return lambda *trees_: jax.lax.map(lambda one: function(*one), trees_)
    return jax.vmap(function)

  def _rows(self, hp: HyperParameters, start: jax.Array, *, length: int) -> jax.Array:
    """Returns the rows of the next batches, [M, length, B] int32."""

    def of_member(seed):
      key = rng.stream(jax.random.key(seed), "order")
      at = lambda step: data.epoch_order_index(key, step, self.experiment.num_train, self.experiment.spec.batch_size)
      return jax.vmap(at)(start + jnp.arange(length, dtype=jnp.int32))

    return jax.vmap(of_member)(hp["seed"])

  def _steps(
    self, states: State, sums: Tree, hp: HyperParameters, fields: data.Fields, arrays: Mapping[str, Arrays], *,
    length: int, phase: int = 0, stopped: jax.Array | None = None,
  ) -> tuple[State, Tree]:
    """Takes `length` steps of every member, all in one phase; returns the states and the sums of the metrics.

    Members that have stopped ([M] bool) keep their state; None where no rule stops any.
    """
    step = self._over_members(functools.partial(self.experiment.step, fields=fields, arrays=arrays, phase=phase))

    def body(carry, rows):
      states, sums = carry
      before = states
      states, metrics = step(states, hp, rows)
      states = states if stopped is None else jax.vmap(trees.select)(stopped, before, states)
      return (states, jax.tree.map(jnp.add, sums, metrics)), None

    # The rows of all steps are computed at once: one short loop over large arrays instead of one a step.
    start = states.step[0] if stopped is None else jnp.max(states.step)
    rows = jnp.swapaxes(self._rows(hp, start, length=length), 0, 1)
    if length == 1:
      carry, _ = body((states, sums), rows[0])
    else:
      carry, _ = jax.lax.scan(body, (states, sums), rows)
    states, sums = carry
    # A finite gradient can still overflow the parameters, or the squares of it that an optimizer keeps. The next loss
    # would show the one, after a checkpoint, and nothing the other: the member would be frozen and look well.
    # Arrays alone count: a single number, such as the best loss so far, may be infinite on purpose.
    kept = [leaf for leaf in jax.tree.leaves(states.opt_state) if leaf.ndim > 1]
    finite = jax.vmap(trees.is_finite)((states.variables["params"], kept))
    died_at = jnp.where((states.died_at < 0) & ~finite, states.step - 1, states.died_at)
    return dataclasses.replace(states, died_at=died_at), sums

  def zeros(self, like: Tree) -> Tree:
    """Returns zeros of the same shapes, spread over the devices by member."""
    return jax.device_put(jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), like), self.by_member)

  def measure(self, probe: Any) -> Callable[..., dict[str, jax.Array]]:
    """Returns (states, hp, arrays, pieces, phase) -> {name: [M, ...]} for a probe; compiled at the first call."""

    def on_piece(piece, arrays, phase, state, hp):
      network, variables = self.experiment.network(state, hp, arrays, phase)
      return probe(network, variables, piece)

    @functools.partial(jax.jit, static_argnames="phase")
    def measured(states, hp, piece, arrays, phase):
      return self._over_members(functools.partial(on_piece, piece, arrays, phase))(states, hp)

    finish = jax.jit(jax.vmap(probe.finish))

    def run(states, hp, arrays, pieces, phase=0):
      sums = (measured(states, hp, piece, arrays, phase) for piece in pieces)
      return finish(functools.reduce(lambda a, b: jax.tree.map(jnp.add, a, b), sums))

    return run


def batches_of(experiment: Experiment, split: str, limit: int) -> list[dict[str, np.ndarray]]:
  """Returns the evaluation batches of the first examples of a split, all of them for a limit of 0, in host memory."""
  examples = experiment.read().split(split)
  examples = examples.take(np.arange(min(limit, len(examples)))) if limit else examples
  return data.padded_batches(examples, min(experiment.config["evaluation"]["batch_size"], len(examples)))


def intervals_of(config: Config) -> dict[str, int]:
  """Returns the steps between the events of a run, by name; 0 means never before the end."""
  probes = {label: fields["every"] for label, fields in config["probes"].items()}
  return {"log_every": config["log_every"], "checkpoint": config["checkpoint"]["every"], **probes}


def steps_per_dispatch(experiment: Experiment) -> int:
  """Returns how many steps to take in one call.

  It is the config's number, if that is not 0. On CPU a convolution inside a loop is about 17 times slower than outside
  (XLA lowers it without its fast library there), so such a step is dispatched alone. Else an event (log, probe,
  checkpoint, the end) is best met at the end of a dispatch.
  """
  config = experiment.config
  if config["steps_per_dispatch"]:
    return config["steps_per_dispatch"]
  if jax.default_backend() == "cpu" and experiment.has_convolution:
    return 1
  intervals = [every for every in (config["steps"], *intervals_of(config).values()) if every]
  common = math.gcd(*intervals)
  divisors = [n for n in range(1, min(common, _MOST_STEPS) + 1) if common % n == 0]
  # A common divisor lets every dispatch have one length, hence one program; a tiny one is not worth that.
  return divisors[-1] if divisors[-1] >= _MOST_STEPS // 5 else min(_MOST_STEPS, max(intervals))


def next_boundary(
  step: int, per_dispatch: int, intervals: Mapping[str, int], total: int, phases: Iterable[int] = ()
) -> int:
  """Returns the step at which the dispatch that starts at `step` ends: at the latest where a phase does.

  It depends on nothing but the step, so a resumed run is cut into the same programs as an undisturbed
  one, and rounds alike. What is shorter than a full dispatch is cut into powers of two, so that intervals
  that share no divisor need few programs.
  """
  following = lambda every: (step // every + 1) * every
  end = min([
    following(per_dispatch), total, *(following(every) for every in intervals.values() if every),
    *(start for start in phases if start > step),
  ])
  length = end - step
  return step + (length if length == per_dispatch else 1 << (length.bit_length() - 1))


def members_at_once(experiment: Experiment, count: int) -> int:
  """Returns how many of `count` members to train at once: the config's chunk, or, where that is 0, as many as fit.

  Raises:
    UserError: if as many as the config asks for do not fit into the memory.
  """
  at_once = min(count, experiment.config["ensemble"]["chunk"] or _members_that_fit(experiment))
  experiment.check_memory(at_once, _num_devices(at_once, experiment.config["ensemble"]["map"]))
  return at_once


def _members_that_fit(experiment: Experiment) -> int:
  """Returns how many members to train at once.

  On an accelerator, as many as fit in half of its memory by a coarse estimate: four copies of the state
  (itself, gradient, update, room to work) and four of every tap of a training batch. On CPU, as many as
  keep their states near the cores, and one at a time with convolutions, which XLA runs slowly
  under vmap there.
  """
  state = experiment.abstract_state()
  if jax.default_backend() == "cpu":
    return 1 if experiment.has_convolution else max(1, int(_CPU_CACHE // trees.num_bytes(state)))
  spec = experiment.spec
  inputs = jax.eval_shape(lambda: spec.example(spec.batch_size))
  outputs = jax.eval_shape(lambda s, x: evaluate(experiment.parts(), s, s.variables, x), state, inputs)
  member = 4 * (trees.num_bytes(state) + trees.num_bytes(outputs))
  statistics = jax.local_devices()[0].memory_stats() or {}
  limit = statistics.get("bytes_limit", 16 * 2**30) * jax.device_count()
  fitting, devices = int(limit / 2 // member), jax.device_count()
  return max(1, fitting - fitting % devices if fitting > devices else fitting)


def sharding_devices(num_members: int, num_devices: int) -> int:
  """Returns over how many devices to spread members: the most that hold equal shares."""
  return next(n for n in range(min(num_members, num_devices), 0, -1) if num_members % n == 0)


def _num_devices(num_members: int, mode: str) -> int:
  return sharding_devices(num_members, jax.device_count()) if mode == "vmap" else 1
