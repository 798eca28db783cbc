"""Gradient links that take the gradient of the same batch at other parameters."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from nurture.core import trees
from nurture.core.hints import NonNegative

Tree = Any


def sam(rho: NonNegative = 0.05, adaptive: bool = False) -> optax.GradientTransformationExtraArgs:
  """Takes the gradient at the worst nearby parameters (sharpness-aware minimization):

      g <- ∇L(θ + e),    e = ρ g / |g|                      or, adaptive,    e = ρ |θ|² g / ||θ| g|

  with all leaves in the norm. Costs a second gradient of the batch: with the same augmentation, dropout and references;
  batch statistics are those of the first. Stands first among the links: what came before it would only turn e.

  Args:
    rho: ρ; may be traced. 0 takes the gradient again where it was.
    adaptive: see above; entries are scaled by the size of their parameter (ASAM).

  References: Foret et al. 2021, arXiv:2010.01412, eq. 2; Kwon et al. 2021, arXiv:2102.11600, eq. 6 without its η.
  """

  def update(updates: Tree, state: Any, params: Tree, *, grad_fn: Any, **extra: Any) -> tuple[Tree, Any]:
    del extra
    size = jax.tree.map(lambda p: jnp.abs(p) if adaptive else jnp.ones_like(p), params)
    scaled = jax.tree.map(jnp.multiply, size, updates)
    norm = jnp.maximum(trees.norm(scaled), jnp.finfo(jnp.float32).tiny)  # a gradient of 0 goes nowhere
    worst = jax.tree.map(lambda p, s, g: (p + rho * s * g / norm).astype(p.dtype), params, size, scaled)
    return grad_fn(worst), state

  return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def extragradient(step_size: NonNegative) -> optax.GradientTransformationExtraArgs:
  """Takes the gradient where a step of gradient descent would lead, g <- ∇L(θ - η g).

  Costs a second gradient of the batch, as `sam` does.

  Args:
    step_size: η, of the step ahead; may be traced.

  Reference: Korpelevich 1976, "The extragradient method for finding saddle points and other problems".
  """

  def update(updates: Tree, state: Any, params: Tree, *, grad_fn: Any, **extra: Any) -> tuple[Tree, Any]:
    del extra
    ahead = jax.tree.map(lambda p, g: (p - step_size * g).astype(p.dtype), params, updates)
    return grad_fn(ahead), state

  return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
