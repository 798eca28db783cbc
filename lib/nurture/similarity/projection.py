"""Activations seen in the plane of three classes."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from nurture.core import UserError, linalg


def project(
  activations: Float[Array, "n d"], templates: Float[Array, "K d"], classes: Sequence[int]
) -> Float[Array, "n 2"]:
  """Projects activations orthogonally onto the plane through the templates of three classes.

      x -> Q^T (x - (w_a + w_b + w_c) / 3),    Q [d, 2] an orthonormal basis of span{w_b - w_a, w_c - w_a}

  The first axis points from w_a to w_b, and w_c lies above it. `project(templates[classes], ...)` are the templates
  themselves: they lie in the plane, so their distances are those in d dimensions. Three templates on a line (or two
  equal ones) span no plane; then coordinates along a missing direction are 0.

  Args:
    activations: [n, d], what enters the last layer.
    templates: [K, d], the last layer's weights, a row a class.
    classes: a, b, c, three different ones.

  Returns:
    [n, 2], in the units of the activations.

  Raises:
    UserError: for classes that are not three different ones below K.

  Reference: Müller et al. 2019, arXiv:1906.02629, section 2.
  """
  num_classes = templates.shape[0]
  if len(set(classes)) != 3 or len(classes) != 3 or not all(0 <= c < num_classes for c in classes):
    raise UserError(f"the classes are {tuple(classes)}; give three different ones from 0 to {num_classes - 1}.")
  corners = templates[jnp.asarray(classes)]
  first = _unit(corners[1] - corners[0], linalg.norm(corners))
  side = corners[2] - corners[0]
  second = _unit(side - linalg.matmul(side, first) * first, linalg.norm(corners))
  second = _unit(second - linalg.matmul(second, first) * first, 1.0)  # of a narrow plane the first time leaves rounding
  basis = jnp.stack([first, second], axis=1)
  return linalg.matmul(activations - jnp.mean(corners, axis=0)[None], basis)


def _unit(vector: jax.Array, scale: jax.Array | float) -> jax.Array:
  """Returns the vector at length 1; 0 if nothing but rounding of numbers of this scale is left of it."""
  length = linalg.norm(vector)
  present = length > 8 * jnp.finfo(vector.dtype).eps * scale
  return jnp.where(present, vector / jnp.where(present, length, 1.0), 0.0)
