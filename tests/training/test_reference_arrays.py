"""Outputs that are kept of a frozen network: their rows, how much memory it may take, and how many passes fill it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nurture.core import Outputs, UserError
from nurture.similarity import gram
from nurture.testing import class_spec
from nurture.training import references
from nurture.training.references import fill

SPEC = class_spec(num_examples=9, num_classes=2, input_shape=(3,), batch_size=2)
IDS = np.asarray([4, 1, 8, 3], np.int32)
X = np.asarray([[1.0, 0, 2], [0, 1, -1], [3, 1, 0], [-1, 2, 1]], np.float32)
VARIABLES = {"w": jnp.asarray([[1.0, 2.0], [0.0, 1.0], [-1.0, 0.5]])}


def apply(variables, x):
  hidden = x @ variables["w"]
  return Outputs(hidden + 1, {"000_dense": hidden, "001_relu": jax.nn.relu(hidden), "002_dense": hidden * 2})


def abstract(which, count=4):
  one = jax.ShapeDtypeStruct((1, 3), jnp.float32)
  return references.abstract(apply, VARIABLES, SPEC, one, count, which, "config.r")


@pytest.mark.parametrize("which", ["logits", "pre", "all", ("relu", "002_dense")])
@pytest.mark.parametrize("bytes_at_once", [1, 2 * 4 * 4 * 2, 4 * 2**30])
def test_rows_and_gram_matrices_are_those_of_the_examples_whatever_fits_at_once(which, bytes_at_once, monkeypatch):
  monkeypatch.setattr(references, "_AT_ONCE", bytes_at_once)
  arrays = fill(abstract(which), apply, [(IDS[:3], jnp.asarray(X[:3])), (IDS[3:], jnp.asarray(X[3:]))])
  assert jax.tree.structure(arrays) == jax.tree.structure(abstract(which))
  kinds = lambda tree: jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)
  assert kinds(arrays) == kinds(abstract(which))
  outputs = arrays.lookup(jnp.asarray([3, 4]))  # the last and the first of the split
  expected = apply(VARIABLES, jnp.asarray(X))
  np.testing.assert_allclose(outputs.logits, np.asarray(expected.logits)[[3, 0]], rtol=1e-6)
  assert list(outputs.taps) == list(arrays.taps) == {
    "logits": [], "pre": ["000_dense"], "all": ["000_dense", "001_relu", "002_dense"],
  }.get(which, ["001_relu", "002_dense"])
  for name, tap in outputs.taps.items():
    whole = gram(expected.taps[name]).values
    np.testing.assert_allclose(tap.values, np.asarray(whole)[np.ix_([3, 0], [3, 0])], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("bytes_at_once", "passes"), [(1, [0, 1, 1, 1]), (2 * 4 * 4 * 2, [0, 2, 1]), (2**40, [0, 3])])
def test_activations_are_read_in_as_few_passes_as_memory_takes(bytes_at_once, passes, monkeypatch):
  monkeypatch.setattr(references, "_AT_ONCE", bytes_at_once)
  read, flatten = [], references.flatten
  monkeypatch.setattr(references, "flatten", lambda x: (read.append(1), flatten(x))[1])
  counts = []

  def counting(variables, x):
    counts.append(len(read))
    return apply(variables, x)

  fill(abstract("all"), counting, [(IDS, jnp.asarray(X))])
  # The first call is abstract; each other one is a pass, in which its taps are flattened.
  assert np.diff([*counts[1:], len(read)]).tolist() == passes


def test_gram_matrices_of_more_than_eight_gib_are_refused():
  assert abstract("relu", count=46_340).grams.shape == (1, 46_340, 46_340)
  with pytest.raises(UserError, match=r"config\.r\.cache would keep 1 Gram matrices of 46341 examples, 8 GiB"):
    abstract("relu", count=46_341)
  with pytest.raises(UserError, match=r"keep 3 Gram matrices of 40000 examples, 18 GiB"):
    abstract("all", count=40_000)
  assert abstract("logits", count=10**9).grams.shape == (0, 1, 1)
