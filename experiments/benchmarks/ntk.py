"""Empirical neural tangent kernels against neural-tangents: time, agreement, memory; and what deep kernels compile in.

  python -m experiments.benchmarks.ntk [--part=peers] [--rounds=7] [--out=DIR]
  python -m experiments.benchmarks.ntk --part=resnet18 [--samples=2000] [--block=0] [--reduce=trace] [--data_dir=data]
  python -m experiments.benchmarks.ntk --part=deep [--depth=50] [--rounds=7]

peers     the trace kernel of an MLP 784-512-512-10 on 64 samples, of a CNN with two convolutions of 32 features on 32
          images of 16 x 16 x 3, and of a vision transformer of one block (16 tokens of width 64) on 32, by
          nurture.ntk.empirical and by neural-tangents' implementations 1 (its default, Jacobian contraction) and 3
          (structured derivatives, repaired). Every round times each contender once, in turn, so that ratios are of
          neighbours in time; reported are medians over rounds after a warm-up, the compilation apart, and the largest
          difference from our kernel relative to its largest entry.
resnet18  the kernel of CIFAR-10 images through resnet18_cifar at initialization, by blocks: time, and peak memory of
          the process, on a GPU of the device. Without --data_dir the images are random.
deep      how long the NTK of 50 ReLU layers takes to compile: nurture.ntk.deep against neural-tangents' stax.serial of
          50 pairs of layers and its stax.repeat, which loops, too.

Without neural-tangents its contenders are left out. On 2 CPU cores peers takes 84 s with 15 rounds, deep 57 s with 7,
and resnet18 759 s (beside other jobs) with 2,000 images, --reduce=pseudo and blocks of 250, in 7.25 GB.
"""

import pathlib
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from nurture import data, models, reporting, terminal
from nurture.core import UserError, build
from nurture.ntk.deep import fc_kernel
from nurture.ntk.empirical import ntk
from nurture.ntk.infinite import neural_tangents

_PART = flags.DEFINE_enum("part", "peers", ["peers", "resnet18", "deep"], "What to measure.", **terminal.SHARED)
_ROUNDS = flags.DEFINE_integer("rounds", 7, "Times that every contender is measured.", lower_bound=1, **terminal.SHARED)
_SAMPLES = flags.DEFINE_integer("samples", 2000, "Images, for resnet18.", lower_bound=1)
_BLOCK = flags.DEFINE_integer("block", 0, "Rows of a block, for resnet18; 0: as many as fit.", lower_bound=0)
_REDUCE = flags.DEFINE_enum("reduce", "trace", ["trace", "pseudo"], "Which kernel, for resnet18.")
_DEPTH = flags.DEFINE_integer("depth", 50, "Hidden layers, for deep.", lower_bound=1, **terminal.SHARED)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Directory of data sets, for resnet18.", **terminal.SHARED)
_OUT = flags.DEFINE_string("out", "runs/benchmark_ntk", "Directory for the numbers and the plot.", **terminal.SHARED)

OURS, DEEP = "factored", "nurture.ntk.deep"
# Networks by config, with the number of samples and the shape of one.
NETWORKS = {
  "mlp": ({"name": "mlp", "depth": 2, "width": 512}, 64, (784,)),
  "cnn": (
    {"name": "cnn", "layers": (("conv", 32, 3), ("avg_pool", 2), ("conv", 32, 3), ("global_avg_pool",))},
    32, (16, 16, 3),
  ),
  "vit block": ({"name": "vit", "depth": 1, "width": 64, "heads": 4, "patch": 4}, 32, (16, 16, 3)),
}


class Timed:
  """A compiled program, with the seconds that its compilation took."""

  def __init__(self, function: Callable, *arguments: Any):
    self.arguments = arguments
    began = time.perf_counter()
    self.program = jax.jit(function).lower(*arguments).compile()
    self.compilation = time.perf_counter() - began
    self.result = np.asarray(self.program(*arguments))

  def seconds(self) -> float:
    """Returns the time of one run."""
    began = time.perf_counter()
    jax.block_until_ready(self.program(*self.arguments))
    return time.perf_counter() - began


def peer() -> Any | None:
  """Returns neural-tangents, or None, and says so, where it cannot be had."""
  try:
    return neural_tangents()
  except UserError as error:
    print(f"without neural-tangents: {error}")
    return None


def contenders(config: Mapping[str, Any], count: int, shape: tuple[int, ...], package: Any) -> dict[str, Timed]:
  """Returns our kernel and neural-tangents' of one network, compiled."""
  model = models.build(config, num_classes=10)
  x = jax.random.normal(jax.random.key(1), (count, *shape))
  variables = model.init(jax.random.key(0), x[:1])
  apply = lambda variables, x: model.apply(variables, x).logits
  compiled = {OURS: Timed(lambda variables, x: ntk(apply, variables, x), variables, x)}
  for implementation in (1, 3) if package else ():
    kernel = package.empirical_ntk_fn(apply, trace_axes=(-1,), vmap_axes=0, implementation=implementation)
    name = f"neural-tangents {implementation}"
    compiled[name] = Timed(lambda variables, x, kernel=kernel: kernel(x, None, variables), variables, x)
  return compiled


def compare(compiled: Mapping[str, Timed], rounds: int) -> dict[str, dict[str, Any]]:
  """Returns for each contender its seconds in every round, compilation, difference from ours, and time over ours."""
  for timed in compiled.values():
    timed.seconds()
  seconds = {name: [] for name in compiled}
  for _ in range(rounds):
    for name, timed in compiled.items():
      seconds[name].append(timed.seconds())
  ours = compiled[OURS].result
  return {
    name: {
      "seconds": seconds[name],
      "ratios": [theirs / mine for theirs, mine in zip(seconds[name], seconds[OURS])],
      "compilation": timed.compilation,
      "difference": float(np.abs(timed.result - ours).max() / np.abs(ours).max()),
    }
    for name, timed in compiled.items()
  }


def peers(out: pathlib.Path) -> dict[str, Any]:
  """Measures all networks."""
  package, results, rows = peer(), {}, []
  for network, (config, count, shape) in NETWORKS.items():
    results[network] = compare(contenders(config, count, shape, package), _ROUNDS.value)
    for name, of in results[network].items():
      rows.append([
        network, name, f"{1e3 * statistics.median(of['seconds']):.2f}", f"{statistics.median(of['ratios']):.2f}",
        f"{min(of['ratios']):.2f} to {max(of['ratios']):.2f}", f"{of['compilation']:.2f}", f"{of['difference']:.1e}",
      ])
  header = ["network", "kernel by", "run, ms", "times ours", "range", "compilation, s", "difference"]
  print(reporting.markdown_table(header, rows))
  print(f"\n{jax.devices()[0].device_kind}, jax {jax.__version__}, medians of {_ROUNDS.value} rounds.")
  panels = []
  for name in (name for name in next(iter(results.values())) if name != OURS):
    ratios = {network: of[name]["ratios"] for network, of in results.items()}
    panels.append(reporting.Intervals(name, "time over ours", ratios))
  if panels:
    print(reporting.intervals(out / "peers.png", panels, of="rounds"))
  return results


def images(count: int) -> tuple[np.ndarray, str]:
  """Returns CIFAR-10 images [count, 32, 32, 3], standardized, and where they are from."""
  if _DATA_DIR.value is None:
    return np.random.default_rng(0).standard_normal((count, 32, 32, 3)).astype(np.float32), "random images"
  pixels = build(data.DATASETS, "cifar10").load(_DATA_DIR.value).train.inputs["image"]
  if count > len(pixels):
    raise UserError(f"--samples={count}, but CIFAR-10 has {len(pixels)} training images; give fewer.")
  chosen = pixels[:count].astype(np.float32) / 255
  axes = (0, 1, 2)
  return (chosen - chosen.mean(axes, keepdims=True)) / chosen.std(axes, keepdims=True), "CIFAR-10"


def peak_bytes() -> int:
  """Returns the most memory that was in use, of the device where it tells, else of the process."""
  stats = jax.local_devices()[0].memory_stats() or {}
  return stats.get("peak_bytes_in_use", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def resnet18() -> dict[str, Any]:
  """Measures one kernel by blocks; the first block's compilation is in it."""
  count = _SAMPLES.value
  x, source = images(count)
  model = models.build("resnet18_cifar", num_classes=10)
  variables = jax.jit(model.init)(jax.random.key(0), x[:1])
  apply = lambda variables, x: model.apply(variables, x).logits
  before, began = peak_bytes(), time.perf_counter()
  with reporting.Progress(1, "blocks") as progress:
    kernel = np.asarray(ntk(
      apply, variables, jnp.asarray(x), reduce=_REDUCE.value, block=_BLOCK.value or None,
      on_block=lambda done, count: progress.update(done, total=count),
    ))
  seconds = time.perf_counter() - began
  eigenvalues = np.linalg.eigvalsh(kernel.astype(np.float64))[::-1]
  result = {
    "samples": count, "images": source, "reduce": _REDUCE.value, "block": _BLOCK.value, "seconds": seconds,
    "bytes_before": before, "peak_bytes": peak_bytes(), "trace": float(np.trace(kernel)),
    "largest_eigenvalues": eigenvalues[:10].tolist(), "smallest_eigenvalue": float(eigenvalues[-1]),
  }
  print(f"{_REDUCE.value} NTK of resnet18_cifar, {count:,} {source}: {seconds:.1f} s with compilation, peak memory "
        f"{result['peak_bytes'] / 1e9:.2f} GB ({before / 1e9:.2f} GB before) on {jax.devices()[0].device_kind}.")
  print(f"eigenvalues over the trace: {', '.join(f'{v / eigenvalues.sum():.3g}' for v in eigenvalues[:5])} ... "
        f"{eigenvalues[-1] / eigenvalues.sum():.2g}")
  return result


def deep() -> dict[str, list[float]]:
  """Measures the compilation of one deep kernel, float64, again in every round."""
  depth, package = _DEPTH.value, peer()
  with jax.enable_x64(True):
    x = np.random.default_rng(0).standard_normal((64, 784))
    x = jnp.asarray(x / np.linalg.norm(x, axis=1, keepdims=True))
    kernels = {DEEP: lambda x: fc_kernel(x, None, "relu", depth, "ntk")}
    if package:
      stax = package.stax
      pair = lambda: stax.serial(stax.Dense(784, 2**0.5), stax.Relu())  # repeat needs outputs of the inputs' width
      for name, layers in (("stax.serial", stax.serial(*(pair() for _ in range(depth)))),
                           ("stax.repeat", stax.repeat(pair(), depth))):
        kernels[name] = lambda x, kernel=layers[2]: kernel(x, None, "ntk")
    Timed(lambda x: jnp.sin(x), x)  # the first program of a process also waits for the compiler to start
    compilation = {name: [] for name in kernels}
    for _ in range(_ROUNDS.value):
      for name, kernel in kernels.items():
        jax.clear_caches()
        with jax.numpy_rank_promotion("allow"):
          compilation[name].append(Timed(kernel, x).compilation)
  rows = []
  for name, seconds in compilation.items():
    ratios = [theirs / ours for theirs, ours in zip(seconds, compilation[DEEP])]
    rows.append([name, f"{statistics.median(seconds):.2f}", f"{statistics.median(ratios):.1f}",
                 f"{min(ratios):.1f} to {max(ratios):.1f}"])
  header = [f"NTK of {depth} ReLU layers by", "compilation, s", "times ours", "range"]
  print(reporting.markdown_table(header, rows))
  print(f"\n{jax.devices()[0].device_kind}, jax {jax.__version__}, medians of {_ROUNDS.value} rounds.")
  return compilation


def main(argv: Sequence[str]) -> None:
  del argv
  out = pathlib.Path(_OUT.value)
  measured = {"peers": lambda: peers(out), "resnet18": resnet18, "deep": deep}[_PART.value]()
  reporting.write_json(out / f"{_PART.value}.json", measured)


if __name__ == "__main__":
  terminal.run(main)
