"""Gradients of early-learning regularization and of cross-entropy at the true class."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from nurture.core import Batch, Network, linalg
from nurture.core.hints import Whole
from nurture.core.task import ONE_CLASS
from nurture.probes.loss_states import LossStateProbe
from nurture.transforms.losses import target_memory

Tree = Any


def regularizer_gradient(log_p: jax.Array, t: jax.Array, missing: jax.Array) -> jax.Array:
  """Returns g [B, K], the gradient of log(1 - <p, t>) with respect to the logits:

      g_c = p_c (<p, t> - t_c) / (1 - <p, t>) = softmax_c(log p + log(1 - t)) - p_c

  The second form has no small denominator. Liu et al. 2020, arXiv:2007.00151, lemma 2.

  Args:
    log_p: [B, K] logarithms of probabilities.
    t: [B, K] running averages.
    missing: [B], what they lack to sum to 1.
  """
  return jax.nn.softmax(log_p + jnp.log(target_memory.complement(t, missing))) - jnp.exp(log_p)


@dataclasses.dataclass(frozen=True)
class ElrGradient(LossStateProbe):
  """Coefficients of the gradient in the logits, for examples with a clean label and with a wrong one.

      ..._cross_entropy    mean of (p - y) at the true class; y is the one-hot label as given
      ..._regularizer      mean of g at the true class: the gradient of early-learning regularization without λ
      ..._residual         mean of the Euclidean norm |p - y|
      ..._count            examples

  A negative coefficient raises the true class's logit. With regularization the sum is cross_entropy + λ regularizer.
  λ (times the term's weight) is left out because a sweep may give each member its own. p is of the model in evaluation
  mode, t as the example's last presentation left it, and g the exact one, whatever the form of the term. Means of an
  empty group are 0.

  Attributes:
    term: label of the loss term whose state is the memory t: an "elr", or a "target_divergence".
    limit: takes the first training examples only; 0 takes all.

  Raises:
    UserError: if there is no such loss term.

  Reference: Liu et al. 2020, arXiv:2007.00151, figures 2 and A.1.
  """

  term: str
  limit: Whole = 0

  field = "targets"
  keeps = "keeps no running average of predictions"
  example = "elr"

  tasks = ONE_CLASS

  def __call__(self, net: Network, variables: Tree, piece: Batch) -> dict[str, dict[str, jax.Array]]:
    """Returns sums over one batch, by group."""
    memory = self.state(net)
    log_p = jax.nn.log_softmax(net.apply(variables, net.inputs(piece)).logits.astype(jnp.float32))
    g = regularizer_gradient(log_p, *target_memory.read(memory, piece["id"]))
    residual = jnp.exp(log_p) - jax.nn.one_hot(piece["label"], log_p.shape[-1])
    truth = jax.nn.one_hot(piece["true_label"], log_p.shape[-1])
    clean = piece["label"] == piece["true_label"]
    return {
      group: {
        "count": jnp.sum(weight),
        "cross_entropy": jnp.sum(weight * jnp.sum(residual * truth, axis=-1)),
        "regularizer": jnp.sum(weight * jnp.sum(g * truth, axis=-1)),
        "residual": jnp.sum(weight * linalg.norm(residual, axis=-1)),
      }
      for group, weight in (("clean", piece["weight"] * clean), ("wrong", piece["weight"] * ~clean))
    }

  def finish(self, sums: dict[str, dict[str, jax.Array]]) -> dict[str, jax.Array]:
    """Returns {"clean_count", "clean_cross_entropy", "clean_regularizer", "clean_residual", "wrong_count", ...}."""
    return {
      f"{group}_{name}": value if name == "count" else value / jnp.maximum(values["count"], 1.0)
      for group, values in sums.items() for name, value in values.items()
    }
