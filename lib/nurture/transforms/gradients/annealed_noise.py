"""Annealed Gaussian gradient noise."""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from nurture.core import UserError, rng, trees
from nurture.core.hints import NonNegative, Seed


class NoiseState(NamedTuple):
  """Updates made so far, [] int32, for a chain of optax that does not say."""

  made: jax.Array


def annealed_noise(
  eta: NonNegative,
  gamma: NonNegative = 0.55,
  generator: Literal["counter", "threefry"] = "counter",
  parameters: Literal["all", "matrices"] = "all",
  seed: Seed = 0,
) -> optax.GradientTransformationExtraArgs:
  """Adds independent normal noise to every entry of the gradient, less and less of it:

      g_t <- g_t + N(0, σ_t^2),    σ_t^2 = η / (1 + t)^γ

  Belongs behind clipping, which would cut the noise away, and before the optimizer, so that the learning rate
  scales it. The noise is a function of the `key` and the `step` t that update receives. In a plain chain of optax,
  which passes neither, the transform counts its updates itself and draws from `seed`.

  Args:
    eta: η, variance at the first update; may be traced. 0 changes no bit of the gradient.
    gamma: γ, decay of the variance; may be traced. 0 keeps it constant.
    generator: "counter" (nurture.core.rng.counter_normal) is about three times faster on CPU than "threefry"
      (jax.random).
    parameters: which leaves: all, or those of two or more axes.
    seed: of the noise where update receives no key; a run has its own.

  Returns:
    A transform whose update raises UserError for leaves that are not floating point.
    Noise is drawn and added in float32 and the sum cast to the leaf's dtype.

  Reference: Neelakantan et al. 2015, arXiv:1511.06807, eq. 1.
  """
  def update(updates, state, params=None, *, key=None, step=None, **extra):
    del params, extra
    step = state.made if step is None else step
    key = jax.random.fold_in(jax.random.key(seed), step) if key is None else key
    for name, leaf in trees.named_leaves(updates):
      if not jnp.issubdtype(leaf.dtype, jnp.floating):
        raise UserError(f"annealed_noise cannot be added to {name}, whose type is {leaf.dtype}; "
                        "keep such arrays out of the model's parameters.")
    leaves, structure = jax.tree.flatten(updates)
    noisy = [leaf.ndim >= (2 if parameters == "matrices" else 0) for leaf in leaves]
    std = jnp.sqrt(eta / (1.0 + jnp.asarray(step, jnp.float32)) ** gamma)
    # One draw for all leaves: a generator call for each would make compilation slow.
    size = sum(leaf.size for leaf, chosen in zip(leaves, noisy) if chosen)
    noise = rng.counter_normal(key, size) if generator == "counter" else jax.random.normal(key, (size,), jnp.float32)
    start = 0
    for i, leaf in enumerate(leaves):
      if noisy[i]:
        z = noise[start : start + leaf.size].reshape(leaf.shape)
        total = (leaf.astype(jnp.float32) + std * z).astype(leaf.dtype)
        leaves[i] = jnp.where(std > 0, total, leaf)  # -0.0 + 0.0 is 0.0, which is not the same bits
        start += leaf.size
    return jax.tree.unflatten(structure, leaves), NoiseState(optax.safe_increment(state.made))

  return optax.GradientTransformationExtraArgs(lambda params: NoiseState(jnp.int32(0)), update)
