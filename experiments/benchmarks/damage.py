"""Damages every file of a run directory in turn, in every way, and looks what the same command makes of it.

  python -m experiments.benchmarks.damage

Three directories are damaged: of a run that was interrupted, of one that is finished, and of a finished run that
another one names as its teacher. Every time there may be two outcomes: the results of the undamaged run to the last
byte ("=") or one sentence ("1"). Anything else, other results ("X") or a traceback ("T"), is a fault, and the program
ends with 1.
"""

import collections
import pathlib
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence

from absl import flags

from nurture import reporting, terminal, training
from nurture.testing import damage

_PART = flags.DEFINE_enum(
  "part", "all", ["all", "interrupted", "finished", "teacher"], "Which directory is damaged.", **terminal.SHARED,
)


def main(argv: Sequence[str]) -> None:
  del argv
  terminal.enable_compilation_cache()
  began, root = time.monotonic(), pathlib.Path(tempfile.mkdtemp())
  config, whole = damage.config_of(), root / "whole"
  training.run(config, whole)
  contents = lambda workdir: {name: (workdir / name).read_bytes() for name in damage.COMPARED}
  again = lambda: training.run(config, root / "damaged")
  interrupted = root / "interrupted"
  shutil.copytree(whole, interrupted)
  damage.interrupt(interrupted)
  # The reference's path is part of the student's config, so the teacher lies where its damaged copies will.
  shutil.copytree(whole, root / "teacher")
  student = damage.student_of(root / "teacher")
  training.run(student, root / "student")
  of_student, learn = contents(root / "student"), lambda: training.run(student, root / "student")
  parts = {
    "interrupted": (interrupted, root / "damaged", again, root / "damaged", contents(whole)),
    "finished": (whole, root / "damaged", again, root / "damaged", contents(whole)),
    "teacher": (whole, root / "teacher", learn, root / "student", of_student),
  }
  faults, counts = 0, collections.Counter()
  for name, arguments in parts.items():
    if _PART.value not in ("all", name):
      continue
    tell = lambda file, name=name: print(f"{name}: {file}", file=sys.stderr) if sys.stderr.isatty() else None
    found = damage.matrix(*arguments, progress=tell)
    rows = [[file, *(kinds[way][0] for way in damage.DAMAGES)] for file, kinds in found.items()]
    print(f"## {name}\n\n{reporting.markdown_table(['file', *damage.DAMAGES], rows)}\n")
    for file, kinds in found.items():
      for way, (result, said) in kinds.items():
        counts[result] += 1
        if result not in "=1":
          faults += 1
          print(f"- {file}, {way}: {result} {said}")
  print(f"\n{counts['=']} identical, {counts['1']} one sentence, {counts['X']} other results, "
        f"{counts['T']} tracebacks; {time.monotonic() - began:.0f} s.")
  shutil.rmtree(root)
  if faults:
    sys.exit(1)


if __name__ == "__main__":
  terminal.run(main)
