"""Every binary fails with one sentence for a person's mistakes and with a traceback for its own."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]

BINARY = '''
"""Trains a thing.

  %s --config=FILE
"""
import sys, time
from absl import flags
from ml_collections import config_flags
from nurture import terminal
from nurture.core import UserError

CONFIG = config_flags.DEFINE_config_file("config", None, "Path to a config file.")
flags.DEFINE_multi_string("remove", [], "Field to take out.")
flags.DEFINE_string("workdir", "runs", "Directory of the run.")
MODE = flags.DEFINE_enum("mode", "print", ["print", "user_error", "defect", "wait", "cache"], "What to do.")
flags.mark_flag_as_required("config")

def main(argv):
  if MODE.value == "print":
    print(CONFIG.value.to_dict(), argv[1:])
  elif MODE.value == "user_error":
    raise UserError("losses.ce is bad;\\n mend it.")
  elif MODE.value == "defect":
    raise AttributeError("a defect")
  elif MODE.value == "wait":
    print("ready", flush=True)
    time.sleep(60)
  elif MODE.value == "cache":
    directory = terminal.enable_compilation_cache(min_seconds=0.0)
    import jax
    jax.jit(lambda x: jax.numpy.linalg.svd(x @ x).S.sum())(jax.numpy.eye(30)).block_until_ready()
    print(directory)

if __name__ == "__main__":
  terminal.run(main, takes_arguments="--takes" in sys.argv[-1])
'''

CONFIG = '''
from ml_collections import config_dict

def get_config():
  return config_dict.ConfigDict({
    "steps": 3, "rate": 0.1, "augment": True, "shape": (1, 2), "data_dir": None, "model": {"width": 4, "depth": 2},
    "limit": config_dict.placeholder(int),
  })
'''


@pytest.fixture
def directory(tmp_path):
  (tmp_path / "binary.py").write_text(BINARY)
  (tmp_path / "configs").mkdir()
  (tmp_path / "configs" / "mnist_mlp.py").write_text(CONFIG)
  return tmp_path


def environment(**more):
  return os.environ | {"PYTHONPATH": str(ROOT / "lib")} | more


def run(directory, *arguments, **variables):
  return subprocess.run(
    [sys.executable, "binary.py", *arguments],
    cwd=directory, capture_output=True, text=True, timeout=120, env=environment(**variables),
  )


def test_a_good_command_line_runs_with_its_overrides(directory):
  done = run(directory, "--config=configs/mnist_mlp.py", "--config.model.width=8", "--noconfig.augment",
             "--config.shape=(3, 4)", "--config.rate", "0.5", "--config.limit=7",
             "--remove=data_dir")
  assert (done.returncode, done.stderr) == (0, "")
  for part in ("'width': 8", "'augment': False", "'shape': (3, 4)", "'rate': 0.5", "'limit': 7", "'steps': 3"):
    assert part in done.stdout
  assert "data_dir" not in done.stdout


C = "--config=configs/mnist_mlp.py"


@pytest.mark.parametrize("arguments, message", [
  ([C, "--config.stesp=3"], "--config.stesp does not exist in configs/mnist_mlp.py; did you mean 'steps'?"),
  ([C, "--config.model.widht=3"], "did you mean 'width'? (known: depth, width)."),
  ([C, "--config.losses.elr.lam=3"], "--config.losses.elr.lam does not exist"),
  ([C, "--config.steps.x=3"], "config.steps is 3, which has no fields."),
  ([C, "--config.steps=1.5"], "--config.steps=1.5 needs a whole number, because configs/mnist_mlp.py has 3 there."),
  ([C, "--config.steps", "1.5"], "--config.steps=1.5"),
  ([C, "--config.rate=fast"], "--config.rate=fast needs a number"),
  ([C, "--config.limit=few"], "--config.limit=few needs a whole number"),
  ([C, "--config.augment=5"], "--config.augment=5 needs true or false"),
  ([C, "--config.model=3"], "has the fields depth, width there."),
  ([C, "--config.shape[2]=3"], "--config.shape[2] does not exist, what stands there has 2 elements, from 0"),
  ([C, "--config.shape[x]=3"], "--config.shape[x] does not exist"),
  ([C, "--remove=modle.width"], "--remove=modle.width fits nothing, config has no 'modle'; did you mean 'model'?"),
  ([C, "--remove"], "--remove has no value; write --remove=VALUE."),
  ([C, "--noconfig.rate"], "--noconfig.rate is for what is true or false; write --remove=rate to take it out."),
  ([C, "--config.data_dir=x"], "--config.data_dir is None"),
  ([C, "--config.steps"], "--config.steps has no value; write --config.steps=VALUE."),
  (["--config=configs/mnist_mpl.py"], "configs/mnist_mpl.py does not exist; did you mean 'configs/mnist_mlp.py'?"),
  (["--config=mnist_mlp"], "did you mean 'configs/mnist_mlp.py'?"),
  (["--config.steps=3"], "put --config=FILE before it."),
  (["--config.steps=3", C], "--config.steps=3 stands before --config=configs/mnist_mlp.py; put it behind."),
  ([C, "--config.model.width=3", "--config.model={}"], "--config.model replaces what --config.model.width sets"),
  (["--config"], "--config has no value; write --config=VALUE."),
  ([], "--config is missing; give --config=VALUE (Path to a config file)."),
  ([C, "--wrokdir=x"], "--wrokdir does not exist; did you mean 'workdir'? (known: config, mode, remove, workdir)."),
  ([C, "--mode=fly"], "--mode=fly"),
  ([C, "workdir=x"], "'workdir=x' has no meaning here"),
  ([C, "--mode=user_error"], "losses.ce is bad; mend it."),
])
def test_a_mistake_is_one_sentence_that_names_the_fix(directory, arguments, message):
  done = run(directory, *arguments)
  assert done.returncode == 2 and done.stdout == ""
  assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
  assert message in done.stderr


@pytest.mark.parametrize("source, message", [
  ("def get_config(:", "configs/bad.py, line 1: invalid syntax"),
  ("x = 1", "configs/bad.py has no function get_config()"),
  ("\ndef get_config():\n  return int('x')", "configs/bad.py, line 3: ValueError: invalid literal"),
  ("def get_config():\n  return open('nowhere')", "configs/bad.py: [Errno 2] No such file or directory: 'nowhere'"),
])
def test_a_bad_config_file_is_named_with_its_line(directory, source, message):
  (directory / "configs" / "bad.py").write_text(source)
  done = run(directory, "--config=configs/bad.py")
  assert done.returncode == 2
  assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1 and message in done.stderr


def test_a_defect_keeps_its_traceback(directory):
  done = run(directory, C, "--mode=defect")
  assert done.returncode == 1
  assert "Traceback" in done.stderr and done.stderr.rstrip().endswith("AttributeError: a defect")


def test_arguments_reach_a_binary_that_takes_them(directory):
  done = run(directory, C, "runs/a", "--", "--takes")
  assert done.returncode == 0 and done.stdout.rstrip().endswith("['runs/a', '--takes']")


def test_an_interrupt_is_one_sentence_and_130(directory):
  # A shell starts what is put behind an & with Ctrl-C ignored, and whoever is started by that inherits it.
  inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
  try:
    process = subprocess.Popen(
      [sys.executable, "binary.py", C, "--mode=wait"],
      cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
    )
  finally:
    signal.signal(signal.SIGINT, inherited)
  with process:
    try:
      assert process.stdout.readline() == "ready\n"
      time.sleep(0.1)  # into the sleep
      process.send_signal(signal.SIGINT)
      _, stderr = process.communicate(timeout=60)
    finally:
      process.kill()
  assert process.returncode == 130
  assert stderr.count("\n") == 1 and stderr.startswith("error: interrupted; run the same command again")


def test_help_shows_the_docstring_and_the_binarys_own_flags(directory):
  done = run(directory, "--help")
  assert done.returncode == 0
  assert done.stdout.startswith("Trains a thing.\n\n  binary.py --config=FILE")
  named = [line.split(":")[0].strip() for line in done.stdout.splitlines() if line.startswith("  --")]
  assert named == ["--config", "--mode", "--remove", "--workdir"]


def test_compiled_programs_are_kept_where_the_variable_says(directory):
  cache = directory / "cache"
  done = run(directory, C, "--mode=cache", NURTURE_COMPILATION_CACHE=str(cache))
  assert done.stdout.strip() == str(cache), done.stderr
  assert list(cache.iterdir())


def test_the_cache_lies_in_the_home_directory_unless_it_is_off(directory):
  home = directory / "home"
  without = {k: v for k, v in os.environ.items() if k != "NURTURE_COMPILATION_CACHE"}
  done = subprocess.run(
    [sys.executable, "binary.py", C, "--mode=cache"], cwd=directory, capture_output=True, text=True, timeout=120,
    env=without | {"PYTHONPATH": str(ROOT / "lib"), "HOME": str(home)},
  )
  assert done.stdout.strip() == str(home / ".cache" / "nurture" / "jax"), done.stderr
  done = run(directory, C, "--mode=cache", NURTURE_COMPILATION_CACHE="off", HOME=str(directory / "other"))
  assert done.stdout.strip() == "None" and not (directory / "other").exists()


def test_a_cache_that_cannot_be_made_is_a_warning_and_not_an_end(directory):
  (directory / "file").write_text("")
  done = run(directory, C, "--mode=cache", NURTURE_COMPILATION_CACHE=str(directory / "file" / "cache"))
  assert (done.returncode, done.stdout.strip()) == (0, "None")
  assert "NURTURE_COMPILATION_CACHE" in done.stderr
