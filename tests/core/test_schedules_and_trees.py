"""Schedules by name against their formulas; fingerprints, norms and sizes of trees."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nurture.core import Context, Network, UserError, trees
from nurture.core.schedules import as_schedule
from nurture.testing import class_spec


def test_a_number_is_a_constant_schedule():
  assert as_schedule(0.3, path="w")(jnp.int32(7)) == np.float32(0.3)
  assert jax.jit(lambda v: as_schedule(v, path="w")(jnp.int32(7)))(jnp.float32(0.3)) == np.float32(0.3)


def test_piecewise_constant_multiplies_at_each_boundary():
  config = {"name": "piecewise_constant_schedule", "init_value": 1.0, "boundaries": (10, 20), "scales": (0.1, 0.5)}
  schedule = as_schedule(config, path="optimizer.learning_rate")
  np.testing.assert_allclose([schedule(s) for s in (0, 9, 10, 19, 20)], [1, 1, 0.1, 0.1, 0.05], rtol=1e-6)


def test_cosine_meets_its_ends_and_its_middle():
  schedule = as_schedule({"name": "cosine_decay_schedule", "init_value": 2.0, "decay_steps": 100}, path="w")
  np.testing.assert_allclose([schedule(0), schedule(50), schedule(100)], [2.0, 1.0, 0.0], atol=1e-6)


def test_an_epoch_ramp_stands_still_within_an_epoch_and_ends_on_one():
  schedule = as_schedule({"name": "epoch_ramp", "epochs": 4, "steps_per_epoch": 2.5}, path="w")
  # Epochs begin at steps 0, 2.5, 5, 7.5, 10: the first step at or after each.
  np.testing.assert_array_equal([schedule(s) for s in range(12)], [0, 0, 0, *[0.25] * 2, *[0.5] * 3, *[0.75] * 2, 1, 1])
  cosine = as_schedule({"name": "epoch_ramp", "epochs": 4, "steps_per_epoch": 1, "shape": "cosine"}, path="w")
  np.testing.assert_allclose([cosine(s) for s in range(6)], [0, (1 - 0.5**0.5) / 2, 0.5, (1 + 0.5**0.5) / 2, 1, 1])
  assert cosine(4) == 1.0 and cosine(400) == 1.0  # exactly: a network is merged at 1


def test_a_step_ramp_moves_at_every_step():
  schedule = as_schedule({"name": "step_ramp", "steps": 8}, path="w")
  np.testing.assert_array_equal([schedule(s) for s in range(10)], [*(np.arange(9) / 8), 1])


@pytest.mark.parametrize("count", [10, 41, 47, 97, 110])
def test_compiled_ramps_are_exact_at_every_epoch_and_at_the_end(count):
  at = lambda config: jax.jit(jax.vmap(as_schedule(config, path="w")))
  assert at({"name": "step_ramp", "steps": count})(jnp.array([count]))[0] == 1
  assert at({"name": "epoch_ramp", "epochs": count, "steps_per_epoch": 10})(jnp.array([10 * count]))[0] == 1
  # The first and the last step of every epoch of `count` steps.
  first = jnp.arange(1, 65) * count
  ramp = at({"name": "epoch_ramp", "epochs": 64, "steps_per_epoch": count})
  np.testing.assert_array_equal(ramp(first), np.arange(1, 65) / 64)
  np.testing.assert_array_equal(ramp(first - 1), np.arange(64) / 64)


POLYNOMIAL = {
  "name": "polynomial_schedule", "init_value": 1.0, "end_value": 0.0, "power": 1.0, "transition_steps": 9,
}
COSINE = {"name": "cosine_decay_schedule", "init_value": 1.0, "decay_steps": 9}
DECAY = {"name": "exponential_decay", "init_value": 1.0, "transition_steps": 9}
WARMUP = {
  "name": "warmup_cosine_decay_schedule", "init_value": 0.0, "peak_value": 1.0, "warmup_steps": 1, "decay_steps": 9,
}


@pytest.mark.parametrize(("value", "message"), [
  ({"name": "epoch_ramp", "epochs": 0, "steps_per_epoch": 3}, "w.epochs is 0; give a number above 0"),
  ({"name": "step_ramp", "steps": -1}, "steps is -1"),
  ({"name": "step_ramp", "steps": 5, "shape": "square"}, "'linear', 'cosine'"),
  ("0.1", "w is '0.1', but a number or a schedule"),
  (float("nan"), "w is nan; give a finite number"),
  (True, "a number or a schedule"),
  ({"name": "cosine_decay"}, "did you mean 'cosine_decay_schedule'"),
  ({"name": "piecewise_constant_schedule", "init_value": 1.0, "boundaries": (1,), "scales": ()}, "one scale a bound"),
  (POLYNOMIAL | {"power": -1.0}, "w.power is -1.0; give a number of at least 0"),
  (POLYNOMIAL | {"transition_steps": 0}, "w.transition_steps is 0; give a whole number of at least 1"),
  (POLYNOMIAL | {"transition_begin": -1}, "w.transition_begin is -1; give a whole number of at least 0"),
  (COSINE | {"decay_steps": 0}, "w.decay_steps is 0; give a whole number of at least 1"),
  (COSINE | {"alpha": 1.1}, "w.alpha is 1.1; give a number from 0 to 1"),
  (COSINE | {"exponent": -1.0}, "w.exponent is -1.0; give a number of at least 0"),
  (DECAY | {"decay_rate": 0.0}, "w.decay_rate is 0.0; give a number above 0"),
  (WARMUP | {"warmup_steps": -1}, "w.warmup_steps is -1; give a whole number of at least 0"),
])
def test_bad_schedules_are_one_sentence(value, message):
  with pytest.raises(UserError, match=message):
    as_schedule(value, path="w")


def test_digest_sees_every_bit_name_type_and_shape():
  tree = {"a": np.arange(6, dtype=np.float32), "b": {"c": np.zeros((2, 2), np.int32)}}
  same = {"a": jnp.arange(6, dtype=jnp.float32), "b": {"c": jnp.zeros((2, 2), jnp.int32)}}
  assert trees.digest(tree) == trees.digest(same)
  flipped = np.arange(6, dtype=np.float32)
  flipped.view(np.uint32)[3] ^= 1
  others = [
    {**tree, "a": flipped},
    {"z": tree["a"], "b": tree["b"]},
    {**tree, "a": tree["a"].astype(np.float64)},
    {**tree, "a": tree["a"].reshape(2, 3)},
    {**tree, "b": {"c": tree["b"]["c"].astype(np.uint32)}},
  ]
  assert len({trees.digest(other) for other in [tree, *others]}) == 6


@pytest.mark.parametrize("leaves, finite", [
  ([], True), ([np.arange(3)], True), ([np.ones(2, np.float32), np.arange(3)], True),
  ([np.float32([1, np.nan])], False),
  ([np.ones(2, np.float32), np.float32([[-np.inf]])], False),
])
def test_a_tree_is_finite_where_all_its_numbers_are(leaves, finite):
  assert bool(trees.is_finite({str(i): jnp.asarray(leaf) for i, leaf in enumerate(leaves)})) == finite


def test_norm_and_bytes():
  tree = {"a": jnp.array([3.0, 0.0]), "b": jnp.array([[4.0]], jnp.bfloat16)}
  assert trees.norm(tree) == 5.0
  assert trees.num_bytes(tree) == 2 * 4 + 2
  assert [name for name, _ in trees.named_leaves({"x": {"y": [1, 2]}})] == ["x/y/0", "x/y/1"]


@pytest.mark.parametrize(("config", "by_hand"), [
  ({"name": "exponential_ramp", "steps": 8}, lambda t: np.exp(-5 * (1 - t / 8) ** 2) if t < 8 else 1.0),
  ({"name": "exponential_ramp", "steps": 4, "rate": 2.0}, lambda t: np.exp(-2 * (1 - t / 4) ** 2) if t < 4 else 1.0),
  ({"name": "cosine_restarts", "peak_value": 3.0, "period": 4, "end_value": 1.0},
   lambda t: 1 + 2 * (1 + np.cos(np.pi * (t % 4) / 4)) / 2),
  ({"name": "cosine_restarts", "peak_value": 0.5, "period": 3}, lambda t: 0.5 * (1 + np.cos(np.pi * (t % 3) / 3)) / 2),
  ({"name": "step_ramp", "steps": 8, "shape": "cosine"}, lambda t: (1 - np.cos(np.pi * min(t / 8, 1))) / 2),
])
def test_ramps_and_restarts_are_their_formulas(config, by_hand):
  schedule = as_schedule(config, path="w")
  np.testing.assert_allclose([schedule(t) for t in range(14)], [by_hand(t) for t in range(14)], rtol=2e-6, atol=1e-7)
  np.testing.assert_array_equal(jax.jit(jax.vmap(schedule))(jnp.arange(14)).shape, (14,))
  if config["name"].endswith("ramp"):
    assert schedule(config["steps"]) == 1 and schedule(10**6) == 1


@pytest.mark.parametrize(("config", "name"), [
  ({"name": "exponential_ramp", "steps": 0}, "steps"),
  ({"name": "cosine_restarts", "peak_value": 1.0, "period": 0}, "period"),
  ({"name": "epoch_ramp", "epochs": 3, "steps_per_epoch": -2.0}, "steps_per_epoch"),
  ({"name": "step_ramp", "steps": float("nan")}, "steps"),
])
def test_a_length_of_no_steps_is_refused(config, name):
  with pytest.raises(UserError, match=f"w.{name} is .*; give a (number above 0|whole number of at least 1)"):
    as_schedule(config, path="w")


def test_one_of_two_trees_and_one_of_many_members():
  a, b = {"x": jnp.asarray([1.0, 2.0]), "y": jnp.int32(3)}, {"x": jnp.asarray([5.0, 6.0]), "y": jnp.int32(7)}
  for condition, expected in ((True, a), (jnp.bool_(False), b)):
    chosen = jax.jit(trees.select)(condition, a, b)
    jax.tree.map(np.testing.assert_array_equal, chosen, expected)
  assert trees.member({"x": jnp.asarray([[1, 2], [3, 4]])}, 1)["x"].tolist() == [3, 4]


def test_norm_bytes_and_digest_at_their_edges():
  assert trees.norm({}) == 0 and trees.num_bytes({}) == 0
  half = {"a": jnp.full(10_000, 3.0, jnp.bfloat16)}
  assert trees.norm(half) == 300 and trees.norm(half).dtype == jnp.float32  # bfloat16 would lose the sum
  assert trees.num_bytes(jax.eval_shape(lambda: half)) == 20_000
  keys = [trees.digest({"k": jax.random.key(seed)}) for seed in (0, 0, 1)]
  assert keys[0] == keys[1] != keys[2]
  assert trees.digest({"a": np.arange(6).reshape(2, 3).T}) == trees.digest({"a": np.arange(6).reshape(2, 3).T.copy()})


def test_records_cannot_be_written_to():
  spec = class_spec(num_examples=1, num_classes=2, input_shape=(3,), batch_size=1)
  context = Context(step=0, key=None, batch={}, targets=None, outputs=None, references={}, progress=0.0)
  for record, field in ((spec, "num_examples"), (context, "targets")):
    with pytest.raises(dataclasses.FrozenInstanceError):
      setattr(record, field, 1)
  assert spec.num_classes == 2 and spec.example(4).shape == (4, 3) and spec.example().dtype == jnp.float32
  assert class_spec(1, 2, (5,), 1, field="tokens").example().dtype == jnp.int32
  network = Network(model=None, inputs=None, apply=None, loss=None)
  assert network.terms({}, {}) == {} == network.references({}) == network.initial() and not network.loss_states
