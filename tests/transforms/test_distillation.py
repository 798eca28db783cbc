"""Distillation as targets and as a loss term: identities, limits, and settings of the literature."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nurture.core import Context, Outputs, UserError, build
from nurture.testing import class_spec
from nurture.transforms.losses.cross_entropy import CrossEntropy
from nurture.transforms.losses.distillation import Distillation
from nurture.transforms.targets.distillation import DistillationTargets
from nurture.transforms.targets.label_smoothing import LabelSmoothing

B, K = 5, 4
SPEC = class_spec(num_examples=9, num_classes=K, input_shape=(3,), batch_size=B)
ONE_HOT = np.eye(K, dtype=np.float32)[np.arange(B) % K]
STUDENT, FIRST, SECOND = (2 * jax.random.normal(jax.random.key(i), (B, K)) for i in range(3))


def context(student, targets=ONE_HOT, **teachers):
  references = {label: Outputs(logits, {}) for label, logits in teachers.items()}
  batch = {"weight": jnp.ones(len(targets))}
  student = None if student is None else Outputs(student, {})
  return Context(jnp.int32(0), jax.random.key(0), batch, jnp.asarray(targets), student, references, jnp.float32(0))


def distill(student, t_teacher=1.0, t_student=1.0, scale="none", form="kl", targets=ONE_HOT, **teachers):
  term = Distillation(tuple(teachers), t_teacher, t_student, scale, form)
  return term.apply(term.init(SPEC), context(student, targets, **teachers))[0]


def cross_entropy(student, targets):
  return CrossEntropy().apply((), context(student, targets))[0]


def gradient(function, at):
  return jax.grad(lambda z: function(z).sum())(at)


def centred(z):
  return z - z.mean(axis=-1, keepdims=True)


def test_kl_is_cross_entropy_less_the_teachers_entropy_and_has_its_gradient():
  p = jax.nn.softmax(FIRST / 3)
  entropy = -jnp.sum(p * jnp.log(p), axis=-1)
  kl, ce = (lambda z, form=form: distill(z, 3.0, 2.0, form=form, a=FIRST) for form in ("kl", "ce"))
  np.testing.assert_allclose(ce(STUDENT) - kl(STUDENT), entropy, rtol=1e-4)
  np.testing.assert_allclose(gradient(kl, STUDENT), gradient(ce, STUDENT), atol=1e-6)
  expected = (jax.nn.softmax(STUDENT / 2) - p) / 2
  np.testing.assert_allclose(gradient(kl, STUDENT), expected, atol=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_at_the_teachers_logits_kl_and_its_gradient_are_zero(temperature):
  run = lambda z: distill(z, temperature, temperature, "t_squared", a=FIRST)
  np.testing.assert_allclose(run(FIRST + 7.0), 0, atol=1e-4)
  np.testing.assert_allclose(gradient(run, FIRST + 7.0), 0, atol=1e-5)
  assert np.min(run(STUDENT)) > 0.01


@pytest.mark.parametrize("form", ["kl", "ce"])
def test_a_one_hot_teacher_is_the_label(form):
  certain = jnp.where(ONE_HOT > 0, 0.0, -jnp.inf)
  run = lambda z: distill(z, form=form, a=certain)
  np.testing.assert_allclose(run(STUDENT), cross_entropy(STUDENT, ONE_HOT), rtol=1e-5)
  np.testing.assert_allclose(gradient(run, STUDENT), jax.nn.softmax(STUDENT) - ONE_HOT, atol=1e-6)


def test_hot_distillation_matches_centred_logits():
  # As T grows, T^2 KL -> 1/2 mean_k (centred z_t - centred z_s)^2, with its gradient.
  with jax.enable_x64(True):
    student, teacher = (centred(jnp.asarray(np.asarray(z), jnp.float64)) for z in (STUDENT, FIRST))
    limit = 0.5 * jnp.mean((student - teacher) ** 2, axis=-1)
    errors = []
    for t in (1.0, 4.0, 100.0, 1e4):
      run = lambda z, t=t: distill(z, t, t, "t_squared", a=teacher)
      slope = gradient(run, student)
      errors.append(float(jnp.abs(slope * K - (student - teacher)).max() / jnp.abs(student - teacher).max()))
    assert errors == sorted(errors, reverse=True) and errors[0] > 0.1 and errors[-1] < 1e-3
    np.testing.assert_allclose(run(student), limit, rtol=1e-3)


@pytest.mark.parametrize("form", ["kl", "ce"])
def test_t_squared_is_of_the_student(form):
  run = lambda t, scale: distill(STUDENT, 5.0, t, scale, form, a=FIRST)
  np.testing.assert_allclose(run(3.0, "t_squared"), 9 * run(3.0, "none"), rtol=1e-6)
  np.testing.assert_allclose(run(1.0, "t_squared"), run(1.0, "none"))


def test_the_mean_of_cross_entropies_is_the_cross_entropy_of_the_mean():
  one, other = (distill(STUDENT, 2.0, 2.0, form="ce", a=z) for z in (FIRST, SECOND))
  both = distill(STUDENT, 2.0, 2.0, form="ce", a=FIRST, b=SECOND)
  np.testing.assert_allclose(both, (one + other) / 2, rtol=1e-5)
  # KL is not linear: what is missing is the teachers' divergence from each other, which no student changes.
  gap = lambda z: (distill(z, a=FIRST) + distill(z, b=SECOND)) / 2 - distill(z, a=FIRST, b=SECOND)
  assert np.min(gap(STUDENT)) > 1e-3
  np.testing.assert_allclose(gap(STUDENT), gap(-STUDENT), rtol=1e-3, atol=1e-5)


def test_the_mean_is_of_probabilities_not_of_logits():
  mean_logits = distill(STUDENT, a=(FIRST + SECOND) / 2)
  assert np.abs(distill(STUDENT, a=FIRST, b=SECOND) - mean_logits).max() > 0.01


@pytest.mark.parametrize("form", ["kl", "ce"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_extreme_logits(form, dtype):
  # Rows: equal, opposite, and impossible classes of which the teacher says nothing.
  teacher = jnp.array([[1e4, -1e4, 0, 0], [1e4, -1e4, 0, 0], [0.0, -jnp.inf, -jnp.inf, 0.0]], dtype)
  student = jnp.array([[1e4, -1e4, 0, 0], [-1e4, 1e4, 0, 0], [0.0, -jnp.inf, -jnp.inf, 0.0]], dtype)
  run = lambda z: distill(z, form=form, targets=ONE_HOT[:3], a=teacher)
  large = float(jnp.asarray(1e4, dtype))
  entropy = {"kl": 0.0, "ce": np.log(2)}[form]
  np.testing.assert_allclose(run(student), [0, 2 * large, entropy], rtol=1e-6, atol=1e-6)
  assert run(student).dtype == jnp.float32
  np.testing.assert_allclose(
    gradient(run, student).astype(jnp.float32), [[0, 0, 0, 0], [-1, 1, 0, 0], [0, 0, 0, 0]], atol=1e-6
  )
  assert np.isposinf(distill(student[2:], targets=ONE_HOT[:1], a=jnp.zeros((1, K)))[0])  # excluded what is taught


def test_nothing_flows_into_the_teacher():
  run = lambda teacher: distill(STUDENT, 2.0, a=teacher).sum()
  assert not np.any(jax.grad(run)(FIRST))
  targets = lambda teacher: DistillationTargets(("a",))(context(None, a=teacher), ONE_HOT)[:, 0].sum()
  assert not np.any(jax.grad(targets)(FIRST))


def test_targets_and_cross_entropy_are_the_loss_with_a_plain_student():
  targets = DistillationTargets(("a", "b"), temperature=3.0)(context(None, a=FIRST, b=SECOND), ONE_HOT)
  np.testing.assert_allclose(targets.sum(axis=-1), 1, rtol=1e-6)
  expected = distill(STUDENT, 3.0, 1.0, form="ce", a=FIRST, b=SECOND)
  np.testing.assert_allclose(cross_entropy(STUDENT, targets), expected, rtol=1e-5)


def test_hard_weight_mixes_and_one_changes_no_bit():
  ctx = context(None, a=FIRST)
  soft = DistillationTargets(("a",))(ctx, ONE_HOT)
  np.testing.assert_allclose(soft, jax.nn.softmax(FIRST), rtol=1e-6)
  mixed = jax.jit(lambda w: DistillationTargets(("a",), hard_weight=w)(ctx, ONE_HOT))
  np.testing.assert_allclose(mixed(0.3), 0.3 * ONE_HOT + 0.7 * soft, rtol=1e-5)
  np.testing.assert_array_equal(mixed(1.0), ONE_HOT)


def test_the_order_says_what_is_smoothed():
  ctx = context(None, a=FIRST)
  smooth, teach = LabelSmoothing(0.2, "uniform"), DistillationTargets(("a",), hard_weight=0.5)
  teacher = jax.nn.softmax(FIRST)
  before = teach(ctx, smooth(ctx, ONE_HOT))
  np.testing.assert_allclose(before, 0.5 * (0.8 * ONE_HOT + 0.2 / K) + 0.5 * teacher, rtol=1e-5)
  after = smooth(ctx, teach(ctx, ONE_HOT))
  np.testing.assert_allclose(after, 0.8 * (0.5 * ONE_HOT + 0.5 * teacher) + 0.2 / K, rtol=1e-5)


def test_sequences_keep_ignored_positions_out():
  targets = jax.nn.one_hot(jnp.array([[0, 1, -1], [2, -1, -1]]), K)
  student, teacher = (jnp.stack([z[:2], z[2:4], z[3:5]], axis=1) for z in (STUDENT, FIRST))
  made = DistillationTargets(("a",))(context(None, targets, a=teacher), targets)
  np.testing.assert_allclose(made.sum(axis=-1), [[1, 1, 0], [1, 0, 0]], rtol=1e-6)
  alone = np.stack([distill(student[:, t], targets=ONE_HOT[:2], a=teacher[:, t]) for t in range(3)], axis=1)
  expected = [(alone[0, 0] + alone[0, 1]) / 2, alone[1, 0]]
  np.testing.assert_allclose(distill(student, targets=targets, a=teacher), expected, rtol=1e-5)


@pytest.mark.parametrize("make", [
  lambda ctx: DistillationTargets(("a",))(ctx, ctx.targets),
  lambda ctx: Distillation(("a",), 1.0, 1.0, "none").apply((), ctx),
], ids=["targets", "loss"])
@pytest.mark.parametrize("teachers, sentence", [
  ({"b": FIRST, "ab": FIRST}, r"reads the reference 'a'; did you mean 'ab'\? \(known: ab, b\)"),
  ({}, r"reads the reference 'a'; known: none"),
  ({"a": jnp.zeros((B, K + 1))}, r"config\.references\.a\.model makes predictions \(5, 5\).*with 4 classes"),
  ({"a": jnp.zeros((B, 3, K))}, r"config\.references\.a\.model.*one prediction for each example"),
])
def test_a_teacher_that_does_not_fit(make, teachers, sentence):
  with pytest.raises(UserError, match=sentence):
    make(context(STUDENT, **teachers))


def test_a_teacher_of_sequences_is_asked_of_sequences():
  targets = jnp.zeros((B, 3, K))
  with pytest.raises(UserError, match=r"makes predictions \(5, 4\).* \(5, 3, 4\).*one prediction for each position"):
    DistillationTargets(("a",))(context(None, targets, a=FIRST), targets)


@pytest.mark.parametrize("fields, sentence", [
  ({"teachers": ()}, "at least one label"),
  ({"teacher_temperature": 0.0}, "teacher_temperature is 0.0; give a number above 0"),
  ({"student_temperature": -1.0}, "student_temperature is -1.0"),
  ({"form": "mse"}, "one of 'kl', 'ce'"),
])
def test_fields_out_of_range(fields, sentence):
  config = {
    "name": "kd", "teachers": ("a",), "teacher_temperature": 1.0, "student_temperature": 1.0, "scale": "none", **fields,
  }
  with pytest.raises(UserError, match=sentence):
    build({"kd": Distillation}, config, path="config.losses.kd")
