"""Optax's own links with arguments that a config can hold."""

from __future__ import annotations

from typing import Any, Literal

import jax
import optax

Tree = Any


def add_decayed_weights(
  weight_decay: float, parameters: Literal["all", "matrices"] = "matrices"
) -> optax.GradientTransformationExtraArgs:
  """g <- g + weight_decay w: L2 regularization, coupled with whatever optimizer follows.

  Args:
    weight_decay: factor; may be traced.
    parameters: "matrices" leaves out biases and norm scales, as is usual; "all" decays everything.
  """
  mask = None if parameters == "all" else matrices
  return optax.with_extra_args_support(optax.add_decayed_weights(weight_decay, mask))


def clip_by_global_norm(max_norm: float) -> optax.GradientTransformationExtraArgs:
  """g <- g min(1, max_norm / |g|), the norm over all parameters; infinity clips nothing."""
  return optax.with_extra_args_support(optax.clip_by_global_norm(max_norm))


def clip(max_delta: float) -> optax.GradientTransformationExtraArgs:
  """Clips every entry of the gradient to [-max_delta, max_delta]."""
  return optax.with_extra_args_support(optax.clip(max_delta))


def adaptive_grad_clip(clipping: float, eps: float = 1e-3) -> optax.GradientTransformationExtraArgs:
  """Clips unit by unit, to a share of the norm of the unit's weights. Brock et al. 2021, arXiv:2102.06171."""
  return optax.with_extra_args_support(optax.adaptive_grad_clip(clipping, eps))


def matrices(params: Tree) -> Tree:
  """Returns a mask that is true for leaves of two and more dimensions."""
  return jax.tree.map(lambda leaf: leaf.ndim >= 2, params)
