"""Changes single places of a room's source and counts the changes that its tests notice.

    make mutants ROOM=training [SAMPLE=60] [SEED=0]

Everything happens on a copy: the working tree is never touched. First all tests of the room run once, to learn which
lines each reaches and how long it takes. Then each change runs the tests that reach its statement, cheapest first, up
to the first that fails. What survives is printed with its lines; what cannot be noticed stands in equivalent.toml.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from typing import Any

import mutations
from workers import Workers

# The tests that answer for a room: its own folder, and contracts that are written over its tables.
ROOMS = {
  "transforms": (
    "tests/transforms", "tests/contracts/test_targets_and_losses.py", "tests/contracts/test_updates.py",
    "tests/contracts/test_tables.py",
  ),
  "reporting": ("tests/reporting", "tests/experiments/test_tuned_and_interactions.py"),
}


def main(argv: list[str]) -> int:
  """Copies the project and starts the work there; returns the exit status."""
  options = _options(argv)
  root = pathlib.Path.cwd()
  if options.here:
    return _run(root, options)
  listed = subprocess.run(
    ["git", "ls-files", "--cached", "--others", "--exclude-standard"], capture_output=True, text=True, check=True
  ).stdout.splitlines()
  with tempfile.TemporaryDirectory(prefix="mutants_") as copy:
    for file in listed:
      if (root / file).is_file():
        (pathlib.Path(copy) / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root / file, pathlib.Path(copy) / file)
    kept = root / ".pytest_cache" / "mutants"
    kept.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("NURTURE_COMPILATION_CACHE", str(root / ".pytest_cache" / "compiled"))
    # A process that is ended leaves semaphores, of which Python warns at the end.
    quiet = ["-W", "ignore:resource_tracker:UserWarning"]
    command = [sys.executable, *quiet, "tests/mutants", *argv, "--here", f"--kept={kept}"]
    return subprocess.run(command, cwd=copy).returncode


def _options(argv: list[str]) -> argparse.Namespace:
  parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
  parser.add_argument("--room", required=True, help="a folder of lib/nurture/")
  parser.add_argument("--files", default="", help="some of its files, such as step.py,loop.py; all without it")
  parser.add_argument("--sample", type=int, default=60, help="changes to try; 0 for one of every place")
  parser.add_argument("--seed", type=int, default=0, help="of the sample")
  parser.add_argument("--budget", type=float, default=0.0,
                      help="seconds of the processor that the tests of one change may take; 0 for no limit")
  parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
  parser.add_argument("--kept", type=pathlib.Path, help=argparse.SUPPRESS)
  return parser.parse_args(argv)


def _run(root: pathlib.Path, options: argparse.Namespace) -> int:
  sources = [str(path.relative_to(root)) for path in sorted((root / "lib" / "nurture" / options.room).rglob("*.py"))]
  if not sources:
    print(f"error: lib/nurture/{options.room} has no Python files; give a folder of lib/nurture/.", file=sys.stderr)
    return 2
  if options.files:
    sources = [file for file in sources if file.split("/", 3)[3] in options.files.split(",")]
  tests = ROOMS.get(options.room, (f"tests/{options.room}",))
  workers = Workers(root)
  reach = _reach(root, workers, tests, options.kept)
  if reach is None:
    return 1
  known = mutations.equivalents()
  counts = dict.fromkeys(("killed", "timed out", "survived", "equivalent"), 0)
  survivors = []
  chosen = mutations.sample(root, sources, options.sample, options.seed)
  for number, mutant in enumerate(chosen, 1):
    verdict, seconds, note = "equivalent", 0.0, mutations.reason_of_equivalence(root, mutant, known)
    if note is None:
      verdict, seconds, note = _try(root, workers, reach, mutant, options.budget)
    counts[verdict] += 1
    print(f"{number:3d}/{len(chosen)}  {verdict:10s} {seconds:6.1f} s  {mutant}  {note}", flush=True)
    if verdict == "survived":
      survivors.append((mutant, note))
  for mutant, note in survivors:
    print(f"\nsurvived ({note}): {mutant}")
    print("\n".join(mutant.changed_lines(root)))
  noticed, judged = counts["killed"] + counts["timed out"], len(chosen) - counts["equivalent"]
  share = f"{100 * noticed / judged:.0f} %" if judged else "-"
  print("\n| room | tried | killed | timed out | survived | equivalent | share killed |")
  print("| --- | --- | --- | --- | --- | --- | --- |")
  print(f"| {options.room} | {len(chosen)} | {counts['killed']} | {counts['timed out']} | {counts['survived']} | "
        f"{counts['equivalent']} | {share} |")
  return 0


def _reach(root: pathlib.Path, workers: Workers, tests: Iterable[str], kept: pathlib.Path) -> dict[str, Any] | None:
  """Returns what each test reaches, measured once for one text of lib/nurture/ and tests/."""
  digest = hashlib.sha256(repr(tests).encode())
  for path in sorted([*(root / "lib").rglob("*.py"), *(root / "tests").rglob("*.py")]):
    digest.update(path.read_bytes())
  file = kept / f"{digest.hexdigest()[:16]}.json"
  if not file.exists():
    measured = workers.map_tests(tests, file)
    reach = json.loads(file.read_text()) if measured.kind == "passed" else {}
    # The same tests in the order in which changes are tried: one that leans on another would look like a find.
    control = workers.run(tests, _ranks(_cheapest_first(reach, reach)), 3600) if reach else measured
    print(f"the tests of {', '.join(tests)} ran, {measured.seconds:.0f} s to learn what they reach and "
          f"{control.seconds:.0f} s without a change: {control.kind}", flush=True)
    if control.kind != "passed":
      file.unlink(missing_ok=True)
      print((root / "tests.log").read_text()[-3000:], "\nerror: the tests must pass before anything is changed.",
            file=sys.stderr)
      return None
  return json.loads(file.read_text())


def _try(
  root: pathlib.Path, workers: Workers, reach: Mapping[str, Any], mutant: mutations.Mutant, budget: float
) -> tuple[str, float, str]:
  """Returns the verdict on one change, how long it took and what there is to say."""
  chosen = _tests_of(root, reach, mutant)
  taken, total = [], 0.0
  for test in chosen:
    if budget and taken and total + reach[test]["seconds"] > budget:
      continue
    taken.append(test)
    total += reach[test]["seconds"]
  note = f"{len(taken)} of {len(chosen)} tests" if len(taken) < len(chosen) else f"{len(chosen)} tests"
  if not taken:
    return "survived", 0.0, "no test reaches it"
  path = root / mutant.file
  original = path.read_text()
  path.write_text(mutant.source(root))
  try:
    files = list(dict.fromkeys(test.split("::")[0] for test in taken))
    outcome = workers.run(files, _ranks(taken), 20 + 2 * total)
  finally:
    path.write_text(original)
  verdict = {"passed": "survived", "empty": "survived", "failed": "killed", "timeout": "timed out"}[outcome.kind]
  return verdict, outcome.seconds, note


def _tests_of(root: pathlib.Path, reach: Mapping[str, Any], mutant: mutations.Mutant) -> list[str]:
  """Returns the tests that reach the changed statement, file by file, the cheapest first.

  A statement outside functions runs at import, and what it makes may be read without a line of its file: those that
  reach the file stand first, all others of the room behind them. So it is with a function that only an import calls.
  """
  tree = ast.parse((root / mutant.file).read_text())
  lines = _statement(tree, mutant.line)
  touched = {test: set(entry["lines"].get(mutant.file, ())) for test, entry in reach.items()}
  functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
  inside = any(node.body[0].lineno <= mutant.line <= node.end_lineno for node in functions)
  found = [test for test, numbers in touched.items() if (numbers & lines if inside else numbers)]
  others = [] if inside and found else [test for test in reach if test not in set(found)]
  return [*_cheapest_first(reach, found), *_cheapest_first(reach, others)]


def _cheapest_first(reach: Mapping[str, Any], tests: Iterable[str]) -> list[str]:
  """Returns tests ordered by their seconds, file by file, because a file's fixtures are made once."""
  by_file: dict[str, list[str]] = {}
  for test in sorted(tests, key=lambda test: reach[test]["seconds"]):
    by_file.setdefault(test.split("::")[0], []).append(test)
  mean = lambda tests: sum(reach[test]["seconds"] for test in tests) / len(tests)
  return [test for tests in sorted(by_file.values(), key=mean) for test in tests]


def _ranks(tests: Iterable[str]) -> dict[str, int]:
  return {test: rank for rank, test in enumerate(tests)}


def _statement(tree: ast.AST, line: int) -> set[int]:
  """Returns the lines of the innermost statement around a line; of one with a body, those of its head."""
  best: set[int] = {line}
  for node in ast.walk(tree):
    if isinstance(node, ast.stmt) and node.lineno <= line <= node.end_lineno:
      body = getattr(node, "body", None)
      last = max(node.lineno, body[0].lineno - 1) if body else node.end_lineno
      if line <= last:
        best = set(range(node.lineno, last + 1))
  return best


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
