"""How steps are cut into dispatches."""

import jax
import jax.numpy as jnp
import pytest

from lib.training.dispatch import next_boundary, steps_per_dispatch


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


def test_the_number_of_steps_divides_the_intervals_and_is_one_for_convolutions_on_cpu():
  plain = jax.make_jaxpr(lambda x: x @ x)(jnp.ones((2, 2)))
  conv = jax.make_jaxpr(jax.jit(lambda x: jax.lax.conv(x, x, (1, 1), "SAME")))(jnp.ones((1, 1, 3, 3)))
  assert steps_per_dispatch(0, plain, [1500, 50, 500, 0]) == 50
  assert steps_per_dispatch(0, plain, [100_000, 1000, 5000]) == 100
  assert steps_per_dispatch(0, plain, [67, 469, 938]) == 67
  assert steps_per_dispatch(0, plain, [7, 11, 1000]) == 100  # no common divisor: as many as are worth it
  assert steps_per_dispatch(7, conv, [100]) == 7
  assert steps_per_dispatch(0, conv, [100]) == 1
