"""Random keys that are derived, never carried, and a normal generator that is cheap enough for every step.

A key is a pure function of (seed, stream name, step), so nothing random is part of a checkpoint, adding a
consumer never shifts another one's numbers, and any step can be computed again by itself.
"""

from __future__ import annotations

import zlib

import jax
import jax.numpy as jnp
import numpy as np


def stream(root: jax.Array, name: str, step: jax.Array | int | None = None) -> jax.Array:
  """Returns the key of a named stream, at one step if given: fold_in(fold_in(root, crc32(name)), step)."""
  key = jax.random.fold_in(root, np.uint32(zlib.crc32(name.encode())))
  return key if step is None else jax.random.fold_in(key, step)


def counter_bits(key: jax.Array, size: int) -> jax.Array:
  """Returns [size] uint32 hash values of 0..size-1 under a key.

  Each counter goes twice through a 32-bit avalanche mixer (xor-shift-multiply, with the constants that
  C. Wellons found by search, "lowbias32"), keyed by one key word before and one between. About ten
  integer operations a number against threefry's hundred, and small enough to fuse into its consumer. For noise, not for
  cryptography; use jax.random where a draw decides an experiment's design.
  """
  words = jax.random.key_data(key).ravel()
  counter = jnp.arange(size, dtype=jnp.uint32)
  return mix(mix(counter + words[-2]) ^ words[-1])


def counter_normal(key: jax.Array, size: int) -> jax.Array:
  """Returns [size] float32 standard normal numbers from `counter_bits`, by inversion of the distribution.

  The 2^23 levels of the uniform bound |z| by 5.3; like jax.random.normal's, whose bound is the same order.
  """
  mantissa = (counter_bits(key, size) >> 9) | np.uint32(0x3F800000)
  uniform = jax.lax.bitcast_convert_type(mantissa, jnp.float32) - 1.0  # [0, 1) in steps of 2^-23
  # The centre of each of the 2^23 cells, on (-1, 1): symmetric, and never +-1, where the inverse is infinite.
  return np.float32(np.sqrt(2.0)) * jax.lax.erf_inv(2.0 * uniform - np.float32(1.0 - 2.0**-23))


def mix(h: jax.Array) -> jax.Array:
  """Returns uint32 values scrambled one by one: a bijection of 32 bits in which every bit moves half the others."""
  h = (h ^ (h >> 16)) * np.uint32(0x7FEB352D)
  h = (h ^ (h >> 15)) * np.uint32(0x846CA68B)
  return h ^ (h >> 16)
