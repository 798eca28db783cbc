"""Every epoch is a permutation, and the permutations look uniform."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from nurture.core import UserError
from nurture.data import epoch_order_index as plain_index
from nurture.data import order

# Compiled once a shape: uncompiled, each call builds the loop of the cycle walk again.
epoch_order_index = jax.jit(plain_index, static_argnums=(2, 3))
permute = jax.jit(order.permute, static_argnums=2)
_SIZES = [1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 31, 64, 97, 100, 101, 256, 257, 1000, 1024, 1437, 60_000, 65_537]


def _permutations(key, n, count):
  """[count, n]: one permutation for each of `count` keys."""
  keys = jax.random.split(key, count)
  return np.asarray(jax.jit(jax.vmap(lambda k: permute(k, jnp.arange(n), n)))(keys))


@pytest.mark.parametrize("n", _SIZES)
def test_permute_is_a_permutation(key, n):
  for seed in range(3):
    image = permute(jax.random.fold_in(key, seed), jnp.arange(n), n)
    np.testing.assert_array_equal(np.sort(image), np.arange(n))


def test_the_largest_sets_do_not_overflow(key):
  n = 2**31 - 1
  position = jnp.concatenate([jnp.arange(1000), n - 1 - jnp.arange(1000)]).astype(jnp.int32)
  image = np.asarray(permute(key, position, n))
  assert len(np.unique(image)) == 2000 and image.min() >= 0 and image.max() < n
  assert scipy.stats.kstest(image / n, "uniform").pvalue > 1e-3


@pytest.mark.parametrize("n, batch_size", [(10, 3), (10, 10), (7, 1), (64, 16), (1, 1)])
def test_an_epoch_draws_without_replacement_and_drops_the_remainder(key, n, batch_size):
  per_epoch = n // batch_size
  for epoch in range(3):
    steps = range(epoch * per_epoch, (epoch + 1) * per_epoch)
    seen = np.concatenate([epoch_order_index(key, step, n, batch_size) for step in steps])
    assert seen.dtype == np.int32 and seen.min() >= 0 and seen.max() < n
    assert len(np.unique(seen)) == len(seen) == per_epoch * batch_size


def test_epochs_and_keys_have_their_own_orders(key):
  orders = [epoch_order_index(key, step, 100, 100) for step in range(4)]
  orders += [epoch_order_index(jax.random.key(seed), 0, 100, 100) for seed in (1, 2)]
  for a, b in itertools.combinations(orders, 2):
    assert np.sum(np.asarray(a) == np.asarray(b)) < 8  # Poisson(1) positions agree by chance


def test_the_remainder_is_another_one_each_epoch(key):
  seen = [set(np.asarray(epoch_order_index(key, step, 10, 9)).tolist()) for step in range(60)]
  assert set.union(*(set(range(10)) - s for s in seen)) == set(range(10))


def _uniform(counts, bound=1e-4):
  assert scipy.stats.chisquare(counts).pvalue > bound


@pytest.mark.parametrize("n", [3, 4, 5])
def test_all_orders_of_a_small_set_are_equally_likely(key, n):
  permutations = _permutations(key, n, 24_000)
  code = permutations @ n ** np.arange(n)
  counts = np.unique(code, return_counts=True)[1]
  assert len(counts) == math.factorial(n)
  _uniform(counts)


@pytest.mark.parametrize("n", [10, 16, 37])
def test_each_position_holds_each_example_equally_often(key, n):
  permutations = _permutations(key, n, 20_000)
  for position in (0, 1, n // 2, n - 1):
    _uniform(np.bincount(permutations[:, position], minlength=n))


@pytest.mark.parametrize("n", [8, 13])
def test_pairs_of_positions_are_uniform_over_pairs_of_examples(key, n):
  permutations = _permutations(key, n, 40_000)
  for i, j in ((0, 1), (0, n - 1), (2, 5)):
    counts = np.bincount(permutations[:, i] * n + permutations[:, j], minlength=n * n).reshape(n, n)
    assert np.all(np.diag(counts) == 0)
    _uniform(counts[~np.eye(n, dtype=bool)])


def test_neighbours_in_one_long_order_are_not_correlated(key):
  n = 50_000
  image = np.asarray(permute(key, jnp.arange(n), n)) / n
  for lag in (1, 2, 223, 224, 225):  # 224 = ceil(sqrt(n)) is the side of the network's rectangle
    correlation = np.corrcoef(image[:-lag], image[lag:])[0, 1]
    assert abs(correlation) < 4.5 / math.sqrt(n)
    _uniform(np.histogram((image[lag:] - image[:-lag]) % 1.0, bins=50, range=(0, 1))[0])
  cells = np.histogram2d(np.arange(n) / n, image, bins=20)[0]
  _uniform(cells.ravel())


def test_vmap_over_members_and_steps_equals_the_loop(key):
  keys = jax.random.split(key, 3)
  steps = jnp.arange(9)
  index = lambda k, s: epoch_order_index(k, s, 23, 5)
  batched = jax.jit(jax.vmap(jax.vmap(index, (None, 0)), (0, None)))(keys, steps)
  loop = np.stack([np.stack([index(k, int(s)) for s in steps]) for k in keys])
  np.testing.assert_array_equal(batched, loop)


def test_the_cost_does_not_depend_on_the_size_of_the_set(key):
  cost = lambda n: epoch_order_index.lower(key, 0, n, 8).compile().memory_analysis()
  assert cost(2**30 - 3).temp_size_in_bytes <= cost(1000).temp_size_in_bytes + 4096


@pytest.mark.parametrize("batch_size", [11, 0])
def test_an_impossible_batch_size_is_one_sentence(key, batch_size):
  with pytest.raises(UserError, match=f"batch_size is {batch_size}, but the training split has 10 examples"):
    epoch_order_index(key, 0, 10, batch_size)
