"""A mask of the parameters that are weights rather than biases and scales."""

from __future__ import annotations

from typing import Any

import jax


def matrices(params: Any) -> Any:
  """Returns a tree of bools: whether a leaf has two or more axes. Serves optax as a mask."""
  return jax.tree.map(lambda leaf: leaf.ndim >= 2, params)
