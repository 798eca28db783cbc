"""Check of probes, on a linear network and seven examples of every task."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from nurture.core import Batch, DataSpec, Network, Outputs, Task
from nurture.data.tasks import Classification, Generation, Pairs, PerPosition, Regression
from nurture.probes import PROBES, ProbeSpec
from nurture.testing import laws
from nurture.testing.laws import during, require
from nurture.testing.rows import read

N, D, K = 7, 3, 4  # examples, numbers of an input, classes
PREFIX = 3  # tokens of a sequence that are given


def _apply(variables: Any, x: jax.Array) -> Outputs:
  logits = x @ variables["params"]["dense"]["kernel"]
  return Outputs(logits, {"000_dense": logits})


def _loss(variables: Any, batch: Batch) -> jax.Array:
  log_p = jax.nn.log_softmax(_apply(variables, batch["image"]).logits)
  values = -jnp.sum(jax.nn.one_hot(batch["label"], K) * log_p, axis=-1)
  return jnp.sum(values * batch["weight"]) / jnp.sum(batch["weight"])


class _Linear:
  """A module whose deployed form is itself, with twice the logits."""

  def __init__(self, factor: float = 1.0):
    self.factor = factor

  def apply(self, variables: Any, x: jax.Array) -> Outputs:
    return Outputs(self.factor * _apply(variables, x).logits, {})

  def deployed(self) -> _Linear:
    return _Linear(2.0)

  def to_deploy(self, variables: Any, *, force: bool = False) -> Any:
    assert force
    return variables


def _references(batch: Batch) -> dict[str, Outputs]:
  outputs = _apply({"params": {"dense": {"kernel": jnp.eye(D, K) + 0.5}}}, batch["image"])
  return {"guide": outputs, "teacher": outputs}


def variables() -> dict[str, Any]:
  """Returns the variables of the network."""
  kernel = jax.random.normal(jax.random.key(0), (D, K), jnp.float32)
  return {"params": {"dense": {"kernel": kernel}}, "batch_stats": {}}


def _of_pairs(variables: Any, x: jax.Array) -> Outputs:
  z = _apply(variables, x).logits
  return Outputs(z @ z.T, {})


def _of_tokens(variables: Any, tokens: jax.Array) -> Outputs:
  """Reads everything up to a token, so that what is written matters for what follows."""
  read = jnp.cumsum(jax.nn.one_hot(tokens % D, D), axis=1)
  return _apply(variables, jnp.sin(read))


_SEQUENCES = (
  {"tokens": lambda index: (index[:, None] + jnp.arange(6)[None]) % K,
   "label": lambda index: jnp.where(
     jnp.arange(6)[None] < PREFIX - 1, -1, (index[:, None] + 1 + jnp.arange(6)[None]) % K
   )},
  {"apply": _of_tokens, "inputs": lambda batch: batch["tokens"]},
)
# What data and network of other tasks have otherwise: fields of the examples, and how they are read.
_OF_TASK: Mapping[str, tuple[dict[str, Any], dict[str, Any]]] = {
  "regression": ({"label": lambda index: jnp.sin(index[:, None] * (1.0 + jnp.arange(K))[None])}, {}),
  "pairs": ({}, {"apply": _of_pairs}),
  "generation": _SEQUENCES,
  "per_position": _SEQUENCES,
}
_TASKS: Mapping[str, Task] = {
  "classification": Classification(tuple("0123")),
  "regression": Regression(tuple("abcd"), (0.5,) * K, (2.0,) * K), "pairs": Pairs(),
  "generation": Generation(tuple("abcd")), "per_position": PerPosition(tuple("abcd")),
}


def spec(batch_size: int, task: str = "classification") -> ProbeSpec:
  """Returns the same N examples in pieces of any size, the last padded with rows that must not count."""

  def batches(split: str, limit: int) -> list[Batch]:
    del split, limit
    index = jnp.arange(-(-N // batch_size) * batch_size)
    real = index < N
    # Padding is hostile: large inputs and wrong labels.
    image = jnp.where(real[:, None], jnp.sin(1.0 + 3 * index[:, None] + jnp.arange(D)[None]), 100.0)
    rows = {
      "image": image, "label": index % K, "true_label": jnp.where(index % 3 == 0, (index + 1) % K, index % K),
      "id": jnp.where(real, index, -1), "weight": real.astype(jnp.float32),
    }
    rows |= {field: make(index) for field, make in _OF_TASK.get(task, ({}, {}))[0].items()}
    cut = lambda start: jax.tree.map(lambda values: values[start : start + batch_size], rows)
    return [cut(start) for start in range(0, len(index), batch_size)]

  return ProbeSpec(DataSpec(_TASKS[task], N, batch_size, {"image": (D,)}), batches, _Linear())


def network(task: str, variables: Any) -> Network:
  """Returns the network that is measured in a task, with variables that training has come to."""
  bare = Network(
    model=_Linear(),
    initial=lambda: jax.tree.map(lambda leaf: 0.5 * leaf + 0.1, variables),
    inputs=lambda batch: batch["image"],
    apply=_apply,
    loss=_loss,
    terms=lambda v, batch: {"a": _loss(v, batch), "b": jnp.sum(v["params"]["dense"]["kernel"])},
    references=_references,
    loss_states={
      "elr": {"targets": 0.9 * jax.random.dirichlet(jax.random.key(5), jnp.ones(K), (N,)), "missing": jnp.full(N, 0.1)},
      "events": {
        "presented": jnp.arange(N), "correct": jnp.arange(N) % 2 == 0, "learned": jnp.arange(N) % 3 == 0,
        "forgotten": jnp.arange(N) % 2,
      },
    },
    task=_TASKS[task],
  )
  return bare._replace(**_OF_TASK.get(task, ({}, {}))[1])


def check_probe(row: Any, task: str | None = None, *, whole: bool = False) -> None:
  """Checks a probe against every law that measuring relies on; see `nurture.testing`.

  All pieces have one structure; the call and `finish` are pure and map over the members of an ensemble; results are
  finite numbers or short arrays with names, also of bfloat16 variables; padded examples (weight 0, id -1) do not count,
  and results do not depend on how the data are cut into pieces.

  Args:
    row: {"name": "my_project.probes:Name", field: value}, the name alone, or an object. The data have the splits
      "train", "validation" and "test" with the same seven examples of three numbers and four classes, the network has
      the tap "000_dense", and references are named "guide" or "teacher".
    task: of the data; None takes the first that the row serves.
    whole: True for a measurement of a batch as a whole, such as CKA, whose mean over batches depends on the cut.

  Raises:
    AssertionError: names the law that is broken, and what to do.
  """
  subject = read(PROBES, row, ("prepare", "__call__", "finish"))
  name = task or subject.serves(("classification", *_OF_TASK))[0]
  with during(subject.name), during(name):
    _check(subject.built, name, (N, 10) if whole else (N, 10, 2))


def _check(probe: Any, task: str, cuts: tuple[int, ...]) -> None:
  results, held = [], variables()
  run = functools.partial(probe, network(task, held))
  for batch_size in cuts:
    pieces = probe.prepare(spec(batch_size, task), jax.random.key(0))
    require(isinstance(pieces, list) and pieces, "prepare returns no list of pieces",
            "return spec.batches(split, limit)")
    for i, piece in enumerate(pieces):
      laws.alike(piece, pieces[0], f"piece {i} has another form than the first ({{}})",
                 "pad the last one and give it weight 0, as spec.batches does")
    sums = [jax.jit(run)(held, piece) for piece in pieces]
    results.append(probe.finish(functools.reduce(lambda a, b: jax.tree.map(jnp.add, a, b), sums)))
    require(isinstance(results[-1], dict) and results[-1], "finish returns no dict with results", "give each a name")
    for name, value in results[-1].items():
      short = isinstance(name, str) and getattr(value, "ndim", 9) <= 1 and value.size < 100
      require(short, f"the result {name!r} is no number and no short array under a name",
              "reduce it to at most 99 numbers along one axis")
  laws.pure(run, held, pieces[0])
  laws.pure(probe.finish, sums[0])
  laws.maps(lambda v: probe.finish(run(v, pieces[0])), held, tolerance=1e-4)
  with during("bfloat16 parameters"):
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), held)
    laws.finite(probe.finish(jax.jit(run)(half, pieces[0])), "a result", "leave out what is divided by 0")
  laws.finite(results, "a result", "leave out what is divided by 0, and select with jnp.where what padding holds")
  laws.close(results[1], results[0], "padded examples count",
             "select with jnp.where(nurture.probes.counted(piece), ...): weight is 0 and id -1 there")
  for result in results[2:]:
    laws.close(result, results[0], "results depend on how the data are cut into pieces",
               "return sums over a piece, and divide in finish")
  with jax.enable_x64(True), during("64-bit numbers switched on"):
    [piece, *_] = probe.prepare(spec(N, task), jax.random.key(0))
    measure = lambda v: probe.finish(run(v, piece))
    jax.eval_shape(jax.vmap(measure), jax.tree.map(lambda leaf: leaf[None], held))
