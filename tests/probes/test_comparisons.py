"""Probes that compare: the terms of a loss with each other, and a network with a reference."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nurture import training
from nurture.core import Network, Outputs, UserError
from nurture.probes.agreement import Agreement
from nurture.probes.representation import Representation
from nurture.probes.term_gradients import TermGradients
from nurture.similarity import linear_cka
from tests.tiny import tiny_config

N, D, K = 24, 5, 3
X = jax.random.normal(jax.random.key(0), (N, D))
KERNEL = jax.random.normal(jax.random.key(1), (D, K))


def network(**fields):
  apply = lambda variables, x: Outputs(x @ variables["params"]["w"], {"000_dense": x @ variables["params"]["w"]})
  standard = dict.fromkeys(Network._fields, None) | {"inputs": lambda batch: batch["image"], "apply": apply}
  return Network(**standard | fields)


def measured(probe, net, pieces):
  sums = [probe(net, {"params": {"w": KERNEL}}, piece) for piece in pieces]
  return probe.finish(functools.reduce(lambda a, b: jax.tree.map(jnp.add, a, b), sums))


def pieces_of(size, **fields):
  """Examples in batches of one size, the last padded with rows that must not count."""
  index = np.arange(-(-N // size) * size)
  rows = {"image": jnp.where((index < N)[:, None], X[index % N], 50.0), "weight": jnp.float32(index < N)}
  rows |= {name: jnp.asarray(values)[index % N] for name, values in fields.items()}
  return [jax.tree.map(lambda leaf, i=i: leaf[i : i + size], rows) for i in range(0, len(index), size)]


def test_norms_and_cosines_of_gradients():
  a, b = jax.random.normal(jax.random.key(2), (2, D, K))
  terms = lambda variables, batch: {
    "a": jnp.vdot(a, variables["params"]["w"]), "b": jnp.vdot(b, variables["params"]["w"]),
    "opposite": -2 * jnp.vdot(a, variables["params"]["w"]), "none": jnp.float32(0),
  }
  result = measured(TermGradients(), network(terms=terms), pieces_of(8))
  np.testing.assert_allclose(result["norm/a"], jnp.linalg.norm(a), rtol=1e-5)
  np.testing.assert_allclose(result["norm/opposite"], 2 * jnp.linalg.norm(a), rtol=1e-5)
  cosine = jnp.vdot(a, b) / jnp.linalg.norm(a) / jnp.linalg.norm(b)
  np.testing.assert_allclose(result["cosine/a.b"], cosine, rtol=1e-4)
  np.testing.assert_allclose(result["cosine/a.opposite"], -1, rtol=1e-5)
  assert result["norm/none"] == 0 and result["cosine/a.none"] == 0


def test_gradients_are_averaged_over_examples_of_unequal_batches():
  terms = lambda variables, batch: {
    "ce": jnp.sum(batch["weight"] * (batch["image"] @ variables["params"]["w"])[:, 0]) / jnp.sum(batch["weight"])
  }
  expected = jnp.linalg.norm(X.mean(axis=0))
  for size in (6, 7, 24):
    np.testing.assert_allclose(measured(TermGradients(), network(terms=terms), pieces_of(size))["norm/ce"], expected,
                               rtol=1e-4)


def test_representation_is_debiased_cka_whatever_the_padding():
  guide = jax.random.normal(jax.random.key(3), (D, 7)) + 1
  references = lambda batch: {"guide": Outputs(None, {"000_dense": batch["image"] @ guide})}
  probe = Representation("guide", taps="all", reference_taps="all")
  expected = linear_cka(X @ guide, X @ KERNEL, debiased=True)
  for size in (24, 30):
    result = measured(probe, network(references=references), pieces_of(size))
    np.testing.assert_allclose(result["000_dense~000_dense"], expected, atol=1e-5)
    np.testing.assert_allclose(result["mean"], expected, atol=1e-5)
  itself = lambda batch: {"guide": Outputs(None, {"000_dense": batch["image"] @ KERNEL})}
  np.testing.assert_allclose(measured(probe, network(references=itself), pieces_of(8))["mean"], 1, atol=1e-5)


def test_agreement():
  label = np.asarray(jnp.argmax(X @ KERNEL, axis=-1))
  wrong = (label + 1) % K
  mixed = np.where(np.arange(N) % 2, label, wrong)  # the network is right on every second example
  hot = lambda classes: jnp.asarray(np.eye(K)[classes])

  def run(reference, truth):
    references = lambda batch: {"guide": Outputs(batch["theirs"], {})}
    pieces = pieces_of(7, label=truth, theirs=hot(reference))
    return measured(Agreement("guide"), network(references=references), pieces)

  same = run(label, mixed)
  np.testing.assert_allclose(same["error_consistency"], 1, rtol=1e-5)
  np.testing.assert_allclose(same["same_prediction"], 1)
  np.testing.assert_allclose(same["reference_accuracy"], 0.5)
  opposite = run(np.where(np.arange(N) % 2, wrong, mixed), mixed)  # right where the network is wrong
  np.testing.assert_allclose(opposite["error_consistency"], -1, rtol=1e-5)
  assert run(label, label)["error_consistency"] == 0  # both always right: not defined
  independent = np.where(np.arange(N) // 2 % 2, mixed, (mixed + 1) % K)  # right on every second pair of examples
  np.testing.assert_allclose(run(independent, mixed)["error_consistency"], 0, atol=1e-6)


@pytest.mark.parametrize("probe", [
  {"name": "agreement", "reference": "teacher"}, {"name": "representation", "reference": "teacher"},
], ids=lambda probe: probe["name"])
def test_a_missing_reference_is_named(probe, tmp_path):
  with pytest.raises(UserError, match=f"{probe['name']}' reads the reference 'teacher'; .*known: guide"):
    training.run(
      tiny_config(references={"guide": {"model": {"name": "mlp", "depth": 1, "width": 4}}},
                  probes={"compare": probe | {"every": 0}}), tmp_path / "run")


def test_a_guided_run_logs_every_pair_and_the_ratio_of_its_gradients(tmp_path):
  model = {"name": "mlp", "depth": 2, "width": 8}
  results = training.run(tiny_config(
    model=model, references={"guide": {"model": model | {"width": 6}, "cache": "pre"}},
    losses={"ce": {"name": "cross_entropy", "weight": 1.0},
            "guide": {"name": "guidance", "reference": "guide", "weight": 0.5}},
    probes={
      "similarity": {"name": "representation", "reference": "guide", "split": "test", "every": 6},
      "terms": {"name": "term_gradients", "split": "train", "limit": 32, "every": 6},
      "agreement": {"name": "agreement", "reference": "guide", "every": 0},
    },
  ), tmp_path / "run")
  metrics = results["members"][0]["metrics"]
  assert {"similarity/000_dense~000_dense", "similarity/002_dense~002_dense", "similarity/mean"} <= set(metrics)
  assert metrics["terms/norm/guide"] > 0 and -1 <= metrics["terms/cosine/ce.guide"] <= 1
  assert -1 <= metrics["agreement/error_consistency"] <= 1
