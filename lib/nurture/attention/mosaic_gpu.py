"""FlashSigmoid on Hopper GPUs, in Pallas Mosaic GPU: TMA, wgmma and warp specialization, forward and backward.

All kernels are one scheme. A block of the grid has two warpgroups that compute, each with a tile of 64 rows that stays
in shared memory, and one that fetches: it streams tiles of columns through a ring of buffers. Scores are products of
row and column tiles; what is made of them in registers is multiplied with a column tile into an accumulator that stays
in registers over the whole stream, since sigmoid weights are never rescaled.

    kernel     rows      stream    scores              accumulates
    forward    Q         K, V      Q K^T               O = P V
    rows       Q, dO     K, V      Q K^T, dO V^T       dQ = dS K
    columns    K, V      Q, dO     K Q^T, V dO^T       dK = dS^T Q, dV = P^T dO

P is computed twice backward; results are deterministic. What a tile lacks at the end of the sequence is zeros, which
TMA fills in, and which add nothing to any result.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from nurture.attention import mosaic_gpu_primitives as primitives
from nurture.attention import numerics, simulation
from nurture.attention.call import Call

ROWS = 64  # of a warpgroup's tile: what one wgmma takes
WARPGROUPS = 2  # that compute
SHARED_MEMORY = 227 * 1024  # bytes that a block may have
FEATURES = (64, 128, 256)
_DTYPES = (jnp.dtype(jnp.bfloat16), jnp.dtype(jnp.float16))


@dataclasses.dataclass(frozen=True)
class MosaicGPU:
  """The implementation "mosaic_gpu"; see `nurture.attention.flash.Kernel`.

  Attributes:
    columns, columns_backward: of a tile of the stream, multiples of 64; None takes the largest that shared memory and
      registers hold.
    stages: tiles of a stream in flight, fewer where shared memory does not hold them.
    overlap: whether the forward kernel keeps the product with the values in flight while the next scores are weighed,
      the two warpgroups taking turns at the tensor cores; otherwise each product is waited for.
    sigmoid: a row of `nurture.attention.numerics.FORMS`; None chooses by the bias.
    interpret: runs on any platform, for tests: `simulation.interpreter()`.
  """

  columns: int | None = None
  columns_backward: int | None = None
  stages: int = 4
  overlap: bool = True
  sigmoid: str | None = None
  interpret: Any = None

  def refusal(self, call: Call) -> str:
    features, values = call.query.shape[3], call.value.shape[3]
    dtypes = {x.dtype for x in (call.query, call.key, call.value)}
    if len(dtypes) > 1 or not dtypes <= set(_DTYPES):
      return f"takes query, key and value all in bfloat16 or all in float16, not in {', '.join(map(str, dtypes))}"
    if features not in FEATURES or values != features:
      return f"takes heads of {', '.join(map(str, FEATURES))} features, not {features} and {values}"
    if call.bias is not None or call.mask is not None:
      return "takes no mask, and a bias only as one number or one for each head; use implementation='xla_chunked'"
    return ""

  def forward(self, call: Call) -> jax.Array:
    def step(scores, weights, rest, distance):
      del scores, rest, distance
      return {"query": (weights, "value")}, {}

    arrays = {"query": call.query, "key": call.key, "value": call.value}
    stream = _Stream(call, self, arrays, ("query",), ("key", "value"), self.columns)
    return stream.run(step, ("query",))["query"]

  def backward(self, call: Call, cotangent: jax.Array) -> Call:
    arrays = {"query": call.query, "key": call.key, "value": call.value, "cotangent": cotangent}

    def row(scores, weights, rest, distance):
      d_logits = weights * rest * scores[1]
      sums = {}
      if "head_bias" in call.learned:
        sums["head_bias"] = jnp.sum(d_logits, axis=1)
      if "slopes" in call.learned:
        sums["slopes"] = -jnp.sum(d_logits * distance, axis=1)
      return {"query": (d_logits, "key")}, sums

    def column(scores, weights, rest, distance):
      del distance
      return {"key": (weights * rest * scores[1], "query"), "value": (weights, "cotangent")}, {}

    rows = _Stream(call, self, arrays, ("query", "cotangent"), ("key", "value"), self.columns_backward)
    gradients = rows.run(row, ("query",), call.learned)
    columns = _Stream(call, self, arrays, ("key", "value"), ("query", "cotangent"), self.columns_backward)
    # Two accumulators of 64 x 256 numbers do not fit in the registers of a warpgroup.
    for results in [("key", "value")] if call.query.shape[3] < 256 else [("key",), ("value",)]:
      gradients |= columns.run(column, results)
    new: dict[str, Any] = {name: gradients[name] for name in ("query", "key", "value")}
    new |= {"query_ids": None, "key_ids": None}
    for name in ("head_bias", "slopes"):
      if (like := getattr(call, name)) is not None:
        total = gradients[name].sum(axis=2) if name in call.learned else jnp.zeros(like.shape)
        new[name] = (total.sum(axis=0, keepdims=True) if like.shape[0] == 1 else total).astype(like.dtype)
    return dataclasses.replace(call, **new)


# (scores of each stationary tile, weights, 1 - weights, distances), [rows, columns] each
# -> ({result: (left operand [rows, columns], name of the streamed array that is the right one)}, {name: sums [rows]})
Step = Callable[..., tuple[dict[str, tuple[jax.Array, str]], dict[str, jax.Array]]]


class _Refs(NamedTuple):
  """What a computing warpgroup reads, by the names of the arrays.

  Attributes:
    inputs: in global memory.
    tiles: of the rows that are its own.
    rings: tiles of the streams, [stages, columns, features].
    full, empty: barriers of the slots of each ring.
  """

  inputs: dict[str, Any]
  tiles: dict[str, Any]
  rings: dict[str, Any]
  full: dict[str, Any]
  empty: dict[str, Any]


class _Place(NamedTuple):
  """Where a computing warpgroup is: batch, query head, first row, and the stream's place minus the column tile's."""

  batch: jax.Array
  head: jax.Array
  start: jax.Array
  shift: jax.Array


class _Stream:
  """One of the kernels: rows that stay, columns that stream by.

  Args:
    call: to be computed.
    settings: of the implementation.
    arrays: {name: [B, tokens, heads, features]}; "query" and "cotangent" have queries for tokens, the others keys.
    stationary: names of the arrays whose tiles stay.
    streamed: of the arrays that stream, of which the i-th is multiplied with the i-th of the stationary ones.
    columns: of a tile of the stream.
  """

  def __init__(
    self, call: Call, settings: MosaicGPU, arrays: dict[str, jax.Array], stationary: Sequence[str],
    streamed: Sequence[str], columns: int | None,
  ):
    self.call, self.settings = call, settings
    # TMA takes arrays whose tokens are a multiple of the 8 of a swizzled tile.
    self.arrays = {name: jnp.pad(x, ((0, 0), (0, -x.shape[1] % 8), (0, 0), (0, 0))) for name, x in arrays.items()}
    self.stationary, self.streamed = stationary, streamed
    self.by_rows = "query" in stationary
    self.backward = len(stationary) > 1
    self.features, self.dtype = call.query.shape[3], call.query.dtype
    batch, heads, queries, keys = call.shape
    self.row_count, self.column_count = (queries, keys) if self.by_rows else (keys, queries)
    self.band = call.band if self.by_rows else call.band.transposed
    self.tiles = -(-self.row_count // (WARPGROUPS * ROWS))
    self.grid = (heads if self.by_rows else heads // call.group, self.tiles, batch)
    self.columns, self.stages = self._sizes(columns)
    self.overlaps = settings.overlap and not self.backward
    bias = call.known_bias if call.slopes is None else None  # slopes take logits as far from 0 as a small bias does
    self.form = numerics.FORMS[settings.sigmoid or numerics.choose(bias)]
    self.ops = primitives.Simulated if settings.interpret is not None else primitives.Hardware

  def shared_memory(self, columns: int, stages: int) -> int:
    """Returns the bytes of shared memory that tiles of so many columns take."""
    tile = lambda tokens: tokens * self.features * self.dtype.itemsize
    rows, stream = WARPGROUPS * tile(ROWS) * len(self.stationary), stages * tile(columns) * len(self.streamed)
    # Sums of rows, with what the compiler takes to exchange them, are in backward kernels only.
    sums, barriers = 2 * WARPGROUPS * ROWS * 4 + 4096 if self.backward else 0, 1024
    return rows + stream + sums + barriers

  def _sizes(self, columns: int | None) -> tuple[int, int]:
    """Returns the number of columns of a tile, a multiple of 64 as wgmma has it, and of stages, that fit."""
    choices = (columns,) if columns else (64,) if self.backward or self.column_count <= 64 else (128, 64)
    # Two tiles in flight before wide tiles, wide tiles before more in flight.
    sizes = [(c, s) for least in (2, 1) for c in choices for s in range(self.settings.stages, least - 1, -1)]
    return next((c, s) for c, s in sizes if self.shared_memory(c, s) <= SHARED_MEMORY)

  def run(self, step: Step, results: Sequence[str], sums: Sequence[str] = ()) -> dict[str, jax.Array]:
    """Runs the kernel; returns {name: array} of results like the arrays of those names, and of sums [B, N, T]."""
    if self.settings.interpret is not None:
      simulation.prepare(WARPGROUPS + 1)
    call, batch = self.call, self.call.shape[0]
    length = self.tiles * WARPGROUPS * ROWS
    operands = dict(self.arrays)
    for name in ("head_bias", "slopes"):
      if (x := getattr(call, name)) is not None:
        operands[name] = (x * numerics.LOG2_E).astype(jnp.float32)
    if call.query_ids is not None and call.key_ids is not None:
      row_ids, column_ids = (call.query_ids, call.key_ids) if self.by_rows else (call.key_ids, call.query_ids)
      column_length = -(-self.column_count // self.columns) * self.columns
      operands["row_ids"] = jnp.pad(row_ids, ((0, 0), (0, length - self.row_count)))
      operands["column_ids"] = jnp.pad(column_ids, ((0, 0), (0, column_length - self.column_count)))
    padded = lambda x: jax.ShapeDtypeStruct((batch, length, *x.shape[2:]), x.dtype)
    out_type = [padded(self.arrays[name]) for name in results]
    out_type += [jax.ShapeDtypeStruct((batch, self.grid[0], length), jnp.float32)] * len(sums)
    tile = functools.partial(plgpu.SMEM, dtype=self.dtype, transforms=primitives.TRANSFORMS)
    barriers = lambda n, arrivals: [plgpu.Barrier(num_arrivals=arrivals, num_barriers=self.stages)] * n
    scratch = (
      [tile((WARPGROUPS, ROWS, self.features)) for _ in self.stationary],
      plgpu.Barrier(num_arrivals=len(self.stationary), num_barriers=WARPGROUPS),
      [tile((self.stages, self.columns, self.features)) for _ in self.streamed],
      barriers(len(self.streamed), 1),
      barriers(len(self.streamed), WARPGROUPS),
      plgpu.Barrier(num_arrivals=1, num_barriers=WARPGROUPS),
      [plgpu.SMEM((WARPGROUPS, ROWS), jnp.float32) for _ in sums],
    )
    outputs = plgpu.kernel(
      lambda *refs: self._body(step, tuple(results), tuple(sums), list(operands), refs),
      out_type=out_type,
      grid=self.grid,
      grid_names=("heads", "tiles", "batch"),
      num_threads=WARPGROUPS + 1,
      thread_name="warpgroup",
      scratch_types=scratch,
      compiler_params=plgpu.CompilerParams(approx_math=True, lowering_semantics=plgpu.LoweringSemantics.Lane),
      **({} if self.settings.interpret is None else {"interpret": self.settings.interpret}),
    )(*operands.values())
    named = dict(zip((*results, *sums), outputs))
    return {name: x if name in sums else x[:, : self.row_count] for name, x in named.items()}

  def _body(self, step: Step, results: tuple[str, ...], sums: tuple[str, ...], names: list[str], refs: Sequence[Any]):
    """Is what every warpgroup runs."""
    inputs, refs = dict(zip(names, refs)), refs[len(names):]
    outputs = dict(zip((*results, *sums), refs))
    tiles, loaded, rings, full, empty, turn, sum_tiles = refs[len(outputs):]
    tiles, rings = dict(zip(self.stationary, tiles)), dict(zip(self.streamed, rings))
    full, empty = dict(zip(self.streamed, full)), dict(zip(self.streamed, empty))
    batch, head, index = (jax.lax.axis_index(name) for name in ("batch", "heads", "tiles"))
    warpgroup = jax.lax.axis_index("warpgroup")
    if self.by_rows and self.call.band.high < self.row_count:
      index = np.int32(self.tiles - 1) - index  # under a causal mask the last rows have most to do and begin first
    first, end = self.band.blocks_of(index, WARPGROUPS * ROWS, self.columns, self.column_count)
    count = jax.lax.max(end - first, np.int32(0))
    group = 1 if self.by_rows else self.call.group
    steps = count * np.int32(group)

    @pl.when(warpgroup < WARPGROUPS)
    def _compute():
      plgpu.set_max_registers(232, action="increase")
      mine = {name: tile.at[warpgroup] for name, tile in tiles.items()}
      buffers = _Refs(inputs, mine, rings, full, empty)
      start = index * (WARPGROUPS * ROWS) + warpgroup * ROWS
      rows = batch, pl.ds(start, ROWS), head
      for name, tile in mine.items():
        plgpu.copy_gmem_to_smem(inputs[name].at[rows], tile, loaded.at[warpgroup])
      plgpu.barrier_wait(loaded.at[warpgroup])

      def stream(accumulators, totals):
        def of_head(g, accumulators, totals):
          query_head = head if self.by_rows else head * np.int32(group) + g
          place = _Place(batch, query_head, start, g * count - first)
          for at, to, inside in self._sections(start, first, first + count):
            take = functools.partial(self._take, step, results, buffers, place, inside=inside)
            accumulators, totals = self.ops.repeat(at, to, take, accumulators, totals)
          return accumulators, totals

        return of_head(np.int32(0), accumulators, totals) if group == 1 else self.ops.repeat(
          np.int32(0), np.int32(group), of_head, accumulators, totals
        )

      shapes = [(ROWS, self.features)] * len(results)
      if self.overlaps:
        place = _Place(batch, head, start, -first)
        piped = functools.partial(self._overlapped, buffers, place, turn, warpgroup, first, first + count)
        values, totals = [jax.lax.cond(count > 0, piped, lambda: self.ops.tile_zeros(shapes[0]))], {}
      else:
        values, totals = self.ops.accumulated(stream, shapes, {name: self.ops.zeros(ROWS) for name in sums})
      for name, value in zip(results, values):
        scaled = value * self.call.scale if self.backward and name in ("query", "key") else value
        mine[name][...] = scaled.astype(self.dtype)
      for name, tile in zip(sums, sum_tiles):
        tile.at[warpgroup][...] = totals[name]
      plgpu.commit_smem()
      for name in results:
        plgpu.copy_smem_to_gmem(mine[name], outputs[name].at[rows])
      for name, tile in zip(sums, sum_tiles):
        plgpu.copy_smem_to_gmem(tile.at[warpgroup], outputs[name].at[batch, head, pl.ds(start, ROWS)])
      plgpu.wait_smem_to_gmem(0)

    @pl.when(warpgroup == WARPGROUPS)
    def _fetch():
      plgpu.set_max_registers(40, action="decrease")

      def fetch(at, *, wait):
        g = jax.lax.div(at, count)
        slot, column = jax.lax.rem(at, np.int32(self.stages)), first + at - g * count
        column_head = jax.lax.div(head, np.int32(self.call.group)) if self.by_rows else head * np.int32(group) + g
        place = batch, pl.ds(column * self.columns, self.columns), column_head
        for name in self.streamed:
          if wait:
            plgpu.barrier_wait(empty[name].at[slot])
          plgpu.copy_gmem_to_smem(inputs[name].at[place], rings[name].at[slot], full[name].at[slot])

      filled = jax.lax.min(steps, np.int32(self.stages))
      pl.loop(np.int32(0), filled)(functools.partial(fetch, wait=False))
      pl.loop(filled, steps)(functools.partial(fetch, wait=True))

      # The last tiles are waited for too: no barrier may be left in the middle of a phase.
      @pl.loop(steps - filled, steps)
      def _(at):
        for name in self.streamed:
          plgpu.barrier_wait(empty[name].at[jax.lax.rem(at, np.int32(self.stages))])

  def _overlapped(self, refs: _Refs, place: _Place, turn, warpgroup, first, end) -> jax.Array:
    """Returns the forward result of tiles first .. end - 1, at least one, with one product always in flight.

    The product with the values of tile j - 1 is issued behind the scores of tile j and runs while these are weighed.
    The warpgroups take turns to issue, so that one weighs while the tensor cores work for the other.
    """
    ops = self.ops
    slot_of = lambda column: jax.lax.rem(column - first, np.int32(self.stages))
    wait_for = lambda name, column: plgpu.barrier_wait(refs.full[name].at[slot_of(column)])
    release = lambda name, column: plgpu.barrier_arrive(refs.empty[name].at[slot_of(column)])
    tile = lambda name, column: refs.rings[name].at[slot_of(column)]

    def weigh(column, accumulator, before, inside):
      added = None if before is None else (before, tile("value", column - 1))
      scores, accumulator = ops.overlapped(
        accumulator, (refs.tiles["query"], tile("key", column)), added,
        lambda: plgpu.barrier_wait(turn.at[warpgroup]), lambda: wait_for("value", column - 1),
        lambda: plgpu.barrier_arrive(turn.at[np.int32(1) - warpgroup]),
      )
      release("key", column)
      weights, _, _ = self._weights(scores, refs.inputs, place, column, inside)
      return ops.kept_in_place(weights), accumulator

    def next_key(column):
      # A branch, beyond which the compiler does not move what stands behind it: the wait for the product in flight, and
      # the conversion of the weights, whose registers that product may still read.
      pl.when(column + 1 < end)(lambda: wait_for("key", column + 1))

    def step(column, accumulators, before, inside):
      weights, accumulator = weigh(column, accumulators[0], before, inside)
      next_key(column)
      ops.wait()
      release("value", column - 1)
      return [accumulator], weights.astype(self.dtype)

    def stream(accumulators, carry):
      pl.when(warpgroup == 1)(lambda: plgpu.barrier_arrive(turn.at[0]))  # the first turn is warpgroup 0's
      wait_for("key", first)
      weights, accumulator = weigh(first, accumulators[0], None, self.band.is_full)
      next_key(first)
      accumulators, weights = [accumulator], weights.astype(self.dtype)
      for at, to, inside in self._sections(place.start, first, end):
        step_here = functools.partial(step, inside=inside)
        accumulators, weights = ops.repeat(jax.lax.max(at, first + 1), to, step_here, accumulators, weights)
      wait_for("value", end - 1)
      accumulators = ops.add_products(accumulators, [(weights, tile("value", end - 1))])
      release("value", end - 1)
      pl.when(warpgroup == 0)(lambda: plgpu.barrier_wait(turn.at[0]))  # no barrier is left in the middle of a phase
      return accumulators, carry

    return ops.accumulated(stream, [(ROWS, self.features)], ())[0][0]

  def _sections(self, start, first, end):
    """Returns [(from, to, whether every pair is inside the band)] of the columns' tiles for the rows from start on."""
    if self.band.is_full:
      return [(first, end, True)]
    within = lambda x, low: jax.lax.max(jax.lax.min(x, end), low)
    inner, inner_end = self.band.inner_blocks_of(start, ROWS, self.columns)
    inner = within(inner, first)
    inner_end = within(inner_end, inner)
    return [(first, inner, False), (inner, inner_end, True), (inner_end, end, False)]

  def _take(self, step, results, refs: _Refs, place: _Place, column, accumulators, totals, *, inside: bool):
    """Consumes tile `column` of every stream; returns (accumulators, totals) with what comes of it."""
    slot = jax.lax.rem(column + place.shift, np.int32(self.stages))
    tiles = {name: ring.at[slot] for name, ring in refs.rings.items()}
    scored = self.streamed[: len(self.stationary)]
    for name in scored:
      plgpu.barrier_wait(refs.full[name].at[slot])
    scores = self.ops.scores([(refs.tiles[a], tiles[b]) for a, b in zip(self.stationary, scored)])
    weights, rest, distance = self._weights(scores[0], refs.inputs, place, column, inside)
    products, sums = step(scores, weights, rest, distance)
    for name in self.streamed[len(scored):]:
      plgpu.barrier_wait(refs.full[name].at[slot])
    pairs = [(products[name][0], tiles[products[name][1]]) for name in results]
    accumulators = self.ops.add_products(accumulators, pairs)
    for name in self.streamed:
      plgpu.barrier_arrive(refs.empty[name].at[slot])
    return accumulators, {name: totals[name] + sums[name] for name in totals}

  def _weights(self, scores, inputs: dict[str, Any], place: _Place, column, inside: bool):
    """Returns the weights of a tile [rows, columns], 1 minus the weights that are not masked, and the distances."""
    call, shape, distance = self.call, (ROWS, self.columns), None
    of_head = lambda name: inputs[name][place.batch if getattr(call, name).shape[0] > 1 else 0, place.head]
    columns = pl.ds(column * self.columns, self.columns)
    if call.slopes is not None or not (inside or call.band.is_full):
      row, col = place.start + self.ops.iota(shape, 0), column * self.columns + self.ops.iota(shape, 1)
      t, s = (row, col) if self.by_rows else (col, row)
    logits = scores * (call.scale * numerics.LOG2_E)
    if call.head_bias is not None:
      logits = logits + of_head("head_bias")
    if call.slopes is not None:
      distance = jnp.abs(t + np.int32(call.offset) - s).astype(jnp.float32)
      logits = logits - of_head("slopes") * distance
    weights, rest = self.form(logits)
    if not (inside or call.band.is_full):
      weights = jnp.where(call.band.sees(t, s), weights, 0.0)
    if call.query_ids is not None and call.key_ids is not None:
      row_ids = self.ops.along(inputs["row_ids"].at[place.batch, pl.ds(place.start, ROWS)], 0, shape)
      column_ids = self.ops.along(inputs["column_ids"].at[place.batch, columns], 1, shape)
      weights = jnp.where(row_ids == column_ids, weights, 0.0)
    return weights, rest, distance
