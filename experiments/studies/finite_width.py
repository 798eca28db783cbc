"""Finite networks approach their kernels as they get wider.

  python -m experiments.studies.finite_width --workdir=runs/finite_width

A network in NTK parameterization, weights N(0, 1) with σ_w / sqrt(fan in) in front, has at initialization a random
tangent kernel Θ_0 that tends to the deterministic Θ of infinite width (Jacot et al. 2018, arXiv:1806.07572). Measured
over widths w and seeds, on handwritten digits:

* distance at initialization: |Θ_0 - Θ| / |Θ| (Frobenius), a fluctuation of order w^-1/2;
* drift under training: |Θ_T - Θ_0| / |Θ_0| after T steps of gradient descent on the squared error. Lee et al. 2019
  (arXiv:1902.06720, theorem 2.1) bound it by O(w^-1/2); expansions in 1 / w say O(1 / w) (Dyer & Gur-Ari 2019,
  arXiv:1909.11304);
* distance of the trained outputs on test digits from f_0 plus kernel regression with Θ on y - f_0, at the same time T
  (root mean square): the network of infinite width from the same start.

The slope of log distance in log width is fitted for each seed, so that seeds give its standard error. Θ comes from
neural-tangents, Θ_0 and Θ_T from nurture.ntk.empirical.

Takes 34 s on 2 CPU cores, compilation included, and prints

  | slope in log width    | at initialization | drift under training | outputs after training |
  | ReLU, 3 hidden layers |    -0.586 ± 0.093 |       -0.793 ± 0.077 |         -0.483 ± 0.013 |
  | erf, 3 hidden layers  |    -0.560 ± 0.083 |       -0.841 ± 0.086 |         -0.457 ± 0.022 |
  | ReLU, 2 convolutions  |      -0.27 ± 0.19 |                    – |                      – |

Training stops at width 1024, and convolutions at 256 channels, whose four seeds are too few for a slope.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from flax import linen as nn

from nurture import reporting, terminal
from nurture.core import UserError
from nurture.data import DATASETS
from nurture.ntk import infinite
from nurture.ntk.empirical import ntk

_WORKDIR = flags.DEFINE_string(
  "workdir", None, "Directory for results.json, manifest.json and the plot.", **terminal.SHARED,
)
_WIDTHS = flags.DEFINE_list(
  "widths", ["32", "64", "128", "256", "1024", "4096"], "Units or channels of the hidden layers.",
)
_N = flags.DEFINE_integer("n", 24, "Training digits, and as many test digits.", lower_bound=2, **terminal.SHARED)
_STEPS = flags.DEFINE_integer("steps", 50, "Steps T of gradient descent.", lower_bound=1, **terminal.SHARED)
_SEEDS = flags.DEFINE_integer("seeds", 4, "Initializations.", lower_bound=1, **terminal.SHARED)
flags.mark_flag_as_required("workdir")

ACTIVATIONS = {"relu": (jax.nn.relu, math.sqrt(2)), "erf": (jax.lax.erf, 1.0)}  # with σ_w of the layer before
WIDEST_TRAINED, WIDEST_CNN = 1024, 256
MEASURES = ("at initialization", "drift under training", "outputs after training")


class Net(nn.Module):
  """Hidden layers of one width and a linear output, without biases, in NTK parameterization.

      x <- φ(σ_w W x / sqrt(fan in)),  W ~ N(0, 1),    f = <v, x> / sqrt(width)

  Attributes:
    width: units, or channels.
    depth: hidden layers.
    activation: φ, a row of ACTIVATIONS.
    convolutional: 3x3 convolutions, and the average over positions before the output.
  """

  width: int
  depth: int
  activation: str = "relu"
  convolutional: bool = False

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [n, 8, 8, 1] to [n, 1]."""
    phi, gain = ACTIVATIONS[self.activation]
    dense = functools.partial(nn.Dense, use_bias=False, kernel_init=nn.initializers.normal(1.0))
    conv = functools.partial(nn.Conv, kernel_size=(3, 3), use_bias=False, kernel_init=nn.initializers.normal(1.0))
    layer, window = (conv, 9) if self.convolutional else (dense, 1)
    x = x if self.convolutional else x.reshape(len(x), -1)
    for _ in range(self.depth):
      x = phi(layer(self.width)(x * (gain / math.sqrt(window * x.shape[-1]))))
    x = jnp.mean(x, axis=(1, 2)) if self.convolutional else x
    return dense(1)(x / math.sqrt(self.width))

  def infinite_kernel(self) -> Callable:
    """Returns the kernel at infinite width, of inputs as this network takes them."""
    stax = infinite.neural_tangents().stax
    _, gain = ACTIVATIONS[self.activation]
    phi = {"relu": stax.Relu, "erf": stax.Erf}[self.activation]()
    layer = stax.Conv(1, (3, 3), padding="SAME", W_std=gain) if self.convolutional else stax.Dense(1, W_std=gain)
    pool = stax.GlobalAvgPool() if self.convolutional else stax.Identity()
    flat = stax.Identity() if self.convolutional else stax.Flatten()
    return stax.serial(flat, *(layer, phi) * self.depth, pool, stax.Dense(1))[2]


NETS = {
  "ReLU, 3 hidden layers": Net(0, 3),
  "erf, 3 hidden layers": Net(0, 3, "erf"),
  "ReLU, 2 convolutions": Net(0, 2, "relu", True),
}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Task:
  """Digits x [n, 8, 8, 1] and x_test, and targets ±1 [n, 1], whether a training digit is odd."""

  x: jax.Array
  y: jax.Array
  x_test: jax.Array


def make_task(n: int) -> Task:
  """Returns the first n digits of both parts, each scaled to a mean square of 1."""
  digits = DATASETS["digits"]().load()
  if n > len(digits.test):
    raise UserError(f"--n={n} is more than the {len(digits.test)} test digits; give a smaller number.")

  def scaled(split):
    x = split.inputs["image"][:n].astype(np.float32)
    return jnp.asarray(x / np.sqrt(np.mean(x**2, axis=(1, 2, 3), keepdims=True)))

  odd = digits.train.label[:n] % 2
  return Task(scaled(digits.train), jnp.asarray(2.0 * odd[:, None] - 1, jnp.float32), scaled(digits.test))


@dataclasses.dataclass(frozen=True)
class Limit:
  """What infinite width makes of a task, in float64.

  Attributes:
    kernel: Θ on the training digits [n, n].
    test_kernel: Θ between test and training digits [n, n].
    rate: step size η = n / λ_max(Θ); the fastest direction is fitted in about one step.
  """

  kernel: np.ndarray
  test_kernel: np.ndarray
  rate: float


def limit(net: Net, task: Task) -> Limit:
  """Returns the infinite network of a task."""
  with jax.enable_x64(True):
    matrix = functools.partial(infinite.kernel_matrix, net.infinite_kernel(), block=len(task.x))
    x, x_test = (np.asarray(a, np.float64) for a in (task.x, task.x_test))
    kernel = matrix(x)
    return Limit(kernel, matrix(x_test, x), float(len(x) / np.linalg.eigvalsh(kernel)[-1]))


@functools.partial(jax.jit, static_argnums=0)
def start(net: Net, key: jax.Array, task: Task) -> tuple[Mapping, jax.Array, jax.Array]:
  """Returns the variables at initialization, f(x) and f(x_test)."""
  variables = net.init(key, task.x)
  return variables, net.apply(variables, task.x), net.apply(variables, task.x_test)


@functools.partial(jax.jit, static_argnums=0)
def train(net: Net, variables: Mapping, task: Task, rate: float, steps: int) -> tuple[Mapping, jax.Array]:
  """Returns the variables after gradient descent on sum (f - y)^2 / (2 n), and f(x_test)."""
  gradient = jax.grad(lambda variables: 0.5 * jnp.mean((net.apply(variables, task.x) - task.y) ** 2))
  step = lambda _, variables: jax.tree.map(lambda v, g: v - rate * g, variables, gradient(variables))
  variables = jax.lax.fori_loop(0, steps, step, variables)
  return variables, net.apply(variables, task.x_test)


def measure(net: Net, task: Task, infinite_net: Limit, seed: int, steps: int) -> dict[str, float]:
  """Returns the distances of one network from its limit, by MEASURES; nan for those of training where steps is 0."""
  variables, *outputs = start(net, jax.random.key(seed), task)
  f, f_test = (np.asarray(values, np.float64) for values in outputs)
  before, kernel = np.asarray(ntk(net.apply, variables, task.x), np.float64), infinite_net.kernel
  distances = [np.linalg.norm(before - kernel) / np.linalg.norm(kernel), math.nan, math.nan]
  if steps:
    variables, trained = train(net, variables, task, infinite_net.rate, steps)
    after = np.asarray(ntk(net.apply, variables, task.x), np.float64)
    with jax.enable_x64(True):
      flow = infinite.predict(
        kernel, infinite_net.test_kernel, task.y - f, float(steps), learning_rate=infinite_net.rate
      )
    distances[1] = np.linalg.norm(after - before) / np.linalg.norm(before)
    distances[2] = np.sqrt(np.mean((np.asarray(trained) - f_test - np.asarray(flow.test)) ** 2))
  return dict(zip(MEASURES, map(float, distances)))


def slopes(widths: Sequence[int], distances: np.ndarray) -> np.ndarray:
  """Returns d log distance / d log width by least squares, [seeds], of distances [seeds, widths]; nan are left out."""
  known = np.isfinite(distances).all(axis=0)
  x = np.log(np.asarray(widths, np.float64)[known])
  if len(x) < 2:
    return np.full(len(distances), math.nan)
  return (np.log(distances[:, known]) @ (x - x.mean())) / np.sum((x - x.mean()) ** 2)


def study(
  net: Net, task: Task, widths: Sequence[int], seeds: int, steps: int, advance: Callable = lambda: None
) -> dict[str, np.ndarray]:
  """Returns the distances [seeds, widths] of each of MEASURES; nan at widths that are left out for their cost."""
  infinite_net = limit(net, task)
  values = {name: np.full((seeds, len(widths)), math.nan) for name in MEASURES}
  for i, width in enumerate(widths):
    for seed in range(seeds):
      if not (net.convolutional and width > WIDEST_CNN):
        some = steps if width <= WIDEST_TRAINED and not net.convolutional else 0
        for name, value in measure(net.clone(width=width), task, infinite_net, seed, some).items():
          values[name][seed, i] = value
      advance()
  return values


def panels(results: Mapping[str, Mapping[str, np.ndarray]], widths: Sequence[int]) -> list[reporting.Panel]:
  """Returns one set of axes for each of MEASURES, with a power of the width drawn through the first mean."""
  drawn = []
  ylabels = ("|Θ₀ - Θ| / |Θ|", "|Θ_T - Θ₀| / |Θ₀|", "r.m.s. distance on test digits")
  for name, ylabel, power in zip(MEASURES, ylabels, (-0.5, -1.0, -0.5)):
    series = {net: (widths, of[name]) for net, of in results.items() if np.isfinite(of[name]).any()}
    first = np.mean(next(iter(series.values()))[1][:, 0])
    line = {"width^-1/2, for the drift 1 / width": (widths, first * (np.asarray(widths) / widths[0]) ** power)}
    title = f"{name[0].upper()}{name[1:]}"
    drawn.append(reporting.Panel(title, ylabel, series, line, "width", levels=widths, log_x=True, log_y=True))
  return drawn


def main(argv: Sequence[str]) -> None:
  del argv
  widths = _whole(_WIDTHS.value)
  settings = {"widths": widths, "n": _N.value, "steps": _STEPS.value, "seeds": _SEEDS.value}
  terminal.enable_compilation_cache()
  task = make_task(_N.value)
  networks = len(NETS) * len(widths) * _SEEDS.value
  with (
    reporting.study(_WORKDIR.value, settings, range(_SEEDS.value)) as running,
    reporting.Progress(networks, "networks") as progress,
  ):

    def advance():
      running.done += 1
      progress.update(running.done)

    results = {name: study(net, task, widths, _SEEDS.value, _STEPS.value, advance) for name, net in NETS.items()}
    fitted = {
      net: {name: reporting.summarize(slopes(widths, values)) for name, values in of.items()}
      for net, of in results.items()
    }
    cells = [
      [net, *(reporting.format_mean_sem(of[name]["mean"], of[name]["sem"], of[name]["n"]) for name in MEASURES)]
      for net, of in fitted.items()
    ]
    print(reporting.markdown_table(["slope in log width", *MEASURES], cells))
    plot = reporting.curves(
      running.picture("finite_width"), panels(results, widths), columns=3, of="initializations")
    written = running.write({"slopes": fitted, "distances": results})
  print(f"\n{plot}\n{running.seconds:.0f} s; {written} holds all numbers.")


def _whole(words: Sequence[str]) -> list[int]:
  if not words or not all(word.isdecimal() and int(word) for word in words):
    raise UserError(f"--widths={','.join(words)} is not possible; give whole numbers above 0 with commas between them.")
  return sorted({int(word) for word in words})


if __name__ == "__main__":
  terminal.run(main)
