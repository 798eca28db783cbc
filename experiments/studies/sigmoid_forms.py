"""Exactness of sigmoid attention by the form of its sigmoid, over the length n with b = -log n: a table and a figure.

  python -m experiments.studies.sigmoid_forms [--lengths=64,256,1024,4096,16384] [--workdir=runs/sigmoid_forms]

Takes 6 s on 2 CPU cores. The forms of lib/nurture/attention/numerics.py are evaluated in float32 with the errors that
NVIDIA documents for the instructions they become, at their largest: of one sign for all weights ("systematic"), or
uniform between the bounds ("random"). Weights are rounded to bfloat16 before they multiply the values, as in the
kernel. Logits and values are standard normal. What a real GPU does, `python -m experiments.benchmarks.attention`
measures. """

from collections.abc import Callable, Mapping, Sequence

import jax.numpy as jnp
import numpy as np
from absl import flags

from nurture import reporting, terminal
from nurture.attention import numerics
from nurture.core import UserError

_LENGTHS = flags.DEFINE_list("lengths", ["64", "256", "1024", "4096", "16384"], "Numbers of keys n.", **terminal.SHARED)
_WORKDIR = flags.DEFINE_string(
  "workdir", "runs/sigmoid_forms", "Directory for results.json and the figure.", **terminal.SHARED,
)

ROWS, FEATURES = 64, 64
GOAL = 4e-3  # of the output, in bfloat16
Errors = Callable[[float, tuple[int, ...]], np.ndarray]  # (largest, shape) -> relative errors


def systematic(largest: float, shape: tuple[int, ...]) -> np.ndarray:
  """Returns errors that are all the largest."""
  return np.full(shape, largest, np.float32)


def random(largest: float, shape: tuple[int, ...]) -> np.ndarray:
  """Returns errors uniform between the bounds."""
  return np.random.default_rng(2).uniform(-largest, largest, shape).astype(np.float32)


def hardware(errors: Errors) -> numerics.Functions:
  """Returns the instructions of a GPU with these errors."""
  with_error = lambda function, largest: lambda x: function(x) * (1 + errors(largest, x.shape))
  return numerics.Functions(
    exp2=with_error(jnp.exp2, numerics.EXP2_ERROR), tanh=with_error(jnp.tanh, numerics.TANH_ERROR),
    rsqrt=with_error(lambda x: 1 / jnp.sqrt(x), numerics.RSQRT_ERROR),
  )


def relative_error(form: str, length: int, errors: Errors) -> float:
  """Returns the relative error of the outputs of one head with b = -log n, each weight by a form of the sigmoid."""
  draws = np.random.default_rng(length)
  logits = draws.normal(size=(ROWS, length)) - np.log(length)
  value = draws.normal(size=(length, FEATURES))
  exact = (1 / (1 + np.exp(-logits))) @ value
  weights, _ = numerics.FORMS[form](jnp.asarray(logits * numerics.LOG2_E, jnp.float32), hardware(errors))
  rounded = np.asarray(weights.astype(jnp.bfloat16).astype(jnp.float32), np.float64)
  return float(np.linalg.norm(rounded @ value - exact) / np.linalg.norm(exact))


def main(argv: Sequence[str]) -> None:
  del argv
  try:
    lengths = [int(length) for length in _LENGTHS.value]
  except ValueError as error:
    raise UserError(f"--lengths is {','.join(_LENGTHS.value)}; give whole numbers with commas between them.") from error
  with reporting.study(_WORKDIR.value, {"lengths": lengths}) as study:
    table = {
      f"{form}, {errors.__name__}": [relative_error(form, length, errors) for length in lengths]
      for form in numerics.FORMS for errors in (systematic, random)
    }
    headers = ["form and errors", *(f"n = {length:,}" for length in lengths)]
    print(reporting.markdown_table(headers, [[name, *(f"{x:.1e}" for x in row)] for name, row in table.items()]))
    points = {label: dict(zip(("form", "errors"), label.split(", "))) for label in table}
    styles = reporting.palette_of(points, methods=("form",))
    plot = reporting.curves(study.picture("sigmoid_forms"), panels(lengths, table), styles=styles)
    study.write({"lengths": lengths, "relative_errors": table})
  print(plot)


def panels(lengths: Sequence[int], table: Mapping[str, Sequence[float]]) -> list[reporting.Panel]:
  """Returns the errors over the number of keys, with the goal."""
  return [reporting.Panel(
    "Sigmoid attention with b = -log n", "relative error of the output", xlabel="number of keys n", levels=lengths,
    log_x=True, log_y=True, series={name: (lengths, [row]) for name, row in table.items()},
    theory={"goal": (lengths, [GOAL] * len(lengths))},
  )]


if __name__ == "__main__":
  terminal.run(main)
