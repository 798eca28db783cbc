"""Questions asked of whole pytrees: how large, how long, whether finite, and a fingerprint of the contents."""

from __future__ import annotations

import functools
import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nurture.core import linalg

Tree = Any


def path_name(path: tuple) -> str:
  """Returns "params/Dense_0/kernel" for a key path of jax.tree_util."""
  return jax.tree_util.keystr(path, simple=True, separator="/")


def named_leaves(tree: Tree) -> list[tuple[str, Any]]:
  """Returns [(path name, leaf)] in tree order."""
  return [(path_name(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]


def norm(tree: Tree) -> jax.Array:
  """Returns the l2 norm over all leaves, [] float32.

  The largest entry is divided out before the squares are taken. So a norm of 1e25 or of 1e-25 is what it is; it is
  infinite only where an entry or the norm itself is above 3.4e38, the largest float32, and NaN where an entry is.
  """
  # optax.tree.norm squares the entries as they are, which over- and underflows.
  leaves = [leaf.astype(jnp.float32) for leaf in jax.tree.leaves(tree)]
  scale = linalg.size_of(*leaves)
  return jnp.sqrt(sum((jnp.sum(jnp.square(leaf / scale)) for leaf in leaves), jnp.float32(0.0))) * scale


def is_finite(tree: Tree) -> jax.Array:
  """Returns whether every floating-point number of a tree is finite, [] bool."""
  floats = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]
  return functools.reduce(jnp.logical_and, [jnp.all(jnp.isfinite(leaf)) for leaf in floats], jnp.bool_(True))


def num_bytes(tree: Tree) -> int:
  """Returns the memory that the leaves take, in bytes; shapes are enough."""
  return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def member(tree: Tree, index: int) -> Tree:
  """Returns one member of a tree whose leaves have a leading member axis."""
  return jax.tree.map(lambda leaf: leaf[index], tree)


def select(condition: jax.Array, on_true: Tree, on_false: Tree) -> Tree:
  """Returns one of two trees of the same structure, by a scalar condition that may be traced."""
  return jax.tree.map(lambda a, b: jnp.where(condition, a, b), on_true, on_false)


def digest(tree: Tree) -> str:
  """Returns the sha256 over the paths, dtypes, shapes and bytes of all leaves, as hex.

  Equal digests mean bit-identical trees. Typed keys are read through their key data.
  """
  sha = hashlib.sha256()
  for name, leaf in named_leaves(tree):
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
      leaf = jax.random.key_data(leaf)
    array = np.ascontiguousarray(jax.device_get(leaf))
    sha.update(f"{name}:{array.dtype}:{array.shape};".encode())
    sha.update(array.tobytes())
  return sha.hexdigest()
