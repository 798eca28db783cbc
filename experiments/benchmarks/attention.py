"""Sigmoid and softmax attention by every implementation that runs here: exactness, time, rate and memory.

  python -m experiments.benchmarks.attention [--features=64,128] [--lengths=1024,4096,16384] [--batch=B --heads=N]
    [--causal=false,true] [--sigmoid=...] [--rounds=9] [--out=DIR]

First every implementation is compared with the plain form in float32 (odd lengths, grouped heads, causal and windowed),
then the forms of the sigmoid inside the kernel over n with b = -log n. Then every round times each contender once, in
turn, so that ratios are of neighbours in time. A program calls the contender on three sets of random inputs, and a
measurement waits for the last of many such programs, so that what is measured is the device and not the dispatch;
forward, and forward with the gradients of query, key and value, from which backward is the difference. Reported are
medians over rounds after a warm-up, in operations of the two (backward: five) matrix products, 4 B N T S H, halved
under a causal mask, and as a share of the rate of one large product measured in the same rounds.

Without --batch and --heads there are as many as make 16,384 tokens (1,024 on CPU) of width 2,048 (256).
PyTorch's scaled_dot_product_attention is a contender where PyTorch is installed; beside it set
XLA_PYTHON_CLIENT_MEM_FRACTION=0.5. Memory is what the compiled program of forward and backward, on the three sets,
allocates beside its arguments and results. The table and results.json grow shape by shape; a contender that fails is
named with its reason, and the others go on.
"""

import contextlib
import dataclasses
import functools
import importlib
import importlib.util
import math
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
from absl import flags

from nurture import reporting, terminal
from nurture.attention import numerics, sigmoid_attention, softmax_attention
from nurture.attention.mosaic_gpu import MosaicGPU
from nurture.core import UserError

_FEATURES = flags.DEFINE_list("features", ["64", "128"], "Features of a head.")
_LENGTHS = flags.DEFINE_list("lengths", [], "Tokens; default 1024,4096,16384, on CPU 256,1024.", **terminal.SHARED)
_CAUSAL = flags.DEFINE_list("causal", ["false", "true"], "Whether under a causal mask.")
_BATCH = flags.DEFINE_integer("batch", 0, "Sequences; 0 by the number of tokens.", lower_bound=0, **terminal.SHARED)
_HEADS = flags.DEFINE_integer("heads", 0, "Heads; 0 by the width.", lower_bound=0)
_SIGMOID = flags.DEFINE_list("sigmoid", [], "Forms of the sigmoid to time on a GPU; default the one that is chosen.")
_KERNELS_ONLY = flags.DEFINE_bool("kernels_only", False, "Leaves out what is plain XLA, which is slow at great length.")
_ROUNDS = flags.DEFINE_integer("rounds", 9, "Times that every contender is measured.", lower_bound=1, **terminal.SHARED)
_SECONDS = flags.DEFINE_float("seconds", 0.1, "Length of one measurement, about.", lower_bound=0.001, **terminal.SHARED)
_OUT = flags.DEFINE_string(
  "out", "runs/benchmark_attention", "Directory for results.json and the plot.", **terminal.SHARED,
)

SETS = 3  # of inputs
TORCH = "experiments.benchmarks.torch_attention"
JAX_KERNEL = "jax.experimental.pallas.ops.gpu.attention_mgpu"  # forward, float16


@dataclasses.dataclass(frozen=True)
class Shape:
  """Of one call: attention of B sequences of T tokens, N heads of H features."""

  batch: int
  length: int
  heads: int
  features: int
  causal: bool

  @property
  def flops(self) -> float:
    """Operations of the two matrix products of the forward pass."""
    return 4 * self.batch * self.heads * self.length**2 * self.features / (2 if self.causal else 1)

  def __str__(self) -> str:
    return f"{'causal' if self.causal else 'full'}, H {self.features}, T {self.length:,}, B N {self.batch * self.heads}"


Attention = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


@functools.lru_cache(maxsize=1)  # those of one shape are on the device at a time
def inputs_of(shape: Shape, dtype: jnp.dtype) -> list[jax.Array]:
  """Returns SETS arrays of query, key, value and the output's cotangent, [4, B, T, N, H] each."""
  keys = jax.random.split(jax.random.key(shape.length), SETS)
  size = (4, shape.batch, shape.length, shape.heads, shape.features)
  return [tuple(jax.random.normal(key, size, jnp.float32).astype(dtype)) for key in keys]


class Timed:
  """One implementation on one shape, forward alone or with the gradients."""

  def __init__(self, attention: Attention, shape: Shape, dtype: jnp.dtype, backward: bool):
    self.inputs = inputs_of(shape, dtype)

    def once(query, key, value, given):
      if not backward:
        return attention(query, key, value)
      out, gradients = jax.vjp(attention, query, key, value)
      return (out, *gradients(given))

    def each(sets):
      results = [jax.lax.optimization_barrier(once(*x)) for x in sets]  # so that no part of them is left out
      return sum(r[(0,) * r.ndim].astype(jnp.float32) for r in jax.tree.leaves(results))

    self.program = jax.jit(each).lower(self.inputs).compile()
    self.temporary_bytes = self.program.memory_analysis().temp_size_in_bytes
    self.count = 1

  def seconds(self, budget: float) -> float:
    """Returns the time of one call, over as many as take about `budget` seconds; they wait in the device's queue."""
    began = time.perf_counter()
    for _ in range(self.count):
      last = self.program(self.inputs)
    last.block_until_ready()
    each = (time.perf_counter() - began) / self.count
    self.count = max(1, min(10_000, round(budget / each)))
    return each / SETS


class Torch:
  """scaled_dot_product_attention in a process of its own."""

  def __init__(self):
    command = [sys.executable, "-m", TORCH]
    self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

  def seconds(self, shape: Shape, dtype: jnp.dtype, backward: bool, budget: float) -> float:
    """Returns the time of one call of the fastest of its backends, which is chosen at the first."""
    fields = [*dataclasses.astuple(shape), jnp.dtype(dtype).name, backward, budget]
    self.process.stdin.write(" ".join(str(int(f) if isinstance(f, bool) else f) for f in fields) + "\n")
    self.process.stdin.flush()
    line = self.process.stdout.readline()
    if not line:
      raise RuntimeError("PyTorch's process has ended")
    return float(line)


def contenders(shape: Shape, dtype: jnp.dtype) -> Iterator[tuple[str, Attention, bool]]:
  """Yields (name, attention, whether backward too) of all that serve the shape on this device."""
  on_gpu = jax.default_backend() == "gpu"
  options = {"is_causal": shape.causal}
  softmax = lambda implementation: functools.partial(softmax_attention, implementation=implementation, **options)
  if on_gpu:
    for form in _SIGMOID.value or [numerics.choose(-math.log(shape.length))]:
      for overlap in (True, False):
        kernel = MosaicGPU(sigmoid=form, overlap=overlap)
        name = f"sigmoid, mosaic_gpu, {form}" + ("" if overlap else ", no overlap")
        # Backward is the same kernels.
        yield name, functools.partial(sigmoid_attention, implementation=kernel, **options), overlap
    yield "softmax, cudnn", softmax("cudnn"), True
    if importlib.util.find_spec(JAX_KERNEL):
      module = importlib.import_module(JAX_KERNEL)
      config = module.TuningConfig(block_q=64, block_kv=128, max_concurrent_steps=2, causal=shape.causal)
      scale = shape.features**-0.5

      def jax_kernel(query, key, value):
        query, key, value = (x.astype(jnp.float16) for x in (query * scale, key, value))
        return module.attention(query, key, value, config)

      yield "softmax, jax's mosaic kernel (float16)", jax_kernel, False
  if jax.default_backend() == "tpu":
    yield "sigmoid, mosaic_tpu", functools.partial(sigmoid_attention, implementation="mosaic_tpu", **options), True
  if _KERNELS_ONLY.value:
    return
  yield "sigmoid, xla_chunked", functools.partial(sigmoid_attention, implementation="xla_chunked", **options), True
  if 4 * shape.batch * shape.heads * shape.length**2 < 2**33:  # one array of the weights
    yield "sigmoid, xla", functools.partial(sigmoid_attention, implementation="xla", **options), True
    yield "softmax, jax.nn, xla", functools.partial(jax.nn.dot_product_attention, implementation="xla", **options), True


def relative_error(actual: jax.Array, expected: jax.Array) -> float:
  actual, expected = (x.astype(jnp.float32) for x in (actual, expected))
  return float(jnp.linalg.norm((actual - expected).ravel()) / jnp.linalg.norm(expected.ravel()))


def check(dtype: jnp.dtype) -> list[list[str]]:
  """Returns rows of (case, implementation, relative errors of the output and its gradients)."""
  names = {"gpu": ["mosaic_gpu"], "tpu": ["mosaic_tpu"]}.get(jax.default_backend(), []) + ["xla_chunked"]
  cases = {"full": {}, "causal": {"is_causal": True}, "window": {"local_window_size": (150, 20)}}
  rows = []
  for features in map(int, _FEATURES.value):
    keys = jax.random.split(jax.random.key(features), 4)
    query, given = (jax.random.normal(k, (2, 333, 4, features)).astype(dtype) for k in keys[:2])
    key, value = (jax.random.normal(k, (2, 421, 2, features)).astype(dtype) for k in keys[2:])
    arrays = query, key, value, given
    for case, fields in cases.items():

      def gradients(implementation, *arrays, fields=fields):
        attention = functools.partial(sigmoid_attention, implementation=implementation, **fields)
        out, pull = jax.vjp(attention, *arrays[:3])
        return (out, *pull(arrays[3]))

      with jax.default_matmul_precision("highest"):
        exact = jax.jit(functools.partial(gradients, "xla"))(*(x.astype(jnp.float32) for x in arrays))
      for name in names:
        with _going_on(f"{case}, H {features}: {name}"):
          actual = jax.jit(functools.partial(gradients, name))(*arrays)
          errors = [f"{relative_error(a, e):.1e}" for a, e in zip(actual, exact)]
          rows.append([f"{case}, H {features}", name, *errors])
  return rows


def check_forms(dtype: jnp.dtype, lengths: Sequence[int] = (256, 1024, 4096, 16_384)) -> list[list[str]]:
  """Returns rows of (form of the sigmoid, relative error of the output for each n), with b = -log n, on a GPU."""
  rows = {form: [form] for form in numerics.FORMS}
  for length in lengths:
    x = jax.random.normal(jax.random.key(length), (3, 1, length, 1, 64)).astype(dtype)
    with jax.default_matmul_precision("highest"):
      exact = jax.jit(functools.partial(sigmoid_attention, implementation="xla_chunked"))(*x.astype(jnp.float32))
    for form, row in rows.items():
      actual = jax.jit(functools.partial(sigmoid_attention, implementation=MosaicGPU(sigmoid=form)))(*x)
      row.append(f"{relative_error(actual, exact):.1e}")
  return list(rows.values())


def shapes() -> list[Shape]:
  """Returns the shapes that the flags ask for."""
  on_cpu = jax.default_backend() == "cpu"
  lengths = _LENGTHS.value or (["256", "1024"] if on_cpu else ["1024", "4096", "16384"])
  tokens, width = (1024, 256) if on_cpu else (16_384, 2048)
  try:
    return [
      Shape(
        _BATCH.value or max(1, tokens // int(length)), int(length), _HEADS.value or max(1, width // int(features)),
        int(features), {"false": False, "true": True}[causal],
      )
      for causal in _CAUSAL.value for features in _FEATURES.value for length in lengths
    ]
  except (ValueError, KeyError) as error:
    raise UserError("--features and --lengths take whole numbers with commas between them, --causal takes false and "
                    "true.") from error


def main(argv: Sequence[str]) -> None:
  del argv
  asked, dtype = shapes(), jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
  print(reporting.markdown_table(["check", "implementation", "output", "d query", "d key", "d value"], check(dtype)))
  if jax.default_backend() == "gpu":
    print(reporting.markdown_table(["form", "n = 256", "1,024", "4,096", "16,384"], check_forms(dtype)))
  torch = Torch() if importlib.util.find_spec("torch") else None
  n = 2048 if jax.default_backend() == "cpu" else 8192
  operand = jax.random.normal(jax.random.key(0), (n, n)).astype(dtype)
  product = jax.jit(lambda a: a @ a)
  product(operand).block_until_ready()
  device, out = jax.devices()[0].device_kind, pathlib.Path(_OUT.value)
  results, rows = [], []
  with reporting.Progress(len(asked) * (1 + _ROUNDS.value), "attention") as progress:
    for i, shape in enumerate(asked):
      timed, seconds = {}, {}
      for name, attention, has_backward in contenders(shape, dtype):
        for backward in (False, True)[: 1 + has_backward]:
          with _going_on(f"{shape}: {name}"):
            one = Timed(attention, shape, dtype, backward)
            one.seconds(_SECONDS.value)  # warms up, and finds the number of calls
            one.seconds(_SECONDS.value)
            timed[name, backward], seconds[name, backward] = one, functools.partial(one.seconds, _SECONDS.value)
      for backward in (False, True) if torch else ():
        with _going_on(f"{shape}: torch"):
          measure = functools.partial(torch.seconds, shape, dtype, backward, _SECONDS.value)
          measure()
          seconds["softmax, torch", backward] = measure
      progress.update(i * (1 + _ROUNDS.value) + 1, None)
      times, ceiling = {key: [] for key in seconds}, []
      for round_ in range(_ROUNDS.value):
        began = time.perf_counter()
        for _ in range(5):
          last = product(operand)
        last.block_until_ready()
        ceiling.append(5 * 2 * n**3 / (time.perf_counter() - began))
        for key, measure in seconds.items():
          with _going_on(f"{shape}: {key[0]}"):
            times[key].append(measure())
        progress.update(i * (1 + _ROUNDS.value) + 2 + round_, None)
      times = {key: taken for key, taken in times.items() if taken}
      rows += _rows(shape, times, timed, ceiling)
      results.append({"shape": dataclasses.asdict(shape), "matmul": ceiling, "seconds": [
        {"name": name, "backward": backward, "seconds": taken} for (name, backward), taken in times.items()
      ]})
      reporting.write_json(out / "results.json", {"device": device, "dtype": jnp.dtype(dtype).name, "results": results})
  headers = ["shape", "contender", "forward, µs", "TFLOP/s", "share", "backward, µs", "TFLOP/s", "share", "MiB"]
  print(reporting.markdown_table(headers, rows))
  print(f"\n{jnp.dtype(dtype).name}; {device}, jax {jax.__version__}, medians of {_ROUNDS.value} rounds.")
  print(plot(out / "rates.png", results))


@contextlib.contextmanager
def _going_on(what: str) -> Iterator[None]:
  """Prints why a contender cannot be measured, and goes on without it."""
  try:
    yield
  except (RuntimeError, ValueError, UserError) as error:  # jax's own errors are the first kind
    print(f"not measured: {what}: {str(error).splitlines()[0][:300]}", file=sys.stderr)


def _rows(shape: Shape, times, timed, ceiling) -> list[list[str]]:
  """Returns a row of the table for each contender."""
  rows = []
  for name in (name for name, backward in times if not backward):
    forward = times[name, False]
    backward = [both - alone for both, alone in zip(times.get((name, True), []), forward)]
    row = [str(shape), name]
    for taken, flops in ((forward, shape.flops), (backward, 2.5 * shape.flops)):
      if not taken:
        row += ["–", "–", "–"]
        continue
      rates, middle = [flops / t for t in taken], statistics.median(taken)
      share = statistics.median(rate / full for rate, full in zip(rates, ceiling))
      row += [f"{1e6 * middle:,.0f}", f"{flops / middle / 1e12:,.3g}", f"{100 * share:.0f} %"]
    both = timed.get((name, True))
    rows.append([*row, f"{both.temporary_bytes / 2**20:,.0f}" if both else "–"])
  return rows


def plot(path: pathlib.Path, results: Sequence[dict]) -> pathlib.Path:
  """Draws the forward rate of every contender on every shape, with the range over rounds."""
  panels: dict[str, dict[str, list[float]]] = {}
  for result in results:
    shape = Shape(**result["shape"])
    for entry in result["seconds"]:
      if not entry["backward"]:
        panels.setdefault(str(shape), {})[entry["name"]] = [shape.flops / s / 1e12 for s in entry["seconds"]]
  return reporting.intervals(
    path, [reporting.Intervals(title, "TFLOP/s", rates) for title, rates in panels.items()], of="rounds",
  )


if __name__ == "__main__":
  terminal.run(main)
