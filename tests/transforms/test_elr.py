"""Early-learning regularization, its alternative, and forgetting events: closed forms, limits and invariances."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nurture import training
from nurture.core import Context, Outputs, UserError
from nurture.testing import class_spec
from nurture.transforms.losses.cross_entropy import CrossEntropy
from nurture.transforms.losses.elr import EarlyLearningRegularization, clamped
from nurture.transforms.losses.forgetting_events import ForgettingEvents
from nurture.transforms.losses.target_divergence import TargetDivergence
from tests.tiny import tiny_config

B, K, N = 4, 5, 9
SPEC = class_spec(num_examples=N, num_classes=K, input_shape=(2,), batch_size=B)
IDS = jnp.array([7, 0, 3, 8])
FORMS = [EarlyLearningRegularization(form="clamped"), EarlyLearningRegularization(form="exact"), TargetDivergence()]
label = lambda term: f"{type(term).__name__}-{getattr(term, 'form', '')}"


def context(logits, ids=IDS, **batch):
  targets = jax.nn.one_hot(jnp.arange(logits.shape[0]) % K, K, dtype=logits.dtype)
  return Context(
    jnp.int32(0), jax.random.key(0), {"id": ids, **batch}, targets, Outputs(logits, {}), {}, jnp.float32(0)
  )


def value_and_grad(term, memory, logits):
  """Returns ([B], [B, K])."""
  values, pull = jax.vjp(lambda z: term.apply(memory, context(z))[0], logits)
  return np.asarray(values), np.asarray(pull(jnp.ones_like(values))[0])


def random(seed, shape=(B, K), scale=2.0):
  return scale * np.random.default_rng(seed).standard_normal(shape)


def softmax(z):
  p = np.exp(z - z.max(axis=-1, keepdims=True))
  return p / p.sum(axis=-1, keepdims=True)


def remember(targets):
  """Returns running averages as the state of a term."""
  targets = jnp.asarray(targets)
  return {"targets": targets, "missing": jnp.maximum(1 - targets.sum(axis=-1), 0)}


@pytest.fixture
def memory():
  """A memory some visits old: rows sum to less than 1."""
  return 0.8 * softmax(random(1, (N, K)))


def lemma_2(z, t):
  """The paper's own expression."""
  p = softmax(z)
  return p * np.sum((t[:, None, :] - t[:, :, None]) * p[:, None, :], axis=-1) / (1 - np.sum(p * t, axis=-1))[:, None]


@pytest.mark.parametrize("form", ["clamped", "exact"])
def test_value_and_gradient_are_the_papers_in_float64(memory, form):
  z, lam, beta = random(2), 2.5, 0.6
  p, old = softmax(z), memory[np.asarray(IDS)]
  t = beta * old + (1 - beta) * p
  with jax.enable_x64(True):
    value, gradient = value_and_grad(EarlyLearningRegularization(lam, beta, form), remember(memory), jnp.asarray(z))
  assert value.dtype == np.float64
  np.testing.assert_allclose(value, lam * np.log(1 - np.sum(p * t, axis=-1)), rtol=1e-12)  # the naive form
  np.testing.assert_allclose(gradient, lam * lemma_2(z, t), atol=1e-13)  # with t a constant, (1 - beta) p included
  np.testing.assert_allclose(gradient.sum(axis=-1), 0, atol=1e-13)
  assert np.all(np.take_along_axis(gradient, t.argmax(axis=-1)[:, None], axis=-1) <= 0)


def test_the_divergence_and_its_gradient_in_float64(memory):
  z, lam, beta = random(2), 2.5, 0.6
  p = softmax(z)
  t = beta * memory[np.asarray(IDS)] + (1 - beta) * p
  mass = t.sum(axis=-1, keepdims=True)
  with jax.enable_x64(True):
    value, gradient = value_and_grad(TargetDivergence(lam, beta), remember(memory), jnp.asarray(z))
  np.testing.assert_allclose(value, lam * np.sum(t * np.log(t / mass / p), axis=-1), rtol=1e-12)
  np.testing.assert_allclose(gradient, lam * (mass * p - t), atol=1e-13)
  assert np.all(value > 0)


def test_targets_that_say_nothing_pull_nowhere():
  z = jnp.asarray(random(3, scale=0.5), jnp.float32)  # no probability is near enough to 0 to be cut
  for form in ("clamped", "exact"):
    untouched = EarlyLearningRegularization(beta=1.0, form=form)  # keeps t as it was
    value, gradient = value_and_grad(untouched, untouched.init(SPEC), z)
    np.testing.assert_allclose(value, 0, atol=1e-6)
    np.testing.assert_allclose(gradient, 0, atol=1e-6)
    value, gradient = value_and_grad(untouched, remember(jnp.full((N, K), 1 / K)), z)
    np.testing.assert_allclose(value, 3.0 * np.log(1 - 1 / K), rtol=1e-5)
    np.testing.assert_allclose(gradient, 0, atol=1e-6)
  # The divergence has no pull at its own targets: at the first visit, and without a memory.
  for term, memory in ((TargetDivergence(), jnp.zeros((N, K))), (TargetDivergence(beta=0.0), jnp.full((N, K), 0.2))):
    value, gradient = value_and_grad(term, remember(memory), z)
    np.testing.assert_allclose(value, 0, atol=1e-6)
    np.testing.assert_allclose(gradient, 0, atol=1e-6)


@pytest.mark.parametrize("term", FORMS, ids=label)
def test_no_class_and_no_row_is_special_and_a_shift_of_the_logits_is_nothing(term, memory):
  z, memory = jnp.asarray(random(4), jnp.float32), remember(jnp.asarray(memory, jnp.float32))
  value, new = term.apply(memory, context(z))
  classes, order = np.array([3, 0, 4, 1, 2]), np.array([2, 0, 3, 1])
  value_c, new_c = term.apply(memory | {"targets": memory["targets"][:, classes]}, context(z[:, classes]))
  np.testing.assert_allclose(value_c, value, rtol=1e-5)
  np.testing.assert_allclose(new_c["targets"], new["targets"][:, classes], rtol=1e-5)
  value_o, new_o = term.apply(memory, context(z[order], IDS[order]))
  np.testing.assert_allclose(value_o, value[order], rtol=1e-6)
  np.testing.assert_allclose(new_o["targets"], new["targets"], rtol=1e-6)
  np.testing.assert_allclose(term.apply(memory, context(z + 11.0))[0], value, rtol=1e-4)
  at_last = jax.jit(lambda beta: dataclasses.replace(term, beta=beta).apply(memory, context(z))[0])
  np.testing.assert_allclose(at_last(jnp.float32(0.7)), value, rtol=1e-5)  # a traced number is a number


@pytest.mark.parametrize("term", FORMS, ids=label)
def test_the_memory_is_an_exponential_average_of_the_visited_rows(term):
  beta, visits = 0.7, 4
  memory, sequence = term.init(SPEC), [jnp.asarray(random(10 + k), jnp.float32) for k in range(visits)]
  for z in sequence:
    memory = term.apply(memory, context(z))[1]
  memory, missing = memory["targets"], memory["missing"]
  expected = sum((1 - beta) * beta ** (visits - 1 - k) * softmax(z) for k, z in enumerate(sequence))
  np.testing.assert_allclose(memory[IDS], expected, atol=1e-3 if label(term).endswith("clamped") else 1e-6)
  np.testing.assert_allclose(memory[IDS].sum(axis=-1), 1 - beta**visits, rtol=1e-5)
  others = np.setdiff1d(np.arange(N), IDS)
  assert memory.dtype == jnp.float32 and not np.any(memory[others])
  np.testing.assert_allclose(missing[IDS], beta**visits, rtol=1e-6)
  np.testing.assert_array_equal(missing[others], 1)


@pytest.mark.parametrize("term", [*FORMS, ForgettingEvents()], ids=label)
def test_ids_of_other_splits_and_of_padding_are_read_and_not_written(term, memory):
  z, ids = jnp.asarray(random(5), jnp.float32), jnp.array([-1, N, 3, 10**6])
  state = term.init(SPEC) if isinstance(term, ForgettingEvents) else remember(jnp.asarray(memory, jnp.float32))
  value, new = term.apply(state, context(z, ids, label=jnp.argmax(z, axis=-1)))
  assert np.all(np.isfinite(value))
  for before, after in zip(jax.tree.leaves(state), jax.tree.leaves(new)):
    changed = np.asarray(before != after).reshape(N, -1).any(axis=-1)
    assert set(np.flatnonzero(changed)) <= {3}
  if value.ndim:  # an unknown example is one that was never visited
    never = term.apply(term.init(SPEC), context(z, IDS))[0]
    np.testing.assert_array_equal(value[np.array([0, 1, 3])], never[np.array([0, 1, 3])])
    assert value[2] != never[2]


@pytest.mark.parametrize("term", FORMS, ids=label)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("beta", [0.0, 0.7])
def test_finite_at_the_extremes(term, dtype, beta):
  z = jnp.asarray(np.where(np.eye(B, K) > 0, 1e4, -1e4), dtype)
  certain, opposite = jax.nn.one_hot(jnp.zeros(N, int), K), jax.nn.one_hot(jnp.full(N, 4), K)
  term = dataclasses.replace(term, beta=beta)
  for memory in (term.init(SPEC), *map(remember, (certain, opposite, jnp.full((N, K), 1 / K)))):
    value, gradient = value_and_grad(term, memory, z)
    assert value.dtype == np.float32
    assert np.all(np.isfinite(value)) and np.all(np.isfinite(gradient.astype(np.float32)))


def test_probabilities_are_cut_at_1e_4_of_either_end():
  p = jnp.float32([0, 0.5e-4, 2e-4, 0.5, 0.9998, 0.99995, 1])
  cut, slope = jax.jvp(clamped, (p,), (jnp.ones_like(p),))
  np.testing.assert_allclose(cut, [1e-4, 1e-4, 2e-4, 0.5, 0.9998, 0.9999, 0.9999], rtol=1e-6)
  np.testing.assert_array_equal(slope, [0, 0, 1, 1, 1, 0, 0])
  assert clamped(p.astype(jnp.bfloat16)).dtype == jnp.bfloat16


def test_the_exact_form_keeps_pushing_where_the_clamped_one_stops():
  z = jnp.float32([[12.0, 0, 0, 0, 0]] * B)
  memory = remember(jax.nn.one_hot(jnp.zeros(N, int), K))
  _, clamped = value_and_grad(EarlyLearningRegularization(1.0, 1.0, "clamped"), memory, z)
  _, exact = value_and_grad(EarlyLearningRegularization(1.0, 1.0, "exact"), memory, z)
  np.testing.assert_array_equal(clamped, 0)
  np.testing.assert_allclose(exact, [[-1, 0.25, 0.25, 0.25, 0.25]] * B, atol=1e-3)


@pytest.mark.parametrize("beta", [0.5, 0.7, 0.9, 0.99])
@pytest.mark.parametrize("margin", [10.0, 16.0, 20.0, 25.0])
def test_the_exact_form_keeps_its_force_where_float32_rounds_the_average_to_one(beta, margin):
  """At constant logits t = p in the end, and the force on a certain class is λ / 2, however certain."""
  z, term = jnp.float32([[margin, 0, 0, 0, 0]] * B), EarlyLearningRegularization(1.0, beta, "exact")
  p = jax.nn.softmax(z)
  memory = term.init(SPEC) | {
    "targets": jnp.zeros((N, K)).at[IDS].set(p), "missing": jnp.zeros(N)
  }
  _, gradient = value_and_grad(term, memory, z)
  np.testing.assert_allclose(gradient[:, 0], -0.5, rtol=1e-3)


@pytest.mark.parametrize("term", FORMS, ids=label)
def test_no_strength_is_plain_cross_entropy_bit_for_bit(term, memory):
  z, memory = jnp.asarray(random(6), jnp.float32), remember(jnp.asarray(memory, jnp.float32))
  term = dataclasses.replace(term, lam=0.0)
  plain = lambda z: jnp.mean(CrossEntropy().apply((), context(z))[0])
  total = lambda z: plain(z) + jnp.mean(term.apply(memory, context(z))[0])
  for ours, theirs in zip(jax.jit(jax.value_and_grad(total))(z), jax.jit(jax.value_and_grad(plain))(z)):
    np.testing.assert_array_equal(ours, theirs)


def test_a_run_without_strength_equals_the_plain_run_bit_for_bit(tmp_path):
  ce = {"ce": {"name": "cross_entropy", "weight": 1.0}}
  sha = lambda name, losses: training.run(
    tiny_config(losses=losses, probes={}, targets={}, gradients={}, parameters={}), tmp_path / name, name=name
  )["members"][0]["params_sha256"]
  watching = {"elr": {"name": "elr", "weight": 1.0, "lam": 0.0},
              "events": {"name": "forgetting_events", "weight": 1.0}}
  assert sha("none", ce | watching) == sha("plain", ce)


def test_forgetting_events_are_falls_from_correct_to_wrong():
  term, state = ForgettingEvents(), ForgettingEvents().init(SPEC)
  labels = jnp.array([0, 1, 2, 3])
  history = np.array([[1, 0, 1, 0, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1], [0, 1, 1, 0, 1]])  # correct or not, by visit
  for correct in history.T:
    said = np.where(correct, labels, 4)
    value, state = term.apply(state, context(jax.nn.one_hot(said, K), label=labels))
    assert value == 0 and value.dtype == jnp.float32
  ids = np.asarray(IDS)
  np.testing.assert_array_equal(state["forgotten"][ids], [2, 0, 0, 1])
  np.testing.assert_array_equal(state["learned"][ids], [True, False, True, True])
  np.testing.assert_array_equal(state["correct"][ids], history[:, -1])
  np.testing.assert_array_equal(state["presented"], np.bincount(ids, minlength=N) * history.shape[1])


@pytest.mark.parametrize("term", [*FORMS, ForgettingEvents()], ids=label)
def test_what_has_no_rows_is_refused(term):
  with pytest.raises(UserError, match=r"logits have the shape \(4, 2, 5\)"):
    term.apply(term.init(SPEC), context(jnp.zeros((B, 2, K))))
  ctx = context(jnp.zeros((B, K)))
  with pytest.raises(UserError, match="the batch has no 'id'"):
    term.apply(term.init(SPEC), dataclasses.replace(ctx, batch={}))
