"""Readers of a step and of an evaluation: keys, contexts, schedules, references."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from nurture.core import Outputs, UserError, rng, trees
from nurture.core.schedules import as_schedule
from nurture.data import AUGMENTATIONS, Preprocess
from nurture.training import step as steps
from nurture.transforms.gradients import GRADIENTS
from nurture.transforms.losses import LOSSES
from nurture.transforms.optimizers import build_optimizer
from nurture.transforms.parameters import PARAMETERS
from tests.linear import BATCH, ROOT, Call, D, K, by_hand, close, make_parts, norm, term, update


def test_evaluation_weighs_by_the_schedules_of_its_step_and_moves_nothing():
  parts = make_parts(losses={"ce": term(LOSSES["cross_entropy"](), {"name": "step_ramp", "steps": 4})},
                     scheduled={"shift": as_schedule({"name": "step_ramp", "steps": 8}, path="shift")})
  state = dataclasses.replace(steps.init(parts, ROOT), step=jnp.int32(3))
  other = jax.tree.map(lambda leaf: leaf + 0.25, state.variables)
  values, _ = by_hand(other["params"], BATCH, {"ce": 1.0})  # a shift of all logits alike changes no cross-entropy
  close(steps.evaluation_terms(parts, state, other, BATCH, ROOT, {}), {"ce": 0.75 * values["ce"]})
  logits = steps.evaluate(parts, state, other, BATCH["image"]).logits
  unshifted = np.asarray(BATCH["image"]) @ np.asarray(other["params"]["kernel"]) + np.asarray(other["params"]["bias"])
  np.testing.assert_allclose(logits, unshifted + 3 / 8, rtol=1e-5, atol=1e-6)
  after, _ = update(parts, state)
  assert state.variables["counts"]["calls"] == 0 and after.variables["counts"]["calls"] == 1


def test_training_uses_what_is_scheduled_as_it_stands_at_the_step():
  parts = make_parts(losses={"mean": term(lambda ctx: jnp.mean(ctx.outputs.logits, axis=-1))},
                     scheduled={"shift": as_schedule({"name": "step_ramp", "steps": 8}, path="shift")})
  start = steps.init(parts, ROOT)
  losses = [float(update(parts, dataclasses.replace(start, step=jnp.int32(t)))[1]["loss"]) for t in (0, 2, 8)]
  np.testing.assert_allclose(np.subtract(losses, losses[0]), [0, 0.25, 1], atol=1e-6)


def test_every_reader_has_a_key_of_its_own_and_another_at_every_step():
  seen = {}

  def note(name, key):
    seen.setdefault(name, []).append(tuple(np.asarray(jax.random.key_data(key)).tolist()))

  @dataclasses.dataclass(frozen=True)
  class Augmentation:
    stage = "before"

    def __call__(self, key, batch):
      note("augment", key)
      return batch

  class Dropping(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
      if train:
        note("dropout", self.make_rng("dropout"))
      return Outputs(nn.Dense(K)(x), {})

  class Guide:
    def outputs(self, parts, state, loaded, batch, key, *, train):
      note("reference", key)
      return Outputs(jnp.zeros((4, K)), {})

  def link_update(updates, state, params=None, *, key, **extra):
    note("gradient", key)
    return updates, state

  def target(ctx, targets):
    note("target", ctx.key)
    return targets

  def loss(ctx):
    note("loss", ctx.key)
    return jnp.mean(ctx.outputs.logits, axis=-1)

  parts = make_parts(
    preprocess=Preprocess({"image": lambda x: x}, {"shift": Augmentation()}),
    model=Dropping(),
    references={"a": Guide(), "b": Guide()},
    targets={"a": Call(target), "b": Call(target)},
    losses={"a": term(loss), "b": term(loss)},
    gradients={label: optax.GradientTransformationExtraArgs(lambda p: (), link_update) for label in ("a", "b")},
  )
  state = steps.init(parts, ROOT)
  for _ in range(2):
    state, _ = steps.update(parts, state, BATCH, ROOT, {"a": None, "b": None})
  counts = {"augment": 1, "dropout": 1, "reference": 2, "target": 2, "loss": 2, "gradient": 2}
  assert {name: len(keys) for name, keys in seen.items()} == {name: 2 * n for name, n in counts.items()}
  keys = [key for keys in seen.values() for key in keys]
  assert len(set(keys)) == len(keys)
  data = lambda name, step: tuple(np.asarray(jax.random.key_data(rng.stream(ROOT, name, step))).tolist())
  assert seen["loss"] == [data(f"losses.{label}", step) for step in (0, 1) for label in ("a", "b")]
  assert seen["target"] == [data(f"targets.{label}", step) for step in (0, 1) for label in ("a", "b")]
  assert seen["reference"] == [data(f"references.{label}", step) for step in (0, 1) for label in ("a", "b")]


def test_a_reference_is_told_whether_it_is_training_and_nothing_flows_back_into_it():
  told = []

  class Guide:
    def outputs(self, parts, state, loaded, batch, key, *, train):
      told.append((loaded, train))
      return Outputs(batch["image"] @ state.variables["params"]["kernel"], {})

  distance = lambda ctx: jnp.mean(jnp.square(ctx.outputs.logits - ctx.references["guide"].logits), axis=-1)
  parts = make_parts(references={"guide": Guide()}, losses={"distance": term(distance)})
  start = steps.init(parts, ROOT)
  after, metrics = steps.update(parts, start, BATCH, ROOT, {"guide": "its variables"})
  steps.evaluation_terms(parts, start, start.variables, BATCH, ROOT, {"guide": "its variables"})
  assert told == [("its variables", True), ("its variables", False)]
  # The distance is the bias alone, but the slope is that of a constant guide: x^T 2b/K as well.
  bias = np.asarray(start.variables["params"]["bias"], np.float64)
  slope = 2 * np.broadcast_to(bias, (4, K)) / K / 4
  gradient = {"kernel": np.asarray(BATCH["image"], np.float64).T @ slope, "bias": slope.sum(axis=0)}
  np.testing.assert_allclose(metrics["gradient_norm"], norm(gradient), rtol=2e-6)
  moved = jax.tree.map(lambda a, b: np.asarray(a, np.float64) - np.asarray(b),
                       dict(start.variables["params"]), dict(after.variables["params"]))
  close(moved, gradient)


def test_the_context_has_the_share_that_is_done_and_no_target_where_none_is_asked():
  seen = []
  parts = make_parts(losses={"see": term(lambda ctx: (seen.append(ctx), jnp.mean(ctx.outputs.logits, axis=-1))[1])})
  state = dataclasses.replace(steps.init(parts, ROOT), step=jnp.int32(4))
  batch = {**BATCH, "label": jnp.asarray([2, -1, 0, 3], jnp.int32)}
  steps.update(parts, state, batch, ROOT, {})
  np.testing.assert_array_equal(seen[0].targets, [[0, 0, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
  assert seen[0].step == 4 and seen[0].progress == np.float32(0.4) and seen[0].targets.dtype == jnp.float32
  np.testing.assert_array_equal(seen[0].batch["id"], batch["id"])


def test_the_state_before_the_first_step():
  parts = make_parts(losses={"count": term(lambda ctx: 0.0)}, parameters={"average": PARAMETERS["ema"](0.5)},
                     gradients={"clip": GRADIENTS["clip"](1.0)},
                     optimizer=build_optimizer({"name": "sgd", "learning_rate": 0.1, "momentum": 0.9}))
  state = steps.init(parts, ROOT)
  assert state.step == 0 and state.died_at == -1 and state.loss_states == {"count": 0.0}
  close(state.parameter_states["average"]["average"], dict(state.variables["params"]), 0)
  assert set(state.opt_state) == {"gradients", "optimizer"} and list(state.opt_state["gradients"]) == ["clip"]
  again = parts.model.init(rng.stream(ROOT, "init"), jnp.zeros((1, D)))
  assert trees.digest(again["params"]) == trees.digest(state.variables["params"])
  assert trees.digest(steps.init(parts, jax.random.key(6)).variables) != trees.digest(state.variables)


def test_what_a_step_computes_is_listed_in_the_order_of_the_data():
  parts = make_parts(losses={"ce": term(LOSSES["cross_entropy"]()), "mse": term(LOSSES["mse"](), 0.5)})
  state = steps.init(parts, ROOT)
  listed = steps.inspect(parts, state, BATCH, ROOT, {})
  assert [name for name, _ in listed] == [
    "image", "targets", "logits", "loss term ce", "loss term mse", "weight of the loss term ce",
    "weight of the loss term mse", "loss term ce times its weight", "loss term mse times its weight",
    "gradient of bias", "gradient of kernel",
  ]
  values, gradient = by_hand(state.variables["params"], BATCH, {"ce": 1.0, "mse": 0.5})
  found = dict(listed)
  close({name: found[f"loss term {name}"] for name in values}, values)
  close({name: found[f"gradient of {name}"] for name in gradient}, gradient)
  assert found["weight of the loss term mse"] == 0.5
  close({"mse": found["loss term mse times its weight"]}, {"mse": 0.5 * values["mse"]})


def test_targets_are_mixed_with_the_images_in_training_only_and_before_they_are_transformed():
  mixup = AUGMENTATIONS["mixup"](alpha=1.0, symmetric=True)
  parts = make_parts(
    preprocess=Preprocess({"image": lambda x: x}, {"mix": mixup}),
    targets={"first": Call(lambda ctx, targets: jnp.round(targets, 1))},
  )
  state = steps.init(parts, ROOT)
  mixed = parts.preprocess.train_batch(rng.stream(ROOT, "augment", 0), BATCH)
  one_hot, weight = jax.nn.one_hot(BATCH["label"], K), mixed["mix_weight"][:, None]
  expected = weight * one_hot + (1 - weight) * one_hot[mixed["mix_index"]]
  assert np.abs(expected - one_hot).max() > 0.1
  found = dict(steps.inspect(parts, state, BATCH, ROOT, {}))
  np.testing.assert_array_equal(found["image"], mixed["image"])
  np.testing.assert_allclose(found["targets"], np.round(expected, 1), atol=1e-6)
  evaluated = steps.evaluation_context(parts, state, BATCH, ROOT, {})
  np.testing.assert_array_equal(evaluated.targets, one_hot)


@pytest.mark.parametrize(("changes", "first"), [
  ({"losses": {"ce": steps.WeightedTerm(LOSSES["cross_entropy"](), lambda step: jnp.float32(jnp.nan))}},
   "weight of the loss term ce"),
  ({"losses": {"ce": term(LOSSES["mse"](), 3e38), "more": term(lambda ctx: jnp.float32(9.0), 3e38)}},
   "loss term more times its weight"),
  ({"losses": {"ce": term(lambda ctx: jnp.log(-jnp.ones(4)))}}, "loss term ce"),
  ({"targets": {"bad": Call(lambda ctx, targets: targets / 0)}}, "targets"),
  ({"preprocess": Preprocess({"image": lambda x: jnp.log(x)}, {})}, "image"),
])
def test_the_first_tensor_that_is_not_finite_is_the_one_at_fault(changes, first):
  parts = make_parts(**changes)
  listed = steps.inspect(parts, steps.init(parts, ROOT), BATCH, ROOT, {})
  assert next(name for name, value in listed if not np.isfinite(value).all()) == first


def test_a_reference_that_is_not_finite_is_blamed_and_the_term_that_reads_it_is_not():
  class Broken:
    def outputs(self, parts, state, loaded, batch, key, *, train):
      return Outputs(jnp.full((4, K), jnp.nan), {})

  reads = term(lambda ctx: jnp.mean(ctx.references["teacher"].logits, axis=-1))
  parts = make_parts(references={"teacher": Broken()}, losses={"kd": reads})
  listed = steps.inspect(parts, steps.init(parts, ROOT), BATCH, ROOT, {"teacher": {}})
  assert next(name for name, value in listed if not np.isfinite(value).all()) == "logits of the reference teacher"


@pytest.mark.parametrize(("value", "words"), [
  (lambda ctx: jnp.ones((4, 4)), r"config.losses.wrong gives values of shape \(4, 4\), .* each example, \(4,\)"),
  (lambda ctx: jnp.ones((4, 7)), r"gives values of shape \(4, 7\)"),
  (lambda ctx: jnp.ones((7,)), r"gives values of shape \(7,\)"),
  (lambda ctx: jnp.ones((1,)), r"gives values of shape \(1,\)"),
  (lambda ctx: jnp.ones((4, 1)), r"gives values of shape \(4, 1\)"),
  (lambda ctx: jnp.ones((4,), jnp.int32), "gives values of type int32"),
  (lambda ctx: jnp.ones((4,), bool), "gives values of type bool"),
])
def test_a_term_of_another_shape_or_type_is_refused_by_name(value, words):
  """One value a position, [B, T], would be multiplied by weights [B]: wrong numbers without a word where B = T."""
  parts = make_parts(losses={"ce": term(LOSSES["cross_entropy"]()), "wrong": term(value)})
  state = steps.init(parts, ROOT)
  with pytest.raises(UserError, match=words):
    steps.update(parts, state, BATCH, ROOT, {})
  with pytest.raises(UserError, match=words):
    steps.evaluation_terms(parts, state, state.variables, BATCH, ROOT, {})


@pytest.mark.parametrize(("logits", "label", "words"), [
  ((4, K), (4, 3), r"predictions \(4, 4\) \(one for each example\), but the data ask for \(4, 3, 4\) \(one for "
                   r"each position\)"),
  ((4, 3, K), (4,), r"predictions \(4, 3, 4\) \(one for each position\), but the data ask for \(4, 4\) \(one for "
                    r"each example\)"),
])
def test_predictions_of_another_shape_than_the_labels_are_refused(logits, label, words):
  class Other(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
      return Outputs(jnp.broadcast_to(self.param("b", nn.initializers.ones, ()), logits), {})

  parts = make_parts(model=Other())
  with pytest.raises(UserError, match=words):
    steps.update(parts, steps.init(parts, ROOT), {**BATCH, "label": jnp.zeros(label, jnp.int32)}, ROOT, {})
