"""optax's stateless gradient transforms, in float32 whatever the dtype of the gradient.

Names, arguments and meaning are optax's where nothing else is said; every number may be traced. Differs from optax: a
gradient of 0 stays 0 at every limit, those of 0 included, where optax divides 0 by 0; and no number may be negative,
which would train uphill.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
import optax

from nurture.core import trees
from nurture.core.hints import Limit, NonNegative
from nurture.transforms.matrices import matrices

Transform: TypeAlias = optax.GradientTransformationExtraArgs


def clip(max_delta: Limit) -> Transform:
  """Cuts every entry to [-max_delta, max_delta]."""
  return _in_float32(optax.clip(max_delta))


def clip_by_global_norm(max_norm: Limit) -> Transform:
  """Scales the gradient to an l2 norm of max_norm over all leaves, if it is longer; inf never does
  (Pascanu et al. 2012, arXiv:1211.5063)."""

  def clipped(updates, params):
    del params
    norm = trees.norm(updates)  # optax's is infinite from 1.8e19 on, and the gradient would become 0
    return jax.tree.map(lambda leaf: jnp.where(norm <= max_norm, leaf, leaf / norm * max_norm), updates)

  return _in_float32(optax.stateless(clipped))


def clip_by_block_rms(threshold: Limit) -> Transform:
  """Scales each leaf to a root mean square of threshold, if it is larger; inf never does."""

  def clipped(leaf):
    rms = trees.norm(leaf) / jnp.sqrt(jnp.float32(max(leaf.size, 1)))
    return jnp.where(rms <= threshold, leaf, leaf / (rms / threshold))

  return _in_float32(optax.stateless(lambda updates, params: jax.tree.map(clipped, updates)))


def adaptive_grad_clip(clipping: NonNegative, eps: NonNegative = 1e-3) -> Transform:
  """Scales each unit's gradient to clipping times the norm of its weights (at least eps), if it is longer
  (Brock et al. 2021, arXiv:2102.06171, eq. 3)."""
  return _in_float32(optax.adaptive_grad_clip(clipping, eps))


def normalize_by_update_norm(scale_factor: NonNegative = 1.0, eps: NonNegative = 1e-6) -> Transform:
  """Divides by the l2 norm over all leaves plus eps, and multiplies by scale_factor."""

  def normalized(updates, params):
    del params
    norm = trees.norm(updates) + eps
    return jax.tree.map(lambda leaf: jnp.where(norm == 0, 0.0, leaf / (norm / scale_factor)), updates)

  return _in_float32(optax.stateless(normalized))


def centralize() -> Transform:
  """Subtracts from each leaf of more than one axis the mean over all axes but the last: the mean over the inputs of
  every unit (Yong et al. 2020, arXiv:2004.01461, eq. 1).

  Differs from optax.centralize, which keeps the first axis: there stand the units in PyTorch, the inputs in flax.
  """
  mean = lambda leaf: jnp.mean(leaf, axis=tuple(range(leaf.ndim - 1)), keepdims=True)
  centre = lambda leaf: leaf - mean(leaf) if leaf.ndim > 1 else leaf
  return _in_float32(optax.stateless(lambda updates, params: jax.tree.map(centre, updates)))


def scale(step_size: NonNegative) -> Transform:
  """Multiplies by step_size."""
  return _in_float32(optax.scale(step_size))


def add_decayed_weights(weight_decay: NonNegative, mask: Literal["all", "matrices"] = "all") -> Transform:
  """Adds weight_decay times the parameters: before the optimizer, this is l2 regularization by weight_decay / 2.

  Args:
    weight_decay: may be traced.
    mask: which leaves: all, or those of two or more axes (no biases, no norm scales).
  """
  return _in_float32(optax.add_decayed_weights(weight_decay, matrices if mask == "matrices" else None))


def _in_float32(inner: optax.GradientTransformation) -> Transform:
  """Runs a transform on float32 copies and casts the result back: a traced float32 number would promote bfloat16."""
  inner = optax.with_extra_args_support(inner)
  up = lambda tree: jax.tree.map(lambda leaf: leaf.astype(jnp.float32), tree)

  def update(updates, state, params=None, **extra):
    del extra  # these transforms have no use for key and step
    new, state = inner.update(up(updates), state, None if params is None else up(params))
    return jax.tree.map(lambda leaf, old: leaf.astype(old.dtype), new, updates), state

  return Transform(inner.init, update)
