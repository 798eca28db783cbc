"""Early learning and memorization in a linear model, with cross-entropy and with early-learning regularization.

  python -m experiments.studies.elr_linear --workdir=runs/elr_linear

The model of Liu et al. 2020 (arXiv:2007.00151, section 3 and appendix A): n examples x = ε (v - σ z) with |v| = 1,
z ~ N(0, I_p) and true label ε = ±1, the label y replaced by a fair coin with probability Δ, and gradient descent on the
logistic loss from a uniformly random θ of length 2. With p / n above 1 - Δ / 2, some θ fits all wrong labels. The paper
proves, as n and p grow with σ small, that up to the first step T with <θ, v> >= 1/10 the gradient points towards v
(proposition 3: cosine of -gradient and v at least 1/6), that θ_T is right about nearly all wrong labels (theorem 4),
that the coefficients κ have shrunk on clean examples and grown on wrong ones (proposition 5: mean κ² changes by more
than 0.05), and that all labels are memorized in the end (theorem 6). It proves nothing about the regularizer, which
here keeps memorization at 0.

Takes 36 s on 2 CPU cores beside other jobs. Both methods run on the same data, in float64. Gradient descent stays in
θ_0 plus the span of the examples, so only margins m = X θ are iterated, with the Gram matrix X X^T; test accuracy is
the exact Φ(<θ, v> / (σ |θ|)). Running averages are kept as logarithms, those of both classes and the mass β^k they
lack, so 1 - t is no difference of nearly equal numbers: where float64 rounds 1 - <p, t> to 0, a plain version stalls.

Theorem 4 speaks of σ so small that one step past T is enough; at the default σ = 0.1 accuracy on wrong labels peaks
shortly after T, and --sigma=0.01 shows it at T (and memorizes about 100 times later).

Differs from the paper, whose proofs have two slips that change no limit: the gradient of log(1 + exp(-y m)) is
(tanh(m / 2) - y) / 2 and not (tanh(m) - y) / 2, so κ = tanh(m / 2) - y here; and |θ_0|² on the sphere of radius 2 is
4 and not 2, so E <θ_0, v>² = 4 / p.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from nurture import reporting, terminal
from nurture.core import UserError

_WORKDIR = flags.DEFINE_string(
  "workdir", None, "Directory for results.json, manifest.json and the plot.", **terminal.SHARED,
)
_N = flags.DEFINE_integer("n", 1000, "Examples.", lower_bound=2, **terminal.SHARED)
_P = flags.DEFINE_integer("p", 900, "Dimensions.", lower_bound=1)
_DELTA = flags.DEFINE_float("delta", 0.4, "Probability Δ of a random label; half of them are wrong.", 0.0, 1.0)
_SIGMA = flags.DEFINE_float("sigma", 0.1, "Scale σ of the noise in the inputs.")
_ETA = flags.DEFINE_float("eta", 0.5, "Step size η.")
_STEPS = flags.DEFINE_integer("steps", 10_000, "Steps of gradient descent.", lower_bound=1, **terminal.SHARED)
_LAM = flags.DEFINE_float("lam", 3.0, "Strength λ of the regularizer.", lower_bound=0.0)
_BETA = flags.DEFINE_float("beta", 0.7, "Weight β of the past in the running averages.", 0.0, 1.0)
_SEEDS = flags.DEFINE_integer("seeds", 4, "Draws of data and initialization.", lower_bound=1, **terminal.SHARED)
flags.mark_flag_as_required("workdir")

METHODS = ("cross-entropy", "ELR")
CHUNK = 500  # steps of one call of the device
EARLY = 0.1  # <θ, v> at which the early phase ends


def draw(key: jax.Array, n: int, p: int, delta: float, sigma: float) -> dict[str, jax.Array]:
  """Draws one data set and initialization; v is the first unit vector.

  Returns:
    {"truth" [n] ±1, "label" [n] ±1, "gram" [n, n] X X^T, "toward_v" [n] X v, "margins" [n] X θ_0, "start" [] <θ_0, v>}.
  """
  sign, noise, drawn, coin, start = jax.random.split(key, 5)
  truth = jax.random.rademacher(sign, (n,), jnp.float64)
  v = jnp.zeros(p).at[0].set(1.0)
  x = truth[:, None] * (v[None] - sigma * jax.random.normal(noise, (n, p)))
  label = jnp.where(jax.random.bernoulli(drawn, delta, (n,)), jax.random.rademacher(coin, (n,), jnp.float64), truth)
  theta = jax.random.normal(start, (p,))
  theta = 2 * theta / jnp.linalg.norm(theta)
  return {
    "truth": truth, "label": label, "gram": x @ x.T, "toward_v": x[:, 0], "margins": x @ theta, "start": theta[0],
  }


def initial(data: Mapping[str, jax.Array], lams: Sequence[float]) -> dict[str, jax.Array]:
  """Returns the state before the first step, for one method a λ (their axis A is the last one)."""
  shape = (*data["label"].shape, len(lams))
  return {
    "margins": jnp.broadcast_to(data["margins"][:, None], shape),
    "dual": jnp.zeros(shape),  # θ_t = θ_0 - X^T dual
    "log_plus": jnp.full(shape, -jnp.inf), "log_minus": jnp.full(shape, -jnp.inf),  # averages of both classes
    "log_missing": jnp.zeros(()),  # k log β, what these lack to sum to 1
  }


def descend(
  data: Mapping[str, jax.Array], state: Mapping[str, jax.Array], lams: jax.Array, beta: float, eta: float, sigma: float
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
  """Takes one step of gradient descent on mean log(1 + exp(-y m)) + λ log(1 - <p, t>).

  Returns:
    The next state, and what is measured before the step, each [A].
  """
  n, m = len(data["label"]), state["margins"]
  p = jax.nn.sigmoid(m)
  average = lambda log_t, m: jnp.logaddexp(jnp.log(beta) + log_t, jnp.log1p(-beta) + jax.nn.log_sigmoid(m))
  log_plus, log_minus = average(state["log_plus"], m), average(state["log_minus"], -m)
  log_missing = jnp.log(beta) + state["log_missing"]
  # g = softmax(log p + log(1 - t)) - p (lemma 2), with 1 - t of one class the average of the other and what is missing.
  g = jax.nn.sigmoid(m + jnp.logaddexp(log_minus, log_missing) - jnp.logaddexp(log_plus, log_missing)) - p
  slope = (p - (data["label"] > 0)[:, None] + lams[None] * g) / n
  moved = data["gram"] @ slope
  next_state = {
    "margins": m - eta * moved, "dual": state["dual"] + eta * slope,
    "log_plus": log_plus, "log_minus": log_minus, "log_missing": log_missing,
  }
  return next_state, measure(data, state, slope, moved, sigma)


def measure(
  data: Mapping[str, jax.Array], state: Mapping[str, jax.Array], slope: jax.Array, moved: jax.Array, sigma: float
) -> dict[str, jax.Array]:
  """Returns the quantities of the paper's statements, each [A].

  Args:
    data, state, sigma: as for `descend`.
    slope: [n, A], the gradient in the margins; in θ it is X^T slope.
    moved: [n, A], X X^T slope.
  """
  m, label, truth = state["margins"], data["label"][:, None], data["truth"][:, None]
  wrong = (label != truth).astype(m.dtype)
  mean = lambda weight, values: jnp.sum(weight * values, axis=0) / jnp.sum(weight, axis=0)
  along = data["start"] - data["toward_v"] @ state["dual"]
  squared_length = 4.0 - jnp.sum(state["dual"] * (m + data["margins"][:, None]), axis=0)
  kappa_squared = jnp.square(jnp.tanh(m / 2) - label)
  return {
    "along_v": along,
    "alignment": -(data["toward_v"] @ slope) / jnp.sqrt(jnp.sum(slope * moved, axis=0)),
    "clean_correct": mean(1 - wrong, m * truth > 0),
    "wrong_correct": mean(wrong, m * truth > 0),
    "wrong_memorized": mean(wrong, m * label > 0),
    "clean_kappa_squared": mean(1 - wrong, kappa_squared),
    "wrong_kappa_squared": mean(wrong, kappa_squared),
    "test_accuracy": jax.scipy.special.ndtr(along / (sigma * jnp.sqrt(squared_length))),
  }


def simulate(
  n: int, p: int, delta: float, sigma: float, eta: float, steps: int, lams: Sequence[float], beta: float, seeds: int
) -> dict[str, np.ndarray]:
  """Returns every quantity of `measure` at the steps 0 to `steps`, [seeds, len(lams), steps + 1]."""
  with jax.enable_x64(True):
    keys = jax.vmap(jax.random.key)(jnp.arange(seeds))
    data = jax.jit(jax.vmap(lambda key: draw(key, n, p, delta, sigma)))(keys)
    state = jax.vmap(lambda one: initial(one, lams))(data)
    strengths = jnp.asarray(lams, jnp.float64)
    step = jax.vmap(lambda one, state: descend(one, state, strengths, beta, eta, sigma))
    chunk = min(CHUNK, steps + 1)
    advance = jax.jit(lambda data, state: jax.lax.scan(lambda s, _: step(data, s), state, length=chunk))
    parts = []
    with reporting.Progress(steps, "linear model") as progress:
      for start in range(0, steps + 1, chunk):
        state, measured = advance(data, state)
        parts.append(jax.tree.map(np.asarray, measured))
        progress.update(min(start + chunk, steps))
  joined = jax.tree.map(lambda *leaves: np.concatenate(leaves)[: steps + 1], *parts)
  return {name: np.moveaxis(values, 0, -1) for name, values in joined.items()}


def early_phase(along_v: np.ndarray) -> int:
  """Returns T, the first step at which <θ, v> [steps + 1] is at least 1/10.

  Raises:
    UserError: if it never is.
  """
  reached = np.flatnonzero(along_v >= EARLY)
  if not len(reached):
    raise UserError(f"<θ, v> has not reached {EARLY} in {len(along_v) - 1} steps; give more --steps.")
  return int(reached[0])


def summarize(measured: Mapping[str, np.ndarray], method: int) -> dict[str, list[float]]:
  """Returns the numbers of the table, each a list over the seeds; nan where T is 0 and there is no early phase."""
  rows = []
  for seed in range(len(measured["along_v"])):
    of = {name: values[seed, method] for name, values in measured.items()}
    end = early_phase(of["along_v"])
    rows.append({
      "T": end,
      "least alignment before T": of["alignment"][:end].min() if end else math.nan,
      "κ² clean, change to T": of["clean_kappa_squared"][end] - of["clean_kappa_squared"][0],
      "κ² wrong, change to T": of["wrong_kappa_squared"][end] - of["wrong_kappa_squared"][0],
      "true class of wrong labels, step 0": of["wrong_correct"][0],
      "at T": of["wrong_correct"][end],
      "highest": of["wrong_correct"].max(),
      "at the end": of["wrong_correct"][-1],
      "memorized at the end": of["wrong_memorized"][-1],
      "test accuracy at the end": of["test_accuracy"][-1],
    })
  return {name: [float(row[name]) for row in rows] for name in rows[0]}


def panels(measured: Mapping[str, np.ndarray], points: int = 200) -> list[reporting.Panel]:
  """Returns the curves of both methods at steps that are equally spaced on a logarithmic axis."""
  last = measured["along_v"].shape[-1] - 1
  steps = np.unique(np.geomspace(1, last, points).astype(int))
  series = lambda name: {method: (steps, measured[name][:, i][:, steps]) for i, method in enumerate(METHODS)}
  panel = functools.partial(reporting.Panel, log_x=True)
  return [
    panel("Wrong labels: memorized", "fraction of wrong labels", series("wrong_memorized"), fraction=True),
    panel("Wrong labels: true class", "fraction of wrong labels", series("wrong_correct"), fraction=True),
    panel("Test accuracy", "fraction of test points", series("test_accuracy"), fraction=True),
    panel("Gradient", "cosine of -gradient and v", series("alignment"),
          theory={"1/6, bound before T": (steps, np.full(len(steps), 1 / 6))}),
  ]


def main(argv: Sequence[str]) -> None:
  del argv
  settings = {f.name: f.value for f in (_N, _P, _DELTA, _SIGMA, _ETA, _STEPS, _LAM, _BETA, _SEEDS)}
  _check(settings)
  terminal.enable_compilation_cache()
  with reporting.study(_WORKDIR.value, settings, range(_SEEDS.value)) as study:
    arguments = {name: value for name, value in settings.items() if name != "lam"}
    measured = simulate(lams=(0.0, settings["lam"]), **arguments)
    study.done = _STEPS.value
    if not np.isfinite([measured["wrong_correct"], measured["clean_correct"]]).all():
      raise UserError("a draw has no wrong label, or no correct one, so there is nothing to compare; give a larger --n "
                      "or another --delta.")
    table = {method: summarize(measured, i) for i, method in enumerate(METHODS)}
    statistics = {method: {k: reporting.summarize(v) for k, v in rows.items()} for method, rows in table.items()}
    cells = [
      [name, *(reporting.format_mean_sem(s["mean"], s["sem"], s["n"]) for s in (statistics[m][name] for m in METHODS))]
      for name in table[METHODS[0]]
    ]
    print(reporting.markdown_table(["quantity", *METHODS], cells))
    plot = reporting.curves(study.picture("elr_linear"), panels(measured), of="draws")
    results = study.write({"groups": statistics, "seeds": table})
  print(f"\n{plot}\n{study.seconds:.0f} s; {results} holds all numbers.")


def _check(settings: Mapping[str, Any]) -> None:
  for name in ("sigma", "eta"):
    if not 0 < settings[name] < math.inf:
      raise UserError(f"--{name}={settings[name]} is not possible; give a positive number.")
  if not settings["delta"]:
    raise UserError("--delta=0 leaves no wrong label to memorize; give a probability above 0.")


if __name__ == "__main__":
  terminal.run(main)
