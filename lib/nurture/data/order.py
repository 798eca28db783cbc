"""The order of the training examples as a function of (key, step): no iterator, no array of n indices."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from nurture.core import UserError
from nurture.core.rng import mix

_ROUNDS = 12


def epoch_order_index(key: jax.Array, step: jax.Array | int, num_examples: int, batch_size: int) -> jax.Array:
  """Returns the positions in the training split of the batch at `step`, [B] int32.

  Each epoch has num_examples // batch_size steps, draws without replacement, drops the remainder (other
  examples each time) and has an order of its own. Costs O(B): no permutation of n is ever made.

  Args:
    key: decides the orders of all epochs.
    step: number of updates already made; may be traced. vmap over steps and keys for many at once.
    num_examples: n, length of the training split.
    batch_size: B.

  Raises:
    UserError: if a batch is larger than the split.
  """
  if not 1 <= batch_size <= num_examples:
    raise UserError(f"batch_size is {batch_size}, but the training split has {num_examples} examples; give 1 to that.")
  steps_per_epoch = num_examples // batch_size
  step = jnp.asarray(step, jnp.int32)
  position = step % steps_per_epoch * batch_size + jnp.arange(batch_size, dtype=jnp.int32)
  return permute(jax.random.fold_in(key, step // steps_per_epoch), position, num_examples)


def permute(key: jax.Array, position: jax.Array, n: int) -> jax.Array:
  """Returns the images of positions in [0, n) under the keyed permutation of [0, n), int32 of the same shape.

  A generalized Feistel network on the a x b rectangle with a = ceil(sqrt n), b = ceil(n / a), x = a h + l:

      l <- l + F_i(h) mod a    and    h <- h + F_i(l) mod b    in turn,

  F_i a 32-bit mixer with the round's own key, taken modulo a (or b). An image outside [0, n) goes through
  again until it is inside (cycle walking). As ab < n + a, that happens to fewer than one in sqrt(n) positions;
  for the next power of two it could be every second one, and a vector of them waits for its slowest.

  Differs from the papers: 12 rounds of a fast mixer instead of a cipher: for sampling, not for secrets.

  Reference: Black & Rogaway 2002, "Ciphers with arbitrary finite domains", sections 4-5; Mitchell et al. 2021,
    arXiv:2106.06161, for permutations by bijections on accelerators.
  """
  a = math.isqrt(n - 1) + 1 if n > 1 else 1
  b = -(-n // a)
  round_keys = jax.random.bits(key, (_ROUNDS,), jnp.uint32)

  def network(x):
    low, high = x % a, x // a
    for i in range(0, _ROUNDS, 2):
      low = (low + mix(high + round_keys[i]) % a) % a
      high = (high + mix(low + round_keys[i + 1]) % b) % b
    return a * high + low

  # uint32 throughout: a and b are below 2^16, so no sum or product overflows.
  x = network(position.astype(jnp.uint32))
  x = jax.lax.while_loop(lambda x: jnp.any(x >= n), lambda x: jnp.where(x >= n, network(x), x), x)
  return x.astype(jnp.int32)
