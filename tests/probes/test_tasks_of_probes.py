"""Probes of numbers, of pairs and of what a network writes, beside second implementations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

from nurture.core import Network, Outputs, UserError
from nurture.data.tasks import Generation, Pairs, Regression
from nurture.probes import PROBES, ProbeSpec
from nurture.testing import class_spec


def measured(probe, network, batches):
  """Returns a probe's result over batches of examples."""
  pieces = probe.prepare(ProbeSpec(class_spec(99, 2, (1,), 4), lambda split, limit: batches), jax.random.key(0))
  sums = [jax.jit(lambda piece: probe(network, {}, piece))(piece) for piece in pieces]
  return {name: float(v) for name, v in probe.finish(jax.tree.map(lambda *s: sum(s), *sums)).items()}


def network(apply, task, inputs):
  return Network(None, inputs, lambda variables, x: Outputs(apply(x), {}), None, task=task)


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_errors_of_numbers_are_those_of_scikit_learn_in_the_unit_of_the_labels(offset):
  rng = np.random.default_rng(0)
  label = (rng.normal(size=(11, 2)) * [1, 20] + offset).astype(np.float32)
  task = Regression(("x", "y")).standardized(label[:7])
  x = (label - np.float32(task.mean)) / np.float32(task.std) + rng.normal(size=(11, 2)).astype(np.float32)
  fields = {"x": x, "label": label}
  cut = lambda rows, weight: {k: jnp.asarray(v[rows]) for k, v in fields.items()} | {"weight": jnp.asarray(weight)}
  batches = [cut(slice(0, 6), np.ones(6)), cut([6, 7, 8, 9, 10, 0], np.float32([1, 1, 1, 1, 1, 0]))]
  result = measured(PROBES["regression_error"](), network(lambda x: x, task, lambda batch: batch["x"]), batches)
  predicted = x * np.float32(task.std) + np.float32(task.mean)
  assert result["rmse"] == pytest.approx(mean_squared_error(label, predicted) ** 0.5, rel=1e-4)
  assert result["mae"] == pytest.approx(mean_absolute_error(label, predicted), rel=1e-4)
  assert result["r2"] == pytest.approx(r2_score(label, predicted), abs=1e-3)


@pytest.mark.parametrize("error, r2", [(0.0, 1.0), (1.0, 0.0)])
def test_labels_that_do_not_vary(error, r2):
  batch = {"x": jnp.full((4, 1), 3.0 + error), "label": jnp.full((4, 1), 3.0), "weight": jnp.ones(4)}
  result = measured(
    PROBES["regression_error"](), network(lambda x: x, Regression(("x",)), lambda batch: batch["x"]), [batch]
  )
  assert result["r2"] == r2 and result["rmse"] == error


def test_recall_counts_those_who_find_one_of_theirs():
  s = jnp.array([[3.0, 2, 1, 0], [5, 4, 0, 0], [0, 1, 0, 2], [9, 0, 0, 1]])
  batch = {"label": jnp.array([0, 1, 0, 2]), "weight": jnp.ones(4), "id": jnp.arange(4)}
  result = measured(PROBES["recall"](k=(1, 2)), network(lambda x: s, Pairs(), lambda batch: batch["id"]), [batch])
  # Rows: 0 finds itself; 1 finds 0 first, then itself; 2 finds 3, 1, then its own; 3 finds 0, then itself.
  assert result == {"at_1": 0.25, "at_2": 0.75, "reverse_at_1": 0.5, "reverse_at_2": 0.75}


def test_recall_of_what_is_not_a_number_finds_nothing():
  batch = {"label": jnp.arange(4), "weight": jnp.ones(4), "id": jnp.arange(4)}
  nan = network(lambda x: jnp.full((4, 4), jnp.nan), Pairs(), lambda batch: batch["id"])
  assert set(measured(PROBES["recall"](k=(1, 4)), nan, [batch]).values()) == {0.0}
  with pytest.raises(UserError, match="looks at 5 of 4 examples; lower its k or raise its limit"):
    measured(PROBES["recall"](k=(5,)), nan, [batch])


def counting(tokens):
  """A network that says the token after the one that it reads, but takes 3 for 3 again."""
  return jax.nn.one_hot(jnp.where(tokens == 3, 3, (tokens + 1) % 6), 6)


def test_what_is_written_is_read_again_and_an_error_spreads():
  tokens = jnp.array([[0, 1, 2, 3, 4], [4, 5, 0, 1, 2]])
  label = jnp.array([[-1, 2, 3, 4, 5], [-1, 0, 1, 2, 3]])
  batch = {"tokens": tokens, "label": label, "weight": jnp.ones(2)}
  reader = network(counting, Generation(tuple("012345")), lambda batch: batch["tokens"])
  # The first writes 2, 3, then 3 for ever, of four; the second is right. Behind the right tokens only one is wrong.
  assert measured(PROBES["writing"](), reader, [batch]) == {"accuracy": 0.75, "exact": 0.5}
  assert measured(PROBES["accuracy"]("test"), reader, [batch])["accuracy"] == 0.875
  padded = {field: jnp.concatenate([values, values[:1]]) for field, values in batch.items()}
  padded["weight"] = jnp.array([1.0, 1.0, 0.0])
  assert measured(PROBES["writing"](), reader, [padded]) == {"accuracy": 0.75, "exact": 0.5}


def test_the_answer_in_the_input_is_not_read():
  """What stands in the input where the network writes changes nothing."""
  tokens, label = jnp.array([[0, 1, 2, 3, 4]]), jnp.array([[-1, 2, 3, 4, 5]])
  reader = network(counting, Generation(tuple("012345")), lambda batch: batch["tokens"])
  of = lambda tokens: measured(PROBES["writing"](), reader, [{"tokens": tokens, "label": label, "weight": jnp.ones(1)}])
  assert of(tokens) == of(tokens.at[0, 2:].set(0)) != of(tokens.at[0, 1].set(0))
