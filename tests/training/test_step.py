"""One training step of a linear network, against the same step computed by hand in float64."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lib.core import rng, trees
from lib.training import step as steps
from lib.transforms.gradients import GRADIENTS
from lib.transforms.losses import LOSSES
from lib.transforms.optimizers import build_optimizer
from lib.transforms.parameters import PARAMETERS
from lib.transforms.targets import TARGETS
from tests.linear import BATCH, ROOT, Call, D, K, by_hand, close, make_parts, norm, term, update


def test_three_updates_with_two_terms_schedules_momentum_and_an_average_are_those_by_hand():
  rate = {"name": "piecewise_constant_schedule", "init_value": 0.5, "boundaries": (2,), "scales": (0.1,)}
  ramp = {"name": "step_ramp", "steps": 4}
  parts = make_parts(
    losses={"ce": term(LOSSES["cross_entropy"](), 0.7), "mse": term(LOSSES["mse"](), ramp)},
    targets={"smooth": TARGETS["label_smoothing"](0.2, "uniform")},
    optimizer=build_optimizer({"name": "sgd", "learning_rate": rate, "momentum": 0.9}),
    parameters={"average": PARAMETERS["ema"](0.5)},
  )
  state = steps.init(parts, ROOT)
  params = {name: np.asarray(leaf, np.float64) for name, leaf in state.variables["params"].items()}
  trace = jax.tree.map(np.zeros_like, params)
  past = []
  for t in range(3):
    state, metrics = update(parts, state)
    values, gradient = by_hand(params, BATCH, {"ce": 0.7, "mse": t / 4}, smoothing=0.2)
    trace = jax.tree.map(lambda m, g: 0.9 * m + g, trace, gradient)
    params = jax.tree.map(lambda p, m, lr=(0.5, 0.5, 0.05)[t]: p - lr * m, params, trace)
    past.append(params)
    assert sorted(metrics) == ["gradient_norm", "loss", "loss/ce", "loss/mse"]
    close({n: metrics[f"loss/{n}"] for n in values}, values)
    np.testing.assert_allclose(metrics["loss"], 0.7 * values["ce"] + t / 4 * values["mse"], rtol=2e-6)
    np.testing.assert_allclose(metrics["gradient_norm"], norm(gradient), rtol=2e-6)
    close(state.variables["params"], params)
  assert state.step == 3 and state.died_at == -1
  # The average of the three with weights 1/4, 1/2, 1.
  average = jax.tree.map(lambda a, b, c: (a / 4 + b / 2 + c) / 1.75, *past)
  close(state.parameter_states["average"]["average"], average)


def test_the_order_of_gradient_links_counts_and_each_has_its_own_noise():
  clip, noise = GRADIENTS["clip_by_global_norm"](0.1), GRADIENTS["annealed_noise"](0.04, 0.5)
  start = steps.init(make_parts(), ROOT)
  start = dataclasses.replace(start, step=jnp.int32(3))
  before = start.variables["params"]
  _, gradient = by_hand(before, BATCH, {"ce": 1.0})
  assert norm(gradient) > 0.2  # or clipping would do nothing

  def noise_of(label):
    z = np.asarray(rng.counter_normal(rng.stream(ROOT, f"gradients.{label}", 3), K + D * K), np.float64)
    z *= np.sqrt(0.04 / 4**0.5)
    return {"bias": z[:K], "kernel": z[K:].reshape(D, K)}

  clipped = lambda tree: jax.tree.map(lambda leaf: leaf * min(1.0, 0.1 / norm(tree)), tree)
  added = lambda tree, label: jax.tree.map(np.add, tree, noise_of(label))
  cases = {
    "clip, noise": ({"clip": clip, "noise": noise}, added(clipped(gradient), "noise")),
    "noise, clip": ({"noise": noise, "clip": clip}, clipped(added(gradient, "noise"))),
    "two noises": ({"a": noise, "b": noise}, added(added(gradient, "a"), "b")),
  }
  for links, expected in cases.values():
    parts = make_parts(gradients=links)
    start = dataclasses.replace(start, opt_state=steps.init(parts, ROOT).opt_state)
    after, metrics = update(parts, start)
    taken = jax.tree.map(lambda a, b: np.asarray(a, np.float64) - np.asarray(b), before, after.variables["params"])
    close(taken, expected, 1e-6)
    np.testing.assert_allclose(metrics["gradient_norm"], norm(gradient), rtol=2e-6)  # before all links


def test_links_the_optimizer_and_parameter_transforms_are_told_what_they_may_read():
  told = {}

  def link(label):
    def told_update(updates, state, params=None, **extra):
      told[label] = {"params": params, **extra}
      return jax.tree.map(lambda leaf: 2 * leaf, updates), state + 1
    return optax.GradientTransformationExtraArgs(lambda params: jnp.int32(0), told_update)

  @dataclasses.dataclass(frozen=True)
  class Halve:
    def init(self, params):
      return jnp.float32(7.0)

    def apply(self, state, params, step):
      told["halve"] = {"state": state, "params": params, "step": step}
      return jax.tree.map(lambda leaf: leaf / 2, params), state + 1

  parts = make_parts(gradients={"link": link("link")}, optimizer=link("optimizer"),
                     parameters={"halve": Halve(), "again": Halve()})
  start = dataclasses.replace(steps.init(parts, ROOT), step=jnp.int32(4))
  before = start.variables["params"]
  after, metrics = steps.update(parts, start, BATCH, ROOT, {})
  _, gradient = by_hand(before, BATCH, {"ce": 1.0})
  for label in ("link", "optimizer"):
    close(told[label]["params"], before)
    assert told[label]["value"] == metrics["loss"]
  assert told["link"]["step"] == 4 and "key" in told["link"]
  # The optimizer adds four times the gradient; each parameter transform halves what it is given, in order.
  moved = jax.tree.map(lambda p, g: np.asarray(p, np.float64) + 4 * g, before, gradient)
  close(told["halve"]["params"], jax.tree.map(lambda leaf: leaf / 2, moved))
  close(after.variables["params"], jax.tree.map(lambda leaf: leaf / 4, moved))
  assert told["halve"]["step"] == 4 and told["halve"]["state"] == 7
  assert after.parameter_states == {"halve": 8.0, "again": 8.0}
  assert after.opt_state == {"gradients": {"link": 1}, "optimizer": 1}


def test_targets_are_made_in_the_order_written_from_the_ones_before():
  smooth = TARGETS["label_smoothing"](0.5, "uniform")
  sharpen = Call(lambda ctx, targets: jnp.square(targets) / jnp.sum(jnp.square(targets), axis=-1, keepdims=True))
  seen = {}

  def see(ctx, targets):
    seen.setdefault("targets", []).append(ctx.targets)
    return targets

  y = np.eye(K)[np.asarray(BATCH["label"])]
  spread = lambda t: 0.5 * t + 0.5 / K
  sharp = lambda t: t**2 / (t**2).sum(axis=1, keepdims=True)
  for order, expected in (
    ({"smooth": smooth, "see": Call(see), "sharpen": sharpen}, sharp(spread(y))),
    ({"sharpen": sharpen, "see": Call(see), "smooth": smooth}, spread(sharp(y))),
  ):
    parts = make_parts(targets=order)
    context = steps.make_context(parts, steps.init(parts, ROOT), BATCH, ROOT, {}, train=True)
    np.testing.assert_allclose(context.targets, expected, rtol=1e-6)
  np.testing.assert_allclose(seen["targets"], [spread(y), y], rtol=1e-6)  # a transform also reads those so far


@pytest.mark.parametrize("kept", [(0, 2), (1, 2, 3)])
def test_a_padded_example_counts_in_nothing(kept):
  padded = {**BATCH, "weight": jnp.zeros(4).at[jnp.asarray(kept)].set(1.0)}
  fewer = {name: leaf[jnp.asarray(kept)] for name, leaf in BATCH.items()}
  parts = make_parts(losses={"ce": term(LOSSES["cross_entropy"]()), "mse": term(LOSSES["mse"](), 0.5),
                             "size": term(lambda ctx: jnp.float32(3.0), 2.0)})
  start = steps.init(parts, ROOT)
  after, metrics = update(parts, start, padded)
  values, gradient = by_hand(start.variables["params"], fewer, {"ce": 1.0, "mse": 0.5})
  close({name: metrics[f"loss/{name}"] for name in values}, values)
  assert metrics["loss/size"] == 3  # a term of one value for the whole batch is taken as it is
  np.testing.assert_allclose(metrics["loss"], values["ce"] + 0.5 * values["mse"] + 6, rtol=2e-6)
  expected = jax.tree.map(lambda p, g: np.asarray(p, np.float64) - g, dict(start.variables["params"]), gradient)
  close(after.variables["params"], expected)
  terms = steps.evaluation_terms(parts, start, start.variables, padded, ROOT, {})
  close(terms, {"ce": values["ce"], "mse": 0.5 * values["mse"], "size": 6.0})


@pytest.mark.parametrize("how", ["loss", "gradient", "loss alone"])
def test_a_member_that_leaves_the_finite_numbers_stands_still_from_that_step_on(how):
  if how == "loss":
    term_ = steps.WeightedTerm(LOSSES["cross_entropy"](), lambda step: jnp.where(step == 2, jnp.inf, 1.0))
  elif how == "loss alone":
    term_ = term(lambda ctx: jnp.where(ctx.step == 2, jnp.inf, 0.0) + jnp.mean(jnp.square(ctx.outputs.logits)))
  else:  # the loss stays finite, and only its slope does not
    length = lambda ctx: jnp.sqrt(jnp.where(ctx.step == 2, 0.0, 1.0) * jnp.sum(jnp.square(ctx.outputs.logits)))
    term_ = term(length)
  parts = make_parts(losses={"term": term_}, gradients={"noise": GRADIENTS["annealed_noise"](0.01)},
                     optimizer=build_optimizer({"name": "sgd", "learning_rate": 0.01, "momentum": 0.9}),
                     parameters={"average": PARAMETERS["ema"](0.5)})
  states = [steps.init(parts, ROOT)]
  take = jax.jit(lambda state: steps.update(parts, state, BATCH, ROOT, {}))
  finite = []
  for _ in range(5):
    state, metrics = take(states[-1])
    states.append(state)
    finite.append(bool(np.isfinite(metrics["loss"])))
  assert [int(state.step) for state in states] == [0, 1, 2, 3, 4, 5]
  assert [int(state.died_at) for state in states] == [-1, -1, -1, 2, 2, 2]
  assert finite == [True, True, how == "gradient", True, True]
  for state in states[3:]:
    for name in ("variables", "opt_state"):
      jax.tree.map(np.testing.assert_array_equal, getattr(state, name), getattr(states[2], name))
  assert trees.digest(states[2].variables) != trees.digest(states[1].variables)


def test_what_is_not_at_work_is_logged_as_zero_and_its_state_waits():
  both = make_parts(losses={"ce": term(LOSSES["cross_entropy"]()), "late": term(lambda ctx: jnp.float32(1.0))},
                    gradients={"noise": GRADIENTS["annealed_noise"](0.01)})
  alone = make_parts()
  start = steps.init(both, ROOT)
  waited, metrics = update(alone, start)
  assert metrics["loss/late"] == 0 and metrics["loss/ce"] == metrics["loss"]
  assert waited.loss_states["late"] == 0 and update(both, start)[0].loss_states["late"] == 1
  assert jax.tree.structure(waited) == jax.tree.structure(start)
  assert sorted(update(alone, steps.init(alone, ROOT))[1]) == ["gradient_norm", "loss"]  # one term is the loss
<<<<<<< HEAD


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
  assert steps.input_dtype(parts.spec) == jnp.float32
  assert steps.input_dtype(dataclasses.replace(parts.spec, input_name="tokens")) == jnp.int32


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


@pytest.mark.parametrize(("changes", "first"), [
  ({"losses": {"ce": steps.WeightedTerm(LOSSES["cross_entropy"](), lambda step: jnp.float32(jnp.nan))}},
   "weight of the loss term ce"),
  ({"losses": {"ce": term(LOSSES["mse"](), 3e38), "more": term(lambda ctx: jnp.float32(9.0), 3e38)}},
   "loss term more times its weight"),
  ({"losses": {"ce": term(lambda ctx: jnp.log(-jnp.ones(4)))}}, "loss term ce"),
  ({"targets": {"bad": Call(lambda ctx, targets: targets / 0)}}, "targets"),
  ({"preprocess": Preprocess("image", lambda x: jnp.log(x), {})}, "image"),
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
  ((4, K), (4, 3), r"predictions \(4, 4\) \(one for each example\), but the data have labels \(4, 3, 4\) \(one for "
                   r"each position\)"),
  ((4, 3, K), (4,), r"predictions \(4, 3, 4\) \(one for each position\), but the data have labels \(4, 4\) \(one for "
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
=======
>>>>>>> w-mutants
