"""One training step of a linear network, against the same step computed by hand in float64."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nurture.core import rng, trees
from nurture.training import step as steps
from nurture.transforms.gradients import GRADIENTS
from nurture.transforms.losses import LOSSES
from nurture.transforms.optimizers import build_optimizer
from nurture.transforms.parameters import PARAMETERS
from nurture.transforms.targets import TARGETS
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
