"""ELR+: whose predictions become whose targets, mixed how; and a run with all its pieces."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.elr import elr_plus_cifar10, elr_plus_cifar100
from nurture import training
from nurture.core import Context, Outputs, UserError, build
from nurture.testing import class_spec
from nurture.training import member_variables
from nurture.transforms.losses import LOSSES
from tests.tiny import tiny_config

B, K, N = 4, 3, 9
SPEC = class_spec(num_examples=N, num_classes=K, input_shape=(2,), batch_size=B)
IDS = jnp.array([7, 0, 3, 8])


def pair_outputs(key):
  first, second = jax.random.normal(key, (2, B, K))
  return Outputs((first + second) / 2, {"000_first.logits": first, "001_second.logits": second})


def context(key, **batch):
  k1, k2 = jax.random.split(key)
  return Context(
    jnp.int32(0), key, {"id": IDS, "weight": jnp.ones(B)} | batch, jnp.ones((B, K)) / K, pair_outputs(k1),
    {"average": pair_outputs(k2)}, jnp.float32(0),
  )


def softmax(z):
  e = np.exp(np.float64(z) - np.float64(z).max(axis=-1, keepdims=True))
  return e / e.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("multiply_labels", [False, True])
def test_each_network_learns_from_the_average_of_the_other(key, multiply_labels):
  """A second implementation, over two visits, with mixed inputs."""
  term = build(LOSSES, {"name": "elr_plus", "lam": 2.0, "beta": 0.6, "multiply_labels": multiply_labels})
  memory, expected_memory, apply = term.init(SPEC), np.zeros((2, N, K)), jax.jit(term.apply)
  index, weight = jnp.array([1, 2, 3, 0]), np.float32([0.8, 0.5, 1.0, 0.25])
  for visit in range(2):
    ctx = context(jax.random.fold_in(key, visit), mix_index=index, mix_weight=jnp.asarray(weight))
    value, memory = apply(memory, ctx)
    expected = np.zeros(B)
    for k in range(2):
      other = softmax(list(ctx.references["average"].taps.values())[1 - k])
      for row, i in enumerate(np.asarray(IDS)):
        expected_memory[k, i] = 0.6 * expected_memory[k, i] + 0.4 * other[row]
      t = expected_memory[k, np.asarray(IDS)]
      q = weight[:, None] * t + (1 - weight)[:, None] * t[np.asarray(index)]
      p = softmax(list(ctx.outputs.taps.values())[k])
      expected += 2.0 * np.log(1 - np.sum(p * q, axis=-1))
      if multiply_labels:  # of uniform labels the memory itself is left
        expected -= np.sum(q / q.sum(axis=-1, keepdims=True) * np.log(p), axis=-1)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for k, name in enumerate(("first", "second")):
      np.testing.assert_allclose(memory[name]["targets"], expected_memory[k], rtol=1e-5)


def labelled(labels, logits, averaged, step=0):
  """A context of one example; logits and averaged logits are (of the first network, of the second)."""
  outputs = lambda pair: Outputs(sum(pair) / 2, dict(zip(("000_first.logits", "001_second.logits"), pair)))
  rows = lambda pair: tuple(jnp.float32([row]) for row in pair)
  return Context(
    jnp.int32(step), jax.random.key(0), {"id": IDS[:1], "weight": jnp.ones(1)}, jnp.float32([labels]),
    outputs(rows(logits)), {"average": outputs(rows(averaged))}, jnp.float32(0),
  )


@pytest.mark.parametrize("ramp, step, strength", [(0, 5, 2.0), (10, 5, 2 * np.exp(-5 / 4)), (10, 99, 2.0)])
def test_multiplied_labels_by_hand(ramp, step, strength):
  """Labels (3, 1, 0) / 4; the memory of the first network (1, 3, 1) / 5 makes them (1, 1, 0) / 2, that of the second
  (2, 1, 1) / 4 makes them (6, 1, 0) / 7."""
  first, second = np.log([1 / 4, 1 / 4, 1 / 2]), np.log([1 / 2, 1 / 4, 1 / 4])
  averaged = np.log([2 / 4, 1 / 4, 1 / 4]), np.log([1 / 5, 3 / 5, 1 / 5])  # each the targets of the other
  term = build(LOSSES, {"name": "elr_plus", "lam": 2.0, "beta": 0.0, "multiply_labels": True, "ramp_steps": ramp})
  value, _ = jax.jit(term.apply)(term.init(SPEC), labelled((0.75, 0.25, 0.0), (first, second), averaged, step))
  np.testing.assert_allclose(
    value, [np.log(4) + 8 / 7 * np.log(2) + strength * (np.log(1 - 0.3) + np.log(1 - 0.375))], rtol=1e-5
  )


def test_certain_predictions_leave_the_value_finite():
  """Both networks and both memories are sure of class 0: each adds λ log(1 - (1 - 1e-4))."""
  term, sure = build(LOSSES, {"name": "elr_plus", "lam": 2.0, "beta": 0.0}), (1e4, 0.0, 0.0)
  value, _ = term.apply(term.init(SPEC), labelled((1.0, 0.0, 0.0), (sure, sure), (sure, sure)))
  np.testing.assert_allclose(value, [4 * np.log(1e-4)], rtol=1e-3)


def test_a_label_that_the_memory_excludes_stays():
  term = build(LOSSES, {"name": "elr_plus", "lam": 0.0, "beta": 0.0, "multiply_labels": True})
  certain = (-1e4, 1e4, -1e4)
  ctx = labelled((1.0, 0.0, 0.0), ((0.0, 0.0, 0.0),) * 2, (certain, certain))
  run = lambda outputs: term.apply(term.init(SPEC), dataclasses.replace(ctx, outputs=outputs))[0].sum()
  value, gradient = jax.jit(jax.value_and_grad(run))(ctx.outputs)
  np.testing.assert_allclose(value, 2 * np.log(3), rtol=1e-6)
  for by_logits in gradient.taps.values():
    np.testing.assert_allclose(by_logits, [[-2 / 3, 1 / 3, 1 / 3]], rtol=1e-5)


def test_no_gradient_reaches_the_averaged_networks_or_the_targets(key):
  term, ctx = build(LOSSES, {"name": "elr_plus"}), context(key)

  def total(averaged, logits):
    outputs = lambda pair: Outputs(pair.mean(axis=0), {"000_first.logits": pair[0], "001_second.logits": pair[1]})
    return term.apply(
      term.init(SPEC), dataclasses.replace(ctx, outputs=outputs(logits), references={"average": outputs(averaged)})
    )[0].sum()

  pairs = jax.random.normal(key, (2, 2, B, K))
  by_average, by_logits = jax.grad(total, argnums=(0, 1))(pairs[0], pairs[1])
  assert not np.any(by_average) and np.all(np.any(by_logits, axis=-1))


def test_members_are_trained_by_the_sum_of_their_cross_entropies(key):
  ctx = context(key)
  of = lambda which: build(LOSSES, {"name": "cross_entropy", "of": which}).apply((), ctx)[0]
  alone = [
    build(LOSSES, "cross_entropy").apply((), dataclasses.replace(ctx, outputs=Outputs(logits, {})))[0]
    for logits in ctx.outputs.taps.values()
  ]
  np.testing.assert_allclose(of("members"), alone[0] + alone[1], rtol=1e-6)
  assert np.all(of("members") > 2 * of("logits"))  # the cross-entropy of a mean of logits is another thing


def test_the_settings_of_the_paper():
  ten, hundred = (module.get_config().losses.to_dict() for module in (elr_plus_cifar10, elr_plus_cifar100))
  fields = ("lam", "beta", "multiply_labels", "ramp_steps")
  assert [ten["elr"].get(field) for field in fields] == [3.0, 0.7, None, None] and ten["ce"]["of"] == "members"
  assert [hundred["elr"][field] for field in fields] == [7.0, 0.9, True, 40_000]
  assert set(hundred) == {"elr"}, "the cross-entropy would count twice"


def config(**changes):
  return tiny_config(
    model={"name": "pair", "model": {"name": "mlp", "depth": 1, "width": 8, "norm": "batch"}},
    data__augment={"mix": {"name": "mixup", "alpha": 1.0, "symmetric": False}},
    references={"average": {"model": {}, "parameters": "average", "view": "unmixed", "batch_norm": "batch"}},
    losses={
      "ce": {"name": "cross_entropy", "of": "members", "weight": 1.0}, "elr": {"name": "elr_plus", "weight": 1.0},
    },
    **changes,
  )


def test_a_run_with_all_its_pieces(tmp_path):
  results = training.run(config(), tmp_path / "run")
  assert np.isfinite(results["members"][0]["metrics"]["loss"])
  params = member_variables(tmp_path / "run", 0)["params"]
  first, second = params["first"], params["second"]
  assert jax.tree.structure(first) == jax.tree.structure(second)
  assert not any(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second)) if a.ndim == 2)


def test_a_ramp_of_less_than_no_steps_is_refused():
  with pytest.raises(UserError, match="ramp_steps is -1; give a whole number of at least 0"):
    build(LOSSES, {"name": "elr_plus", "ramp_steps": -1})


@pytest.mark.parametrize("changes, words", [
  ({"references": {}}, "ELR. reads the reference 'average'.*with the averaged parameters of the pair"),
  ({"model": {"name": "mlp", "depth": 1, "width": 8}}, "ELR. trains two networks, but config.model is one"),
])
def test_mistakes_are_sentences(changes, words, tmp_path):
  broken = config() | changes
  if "model" in changes:
    broken["losses"] = broken["losses"] | {"ce": {"name": "cross_entropy", "weight": 1.0}}
  with pytest.raises(UserError, match=words):
    training.run(broken, tmp_path / "run")


def test_members_of_one_network_are_refused(tmp_path):
  one = {"ce": {"name": "cross_entropy", "of": "members", "weight": 1.0}}
  with pytest.raises(UserError, match="cross-entropy of 'members' needs a model of several networks"):
    training.run(tiny_config(losses=one), tmp_path / "run")
