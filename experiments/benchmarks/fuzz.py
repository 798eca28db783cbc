"""Puts absurd values into every number of every config: each must end as one sentence or as a run, never otherwise.

  python -m experiments.benchmarks.fuzz [--configs=elr,quickstart] [--limit=N] [--runs=N] [--seed=0] [--out=DIR]

Every number of every config in configs/, those in tuples and in the levels of ensemble.grid included, is replaced by
another type, 0, a negative, a huge number, NaN and infinity, on tiny data. A config that is not refused is prepared as
a run is, which traces every program; what was traced in one config (a field of a row, with a value) is only built in
the next. A random sample of --runs of those that pass is trained for two steps. Prints the counts and every failure:
a traceback, an abort of the process, a case that takes minutes, a message of several lines.
"""

import collections
import functools
import json
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import jax
from absl import flags

from nurture import data, reporting, terminal, training
from nurture.testing import fuzz
from nurture.training.config import put
from nurture.training.experiment import Experiment
from nurture.training.grid import members_of

_CONFIGS = flags.DEFINE_list("configs", [], "Parts of names of configs; all without it.", **terminal.SHARED)
_LIMIT = flags.DEFINE_integer("limit", 0, "Cases, drawn at random; 0 is all.", lower_bound=0, **terminal.SHARED)
_RUNS = flags.DEFINE_integer("runs", 20, "Cases that are trained for two steps.", lower_bound=0, **terminal.SHARED)
_SEED = flags.DEFINE_integer("seed", 0, "Of the draws.", **terminal.SHARED)
_OUT = flags.DEFINE_string("out", "runs/fuzz", "Directory for results.json.", **terminal.SHARED)
_CHILD = flags.DEFINE_string("child", "", "Used by the binary itself.", **terminal.SHARED)

_PATIENCE = 300  # seconds
_ENDLESS = ("steps", "seeds", "samples", "vectors")  # a run of so many is sound, and does not end


def _too_long(*_: Any) -> None:
  raise TimeoutError(f"more than {_PATIENCE} s")


def child(spec: dict) -> None:
  """Goes over the cases of a specification, and prints a line of JSON when one begins and when it ends."""
  signal.signal(signal.SIGALRM, _too_long)
  seen, name, only = set(spec["seen"]), "", spec["only"] and set(spec["only"])
  for case in fuzz.cases(_CONFIGS.value):
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
        say(**fuzz.attempt(functools.partial(training.run, config, f"{folder}/run", data_dir=case.root)))
      continue
    result = fuzz.attempt(fuzz.build, config, base, case.root)
    if result["outcome"] == "run" and case.kind not in seen:
      result = fuzz.attempt(fuzz.prepare, config, read)
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
  total = sum(1 for _ in fuzz.cases(_CONFIGS.value))
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
    rows = [[value, *(counts[value, outcome] for outcome in fuzz.OUTCOMES)] for value in fuzz.VALUES]
    rows.append(["all", *(sum(column) for column in list(zip(*rows))[1:])])
    print(reporting.plain_table(["value", *fuzz.OUTCOMES], rows))
  out = pathlib.Path(_OUT.value)
  out.mkdir(parents=True, exist_ok=True)
  reporting.write_json(out / "results.json", {"prepared": prepared, "trained": trained})
  bad = [result for result in (*prepared, *trained) if result["outcome"] not in ("run", "sentence")]
  print(f"\n{len(bad)} failures; {time.monotonic() - began:.0f} s; {out}/results.json has every case")
  return int(bool(bad))


if __name__ == "__main__":
  terminal.run(main)
