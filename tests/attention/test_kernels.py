"""The kernels for GPUs and TPUs, on a machine that has neither: simulated with race detection, and lowered.

The simulation runs what a device would: copies, barriers and the roles of warpgroups; on the GPU, only products by
wgmma and register layouts are replaced. Whether the device's compiler takes the result, and how fast it is,
`experiments.benchmarks.attention` finds out on a device.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu

from nurture.attention import alibi_slopes, mosaic_gpu, sigmoid_attention
from nurture.attention.api import kernel
from nurture.attention.call import Band
from nurture.attention.mosaic_gpu import SHARED_MEMORY, MosaicGPU
from nurture.attention.mosaic_tpu import MosaicTPU
from nurture.attention.simulation import interpreter
from nurture.core import UserError
from tests.attention.cases import CASES, arguments, reference, value_and_gradients

GPU = MosaicGPU(stages=2, interpret=interpreter(detect_races=True))
TPU = MosaicTPU(block_q=128, block_k=128, interpret=pltpu.InterpretParams(detect_races=True))


def cast(arrays, dtype):
  return {
    name: jnp.asarray(x, dtype if name in ("query", "key", "value") else jnp.float32) for name, x in arrays.items()
  }


def assert_near(actual, expected, tolerance):
  """Asserts that outputs and gradients are within a relative distance, each as a whole."""
  (out, gradients), (expected_out, expected_gradients) = actual, expected
  for name, a, b in [("out", out, expected_out), *((n, gradients[n], g) for n, g in expected_gradients.items())]:
    a = np.asarray(a, np.float64)
    assert a.shape == b.shape
    assert np.linalg.norm(a - b) <= tolerance * np.linalg.norm(b), name


@pytest.fixture
def raced(capfd, caplog):
  """Returns a function that says whether the simulation has told of a race; where it does depends on JAX's version."""
  def told() -> bool:
    printed = capfd.readouterr()
    return "RACE" in printed.out + printed.err + caplog.text

  return told


def alone(*values):
  """Returns parameters of what `everything` and its like contain: where these fail, they say by which part."""
  return [pytest.param(value, marks=pytest.mark.long) for value in values]


# Two tiles of rows and three of columns, with ends that fill none of them.
LONG = {
  "long, causal": ((1, 200, 290, 1, 1), {"is_causal": True, "bias": "per head", "alibi_slopes": "alibi"}),
  "long, window, more keys": ((1, 150, 290, 1, 1), {"local_window_size": (40, 25), "bias": "per head"}),
}
SMALL = LONG | {"everything, two heads": ((2, 22, 26, 2, 1), CASES["everything"][1])}  # a simulated block takes seconds


@pytest.mark.parametrize("name", [
  "more keys, one key head", "everything", "long, window, more keys",
  *alone("one token", "causal, more queries", "window that sees nothing", "segments", "long, causal"),
])
def test_tpu_simulated(name, raced):
  arrays, fields = arguments(name, cases=LONG)
  low = cast(arrays, jnp.float32)
  assert_near(value_and_gradients(low, fields, implementation=TPU), reference(low, fields), 1e-6)
  assert not raced()


@pytest.mark.parametrize("queries, keys, fields", [
  (128, 256, {"is_causal": True, "causal_offset": 0}),  # keys that no query sees
  (256, 128, {"local_window_size": (10, 10), "causal_offset": 0}),  # queries that see no key
  pytest.param(128, 128, {"local_window_size": (1, 1), "causal_offset": 300}, marks=pytest.mark.long),  # no pair at all
])
def test_tpu_fetches_no_block_that_is_not_there(queries, keys, fields, raced):
  arrays, _ = arguments("length", cases={"length": ((1, queries, keys, 1, 1), {})})
  low = cast(arrays, jnp.float32)
  assert_near(value_and_gradients(low, fields, implementation=TPU), reference(low, fields), 1e-6)
  assert not raced()


@pytest.mark.parametrize("sizes", [(0, 128), (-128, 128), (128, 100), (64, 64)])
def test_a_block_of_a_tpu_is_of_whole_lanes(sizes):
  with pytest.raises(UserError, match="give a multiple of 128"):
    MosaicTPU(*sizes)


def test_tpu_in_bfloat16():
  arrays, fields = arguments("causal, more keys")
  low = cast(arrays, jnp.bfloat16)
  out, gradients = value_and_gradients(low, fields, implementation=TPU)
  assert (out.dtype, gradients["query"].dtype) == (jnp.bfloat16, jnp.bfloat16)
  assert_near((out, gradients), reference(low, fields), 4e-3)


@pytest.mark.parametrize("name, features, dtype, overlap", [
  pytest.param("one token", 64, jnp.bfloat16, True, marks=pytest.mark.long),
  ("everything, two heads", 64, jnp.bfloat16, True),
  ("more keys, one key head", 128, jnp.float16, False),
  ("window that sees nothing", 64, jnp.bfloat16, True),
  ("long, causal", 64, jnp.bfloat16, True),
])
def test_gpu_simulated(name, features, dtype, overlap, raced):
  arrays, fields = arguments(name, features, cases=SMALL)
  low = cast(arrays, dtype)
  kernel = dataclasses.replace(GPU, overlap=overlap)
  assert_near(value_and_gradients(low, fields, implementation=kernel), reference(low, fields), 4e-3)
  assert not raced()


def test_the_simulation_finds_a_race(monkeypatch, raced):
  """Where the ring is read without waiting for the copy, the simulation says so."""
  wait = mosaic_gpu.plgpu.barrier_wait
  waited = []

  def forget_one(barrier):
    waited.append(barrier)
    if len(waited) != 2:  # the first is of the rows, the second of the first tile of keys
      wait(barrier)

  monkeypatch.setattr(mosaic_gpu.plgpu, "barrier_wait", forget_one)
  # From JAX 0.12 on a race raises, and leaves the simulation in a state that the next one cannot use.
  warn = {"on_race": "warn"} if "on_race" in {field.name for field in dataclasses.fields(GPU.interpret)} else {}
  printing = MosaicGPU(overlap=False, interpret=interpreter(detect_races=True, **warn))
  arrays, fields = arguments("one token", 64)
  sigmoid_attention(**cast(arrays, jnp.bfloat16), **fields, implementation=printing).block_until_ready()
  assert raced()


SHAPES = [(64, 512, 512), (128, 500, 300), (256, 197, 197)]
FIELDS = {
  "full": {}, "causal": {"is_causal": True}, "window": {"local_window_size": (100, 3)}, "segments": {"segments": True},
  "learned": {"bias": True, "slopes": True},
}


def lowered(implementation, platform, features, queries, keys, dtype, segments=False, bias=False, slopes=False,
            **fields):
  """Returns the text of the program for forward and backward on a platform that need not be there."""
  def of(length, heads):
    return jax.ShapeDtypeStruct((2, length, heads, features), dtype)

  def loss(query, key, value, numbers, query_ids, key_ids):
    out = sigmoid_attention(
      query, key, value, numbers if bias else "-log_n", alibi_slopes=numbers if slopes else None,
      q_segment_ids=query_ids if segments else None, kv_segment_ids=key_ids if segments else None,
      implementation=implementation, **fields,
    )
    return jnp.sum(out.astype(jnp.float32) ** 2)

  ids = [jax.ShapeDtypeStruct((2, length), jnp.int32) for length in (queries, keys)]
  arguments = of(queries, 4), of(keys, 2), of(keys, 2), jax.ShapeDtypeStruct((4,), jnp.float32), *ids
  traced = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2, 3))).trace(*arguments)
  return traced.lower(lowering_platforms=(platform,)).as_text()


# Every shape and every field once; the other pairs are for `make test-long`.
LOWERED = {(64, "window"), (128, "causal"), (128, "segments"), (256, "full"), (256, "learned")}


@pytest.mark.parametrize("features, queries, keys, field", [
  pytest.param(*shape, field, marks=() if (shape[0], field) in LOWERED else pytest.mark.long)
  for shape in SHAPES for field in FIELDS
])
def test_gpu_lowers(features, queries, keys, field):
  fields = FIELDS[field]
  dtype = jnp.float16 if features == 128 else jnp.bfloat16
  text = lowered(MosaicGPU(), "cuda", features, queries, keys, dtype, **fields)
  calls = text.count("call_target_name = \"mosaic_gpu_v2\"") or text.count("@mosaic_gpu_v2(")
  assert calls == (4 if features == 256 else 3)


@pytest.mark.parametrize("fields", FIELDS.values(), ids=FIELDS)
@pytest.mark.parametrize("features, queries, keys", SHAPES)
def test_tpu_lowers(features, queries, keys, fields):
  dtype = jnp.float32 if features == 128 else jnp.bfloat16
  assert lowered(MosaicTPU(), "tpu", features, queries, keys, dtype, **fields).count("@tpu_custom_call(") == 3


@pytest.mark.parametrize("rows, columns, band", [
  (64, 128, Band()), (64, 64, Band(high=0)), (128, 64, Band(-30, 10)), (64, 64, Band(low=5)), (64, 64, Band(-3, 70)),
  (64, 64, Band(200, 300)),
])
def test_blocks_of_a_band(rows, columns, band):
  """Skipped blocks hold no pair, blocks that are not masked hold pairs only, transposed or not."""
  queries, keys = 4 * rows, 5 * columns
  sees = band.sees(np.arange(queries)[:, None], np.arange(keys)[None])
  for i in range(4):
    first, end = band.blocks_of(i, rows, columns, keys)
    traced = jax.jit(lambda i: band.blocks_of(i, rows, columns, keys))(i)
    assert (first, end) == tuple(map(int, traced))
    inner, inner_end = (int(x) for x in band.inner_blocks_of(np.int32(i * rows), rows, columns))
    for j in range(5):
      block = sees[i * rows:(i + 1) * rows, j * columns:(j + 1) * columns]
      assert first <= j < end or not block.any()
      assert block.any() or not first < j < end - 1
      assert block.all() == (inner <= j < inner_end)
  np.testing.assert_array_equal(
    band.transposed.sees(np.arange(keys)[:, None], np.arange(queries)[None]), sees.T
  )


@pytest.mark.parametrize("stages", [1, 4])
@pytest.mark.parametrize("features", [64, 128, 256])
def test_tiles_fit_in_shared_memory(features, stages, monkeypatch):
  streams = []

  class Recorded(mosaic_gpu._Stream):
    def __init__(self, *args):
      super().__init__(*args)
      streams.append(self)

  monkeypatch.setattr(mosaic_gpu, "_Stream", Recorded)
  lowered(MosaicGPU(stages=stages), "cuda", features, 512, 512, jnp.bfloat16)
  assert len(streams) == 3
  for stream in streams:
    assert stream.shared_memory(stream.columns, stream.stages) <= SHARED_MEMORY
    assert stream.columns % 64 == 0 and 1 <= stream.stages <= stages
  if features == 64:
    assert (streams[0].columns, streams[0].stages) == (128, stages)


@pytest.mark.parametrize("which, change, words", [
  ("mosaic_gpu", {"features": 80}, "takes heads of 64, 128, 256 features, not 80"),
  ("mosaic_gpu", {"dtype": jnp.float32}, "in bfloat16 or all in float16, not in float32"),
  ("mosaic_gpu", {"dtype": jnp.float64}, "in bfloat16 or all in float16, not in float64"),
  ("mosaic_gpu", {"mask": np.ones((1, 1, 1, 1), bool)}, "takes no mask"),
  ("mosaic_tpu", {"dtype": jnp.float16}, "in float32 or all in bfloat16, not in float16"),
  ("mosaic_tpu", {"bias": np.zeros((1, 1, 4, 4))}, "a bias only as one number or one for each head"),
])
def test_what_a_kernel_cannot_do_is_refused(which, change, words):
  fields = {"features": 64, "dtype": jnp.bfloat16} | change
  with jax.enable_x64(True):
    x = jnp.zeros((1, 4, 1, fields.pop("features")), fields.pop("dtype"))
    with pytest.raises(UserError, match=words) as error:
      sigmoid_attention(x, x, x, **fields, implementation=kernel(which))
  assert str(error.value).count(". ") == 0 and str(error.value).endswith(".")


@pytest.mark.parametrize("name, words", [
  ("mosaic_gpu", "runs on Hopper GPUs, of compute capability 9.0, and the default device is a cpu"),
  ("mosaic_tpu", "runs on TPUs, and the default device is a cpu"),
])
def test_a_kernel_that_is_asked_for_by_name_must_run_here(name, words):
  x = jnp.zeros((1, 4, 1, 64), jnp.bfloat16)
  with pytest.raises(UserError, match=words):
    sigmoid_attention(x, x, x, implementation=name)


def test_members_of_an_ensemble_are_one_call_of_the_kernel():
  x = jax.ShapeDtypeStruct((3, 2, 64, 1, 64), jnp.bfloat16)
  bias = jax.ShapeDtypeStruct((3, 1), jnp.float32)
  slopes = alibi_slopes(1)
  function = jax.vmap(lambda q, b: sigmoid_attention(q, q, q, b, alibi_slopes=slopes, implementation=MosaicGPU()))
  text = jax.jit(function).trace(x, bias).lower(lowering_platforms=("cuda",)).as_text()
  assert text.count("@mosaic_gpu_v2(") == 1
