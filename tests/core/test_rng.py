"""Derived keys, and the counter-based normal generator against the distribution it claims."""

import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from nurture.core import rng

N = 200_000


def test_streams_are_functions_of_seed_name_and_step(key):
  data = lambda *args: tuple(np.asarray(jax.random.key_data(rng.stream(*args))))
  keys = [data(key, name, step) for name in ("init", "order", "noise") for step in (None, 0, 1, 2)]
  assert len(set(keys)) == len(keys)
  assert data(key, "noise", 2) == data(jax.random.key(0), "noise", jnp.int32(2))


@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_counter_normal_is_standard_normal(seed):
  z = np.asarray(rng.counter_normal(jax.random.key(seed), N), np.float64)
  assert stats.kstest(z, "norm").pvalue > 1e-4
  assert abs(z.mean()) < 5 / np.sqrt(N)
  assert abs(z.var() - 1) < 5 * np.sqrt(2 / N)
  assert abs(stats.kurtosis(z)) < 5 * np.sqrt(24 / N)
  assert np.isfinite(z).all() and np.abs(z).max() < 5.5


def test_counter_normal_has_no_serial_correlation(key):
  z = np.asarray(rng.counter_normal(key, N), np.float64)
  for values in (z, np.abs(z)):  # a generator may hide its structure in the magnitudes
    values = (values - values.mean()) / values.std()
    for lag in (1, 2, 3, 50, 256, 784):
      assert abs(np.mean(values[lag:] * values[:-lag])) < 5 / np.sqrt(N)


def test_counter_normal_of_neighbouring_keys_is_uncorrelated(key):
  at = lambda step: np.asarray(rng.counter_normal(rng.stream(key, "noise", step), N), np.float64)
  for a, b in ((0, 1), (1, 2), (7, 1000)):
    assert abs(np.corrcoef(at(a), at(b))[0, 1]) < 5 / np.sqrt(N)


def test_counter_bits_are_balanced_in_every_position(key):
  bits = np.asarray(rng.counter_bits(key, N))
  ones = np.array([((bits >> i) & 1).mean() for i in range(32)])
  assert np.abs(ones - 0.5).max() < 5 * 0.5 / np.sqrt(N)
  assert len(np.unique(bits)) > N * (1 - N / 2**32)  # about N^2 / 2^33 collisions, as random numbers have


def test_a_weak_mixer_is_caught(key, monkeypatch):
  monkeypatch.setattr(rng, "mix", lambda h: h * np.uint32(2654435761))
  z = np.asarray(rng.counter_normal(key, N), np.float64)
  assert max(abs(np.corrcoef(z[lag:], z[:-lag])[0, 1]) for lag in (1, 2, 3, 50, 256, 784)) > 5 / np.sqrt(N)


def test_prefixes_agree_and_vmap_equals_a_loop(key):
  keys = jax.random.split(key, 3)
  together = jax.vmap(lambda k: rng.counter_normal(k, 64))(keys)
  for i in range(3):
    np.testing.assert_array_equal(together[i], rng.counter_normal(keys[i], 64))
    np.testing.assert_array_equal(rng.counter_bits(keys[i], 10), rng.counter_bits(keys[i], 64)[:10])


def lowbias32(x):
  """The mixer in plain integers, as it is published."""
  x ^= x >> 16
  x = x * 0x7FEB352D % 2**32
  x ^= x >> 15
  x = x * 0x846CA68B % 2**32
  return x ^ x >> 16


def test_bits_are_those_of_the_mixer_keyed_twice(key):
  numbers = [0, 1, 2, 0xFFFFFFFF, 0x12345678, 0x80000000]
  assert np.asarray(rng.mix(jnp.asarray(numbers, jnp.uint32))).tolist() == [lowbias32(n) for n in numbers]
  first, second = (int(word) for word in jax.random.key_data(key)[-2:])
  expected = [lowbias32(lowbias32((i + first) % 2**32) ^ second) for i in range(5)]
  assert np.asarray(rng.counter_bits(key, 5)).tolist() == expected
  bits = lambda words: rng.counter_bits(jax.random.wrap_key_data(jnp.asarray(words, jnp.uint32)), 100)
  drawn = {int(n) for words in ([0, 0], [0, 1], [700, 0], [700, 1]) for n in bits(words)}
  assert len(drawn) > 390  # both words of a key matter


def test_normal_numbers_are_the_quantiles_of_their_cells(key, monkeypatch):
  cells = np.asarray([0, 1, 2**22 - 1, 2**22, 2**23 - 2, 2**23 - 1], np.uint32)
  monkeypatch.setattr(rng, "counter_bits", lambda key, size: jnp.asarray(cells) << 9)
  z = np.asarray(rng.counter_normal(key, 6))
  np.testing.assert_array_equal(z, -z[::-1])  # symmetric to the last bit
  np.testing.assert_allclose(z, stats.norm.ppf((cells.astype(np.float64) + 0.5) / 2**23), rtol=2e-6)


def test_a_stream_is_the_key_folded_with_the_checksum_of_its_name_and_the_step(key):
  data = lambda k: np.asarray(jax.random.key_data(k)).tolist()
  folded = jax.random.fold_in(key, np.uint32(zlib.crc32(b"losses.ce")))
  assert data(rng.stream(key, "losses.ce")) == data(folded)
  assert data(rng.stream(key, "losses.ce", 0)) == data(jax.random.fold_in(folded, 0)) != data(folded)
