"""Probes of early-learning regularization and of forgetting: hand-made states, cut into padded pieces."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nurture import training
from nurture.core import Network, Outputs, UserError
from nurture.data.arrays import Split, padded_batches
from nurture.probes import ProbeSpec
from nurture.probes.elr_gradient import ElrGradient, regularizer_gradient
from nurture.probes.forgetting import Forgetting
from nurture.reporting import read_rows
from nurture.testing import class_spec
from nurture.transforms.losses.elr import EarlyLearningRegularization
from nurture.transforms.losses.forgetting_events import ForgettingEvents
from tests.tiny import tiny_config

K, N = 4, 7


def network(**loss_states):
  """A network whose "images" are the logits."""
  return Network(
    model=None, inputs=lambda batch: batch["image"], apply=lambda variables, x: Outputs(x, {}), loss=None, terms=None,
    references=None, loss_states=loss_states,
  )


def measure(probe, net, logits, label, true_label, ids, batch_size):
  split = Split(np.asarray(logits, np.float32), np.asarray(label), np.asarray(true_label), np.asarray(ids))
  batches = lambda name, limit: jax.tree.map(jnp.asarray, padded_batches(split, batch_size))
  pieces = probe.prepare(ProbeSpec(class_spec(N, K, (K,), 2), batches), jax.random.key(0))
  sums = [jax.jit(functools.partial(probe, net))({}, piece) for piece in pieces]
  return probe.finish(functools.reduce(lambda a, b: jax.tree.map(jnp.add, a, b), sums))


@pytest.mark.parametrize("batch_size", [2, 5])
def test_forgetting_by_kind_of_label(batch_size):
  state = {  # by id; 2 was never presented, 6 is in no batch
    "presented": jnp.array([3, 3, 0, 5, 4, 2, 9]),
    "correct": jnp.array([True, True, False, False, True, False, True]),
    "learned": jnp.array([True, True, False, True, True, False, True]),
    "forgotten": jnp.array([0, 2, 0, 3, 0, 0, 9]),
  }
  ids = [5, 3, 0, 2, 4, 1]
  label, truth = [0, 1, 2, 3, 0, 1], [1, 1, 2, 3, 0, 2]  # ids 5 and 1 are labelled wrong
  result = measure(Forgetting("events"), network(ce=(), events=state), np.zeros((6, K)), label, truth, ids, batch_size)
  expected = {
    "all_seen": 5, "all_events": 5 / 5, "all_unforgettable": 2 / 5, "all_never_learned": 1 / 5,
    "clean_seen": 3, "clean_events": 3 / 3, "clean_unforgettable": 2 / 3, "clean_never_learned": 0,
    "wrong_seen": 2, "wrong_events": 2 / 2, "wrong_unforgettable": 0, "wrong_never_learned": 1 / 2,
  }
  assert set(result) == set(expected)
  for name, value in expected.items():
    np.testing.assert_allclose(result[name], value, rtol=1e-6, err_msg=name)


def test_an_empty_group_is_zero_and_not_nan():
  nothing = ForgettingEvents().init(class_spec(N, K, (K,), 2))
  result = measure(Forgetting("events"), network(events=nothing), np.zeros((2, K)), [0, 1], [0, 1], [0, 1], 2)
  assert all(value == 0 for value in result.values())
  memory = EarlyLearningRegularization().init(class_spec(N, K, (K,), 2))
  result = measure(ElrGradient("elr"), network(elr=memory), np.eye(2, K), [0, 1], [0, 1], [0, 1], 2)
  assert result["clean_count"] == 2
  assert all(result[f"wrong_{name}"] == 0 for name in ("count", "residual", "regularizer", "cross_entropy"))


@pytest.mark.parametrize("batch_size", [2, 5])
def test_gradient_coefficients_are_means_of_the_autodiff_gradient(batch_size):
  draws = np.random.default_rng(0)
  z, ids = draws.standard_normal((5, K)).astype(np.float32), np.array([6, 2, 0, 3, 5])
  memory = jnp.asarray(0.9 * draws.dirichlet(np.ones(K), N), jnp.float32)
  label, truth = np.array([0, 1, 2, 3, 0]), np.array([0, 2, 2, 1, 0])
  state = {"targets": memory, "missing": 1 - memory.sum(axis=-1)}
  result = measure(ElrGradient("elr"), network(elr=state), z, label, truth, ids, batch_size)
  regularizer = lambda z: jnp.sum(jnp.log(1 - jnp.sum(jax.nn.softmax(z) * memory[ids], axis=-1)))
  cross_entropy = lambda z: -jnp.sum(jax.nn.log_softmax(z)[np.arange(5), label])
  of_loss, of_regularizer = np.asarray(jax.grad(cross_entropy)(z)), np.asarray(jax.grad(regularizer)(z))
  for group, chosen in (("clean", label == truth), ("wrong", label != truth)):
    rows = np.flatnonzero(chosen)
    assert result[f"{group}_count"] == len(rows)
    np.testing.assert_allclose(result[f"{group}_cross_entropy"], of_loss[rows, truth[rows]].mean(), rtol=1e-5)
    np.testing.assert_allclose(result[f"{group}_regularizer"], of_regularizer[rows, truth[rows]].mean(), rtol=1e-4)
    np.testing.assert_allclose(result[f"{group}_residual"], np.linalg.norm(of_loss[rows], axis=-1).mean(), rtol=1e-5)


def test_the_regularizer_gradient_at_its_limits():
  certain = jax.nn.log_softmax(jnp.float32([[30.0, 0, 0, 0]]))  # p rounds to one-hot
  target = jnp.float32([[1.0, 0, 0, 0]])
  none, all_ = jnp.zeros(1), jnp.ones(1)  # of the mass missing
  np.testing.assert_allclose(regularizer_gradient(certain, target, none), [[-1, 1 / 3, 1 / 3, 1 / 3]], atol=1e-6)
  np.testing.assert_allclose(regularizer_gradient(certain, target[:, ::-1], none), [[0, 0, 0, 0]], atol=1e-6)
  np.testing.assert_array_equal(regularizer_gradient(certain, jnp.zeros((1, K)), all_), 0)


@pytest.mark.parametrize("probe, name", [(Forgetting, "events"), (ElrGradient, "elr")])
def test_a_missing_term_is_named_with_those_that_would_do(probe, name):
  spec = class_spec(N, K, (K,), 2)
  states = {"ce": (), "events": ForgettingEvents().init(spec), "elr": EarlyLearningRegularization().init(spec)}
  for given, known in ((states, f"known: {name}\\."), ({"ce": ()}, "known: none, add one: ")):
    with pytest.raises(UserError, match=known):
      measure(probe("ce"), network(**given), np.zeros((2, K)), [0, 1], [0, 1], [0, 1], 2)


def test_in_a_run_the_states_reach_the_probes(tmp_path):
  config = tiny_config(
    steps=24,  # three epochs of 8 steps
    losses={
      "ce": {"name": "cross_entropy", "weight": 1.0}, "elr": {"name": "elr", "weight": 1.0, "lam": 3.0, "beta": 0.7},
      "events": {"name": "forgetting_events", "weight": 1.0},
    },
    probes={
      "forgetting": {"name": "forgetting", "term": "events", "every": 4},
      "gradient": {"name": "elr_gradient", "term": "elr", "every": 4},
    },
    ensemble__grid={"lam": {"path": "losses.elr.lam", "levels": (0.0, 3.0)}},
  )
  training.run(config, tmp_path / "run", name="run")
  rows = [row for row in read_rows(tmp_path / "run" / "metrics.jsonl") if "forgetting/all_seen" in row]
  seen = {row["step"]: row["forgetting/all_seen"] for row in rows if row["member"] == 0}
  assert [seen[step] for step in (0, 4, 8, 24)] == [0, 32, 64, 64]
  assert all(row["gradient/clean_count"] + row["gradient/wrong_count"] == 64 for row in rows)
  first, last = ([row["gradient/clean_regularizer"] for row in rows if row["step"] == step] for step in (0, 24))
  np.testing.assert_allclose(first, 0, atol=1e-6)  # nothing is remembered yet
  assert last[0] != last[1] and min(map(abs, last)) > 1e-6  # each member has a memory of its own
