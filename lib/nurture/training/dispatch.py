"""The compiled programs of a cohort: several steps of all members in one call, and probes over all members."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nurture.core import memory, rng, trees
from nurture.data import epoch_order_index
from nurture.training.ensemble import sharding_devices
from nurture.training.experiment import Experiment, HyperParameters, hyper_parameters, uses_convolution
from nurture.training.state import State
from nurture.training.step import evaluate, input_dtype

Tree = Any

# A dispatch should last long enough to hide its own cost and short enough to be interrupted.
_MOST_STEPS = 100
# Bytes of states that are trained at once on CPU: states that stay in cache beat wider batches. It makes 8 members of
# the 20 x 50 network (350 kB); experiments.benchmarks.ensemble has what they and one alone take.
_CPU_CACHE = 3 * 2**20


class Programs:
  """What a cohort runs on the device.

  States, hyper-parameters and metrics have a leading member axis M, which is spread over the devices.

  Args:
    experiment: the cohort's experiment.
    num_examples: rows in `fields`.
    num_members: M.
    mode: "vmap" runs the members side by side, spread over the devices; "map" one after another on one device. A
      member under "map" is bit-identical to the same member trained alone, unless a swept number goes through
      arithmetic that Python does in float64 where it is constant (1 - b1 in Adam).
  """

  def __init__(self, experiment: Experiment, num_examples: int, num_members: int, mode: str):
    self.experiment = experiment
    self.num_examples = num_examples
    self.num_members = num_members
    self.mode = mode
    count = sharding_devices(num_members, jax.device_count()) if mode == "vmap" else 1
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()[:count]), ("members",))
    self.by_member = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("members"))
    self.replicated = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    self.init = jax.jit(self._over_members(experiment.init), out_shardings=self.by_member)
    self.steps = jax.jit(self._steps, static_argnames=("length", "phase"), donate_argnames=("states", "sums"))
    self.indices = jax.jit(self._indices, static_argnames="length")

  def _over_members(self, function):
    """Lifts a function of one member's trees to trees with a member axis; other arguments are shared."""

    def lifted(*args, shared=()):
      one = lambda *inner: function(*inner, *shared)
      if self.num_members == 1:
        return jax.tree.map(lambda leaf: leaf[None], one(*trees.member(args, 0)))
      if self.mode == "map":
        return jax.lax.map(lambda packed: one(*packed), args)
      return jax.vmap(one)(*args)

    return lifted

  def _indices(self, hp: HyperParameters, start: jax.Array, *, length: int) -> jax.Array:
    """Returns the rows of the next batches, [M, length, B] int32."""
    batch_size = self.experiment.spec.batch_size

    def of_member(seed):
      key = rng.stream(jax.random.key(seed), "order")
      at = lambda step: epoch_order_index(key, step, self.num_examples, batch_size)
      return jax.vmap(at)(start + jnp.arange(length, dtype=jnp.int32))

    return jax.vmap(of_member)(hp["seed"])

  def _one_step(self, phase: int, state: State, hp: HyperParameters, rows: jax.Array, fields: Tree, references: Tree):
    batch = self.experiment.parts(hp["values"], phase).preprocess.gather(fields, rows)
    return self.experiment.step(state, batch, hp, references, phase)

  def _steps(
    self, states: State, sums: Tree, hp: HyperParameters, fields: Tree, references: Tree, *, length: int, phase: int = 0
  ):
    """Takes `length` steps of every member, all in one phase; returns the states and the sums of the metrics."""
    one_step = functools.partial(self._one_step, phase)

    def body(carry, rows):
      states, sums = carry
      states, metrics = self._over_members(one_step)(states, hp, rows, shared=(fields, references))
      return (states, jax.tree.map(jnp.add, sums, metrics)), None

    # The rows of all steps are computed at once: one short loop over large arrays instead of one a step.
    rows = jnp.swapaxes(self._indices(hp, states.step[0], length=length), 0, 1)
    if length == 1:
      carry, _ = body((states, sums), rows[0])
    else:
      carry, _ = jax.lax.scan(body, (states, sums), rows)
    states, sums = carry
    # A finite gradient can still overflow the parameters, or the squares of it that an optimizer keeps. The next loss
    # would show the one, after a checkpoint, and nothing the other: the member would stand still and look alive.
    # Arrays alone count: a single number, such as the best loss so far, may be infinite on purpose.
    kept = [leaf for leaf in jax.tree.leaves(states.opt_state) if leaf.ndim > 1]
    finite = jax.vmap(trees.is_finite)((states.variables["params"], kept))
    died_at = jnp.where((states.died_at < 0) & ~finite, states.step - 1, states.died_at)
    return dataclasses.replace(states, died_at=died_at), sums

  def abstract_sums(self, hp: HyperParameters, fields: Tree, references: Tree) -> Tree:
    """Returns the shapes of the metrics' sums, {name: [M]}; abstract arguments do."""
    rows = jnp.zeros((self.num_members, self.experiment.spec.batch_size), jnp.int32)
    over_members = jax.vmap(functools.partial(self._one_step, 0), in_axes=(0, 0, 0, None, None))
    states = jax.eval_shape(self.init, hp)
    return jax.eval_shape(lambda *args: over_members(*args)[1], states, hp, rows, fields, references)

  def zeros(self, like: Tree) -> Tree:
    """Returns zeros of the same shapes, spread over the devices by member."""
    return jax.device_put(jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), like), self.by_member)

  def measure(self, probe: Any) -> Any:
    """Returns (states, hp, references, pieces, phase) -> {name: [M, ...]} for a probe; compiled at the first call."""

    def on_piece(phase, state, hp, piece, references):
      network, variables = self.experiment.network(state, hp, references, phase)
      return probe(network, variables, piece)

    @functools.partial(jax.jit, static_argnames="phase")
    def measured(states, hp, piece, references, phase):
      over_members = self._over_members(functools.partial(on_piece, phase))
      return over_members(states, hp, shared=(piece, references))

    finish = jax.jit(jax.vmap(probe.finish))

    def run(states, hp, references, pieces, phase=0):
      sums = (measured(states, hp, piece, references, phase) for piece in pieces)
      return finish(functools.reduce(lambda a, b: jax.tree.map(jnp.add, a, b), sums))

    return run


def steps_per_dispatch(asked: int, jaxpr: Any, intervals: Iterable[int]) -> int:
  """Returns how many steps to take in one call.

  Args:
    asked: the config's number; 0 leaves the choice to this function.
    jaxpr: of one step. On CPU a convolution inside a loop is about 17 times slower than outside (XLA
      lowers it without its fast library there), so such a step is dispatched alone.
    intervals: steps between events (logs, probes, checkpoints, the end), best met at the end of a dispatch.
  """
  if asked:
    return asked
  if jax.default_backend() == "cpu" and uses_convolution(jaxpr):
    return 1
  common = math.gcd(*(interval for interval in intervals if interval))
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


def check_memory(
  experiment: Experiment, data: Tree, references: Tree, jaxprs: Any, num_members: int, mode: str
) -> None:
  """Refuses members that cannot be trained at once, before anything is allocated.

  What is counted is there in any case: states, data, references, and of all that a step computes the largest array.
  What else a step needs depends on the compiler.

  Args:
    experiment: of the members.
    data, references: on the device, abstract or not.
    jaxprs: of one step, one a phase.
    num_members: at once.
    mode: "vmap" or "map", as for `Programs`.

  Raises:
    UserError: if they need more memory than is free; names the section of the config that needs most.
  """
  state = jax.eval_shape(experiment.init, jax.eval_shape(lambda: hyper_parameters(0)))
  shares = sharding_devices(num_members, jax.device_count()) if mode == "vmap" else 1
  members = num_members if jax.default_backend() == "cpu" else num_members // shares  # processors share one memory
  largest = max(memory.largest_array(jaxpr) for jaxpr in jaxprs)
  needs = {
    # What optimizers and averages keep is as large as the model.
    "config.model": members * trees.num_bytes((state.variables, state.opt_state, state.parameter_states)),
    "config.losses": members * trees.num_bytes(state.loss_states),
    "config.batch_size and the largest array of a step": (members if mode == "vmap" else 1) * largest,
    "config.data": trees.num_bytes(data),
    "config.references": trees.num_bytes(references),
  }
  at_once = "training" if num_members == 1 else f"training {num_members} members at once"
  remedy = "make that smaller" + (", or set config.ensemble.chunk to fewer members" if num_members > 1 else "")
  memory.check(needs, memory.free_bytes(), at_once, remedy)


def members_that_fit(experiment: Experiment, asked: int, jaxpr: Any) -> int:
  """Returns how many members to train at once; 0 asked leaves the choice to this function.

  On an accelerator, as many as fit in half of its memory by a coarse estimate: four copies of the state
  (itself, gradient, update, room to work) and four of every tap of a training batch. On CPU, as many as
  keep their states near the cores, and one at a time with convolutions, which XLA runs slowly
  under vmap there.
  """
  if asked:
    return asked
  state = jax.eval_shape(experiment.init, jax.eval_shape(lambda: hyper_parameters(0)))
  on_cpu = jax.default_backend() == "cpu"
  if on_cpu:
    return 1 if uses_convolution(jaxpr) else max(1, int(_CPU_CACHE // trees.num_bytes(state)))
  spec = experiment.spec
  inputs = jax.ShapeDtypeStruct((spec.batch_size, *spec.input_shape), input_dtype(spec))
  outputs = jax.eval_shape(lambda s, x: evaluate(experiment.parts(), s, s.variables, x), state, inputs)
  member = 4 * (trees.num_bytes(state) + trees.num_bytes(outputs))
  statistics = jax.local_devices()[0].memory_stats() or {}
  limit = statistics.get("bytes_limit", 16 * 2**30) * jax.device_count()
  fitting, devices = int(limit / 2 // member), jax.device_count()
  return max(1, fitting - fitting % devices if fitting > devices else fitting)
