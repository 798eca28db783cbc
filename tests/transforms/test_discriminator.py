"""The discriminator: it learns, it pushes the student the way its form says, and nothing leaks."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nurture.core import Context, Outputs
from nurture.testing import class_spec
from nurture.transforms.losses.discriminator import Discriminator

B, K = 16, 10
STUDENT = jax.random.normal(jax.random.key(1), (B, K))
TEACHER = jax.random.normal(jax.random.key(2), (B, K)) + 2 * jnp.eye(K)[0][None]
WIDE = Discriminator(("teacher",), "published", learning_rate=0.2, hidden=(16, 8))


def spec(num_classes=K):
  return class_spec(num_examples=9, num_classes=num_classes, input_shape=(3,), batch_size=B)


def context(student=STUDENT, teacher=TEACHER, **teachers):
  teachers = {"teacher": teacher, **teachers}
  references = {label: Outputs(logits, {}) for label, logits in teachers.items()}
  targets = jax.nn.one_hot(jnp.arange(B) % K, K)
  batch = {"weight": jnp.ones(B)}
  return Context(jnp.int32(0), jax.random.key(0), batch, targets, Outputs(student, {}), references, jnp.float32(0))


def trained(term, steps=200, **arguments):
  step = lambda _, state: term.apply(state, context(**arguments))[1]
  return jax.jit(lambda: jax.lax.fori_loop(0, steps, step, term.init(spec())))()


@pytest.fixture(scope="module")
def learned():
  return trained(WIDE)


def loss(state, student=STUDENT, term=WIDE):
  """L_D of a discriminator: the published value, whatever the form."""
  term = dataclasses.replace(term, form="published")
  return float(term.apply(state, context(student))[0].mean())


def test_sizes_are_those_of_the_paper_and_at_least_eight():
  params = lambda k: jax.eval_shape(lambda: Discriminator(("t",), "published").init(spec(k)))["params"]
  kernels = lambda k: [layer["kernel"].shape for layer in params(k).values()]
  assert kernels(1000) == [(1000, 125), (125, 15), (15, 2)]
  assert kernels(10) == [(10, 8), (8, 8), (8, 2)]


def test_it_starts_from_uniform_numbers_that_differ_between_layers_seeds_and_biases():
  params = [Discriminator(("t",), "published", hidden=(64, 64), seed=seed).init(spec(64))["params"] for seed in (0, 1)]
  for layer in ("dense_0", "dense_1"):
    for leaf in jax.tree.leaves(params[0][layer]):  # of a standard deviation of the bound over sqrt(3)
      assert 0.9 < 8 * jnp.abs(leaf).max() <= 1 and 0.4 < 8 * leaf.std() < 0.7 and abs(8 * leaf.mean()) < 0.25
  assert np.any(params[0]["dense_0"]["kernel"] != params[0]["dense_1"]["kernel"])
  assert np.any(params[0]["dense_0"]["kernel"] != params[1]["dense_0"]["kernel"])
  assert not np.isin(params[0]["dense_0"]["bias"], params[0]["dense_0"]["kernel"]).all()


@pytest.mark.parametrize("form, value", [
  ("published", (np.log(4 / 3) + np.log(2) + np.log(8) + np.log(2)) / 4), ("adversarial", (np.log(4) + np.log(2)) / 4),
])
def test_values_by_hand(form, value):
  """A D that says the logits themselves: (log 3, 0) of the student, (log 7, 0) of the teacher.

  Its first answer 3/4 is right for the student, by -log 3/4, and 7/8 is wrong for the teacher, by -log 1/8.
  """
  identity = {"dense_0": {"kernel": jnp.eye(2), "bias": jnp.zeros(2)}}
  state = {"params": identity, "momentum": jax.tree.map(jnp.zeros_like, identity)}
  ctx = context(jnp.log(jnp.array([[3.0, 1.0]])), jnp.log(jnp.array([[7.0, 1.0]])))
  ctx = dataclasses.replace(ctx, targets=jnp.array([[1.0, 0.0]]), batch={"weight": jnp.ones(1)})
  found, _ = jax.jit(dataclasses.replace(WIDE, form=form).apply)(state, ctx)
  np.testing.assert_allclose(found, [value], rtol=1e-6)


def test_it_learns_to_tell_the_two_apart(learned):
  assert 0.4 < loss(WIDE.init(spec())) < 1.2  # about log 2
  assert loss(learned) < 0.05
  assert loss(trained(WIDE, student=TEACHER), TEACHER) > 0.68  # nothing to tell: log 2 is the best answer


def test_its_step_is_sgd_with_momentum_on_its_loss():
  state = WIDE.init(spec())
  value = lambda params: _published({**state, "params": params})
  # The value of the published form is L_D, whose derivative the term cuts: finite differences see it.
  first = WIDE.apply(state, context())[1]
  second = WIDE.apply(first, context())[1]
  direction = first["momentum"]
  norm = sum(float(jnp.sum(leaf**2)) for leaf in jax.tree.leaves(direction))
  shifted = lambda size: jax.tree.map(lambda p, d: p + size * d, state["params"], direction)
  slope = (value(shifted(1e-2)) - value(shifted(-1e-2))) / 2e-2
  np.testing.assert_allclose(slope, norm, rtol=0.02)  # a gradient's slope along itself is its squared norm
  for p, q, m in zip(*map(jax.tree.leaves, (first["params"], second["params"], second["momentum"]))):
    np.testing.assert_allclose(q, p - 0.2 * m, atol=1e-6)
  alone = WIDE.apply({**first, "momentum": jax.tree.map(jnp.zeros_like, direction)}, context())[1]["momentum"]
  for total, new, old in zip(*map(jax.tree.leaves, (second["momentum"], alone, direction))):
    np.testing.assert_allclose(total, new + 0.9 * old, atol=1e-6)


def _published(state):
  return float(WIDE.apply(state, context())[0].mean())


@pytest.mark.parametrize("form, sign", [("published", -1), ("adversarial", 1)])
@pytest.mark.parametrize("steps", [20, 200])
def test_the_student_is_pushed_where_the_form_says(form, sign, steps):
  state, term = trained(WIDE, steps), dataclasses.replace(WIDE, form=form)
  gradient = jax.grad(lambda z: term.apply(state, context(z))[0].sum())(STUDENT)
  assert np.any(gradient)
  moved = STUDENT - 0.1 * gradient / jnp.abs(gradient).max()
  assert sign * (loss(state, moved) - loss(state)) > 1e-6


def test_the_adversarial_gradient_does_not_vanish_where_it_is_sure(learned):
  norms = {}
  for form in ("published", "adversarial"):
    term = dataclasses.replace(WIDE, form=form)
    norms[form] = np.abs(jax.grad(lambda z, term=term: term.apply(learned, context(z))[0].sum())(STUDENT)).mean()
  assert norms["adversarial"] > 10 * norms["published"]


@pytest.mark.parametrize("form", ["published", "adversarial"])
def test_nothing_leaks(form):
  term = dataclasses.replace(WIDE, form=form)
  state = term.init(spec())
  into_d, into_teacher = jax.grad(
    lambda params, teacher: term.apply({**state, "params": params}, context(teacher=teacher))[0].sum(), argnums=(0, 1)
  )(state["params"], TEACHER)
  assert not any(np.any(leaf) for leaf in jax.tree.leaves((into_d, into_teacher)))
  # D's next state is no way around it either: a student cannot change how D will judge.
  through_state = jax.grad(lambda z: sum(map(jnp.sum, jax.tree.leaves(term.apply(state, context(z))[1]))))(STUDENT)
  assert not np.any(through_state)


def test_several_teachers_enter_by_the_mean_of_their_logits():
  state, both = WIDE.init(spec()), dataclasses.replace(WIDE, teachers=("teacher", "other"))
  pair = both.apply(state, context(teacher=TEACHER + 1, other=TEACHER - 1))
  np.testing.assert_allclose(pair[0], WIDE.apply(state, context())[0], rtol=1e-5)


def test_a_final_relu_can_switch_it_off():
  term = dataclasses.replace(WIDE, final_relu=True)
  state = term.init(spec())
  last = state["params"]["dense_2"]
  state["params"]["dense_2"] = {"kernel": last["kernel"], "bias": jnp.full(2, -100.0)}
  value, new = term.apply(state, context())
  np.testing.assert_allclose(value, np.log(2), rtol=1e-6)
  assert not any(np.any(leaf) for leaf in jax.tree.leaves(new["momentum"]))


def test_padded_examples_do_not_teach_it():
  state, half = WIDE.init(spec()), (jnp.arange(B) < 8).astype(jnp.float32)
  ctx = context()
  masked = lambda z: dataclasses.replace(ctx, batch={"weight": half}, outputs=Outputs(z, {}))
  one, other = (WIDE.apply(state, masked(z))[1]["momentum"] for z in (STUDENT, STUDENT.at[8:].set(50.0)))
  for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other)):
    np.testing.assert_allclose(a, b, atol=1e-6)
  alone = dataclasses.replace(
    context(STUDENT[:8], TEACHER[:8]), batch={"weight": jnp.ones(8)}, targets=ctx.targets[:8]
  )
  for a, b in zip(*map(jax.tree.leaves, (one, WIDE.apply(state, alone)[1]["momentum"]))):
    np.testing.assert_allclose(a, b, atol=1e-6)


def test_somebody_must_teach():
  with pytest.raises(ValueError, match="at least one label"):
    dataclasses.replace(WIDE, teachers=())
