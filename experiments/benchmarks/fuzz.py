"""Puts absurd values into every number of every config: each must end as one sentence or as a run, never otherwise.

  python -m experiments.benchmarks.fuzz [--configs=elr,quickstart] [--limit=N] [--runs=N] [--seed=0] [--out=DIR]

Every number of every config in configs/, those in tuples and in the levels of ensemble.grid included, is replaced by
another type, 0, a negative, a huge number, NaN and infinity, on tiny data. A config that is not refused is prepared as
a run is, which traces every program; what was traced in one config (a field of a row, with a value) is only built in
the next. A random sample of --runs of those that pass is trained for two steps. Prints the counts and every failure:
a traceback, an abort of the process, a case that takes minutes, a message of several lines.
"""

import collections
import contextlib
import dataclasses
import functools
import json
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
from absl import flags

from experiments import terminal
from experiments.benchmarks import shrink
from nurture import data, reporting, training
from nurture.core import Preset, UserError
from nurture.models import MODELS
from nurture.training import phases
from nurture.training.config import check, put
from nurture.training.experiment import Experiment, check_probe
from nurture.training.references import Reference
from nurture.training.sweep import cohorts_of, members_of

_CONFIGS = flags.DEFINE_list("configs", [], "Parts of names of configs; all without it.", **terminal.SHARED)
_LIMIT = flags.DEFINE_integer("limit", 0, "Cases, drawn at random; 0 is all.", lower_bound=0, **terminal.SHARED)
_RUNS = flags.DEFINE_integer("runs", 20, "Cases that are trained for two steps.", lower_bound=0, **terminal.SHARED)
_SEED = flags.DEFINE_integer("seed", 0, "Of the draws.", **terminal.SHARED)
_OUT = flags.DEFINE_string("out", "runs/fuzz", "Directory for results.json.", **terminal.SHARED)
_CHILD = flags.DEFINE_string("child", "", "Used by the binary itself.", **terminal.SHARED)

VALUES = {
  "a word": "x", "a tuple": (1, 2), "nothing": None, "0": 0, "negative": -1, "32 bits": 2**31 - 1, "huge": 2**40,
  "1e30": 1e30, "1e-30": 1e-30, "NaN": float("nan"), "inf": float("inf"),
}
OUTCOMES = ("run", "sentence", "lines", "traceback", "abort", "too long")
_PATIENCE = 300  # seconds
_FIRST = ("quickstart", "factorial", "digits", "dynamics")  # trace fast
_LAST = ("full_size", "cifar100", "resnet", "vit_cifar10", "vanillanet", "simplenet", "attention")  # trace slowly
_ENDLESS = ("steps", "seeds", "samples", "vectors")  # a run of so many is sound, and does not end


def numbers(value: Any, place: tuple = ()) -> Iterator[tuple]:
  """Yields the place of every number of a config, as keys of dicts and positions in tuples."""
  if isinstance(value, dict):
    for name, inner in value.items():
      yield from numbers(inner, (*place, name))
  elif isinstance(value, tuple):
    for i, inner in enumerate(value):
      yield from numbers(inner, (*place, i))
  elif isinstance(value, (int, float)) and not isinstance(value, bool):
    yield place


def replaced(value: Any, place: tuple, new: Any) -> Any:
  """Returns a config with another value at a place."""
  if not place:
    return new
  inner = replaced(value[place[0]], place[1:], new)
  if isinstance(value, dict):
    return {**value, place[0]: inner}
  return (*value[: place[0]], inner, *value[place[0] + 1 :])


@dataclasses.dataclass(frozen=True)
class Case:
  """One value at one place of a config."""

  index: int
  name: str
  config: dict
  root: pathlib.Path
  place: tuple
  value: str

  def changed(self) -> dict:
    """Returns the config with the value, and with the part of its grid that has to do with it."""
    place, new, grid = self.place, VALUES[self.value], self.config["ensemble"]["grid"]
    if place[:2] != ("ensemble", "grid"):  # the grid might put its own value there
      return replaced(put(self.config, {"ensemble.grid": {}}), place, new)
    if place[3] != "levels":
      return replaced(self.config, place, new)
    axis, level = replaced(grid[place[2]], place[3:], new), place[4]
    pair = sorted({0 if level else len(axis["levels"]) - 1, level})
    kept = {field: tuple(axis[field][i] for i in pair) for field in ("levels", "names") if axis.get(field)}
    return put(self.config, {"ensemble.grid": {place[2]: {**axis, **kept}}})

  @property
  def kind(self) -> str:
    """The row that the number belongs to, its field and the value, whatever the labels."""
    if self.place[:2] == ("ensemble", "grid"):
      return f"grid of {self.config['ensemble']['grid'][self.place[2]]['path']} {self.place[5:]} {self.value}"
    row, inner = "", self.config
    for key in self.place[:-1]:
      inner = inner[key]
      if isinstance(inner, dict):
        row = str(inner.get("name", key))
    made = MODELS.get(row)
    row = made.constructor.__name__ if isinstance(made, Preset) else row
    field = [key for key in self.place if isinstance(key, str)][-1]
    return f"{self.place[0]} {row} {field} {[key for key in self.place if isinstance(key, int)]} {self.value}"


def cases(wanted: Sequence[str]) -> Iterator[Case]:
  """Yields every case of the configs whose names have one of the words in them; those that trace fast come first."""
  has = lambda part, words: any(word in shrink.label(*part) for word in words)
  index, parts = 0, sorted(shrink.PARTS, key=lambda part: (has(part, _LAST), not has(part, _FIRST)))
  with tempfile.TemporaryDirectory() as folder:
    for i, (path, part) in enumerate(parts):
      name, root = shrink.label(path, part), pathlib.Path(folder) / str(i)
      if wanted and not any(word in name for word in wanted):
        continue
      config = shrink.shrunk(path, part, root)
      for place in numbers(config):
        for value in VALUES:
          yield Case(index, name, config, root, place, value)
          index += 1


def prepare(config: dict, read: data.Reader) -> None:
  """Does what a run does before it trains."""
  check(config)
  cohorts_of(config, members_of(config), functools.partial(Experiment.of, read=read))


def build(config: dict, base: Experiment, data_dir: pathlib.Path) -> None:
  """Does what a run does before it traces."""
  check(config)
  for member in members_of(config):
    inner = put(config, member.assignments)
    check(inner)
    if inner["data"] != base.config["data"]:
      data.load(phases.at(inner, None)["data"], data_dir)
    references = {label: Reference.read(inner, label, base.spec) for label in inner["references"]}
    dataclasses.replace(base, config=inner, references=references).parts()
    for label, fields in inner["probes"].items():
      check_probe(label, fields, base.read())


def attempt(function: Callable, *arguments: Any) -> dict[str, str]:
  """Returns {"outcome", "message"}: "run", "sentence" or a failure."""
  try:
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
      warnings.simplefilter("ignore")
      function(*arguments)
    return {"outcome": "run", "message": ""}
  except UserError as error:
    message = str(error)
    return {"outcome": "sentence" if message.endswith(".") and "\n" not in message else "lines", "message": message}
  except TimeoutError:
    return {"outcome": "too long", "message": traceback.format_exc(limit=-4)}
  except Exception:
    return {"outcome": "traceback", "message": traceback.format_exc(limit=-4)}


def _too_long(*_: Any) -> None:
  raise TimeoutError(f"more than {_PATIENCE} s")


def child(spec: dict) -> None:
  """Goes over the cases of a specification, and prints a line of JSON when one begins and when it ends."""
  signal.signal(signal.SIGALRM, _too_long)
  seen, name, only = set(spec["seen"]), "", spec["only"] and set(spec["only"])
  for case in cases(_CONFIGS.value):
    if case.index < spec["start"] or (only and case.index not in only):
      continue
    say = lambda **fields: print(json.dumps({"index": case.index, **fields}), flush=True)  # noqa: B023
    what = {"config": case.name, "place": ".".join(map(str, case.place)), "value": case.value, "kind": case.kind}
    say(begins=what)
    if case.name != name:
      name, read = case.name, data.Reader(case.root)
      jax.clear_caches()
      base = Experiment.of(put(case.config, members_of(case.config)[0].assignments), read)
    config = case.changed()
    signal.alarm(_PATIENCE)
    if spec["train"]:
      with tempfile.TemporaryDirectory() as folder:
        say(**attempt(functools.partial(training.run, config, f"{folder}/run", data_dir=case.root)))
      continue
    result = attempt(build, config, base, case.root)
    if result["outcome"] == "run" and case.kind not in seen:
      result = attempt(prepare, config, read)
    seen.add(case.kind)
    say(**result)


def go_over(only: Sequence[int], train: bool) -> list[dict]:
  """Returns the result of every case. A process does them; one that dies is followed by another, behind that case."""
  results, start, seen = [], 0, set()
  with tempfile.TemporaryDirectory() as folder:
    spec, errors = pathlib.Path(folder) / "spec.json", pathlib.Path(folder) / "errors"
    while True:
      spec.write_text(json.dumps({"only": list(only), "start": start, "seen": sorted(seen), "train": train}))
      command = [sys.executable, "-m", "experiments.benchmarks.fuzz", f"--child={spec}",
                 f"--configs={','.join(_CONFIGS.value)}"]
      begun = None
      with errors.open("w") as log, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process:
        try:
          for line in process.stdout:
            fields = json.loads(line)
            if "begins" in fields:
              begun = {"index": fields["index"], **fields["begins"]}
              seen.add(begun["kind"])
              continue
            results.append(begun | fields)
            begun = None
            if results[-1]["outcome"] not in ("run", "sentence"):
              print(_line(results[-1]), flush=True)
            if len(results) % 500 == 0:
              print(f"{len(results)} cases", flush=True)
        except KeyboardInterrupt:  # what is known by now is counted
          process.kill()
          return results
      if begun is None:
        if process.returncode:
          raise RuntimeError(errors.read_text()[-2000:])
        return results
      last = errors.read_text()[-1000:]
      results.append(begun | {"outcome": "abort", "message": f"exit code {process.returncode}: {last}"})
      print(_line(results[-1]), flush=True)
      start = begun["index"] + 1


def _line(result: dict) -> str:
  return "{outcome}: {config} {place} = {value}\n  {message}".format(**result)


def main(argv: Sequence[str]) -> int:
  del argv
  terminal.enable_compilation_cache()
  if _CHILD.value:
    child(json.loads(pathlib.Path(_CHILD.value).read_text()))
    return 0
  began, draw = time.monotonic(), random.Random(_SEED.value)
  total = sum(1 for _ in cases(_CONFIGS.value))
  print(f"{total} cases")
  chosen = sorted(draw.sample(range(total), _LIMIT.value)) if 0 < _LIMIT.value < total else ()
  prepared = go_over(chosen, train=False)
  sound = [result["index"] for result in prepared if result["outcome"] == "run"
           and not result["place"].split(".")[-1].startswith(_ENDLESS)]
  sample = sorted(draw.sample(sound, min(_RUNS.value, len(sound))))
  trained = go_over(sample, train=True) if sample else []
  for what, results in (("prepared", prepared), ("trained", trained)):
    counts = collections.Counter((result["value"], result["outcome"]) for result in results)
    print(f"\n{what}")
    rows = [[value, *(counts[value, outcome] for outcome in OUTCOMES)] for value in VALUES]
    rows.append(["all", *(sum(column) for column in list(zip(*rows))[1:])])
    print(reporting.plain_table(["value", *OUTCOMES], rows))
  out = pathlib.Path(_OUT.value)
  out.mkdir(parents=True, exist_ok=True)
  reporting.write_json(out / "results.json", {"prepared": prepared, "trained": trained})
  bad = [result for result in (*prepared, *trained) if result["outcome"] not in ("run", "sentence")]
  print(f"\n{len(bad)} failures; {time.monotonic() - began:.0f} s; {out}/results.json has every case")
  return int(bool(bad))


if __name__ == "__main__":
  terminal.run(main)
