"""Contracts of probes."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import pytest

from nurture.core import Network, Outputs
from nurture.data.tasks import Generation, Pairs, Regression
from nurture.probes import ProbeSpec
from nurture.testing import class_spec
from tests.contracts.laws import assert_close, assert_finite, assert_maps, assert_pure, shapes
from tests.contracts.rows import configs, label, made, tasks_of

N, D, K = 7, 3, 4


def apply(variables, x):
  logits = x @ variables["params"]["dense"]["kernel"]
  return Outputs(logits, {"000_dense": logits})


def loss(variables, batch):
  log_p = jax.nn.log_softmax(apply(variables, batch["image"]).logits)
  values = -jnp.sum(jax.nn.one_hot(batch["label"], K) * log_p, axis=-1)
  return jnp.sum(values * batch["weight"]) / jnp.sum(batch["weight"])


class Linear:
  """A module whose deployed form is itself, with twice the logits."""

  def __init__(self, factor=1.0):
    self.factor = factor

  def apply(self, variables, x):
    return Outputs(self.factor * apply(variables, x).logits, {})

  def deployed(self):
    return Linear(2.0)

  def to_deploy(self, variables, *, force=False):
    assert force
    return variables


def references(batch):
  return {"guide": apply({"params": {"dense": {"kernel": jnp.eye(D, K) + 0.5}}}, batch["image"])}


NETWORK = Network(
  model=Linear(),
  initial=lambda: jax.tree.map(lambda leaf: 0.5 * leaf + 0.1, VARIABLES),
  inputs=lambda batch: batch["image"],
  apply=apply,
  loss=loss,
  terms=lambda variables, batch: {"a": loss(variables, batch), "b": jnp.sum(variables["params"]["dense"]["kernel"])},
  references=references,
  loss_states={
    "elr": {"targets": 0.9 * jax.random.dirichlet(jax.random.key(5), jnp.ones(K), (N,)), "missing": jnp.full(N, 0.1)},
    "events": {
      "presented": jnp.arange(N), "correct": jnp.arange(N) % 2 == 0, "learned": jnp.arange(N) % 3 == 0,
      "forgotten": jnp.arange(N) % 2,
    },
  },
)
PREFIX = 3  # tokens of a sequence that are given


def of_pairs(variables, x):
  z = apply(variables, x).logits
  return Outputs(z @ z.T, {})


def of_tokens(variables, tokens):
  """Reads everything up to a token, so that what is written matters for what follows."""
  read = jnp.cumsum(jax.nn.one_hot(tokens % D, D), axis=1)
  return apply(variables, jnp.sin(read))


# What a network and data of other tasks have otherwise: label of the examples, and how they are read.
OF_TASK = {
  "regression": ({"label": lambda index: jnp.sin(index[:, None] * (1.0 + jnp.arange(K))[None])}, {}),
  "pairs": ({}, {"apply": of_pairs}),
  "generation": (
    {"tokens": lambda index: (index[:, None] + jnp.arange(6)[None]) % K,
     "label": lambda index: jnp.where(
       jnp.arange(6)[None] < PREFIX - 1, -1, (index[:, None] + 1 + jnp.arange(6)[None]) % K
     )},
    {"apply": of_tokens, "inputs": lambda batch: batch["tokens"]},
  ),
}
SPECS = {
  "regression": Regression(tuple("abcd"), (0.5,) * K, (2.0,) * K), "pairs": Pairs(),
  "generation": Generation(tuple("abcd")),
}
# Unbiased sums of a batch need several examples, and their mean over batches depends on the cut.
WHOLE = ("Representation",)
VARIABLES = {"params": {"dense": {"kernel": jax.random.normal(jax.random.key(0), (D, K))}}, "batch_stats": {}}


def spec(batch_size, task="classification"):
  """The same N examples in pieces of any size, the last padded with rows that must not count."""

  def batches(split, limit):
    index = jnp.arange(-(-N // batch_size) * batch_size)
    real = index < N
    # Padding is hostile: large inputs and wrong labels.
    image = jnp.where(real[:, None], jnp.sin(1.0 + 3 * index[:, None] + jnp.arange(D)[None]), 100.0)
    rows = {
      "image": image, "label": index % K, "true_label": jnp.where(index % 3 == 0, (index + 1) % K, index % K),
      "id": jnp.where(real, index, -1), "weight": real.astype(jnp.float32),
    }
    rows |= {field: make(index) for field, make in OF_TASK.get(task, ({}, {}))[0].items()}
    cut = lambda start: jax.tree.map(lambda values: values[start : start + batch_size], rows)
    return [cut(start) for start in range(0, len(index), batch_size)]

  data = class_spec(N, K, (D,), batch_size)
  return ProbeSpec(dataclasses.replace(data, task=SPECS.get(task, data.task)), batches, Linear())


def network(task):
  """Returns the network that is measured in a task."""
  return NETWORK._replace(task=SPECS.get(task), **OF_TASK.get(task, ({}, {}))[1])


def task_of(config):
  """Returns a task that a row serves."""
  return next(task for task in ("classification", *OF_TASK) if task in tasks_of("probes", config))


def check(probe, task="classification"):
  """Pieces are alike, calls are pure and map over members, and results do not depend on how the data are cut."""
  results = []
  for batch_size in (7, 10) if type(probe).__name__ in WHOLE else (2, 7, 10):
    pieces = probe.prepare(spec(batch_size, task), jax.random.key(0))
    assert pieces and all(shapes(piece) == shapes(pieces[0]) for piece in pieces)
    run = functools.partial(probe, network(task))
    sums = [jax.jit(run)(VARIABLES, piece) for piece in pieces]
    results.append(probe.finish(functools.reduce(lambda a, b: jax.tree.map(jnp.add, a, b), sums)))
  assert_pure(run, VARIABLES, pieces[0])
  assert_pure(probe.finish, sums[0])
  assert_maps(lambda variables: probe.finish(run(variables, pieces[0])), VARIABLES, tolerance=1e-4)
  half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), VARIABLES)
  assert_finite((results, probe.finish(jax.jit(run)(half, pieces[0]))))
  for result in results:
    assert isinstance(result, dict) and result
    assert all(isinstance(name, str) and value.ndim <= 1 and value.size < 100 for name, value in result.items())
    assert_close(result, results[0], tolerance=1e-5)


@pytest.mark.parametrize("config", configs("probes"), ids=label)
def test_probes(config):
  check(made("probes", config), task_of(config))


class Twin:
  """The mean of the first logit, with one mistake of choice."""

  def __init__(self, mistake=""):
    self.mistake, self.calls = mistake, 0

  def prepare(self, spec, key):
    batches = spec.batches("train", 0)
    if self.mistake == "pieces differ":
      batches[-1] = jax.tree.map(lambda v: v[:1], batches[-1])
    return batches

  def __call__(self, net, variables, piece):
    logits = net.apply(variables, net.inputs(piece)).logits[:, 0]
    weight = jnp.ones_like(logits) if self.mistake == "padding counts" else piece["weight"]
    if self.mistake == "mean of means":
      return {"sum": jnp.sum(logits * weight) / jnp.sum(weight), "count": jnp.float32(1)}
    self.calls += 1
    if self.mistake == "hidden state":
      weight = weight * self.calls
    return {"sum": jnp.sum(logits * weight), "count": jnp.sum(weight)}

  def finish(self, sums):
    value = sums["sum"] / sums["count"]
    if self.mistake == "not a dict":
      return value
    if self.mistake == "leaves the device":
      return {"mean": jnp.float32(float(value))}
    return {"mean": jnp.full((3, 3), value) if self.mistake == "too large" else value}


def test_a_right_probe_passes():
  check(Twin())


@pytest.mark.parametrize("mistake", [
  "padding counts", "mean of means", "pieces differ", "hidden state", "not a dict", "too large", "leaves the device",
])
def test_a_wrong_probe_is_caught(mistake):
  with pytest.raises((AssertionError, jax.errors.ConcretizationTypeError)):
    check(Twin(mistake))
