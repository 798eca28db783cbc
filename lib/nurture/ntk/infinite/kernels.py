"""Kernels of infinitely wide convolutional networks: Myrtle networks, and kernel matrices by blocks."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from nurture.core import UserError
from nurture.core.hints import Count, check_argument
from nurture.ntk.infinite import repair

Array = jax.Array
Kind = Literal["ntk", "nngp"]
KINDS = ("ntk", "nngp")
CONVOLUTIONS = {5: (2, 1, 1), 7: (2, 2, 2), 10: (3, 3, 3)}  # of a Myrtle network, in each of its three stages


class Layers(NamedTuple):
  """A network as `neural_tangents.stax` has it.

  Attributes:
    init: (key, input shape with the batch axis) -> (output shape, parameters).
    apply: (parameters, inputs) -> outputs [n, K].
    kernel: (x1, x2 or None, "ntk" or "nngp") -> [n1, n2], of infinite width.
  """

  init: Callable
  apply: Callable
  kernel: Callable


def myrtle(
  depth: int, *, width: int = 1, num_outputs: int = 1, weight_std: float = 1.0, bias_std: float = 0.0
) -> Layers:
  """Returns a Myrtle network: 3x3 convolutions with ReLU and pooling, then a linear layer, in NTK parameterization.

  Three stages of 2, 1, 1 (depth 5), 2, 2, 2 (depth 7) or 3, 3, 3 (depth 10) convolutions with zero padding, the first
  two followed by a 2x2 average with stride 2, the last by the average over all positions.

  Args:
    depth: 5, 7 or 10.
    width: channels of the finite network; the kernel does not depend on it.
    num_outputs: K of the finite network.
    weight_std: σ_w. ReLU halves variances and is not compensated: with σ_w = 1 the kernel shrinks by about 2 a layer,
      and with √2 it does not.
    bias_std: σ_b.

  Returns:
    `Layers`; inputs are [n, H, W, C], H and W at least 4. A block of n1 x n2 kernel entries takes a few times
    4 (H W)^2 n1 n2 bytes in float32: 4 MiB an entry and array for images of 32 x 32.

  Raises:
    UserError: for a depth without a Myrtle network, or without neural-tangents.

  Differs from the official code, whose last stage is pooled three times by 2x2: the same on 32 x 32, where that is the
  average over all positions; other sizes are taken too.
  Reference: Shankar et al. 2020, arXiv:2003.02237.
  """
  check_argument("width", width, Count)
  check_argument("num_outputs", num_outputs, Count)
  if depth not in CONVOLUTIONS:
    raise UserError(f"there is no Myrtle network of depth {depth}; give one of {sorted(CONVOLUTIONS)}.")
  stax = repair.neural_tangents().stax
  convolution = (stax.Conv(width, (3, 3), padding="SAME", W_std=weight_std, b_std=bias_std), stax.Relu())
  first, second, third = (convolution * count for count in CONVOLUTIONS[depth])
  halved = (stax.AvgPool((2, 2), (2, 2)),)
  readout = (stax.GlobalAvgPool(), stax.Dense(num_outputs, weight_std, bias_std))
  return Layers(*stax.serial(*first, *halved, *second, *halved, *third, *readout))


def myrtle_kernel(depth: int, *, weight_std: float = 1.0, bias_std: float = 0.0) -> Callable:
  """Returns the kernel of `myrtle`, (x1, x2 or None, "ntk" or "nngp") -> [n1, n2]; its "ntk" is the Myrtle CNTK."""
  return myrtle(depth, weight_std=weight_std, bias_std=bias_std).kernel


def kernel_matrix(
  kernel: Callable, x1: Float[Array, "n1 ..."], x2: Float[Array, "n2 ..."] | None = None, *, block: int,
  kind: Kind = "ntk", memory: float | None = None, on_block: Callable[[int, int], None] | None = None,
) -> Float[np.ndarray, "n1 n2"]:
  """Returns a kernel matrix, computed in blocks of at most block x block entries by one compiled program.

  Without x2 only blocks on and above the diagonal are computed, and the result is exactly symmetric.

  Args:
    kernel: (x1, x2, kind) -> [n1, n2], such as `Layers.kernel`.
    x1: [n1, ...].
    x2: [n2, ...]; None stands for x1.
    block: rows and columns at once. The device holds one block and what its computation needs, the host the result.
    kind: "ntk" or "nngp".
    memory: bytes that one block may take on the device; None asks no question.
    on_block: called with the blocks that are done and their number after each one, for a progress bar.

  Returns:
    [n1, n2] numpy array on the host. neural-tangents takes the angle of two inputs from a difference of nearly equal
    numbers: where they coincide, the "ntk" of ReLU networks has a relative error of about 1e-4 a layer in float32, and
    5e-9 in float64.

  Raises:
    UserError: for a block below 1, another kind, shapes that do not fit, or a block that takes more than `memory`.
  """
  check_argument("block", block, Count, "a whole number of rows, at least 1")
  if kind not in KINDS:
    raise UserError(f"kind is {kind!r}; give one of {KINDS}.")
  symmetric = x2 is None
  x1 = jnp.asarray(x1)
  x2 = x1 if symmetric else jnp.asarray(x2)
  if x1.shape[1:] != x2.shape[1:] or x1.ndim < 2:
    raise UserError(f"x1 is {list(x1.shape)} and x2 is {list(x2.shape)}; give two sets of inputs of one shape.")
  if not len(x1) or not len(x2):
    raise UserError("there is no input; give at least one on both sides.")
  rows, columns = min(block, len(x1)), min(block, len(x2))
  program = _compiled(kernel, kind, (rows, *x1.shape[1:]), (columns, *x2.shape[1:]), x1.dtype, x2.dtype,
                      jax.config.jax_enable_x64)  # type: ignore[attr-defined]
  _check_memory(program, block, memory)
  result = np.empty((len(x1), len(x2)), program.out_info.dtype)
  starts = [
    (i, j) for i in range(0, len(x1), rows) for j in range(0, len(x2), columns) if j >= i or not symmetric
  ]
  for done, (i, j) in enumerate(starts, start=1):
    values = np.asarray(program(_slice(x1, i, rows), _slice(x2, j, columns)))
    result[i : i + rows, j : j + columns] = values[: len(x1) - i, : len(x2) - j]
    if on_block:
      on_block(done, len(starts))
  return np.triu(result) + np.triu(result, 1).T if symmetric else result


@functools.lru_cache(maxsize=16)
def _compiled(kernel, kind, shape1, shape2, dtype1, dtype2, x64):
  del x64  # the setting changes what is traced
  shapes = jax.ShapeDtypeStruct(shape1, dtype1), jax.ShapeDtypeStruct(shape2, dtype2)
  with repair.rank_promotion():
    return jax.jit(lambda a, b: kernel(a, b, kind)).lower(*shapes).compile()


def _slice(x: Array, start: int, size: int) -> Array:
  """Returns `size` rows, the last row repeated where there are not so many."""
  return x[jnp.minimum(jnp.arange(start, start + size), len(x) - 1)]


def _check_memory(program: Any, block: int, memory: float | None) -> None:
  analysis = program.memory_analysis()
  if memory is None or analysis is None:
    return
  taken = analysis.temp_size_in_bytes + analysis.output_size_in_bytes + analysis.argument_size_in_bytes
  if taken > memory:
    fits = int(0.9 * block * (memory / taken) ** 0.5)  # most of it grows with the entries of a block, the rest slower
    fix = f"block={fits} should fit" if fits else "not even one entry would fit, so give more memory or smaller inputs"
    raise UserError(f"block={block} takes {taken:.3g} bytes, and memory is {memory:.3g}; {fix}.")
