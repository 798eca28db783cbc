"""Steps cut into dispatches, and compiled programs over members, orders and sums."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nurture.core import DataSpec, UserError, rng, trees
from nurture.data import epoch_order_index
from nurture.testing import class_spec
from nurture.training import programs as programs_
from nurture.training.config import put
from nurture.training.programs import AttachedProbe, Programs, members_at_once, next_boundary, steps_per_dispatch
from nurture.training.step import State
from tests.tiny import read, tiny_config


def boundaries(per_dispatch, intervals, total, start=0):
  steps = [start]
  while steps[-1] < total:
    steps.append(next_boundary(steps[-1], per_dispatch, intervals, total))
  return steps


@pytest.mark.parametrize(("per_dispatch", "intervals", "total"), [
  (50, {"log": 50, "probe": 33, "save": 500}, 1500), (100, {"log": 100, "probe": 469, "save": 1000}, 4690),
  (3, {"log": 3, "probe": 4, "save": 0}, 14), (1, {"log": 7}, 20),
])
def test_every_event_is_met_with_few_programs_and_from_any_boundary_alike(per_dispatch, intervals, total):
  steps = boundaries(per_dispatch, intervals, total)
  for every in filter(None, intervals.values()):
    assert set(range(every, total + 1, every)) <= set(steps)
  assert steps[-1] == total
  assert len({b - a for a, b in zip(steps, steps[1:])}) <= 8
  for i in range(0, len(steps), 7):  # a resumed run starts at a boundary and goes on as if nothing had been
    assert boundaries(per_dispatch, intervals, total, steps[i]) == steps[i:]


def chosen(intervals, asked=0, has_convolution=False):
  """Returns the steps in one call of an experiment with these intervals, the first of which is its length."""
  steps, log, *probes = [*intervals, intervals[0]]
  config = {"steps_per_dispatch": asked, "steps": steps, "log_every": log, "checkpoint": {"every": 0},
            "probes": {str(every): {"every": every} for every in probes}}
  return steps_per_dispatch(types.SimpleNamespace(config=config, has_convolution=has_convolution))


def test_the_number_of_steps_divides_the_intervals_and_is_one_for_convolutions_on_cpu():
  assert chosen([1500, 50, 500, 0]) == 50
  assert chosen([100_000, 1000, 5000]) == 100
  assert chosen([67, 469, 938]) == 67
  assert chosen([7, 11, 1000]) == 100  # no common divisor: as many as are worth it
  assert chosen([100], asked=7, has_convolution=True) == 7
  assert chosen([100], has_convolution=True) == 1


@pytest.mark.parametrize(("step", "per_dispatch", "intervals", "total", "phases", "end"), [
  (0, 10, {"log": 10}, 100, (), 10),
  (10, 10, {"log": 10, "probe": 0}, 100, (), 20),  # an interval of 0 is no event
  (90, 10, {"log": 1000}, 95, (), 94),  # 5 steps are left: 4, then 1
  (94, 10, {"log": 1000}, 95, (), 95),
  (7, 10, {"log": 1000}, 100, (), 9),  # up to the next multiple, as an undisturbed run is cut
  (0, 10, {"log": 7}, 100, (), 4),
  (4, 10, {"log": 7}, 100, (), 6),
  (6, 10, {"log": 7}, 100, (), 7),
  (0, 10, {}, 100, (0, 6), 4),  # a border of phases ends a dispatch as an event does
  (4, 10, {}, 100, (0, 6), 6),
  (6, 10, {}, 100, (0, 6), 10),
  (20, 10, {}, 100, (0, 6), 30),
])
def test_where_a_dispatch_ends(step, per_dispatch, intervals, total, phases, end):
  assert next_boundary(step, per_dispatch, intervals, total, phases) == end


@pytest.mark.parametrize(("intervals", "steps"), [
  ([40, 20], 20), ([38, 19], 38), ([190, 19], 100), ([3], 3), ([0, 202], 100), ([200, 100], 100), ([300, 150], 75),
])
def test_a_tiny_common_divisor_is_not_worth_a_program_of_its_own(intervals, steps):
  assert chosen(intervals) == steps


@dataclasses.dataclass(frozen=True)
class Arithmetic:
  """An experiment of one number w, for the tests: w <- rate w + sum of the batch's x, and the loss is w."""

  mode: str = "vmap"
  spec: DataSpec = class_spec(num_examples=12, num_classes=2, input_shape=(1,), batch_size=3)
  num_train: int = 12

  @property
  def config(self):
    return {"ensemble": {"map": self.mode}, "checkpoint": {}}

  @property
  def arrays(self):
    return {"shift": jax.ShapeDtypeStruct((), jnp.float32)}

  def abstract_fields(self):
    return {"x": jax.ShapeDtypeStruct((12,), jnp.float32)}

  def filled_arrays(self):
    return {"shift": np.float32(0.5)}

  def init(self, hp, arrays):
    start = {"params": {"w": jnp.float32(1.0)}}
    return State(jnp.int32(0), start, (), (), (), jnp.int32(-1))

  def step(self, state, hp, rows, fields, arrays, phase=0):
    w, total = state.variables["params"]["w"], jnp.sum(fields["x"][rows])
    new = hp["values"]["rate"] * w + total + arrays["shift"] + phase
    state = dataclasses.replace(state, step=state.step + 1, variables={"params": {"w": new}})
    return state, {"loss": w, "gradient_norm": total}

  def network(self, state, hp, arrays, phase):
    return phase + arrays["shift"], state.variables


X = np.arange(12, dtype=np.float32) ** 2


def programs_of(rates, mode="vmap"):
  """Returns the programs of members with these rates and the seeds 0, 1, ..., and the arguments of `steps`."""
  programs = Programs(Arithmetic(mode), len(rates), ("rate",))
  hp = {"seed": jnp.arange(len(rates), dtype=jnp.uint32), "values": {"rate": jnp.asarray(rates, jnp.float32)}}
  hp = jax.device_put(hp, programs.by_member)
  fields, references = jax.device_put(({"x": X}, {"shift": np.float32(0.5)}), programs.replicated)
  return programs, hp, fields, references


def by_hand(rates, steps, phase=0):
  """Returns each member's w after the steps, and the sums of its metrics."""
  found = []
  for seed, rate in enumerate(rates):
    key, w, loss, norm = rng.stream(jax.random.key(seed), "order"), np.float64(1.0), 0.0, 0.0
    for step in range(steps):
      rows = np.asarray(epoch_order_index(key, jnp.int32(step), 12, 3))
      total = X[rows].sum(dtype=np.float64)
      loss, norm = loss + w, norm + total
      w = rate * w + total + 0.5 + phase
    found.append((w, loss, norm))
  return [np.asarray(column) for column in zip(*found)]


@pytest.mark.parametrize(("rates", "mode", "lengths", "phase"), [
  ((0.5, -0.25), "vmap", (3, 1, 2), 0), ((0.5, -0.25), "map", (3, 1, 2), 4), ((0.5,), "vmap", (1, 2), 7),
  ((0.5, 0.25, 1.0), "vmap", (2,), 0),
])
def test_members_take_their_own_steps_in_their_own_order_and_metrics_add_up(rates, mode, lengths, phase):
  programs, hp, fields, references = programs_of(rates, mode)
  states = programs.init(hp)
  shapes = programs.shapes["sums"]
  assert jax.tree.map(jnp.shape, programs.shapes["state"]) == jax.tree.map(jnp.shape, states)
  assert {name: (s.shape, s.dtype) for name, s in shapes.items()} == {
    name: ((len(rates),), np.float32) for name in ("loss", "gradient_norm")
  }
  sums = programs.zeros(shapes)
  for length in lengths:
    states, sums = programs.steps(states, sums, hp, fields, references, length=length, phase=phase)
  w, loss, norm = by_hand(rates, sum(lengths), phase)
  np.testing.assert_allclose(states.variables["params"]["w"], w, rtol=1e-6)
  np.testing.assert_allclose(sums["loss"], loss, rtol=1e-6)
  np.testing.assert_allclose(sums["gradient_norm"], norm, rtol=1e-6)
  np.testing.assert_array_equal(states.step, [sum(lengths)] * len(rates))
  np.testing.assert_array_equal(states.died_at, [-1] * len(rates))
  devices = 2 if mode == "vmap" and len(rates) == 2 else 1
  assert len(states.step.sharding.device_set) == devices


@pytest.mark.parametrize("mode", ["vmap", "map"])
def test_members_that_have_stopped_keep_their_state_and_the_others_their_order(mode):
  rates, stopped = (0.5, -0.25, 1.0), np.asarray([True, False, False])
  programs, hp, fields, references = programs_of(rates, mode)
  states, sums = programs.init(hp), programs.zeros(programs.shapes["sums"])
  states, sums = programs.steps(states, sums, hp, fields, references, length=2)
  for length in (1, 2):
    states, sums = programs.steps(states, sums, hp, fields, references, length=length, stopped=stopped)
  np.testing.assert_array_equal(states.step, [2, 5, 5])
  expected = np.where(stopped, by_hand(rates, 2)[0], by_hand(rates, 5)[0])
  np.testing.assert_allclose(states.variables["params"]["w"], expected, rtol=1e-5)


@pytest.mark.parametrize("length", [1, 3])
def test_parameters_that_overflow_mark_their_member_before_a_checkpoint_is_written(length):
  """The loss of the fatal step is still finite: only the parameters after it are not."""
  programs, hp, fields, references = programs_of((0.5, 1e38))
  states, sums = programs.init(hp), programs.zeros(programs.shapes["sums"])
  states, sums = programs.steps(states, sums, hp, fields, references, length=length)
  np.testing.assert_array_equal(states.died_at, [-1, length - 1] if length > 1 else [-1, -1])
  states, sums = programs.steps(states, sums, hp, fields, references, length=length)
  died = length - 1 if length > 1 else 1
  np.testing.assert_array_equal(states.died_at, [-1, died])
  states, _ = programs.steps(states, sums, hp, fields, references, length=length)
  np.testing.assert_array_equal(states.died_at, [-1, died])  # the first time counts


def test_a_member_that_died_within_the_steps_keeps_the_step_that_the_step_found():
  programs, hp, fields, references = programs_of((0.5, 1e38))
  states, sums = programs.init(hp), programs.zeros(programs.shapes["sums"])
  states = dataclasses.replace(states, died_at=jax.device_put(jnp.asarray([-1, 0], jnp.int32), programs.by_member))
  states, _ = programs.steps(states, sums, hp, fields, references, length=3)
  np.testing.assert_array_equal(states.died_at, [-1, 0])


@pytest.mark.parametrize("mode", ["vmap", "map"])
def test_a_probe_sums_over_its_pieces_and_finishes_once_a_member(mode):
  class Probe:
    def __call__(self, network, variables, piece):
      return {"sum": variables["params"]["w"] * jnp.sum(piece), "network": network, "count": jnp.float32(len(piece))}

    def finish(self, sums):
      return {"mean": sums["sum"] / sums["count"], "network": sums["network"]}

  programs, hp, fields, references = programs_of((0.5, -0.25), mode)
  states = programs.init(hp)
  states = dataclasses.replace(states, variables={"params": {"w": jnp.asarray([2.0, 3.0])}})
  pieces = jax.device_put([jnp.asarray([1.0, 2.0]), jnp.asarray([5.0, 8.0])], programs.replicated)
  found = programs.measure(Probe())(states, hp, references, pieces, 3)
  np.testing.assert_allclose(found["mean"], [8.0, 12.0])
  np.testing.assert_allclose(found["network"], [7.0, 7.0])  # once for each piece


def test_on_cpu_as_many_members_train_at_once_as_stay_in_the_cache(monkeypatch):
  experiment = read(tiny_config(probes={}))
  conv = dataclasses.replace(experiment, has_convolution=True)
  asked = lambda one: dataclasses.replace(one, config=put(one.config, {"ensemble.chunk": 5}))
  size = trees.num_bytes(experiment.abstract_state())
  assert members_at_once(experiment, 10**4) == 3 * 2**20 // size > 1
  assert members_at_once(asked(experiment), 10**4) == members_at_once(asked(conv), 10**4) == 5
  assert members_at_once(conv, 10**4) == 1
  assert members_at_once(experiment, 2) == 2
  monkeypatch.setattr(programs_, "_CPU_CACHE", 1)
  assert members_at_once(experiment, 10**4) == 1  # one that is larger than the cache


@pytest.mark.parametrize(("stats", "devices", "members"), [
  # A member takes 4 (state + taps) bytes, and half of the memory of all devices is used, in equal shares.
  ({"bytes_limit": 7}, 1, 3), ({"bytes_limit": 7}, 4, 12), ({"bytes_limit": 8.75}, 4, 16), ({"bytes_limit": 3}, 2, 2),
  ({"bytes_limit": 1.5}, 4, 3), ({"bytes_limit": 0.5}, 1, 1), (None, 1, None), ({}, 2, None),
])
def test_on_an_accelerator_as_many_members_train_at_once_as_half_of_its_memory_holds(
  stats, devices, members, monkeypatch
):
  experiment = dataclasses.replace(read(tiny_config(probes={})), has_convolution=True)
  inputs = experiment.spec.example(8)
  state = experiment.abstract_state()
  outputs = jax.eval_shape(lambda s, x: experiment.parts().model.apply(s.variables, x), state, inputs)
  member = 4 * (trees.num_bytes(state) + trees.num_bytes(outputs))
  if members is None:  # a device that does not say is taken for one of 16 GiB
    members = devices * 8 * 2**30 // member // devices * devices
  stats = stats and {"bytes_limit": int(stats["bytes_limit"] * member)}
  device = types.SimpleNamespace(memory_stats=lambda: stats)
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  monkeypatch.setattr(jax, "local_devices", lambda: [device] * devices)
  monkeypatch.setattr(jax, "device_count", lambda: devices)
  assert programs_._members_that_fit(experiment) == members
  assert chosen([100], has_convolution=True) == 100  # slow on CPU only


def test_probes_are_traced_in_every_phase_that_they_measure():
  traced = []

  def attached(label, every):
    def measure(states, hp, arrays, pieces, phase):
      traced.append((label, phase, states.shape, hp["seed"].shape, pieces))
      return {"list": jnp.zeros((3, 2))}
    return AttachedProbe(measure, [], every)

  config = tiny_config(
    probes={"often": {"name": "memorization", "split": "train", "every": 5}},
    stopping={"metric": "often/list", "mode": "min", "patience": 1},
  )
  fake = types.SimpleNamespace(
    experiment=types.SimpleNamespace(phases=(0, 6), arrays={}, config=config),
    shapes={"state": jax.ShapeDtypeStruct((3,), "float32"), "sums": {"loss": jax.ShapeDtypeStruct((3,), "float32")}},
    probes={"often": attached("often", 5), "once": attached("once", 0)}, num_members=3, varying=(),
    _abstract_hyper_parameters=lambda: Programs._abstract_hyper_parameters(fake),
  )
  with pytest.raises(UserError, match="config.stopping.metric is 'often/list', which is several numbers"):
    Programs.trace_probes(fake)
  config["stopping"] = {}
  del traced[:]
  Programs.trace_probes(fake)
  assert [entry[:2] for entry in traced] == [("often", 0), ("often", 6), ("once", 6)]
  assert all(entry[2:] == ((3,), (3,), []) for entry in traced)
