"""Every study that has a run directory records its crash there."""

import subprocess
import sys

from nurture.reporting import read_json

# What each calls once its directory is made.
WORK = {
  "elr_linear": "simulate", "finite_width": "study", "random_features": "run_part", "sigmoid_forms": "relative_error",
  "wide_and_deep": "compare",
}
# In a process of its own: flags of one name, of other binaries, are those of the whole process.
CRASH = f"""
import importlib, sys
from absl import flags

def crash(*arguments, **named):
  raise ZeroDivisionError

modules = {{name: importlib.import_module(f"experiments.studies.{{name}}") for name in {list(WORK)}}}
for name, work in {WORK}.items():
  setattr(modules[name], work, crash)
  flags.FLAGS([name, f"--workdir={{sys.argv[1]}}/{{name}}", "--n=10"])
  try:
    modules[name].main([name])
  except ZeroDivisionError:
    print(name)
"""


def test_a_crash_is_recorded(tmp_path):
  done = subprocess.run([sys.executable, "-c", CRASH, str(tmp_path)], capture_output=True, text=True, timeout=240)
  assert done.stdout.split() == list(WORK), done.stderr
  for name in WORK:
    assert (tmp_path / name / "config.json").exists() and not (tmp_path / name / "results.json").exists()
    reasons = [event.get("reason") for event in read_json(tmp_path / name / "manifest.json")["history"]]
    assert reasons == [None, "defect: ZeroDivisionError"], name
