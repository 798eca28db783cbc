"""The empirical neural tangent kernel of a linen network: whole, as a matrix-vector product, or by random features."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Float, Shaped

from nurture.core import UserError
from nurture.core.hints import Positive, check_argument
from nurture.ntk.contraction import Factor, num_bytes
from nurture.ntk.factored import everything_free, factors, make_plan
from nurture.ntk.function import (
  REDUCTIONS,
  NetworkFunction,
  Reduce,
  as_samples,
  check_block,
  check_word,
  checked_function,
  forward_derivatives,
)
from nurture.ntk.memory import choose_block, needed_bytes, row_bytes, usable_bytes
from nurture.ntk.products import ntk_matvec, products
from nurture.ntk.sketch import ntk_sketch

Array = jax.Array
METHODS = ("auto", "factored", "jacobian", "ntvp")

__all__ = ["ntk", "ntk_matvec", "ntk_sketch"]


class _Settings(NamedTuple):
  """What a compiled program depends on beside its arrays."""

  network: NetworkFunction
  reduce: str
  method: str
  mesh: Mesh | None


def ntk(
  apply: Callable[[Any, Shaped[Array, "n ..."]], Any],
  variables: Mapping[str, Any],
  x1: Shaped[Array, "n1 ..."],
  x2: Shaped[Array, "n2 ..."] | None = None,
  *,
  reduce: Reduce = "trace",
  method: Literal["auto", "factored", "jacobian", "ntvp"] = "auto",
  block: int | None = None,
  mesh: Mesh | None = None,
  memory: int | None = None,
  on_block: Callable[[int, int], None] | None = None,
) -> Float[Array, "n1 n2"] | Float[Array, "n1 n2 K K"]:
  """Returns the empirical neural tangent kernel of a network.

      full    Θ_kl(x, x') = <∂f_k(x) / ∂θ, ∂f_l(x') / ∂θ>
      trace   (1 / K) sum_k Θ_kk(x, x')
      pseudo  the kernel of the single output sum_k f_k / sqrt(K), that is (1 / K) sum_kl Θ_kl: near the trace where the
              outputs' gradients are nearly orthogonal, as at initialization, and K times cheaper

  over all of variables["params"]. The function is f(x_i) = apply(variables, x[i : i + 1])[0], each input by itself.

  "factored" (what "auto" takes) never forms the Jacobian where it can be helped. One backward pass gives the cotangents
  d of the outputs of Dense, DenseGeneral, Conv, Embed and norm layers, and a dense layer adds (<a, a'> + 1) <d, d'> for
  its inputs a. Where a layer acts at T positions, either all T² pairs of them are multiplied or the gradients
  sum_t a_t d_t^T of every sample, whichever takes fewer operations. Everything else is differentiated sample by sample:
  parameters of other modules, tied ones, and those within nn.scan, nn.remat or jax.jit, so that the kernel is exact for
  every network. "jacobian" does so with all parameters, and "ntvp" takes one column after another as a
  Jacobian-vector product of a gradient, in memory of a few networks.

  With n samples, P parameters and FP operations of a forward pass: "jacobian" costs n K FP + n² K P (full: n² K² P) and
  n K P numbers; "ntvp" n² K FP; "factored" n K FP + n² (inputs + K outputs of all layers) at one position each.

  Blocks of rows are taken against blocks of columns, of a symmetric kernel the upper ones only, layer by layer, and the
  factors of a block of rows serve all its columns. Peak memory is at most about

      kernel + block · max(5 s, 2 s + 4 l) + 4 · (result of a block) + 0.27 GB

  where s is the inputs and K cotangents of every layer for one sample ("jacobian": K P numbers), and l those of the
  largest layer, with the patches of a convolution unfolded; of "ntvp" only kernel and results count.

  Args:
    apply: (variables, x [n, ...]) -> logits [n, K], or `Outputs` with such; in evaluation mode. The compiled program is
      kept for as long as the same function comes back.
    variables: {"params": ..., other collections}.
    x1: [n1, ...].
    x2: [n2, ...]; None takes x1.
    reduce: as above.
    method: as above.
    block: rows, and columns, of a block; None takes the fewest blocks that fit.
    mesh: rows of a block are spread over its devices, whatever its axes; the block is rounded down to a multiple.
    memory: in bytes, that may be used on a device; None takes four fifths of what is free.
    on_block: called with the blocks that are done and their number after each one, for a progress bar.

  Returns:
    [n1, n2], or [n1, n2, K, K] for "full". In the dtype that the network computes in, float32 at least, with matrix
    products in full precision. Symmetric to the last bit where x2 is None.

  Raises:
    UserError: for a network in training mode (BatchNorm of the batch, or a module that draws random numbers), an apply
      that returns no [n, K], complex parameters, inputs that are empty or of two shapes, unknown words, a block below
      1, a kernel that does not fit in memory, or "ntvp" of functions with a reverse derivative only.

  Differs from neural-tangents' empirical_ntk_fn: linen networks instead of any function, with rules for layers in place
  of rules for primitives, and blocks instead of a separate batching.
  Reference: Jacot et al. 2018, arXiv:1806.07572; Novak et al. 2022, arXiv:2206.08720 (costs); Mohamadi et al. 2023,
  arXiv:2206.12543 (pseudo-NTK).
  """
  check_word(reduce, REDUCTIONS, "reduce")
  check_word(method, METHODS, "method")
  check_block(block)
  check_argument("memory", memory, Positive | None, "bytes, such as 16e9, or None")
  if mesh is not None and not isinstance(mesh, Mesh):
    raise UserError(f"mesh is a {type(mesh).__name__}; give a jax.sharding.Mesh.")
  x1, x2 = as_samples(x1, "x1"), None if x2 is None else as_samples(x2, "x2")
  network = checked_function(apply, variables, x1, x2)
  mesh = None if mesh is None else Mesh(mesh.devices, mesh.axis_names)  # shardings are given here, never inferred
  settings = _Settings(network, reduce, "factored" if method == "auto" else method, mesh)
  x2, symmetric = (x1, True) if x2 is None else (x2, False)
  # The same trace serves the program that runs, if that takes all samples at once.
  shapes = _prepare.eval_shape(settings._replace(mesh=None), variables, x1)
  dtype = functools.reduce(jnp.promote_types, (network.dtype, network.logits_dtype), jnp.float32)
  rest = (network.outputs, network.outputs) if reduce == "full" else ()
  entry = math.prod(rest) * dtype.itemsize
  devices = mesh.size if mesh else 1
  if min(len(x1), len(x2)) < devices:
    raise UserError(f"{min(len(x1), len(x2))} samples cannot be spread over the {devices} devices of the mesh; give "
                    "as many, or a smaller mesh.")
  expanded = [0] if settings.method == "ntvp" else [-(-factor.expanded_bytes() // len(x1)) for factor in shapes]
  row = lambda layer: row_bytes(-(-num_bytes(shapes) // len(x1)), layer)
  memory = usable_bytes() if memory is None else int(memory)
  rows, whole = max(len(x1), len(x2)), len(x1) * len(x2) * entry
  size = choose_block(block, rows, row(max(expanded)), entry, whole, memory, devices)
  at_once = needed_bytes(rows, row(sum(expanded)), entry, 0, copies=2 + len(expanded))  # the parts of all layers
  on_block = on_block or (lambda done, count: None)
  if size >= rows and mesh is None and at_once <= memory:
    with forward_derivatives():
      kernel = _whole(settings, variables, x1, None if symmetric else x2)
    on_block(1, 1)
    return kernel
  if mesh is not None:
    variables, x1, x2 = jax.device_put((variables, x1, x2), NamedSharding(mesh, P()))
  rows, columns = (min(size, len(x) // devices * devices) for x in (x1, x2))
  with forward_derivatives():
    return _stream(settings, variables, x1, x2, symmetric, rows, columns, on_block)


def _stream(
  settings: _Settings, variables: Any, x1: Array, x2: Array, symmetric: bool, rows: int, columns: int,
  on_block: Callable[[int, int], None],
) -> Array:
  """Returns the kernel block by block; the last block reaches back over rows that are done, so that all are alike."""
  starts = lambda n, size: [min(i, n - size) for i in range(0, n, size)]
  pairs = [(i, j) for i in starts(len(x1), rows) for j in starts(len(x2), columns) if j >= i or not symmetric]
  kernel: Any = None
  row = None
  for done, (i, j) in enumerate(pairs, start=1):
    if i != row:
      row, left = i, _prepare(settings, variables, x1[i : i + rows])
    right = None if symmetric and i == j else _prepare(settings, variables, x2[j : j + columns])
    pair = _pair(settings, variables, left, right)
    if kernel is None:
      kernel = jnp.zeros((len(x1), len(x2), *pair.shape[2:]), pair.dtype)
      kernel = kernel if settings.mesh is None else jax.device_put(kernel, NamedSharding(settings.mesh, P()))
    kernel = _place(kernel, pair, i, j, symmetric)
    if not isinstance(kernel, jax.core.Tracer):
      kernel.block_until_ready()  # or more blocks than two would be under way
    on_block(done, len(pairs))
  return kernel


@functools.partial(jax.jit, static_argnums=0)
def _prepare(settings: _Settings, variables: Any, x: Array) -> Any:
  """Returns what is kept of a block of samples: its factors, or the samples themselves."""
  prepare = functools.partial(_factors, settings)
  if settings.mesh is None:
    return prepare(variables, x)
  rows = P(settings.mesh.axis_names)
  return jax.shard_map(prepare, mesh=settings.mesh, in_specs=(P(), rows), out_specs=rows, check_vma=False)(variables, x)


def _pair(settings: _Settings, variables: Any, left: Any, right: Any | None) -> Array:
  """Returns the kernel between two blocks, one program a layer, so that one layer's needs are held at a time.

  Args:
    left, right: of `_prepare`; None is the left one again.
  """
  if settings.method == "ntvp":
    return _products(settings, variables, left, right)
  total: Any = None
  for i, mine in enumerate(left):
    total = _with_layer(settings, total, mine, None if right is None else right[i])
  return _reduced(settings, total)


@functools.partial(jax.jit, static_argnums=0)
def _products(settings: _Settings, variables: Any, left: Array, right: Array | None) -> Array:
  entries = lambda variables, left, right: _directions(settings, variables, left, right)
  return _over_devices(settings, entries, variables, left, right)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def _with_layer(settings: _Settings, total: Array | None, left: Factor, right: Factor | None) -> Array:
  entries = lambda _, left, right: left.contract(right, settings.reduce == "full")
  part = _over_devices(settings, entries, None, left, right)
  return part if total is None else total + part


def _over_devices(settings: _Settings, entries: Callable, variables: Any, left: Any, right: Any | None) -> Array:
  """Returns entries(variables, left, right), the left rows spread over the mesh; None is the left side again."""
  mesh = settings.mesh
  if mesh is None:
    return entries(variables, left, left if right is None else right)
  rows = P(mesh.axis_names)

  def local(variables, left, right):
    everywhere = jax.tree.map(lambda a: jax.lax.all_gather(a, mesh.axis_names, axis=0, tiled=True), right)
    return entries(variables, left, everywhere)

  pair = jax.shard_map(local, mesh=mesh, in_specs=(P(), rows, rows), out_specs=rows, check_vma=False)
  return jax.lax.with_sharding_constraint(
    pair(variables, left, left if right is None else right), NamedSharding(mesh, P())
  )


@functools.partial(jax.jit, static_argnums=0)
def _whole(settings: _Settings, variables: Any, x1: Array, x2: Array | None) -> Array:
  left = _prepare(settings, variables, x1)
  block = _pair(settings, variables, left, None if x2 is None else _prepare(settings, variables, x2))
  return (block + _mirrored(block)) / 2 if x2 is None else block


@functools.partial(jax.jit, static_argnums=4, donate_argnums=0)
def _place(kernel: Array, block: Array, i: int, j: int, symmetric: bool) -> Array:
  """Writes a block, and of a symmetric kernel its mirror image."""
  rest = (0,) * (kernel.ndim - 2)
  if not symmetric:
    return jax.lax.dynamic_update_slice(kernel, block, (i, j, *rest))
  mirrored = _mirrored(block)
  diagonal = jnp.where(i == j, (block + mirrored) / 2, block)
  kernel = jax.lax.dynamic_update_slice(kernel, diagonal, (i, j, *rest))
  return jax.lax.dynamic_update_slice(kernel, _mirrored(diagonal), (j, i, *rest))


def _mirrored(block: Array) -> Array:
  return block.swapaxes(0, 1) if block.ndim == 2 else block.transpose(1, 0, 3, 2)


def _factors(settings: _Settings, variables: Any, x: Array) -> Any:
  if settings.method == "ntvp":
    return x
  apply = settings.network.apply
  rules = settings.method == "factored"
  plan = make_plan(apply, variables, jnp.zeros(x.shape[1:], x.dtype)) if rules else everything_free(variables)
  return factors(apply, variables, x, _seeds(settings), plan)


def _directions(settings: _Settings, variables: Any, left: Array, right: Array) -> Array:
  """Returns the kernel of "ntvp"."""
  full = products(settings.network, _seeds(settings), variables, left, right)
  return full if settings.reduce == "full" else jnp.trace(full, axis1=2, axis2=3) / full.shape[-1]


def _reduced(settings: _Settings, total: Array) -> Array:
  return total / settings.network.outputs if settings.reduce == "trace" else total


def _seeds(settings: _Settings) -> Array:
  """Returns the combinations of outputs that the kernel is of, [S, K]."""
  outputs, dtype = settings.network.outputs, settings.network.dtype
  if settings.reduce == "pseudo":
    return jnp.full((1, outputs), outputs**-0.5, dtype)
  return jnp.eye(outputs, dtype=dtype)
