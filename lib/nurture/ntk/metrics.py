"""Measures of a kernel matrix in training: how far it moved, how it fits the labels, its spectrum.

Pure functions of kernels K [n, n] of the same examples; they jit and vmap. Kernels are taken as float32, float64 stays.
NaN in gives NaN out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from nurture.core import UserError, linalg
from nurture.core.hints import Positive, Range, check_argument

Array = jax.Array
Tree = Any


def kernel_distance(k: Float[Array, "n n"], other: Float[Array, "n n"]) -> Float[Array, ""]:
  """Returns 1 - <K, L> / (|K| |L|), [] in [0, 1] for kernels: what changed of a kernel besides its scale.

  Computed as |K / |K| - L / |L||^2 / 2, which keeps the digits of a small distance. A kernel of 0 is at distance 1 from
  every other, and 0 from itself.

  Raises:
    UserError: for kernels that are not square, or not of the same examples.

  Reference: Fort et al. 2020, arXiv:2010.15110.
  """
  k, other = map(_of_size_one, _pair(k, other))
  norms = jnp.linalg.norm(k), jnp.linalg.norm(other)
  unit = lambda matrix, norm: matrix / jnp.where(norm == 0, 1.0, norm)
  apart = 0.5 * jnp.sum(jnp.square(unit(k, norms[0]) - unit(other, norms[1])))
  return jnp.where((norms[0] == 0) ^ (norms[1] == 0), 1.0, apart)


def kernel_velocity(before: Float[Array, "n n"], after: Float[Array, "n n"], steps: float) -> Float[Array, ""]:
  """Returns the kernel distance per step between two kernels that lie `steps` > 0 steps apart; see `kernel_distance`.

  Reference: Fort et al. 2020, arXiv:2010.15110.
  """
  check_argument("steps", steps, Positive)
  return kernel_distance(before, after) / steps


def label_kernel(y: Float[Array, " n *K"]) -> Float[Array, "n n"]:
  """Returns Y Y^T [n, n] of targets [n, K], or y y^T of [n]."""
  y = _targets(y)
  return linalg.matmul(y, y.T)


def centred_alignment(k: Float[Array, "n n"], other: Float[Array, "n n"]) -> Float[Array, ""]:
  """Returns <H K H, H L H> / (|H K H| |H L H|) with H = I - 1 1^T / n, [] in [0, 1] for kernels.

  With L = `label_kernel` of the labels it is how well the kernel fits them. 0 if either is constant, such as the kernel
  of labels that are all alike.

  Raises:
    UserError: for kernels that are not square, or not of the same examples.

  Reference: Cortes et al. 2012, arXiv:1203.0550; Kornblith et al. 2019, arXiv:1905.00414, eq. 3.
  """
  matrices = list(map(_of_size_one, _pair(k, other)))
  # What centring leaves of a constant kernel is rounding, and has a direction.
  floors = [10 * jnp.finfo(m.dtype).eps * jnp.linalg.norm(m) for m in matrices]
  centred = [_centred(m) for m in matrices]
  norms = [jnp.linalg.norm(m) for m in centred]
  constant = (norms[0] <= floors[0]) | (norms[1] <= floors[1])
  units = [m / jnp.where(constant, 1.0, norm) for m, norm in zip(centred, norms)]
  return jnp.where(constant, 0.0, jnp.sum(units[0] * units[1]))


class Eigensystem(NamedTuple):
  """Of a kernel: eigenvalues [n], descending and cleaned as by `eigenvalues`, and eigenvectors, columns of [n, n]."""

  values: Array
  vectors: Array


def eigensystem(k: Float[Array, "n n"]) -> Eigensystem:
  """Returns the eigenvalues and eigenvectors of a kernel [n, n].

  Raises:
    UserError: for a kernel that is not square.
  """
  values, vectors = linalg.eigh(_square(k, "the kernel"))
  return Eigensystem(_clean(values[::-1]), vectors[:, ::-1])


def eigenvalues(k: Float[Array, "n n"]) -> Float[Array, " n"]:
  """Returns the eigenvalues [n], descending; those below rounding, and negative ones with them, are 0.

  Raises:
    UserError: for a kernel that is not square.
  """
  return _clean(linalg.eigvalsh(_square(k, "the kernel"))[::-1])


def effective_rank(values: Float[Array, " n"]) -> Float[Array, ""]:
  """Returns exp(-sum_i p_i log p_i) with p the eigenvalues [n] over their sum: between 1 and n, 0 for a kernel of 0.

  Negative eigenvalues, which rounding makes of 0, count as 0.
  Reference: Roy and Vetterli 2007, "The effective rank: a measure of effective dimensionality".
  """
  values = jnp.maximum(_float(values), 0.0)
  total = jnp.sum(values)
  p = values / jnp.where(total == 0, 1.0, total)
  return jnp.where(total == 0, 0.0, jnp.exp(-jnp.sum(jax.scipy.special.xlogy(p, p))))


def participation_ratio(values: Float[Array, " n"]) -> Float[Array, ""]:
  """Returns (tr K)^2 / |K|_F^2 from the eigenvalues [n]: between 1 and n, 0 for a kernel of 0."""
  values = _float(values)
  largest = jnp.max(values)  # squares of small eigenvalues would underflow
  p = values / jnp.where(largest == 0, 1.0, largest)
  return jnp.where(largest == 0, 0.0, jnp.square(jnp.sum(p)) / jnp.sum(jnp.square(p)))


def top_mass(values: Float[Array, " n"], count: int) -> Float[Array, ""]:
  """Returns the share of the trace in the `count` largest of the eigenvalues [n], which are descending; 0 of 0.

  Raises:
    UserError: unless 1 <= count <= n.
  """
  values = _float(values)
  check_count(count, values.shape[0])
  total = jnp.sum(values)
  return jnp.where(total == 0, 0.0, jnp.sum(values[:count]) / jnp.where(total == 0, 1.0, total))


def label_energy(k: Float[Array, "n n"] | Eigensystem, y: Float[Array, " n *K"], count: int) -> Float[Array, ""]:
  """Returns the share of the targets' squares in the kernel's leading eigenvectors u_i, [] in [0, 1]:

      sum_{i <= count} |u_i^T Y|^2 / |Y|^2

  Eigenvectors whose eigenvalue is 0 within rounding do not count, as any basis of theirs would do. Targets are taken
  as they are: centre one-hot labels (`centred_targets`), or their mean makes most of it. 0 for targets of 0.

  Args:
    k: [n, n], or its `eigensystem`, to decompose it once for several targets.
    y: [n, K] or [n].
    count: of eigenvectors; where its last eigenvalue repeats, the choice among equals is arbitrary.

  Raises:
    UserError: for a kernel that is not square, other examples, or unless 1 <= count <= n.
  """
  y, n = _targets(y), len(k.values if isinstance(k, Eigensystem) else _square(k, "the kernel"))
  if y.shape[0] != n:
    raise UserError(f"the targets have {y.shape[0]} rows and the kernel {n}; give both the same examples.")
  check_count(count, n)
  values, vectors = k if isinstance(k, Eigensystem) else eigensystem(k)
  kept = ~(values[:count] == 0)  # NaN stays NaN
  y = y / linalg.size_of(y)
  shares = jnp.sum(jnp.square(linalg.matmul(vectors[:, :count].T, y)), axis=1)
  total = jnp.sum(jnp.square(y))
  return jnp.where(total == 0, 0.0, jnp.sum(jnp.where(kept, shares, 0.0)) / jnp.where(total == 0, 1.0, total))


def centred_targets(y: Float[Array, " n *K"]) -> Float[Array, "n K"]:
  """Returns targets [n, K] (or [n]) minus their mean over the examples, as [n, K]; exactly 0 where all are alike."""
  y = _targets(y)
  y = y - y[:1]
  return y - jnp.mean(y, axis=0, keepdims=True)


def relative_change(after: Tree, before: Tree) -> Float[Array, ""]:
  """Returns |a - b| / |b| over all leaves, [] float: of parameters |theta_t - theta_0| / |theta_0|, or of kernels.

  About 0 in the lazy regime, where the network stays its own linearization; infinite if b is 0 and a is not.
  Reference: Chizat et al. 2019, arXiv:1812.07956.
  """
  structures: list[Any] = [jax.tree.structure(tree) for tree in (after, before)]
  if structures[0] != structures[1]:
    raise UserError("the two trees of a relative change differ in structure; give the same parameters at two times.")
  after, before = (jax.tree.map(_float, tree) for tree in (after, before))
  norm = lambda tree: linalg.norm(jnp.stack([jnp.float32(0.0), *map(linalg.norm, jax.tree.leaves(tree))]))
  apart = norm(jax.tree.map(jnp.subtract, after, before))
  return jnp.where(apart == 0, 0.0, apart / norm(before))


def linearized(
  function: Callable[[Tree], Float[Array, " ..."]], initial: Tree, params: Tree
) -> tuple[Float[Array, " ..."], Float[Array, " ..."]]:
  """Returns f(theta_0), and the linearization around it f(theta_0) + J(theta_0) (theta - theta_0) at params.

  Args:
    function: params -> outputs, any array, such as the logits of a batch.
    initial: theta_0.
    params: theta, shaped as theta_0.
  """
  change = jax.tree.map(lambda a, b: (a - b).astype(b.dtype), params, initial)
  outputs, moved = jax.jvp(function, (initial,), (change,))
  return outputs, outputs + moved


def linearization_gap(
  function: Callable[[Tree], Float[Array, " ..."]], initial: Tree, params: Tree
) -> Float[Array, ""]:
  """Returns |f(theta) - f_lin(theta)| / |f(theta) - f(theta_0)|, [] float: 0 in the lazy regime, and 0 at theta_0.

  The same for a loss is loss(function(params)) - loss(linearized(function, initial, params)[1]).
  Reference: Chizat et al. 2019, arXiv:1812.07956; Fort et al. 2020, arXiv:2010.15110.
  """
  start, linear = linearized(function, initial, params)
  outputs = function(params)
  moved = linalg.norm(outputs - start)
  return jnp.where(moved == 0, 0.0, linalg.norm(outputs - linear) / jnp.where(moved == 0, 1.0, moved))


def check_count(count: int, n: int) -> None:
  """Raises a UserError unless a number of leading eigenvectors lies between 1 and n."""
  check_argument("the number of leading eigenvectors", count, Annotated[int, Range(least=1, most=n)])


def _clean(values: Array) -> Array:
  """Returns descending eigenvalues [n] with those that are rounding, n eps of the largest, set to 0."""
  floor = values.shape[0] * jnp.finfo(values.dtype).eps * jnp.max(jnp.abs(values))
  return jnp.where(values <= floor, 0.0, values)


def _centred(k: Array) -> Array:
  k = k - jnp.mean(k, axis=0, keepdims=True)
  return k - jnp.mean(k, axis=1, keepdims=True)


def _float(x: Array) -> Array:
  x = jnp.asarray(x)
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _square(k: Array, name: str) -> Array:
  k = _float(k)
  if k.ndim != 2 or k.shape[0] != k.shape[1] or not k.size:
    raise UserError(f"{name} is {list(k.shape)}, but kernels are [n, n]; of an NTK take reduce='trace'.")
  return k


def _pair(k: Array, other: Array) -> tuple[Array, Array]:
  k, other = _square(k, "the first kernel"), _square(other, "the second kernel")
  if k.shape != other.shape:
    raise UserError(f"the kernels are of {k.shape[0]} and {other.shape[0]} examples; give both the same examples.")
  return k, other


def _of_size_one(k: Array) -> Array:
  """Returns the kernel over its largest entry, whose squares neither overflow nor underflow."""
  largest = jnp.max(jnp.abs(k))
  return k / jnp.where(largest == 0, 1.0, largest)


def _targets(y: Array) -> Array:
  y = _float(y)
  if y.ndim not in (1, 2):
    raise UserError(f"the targets are {list(y.shape)}; give [n, K], such as one-hot labels, or [n].")
  return y[:, None] if y.ndim == 1 else y
