"""Mistakes that a person can make at the command line: one sentence that names the fix, exit code 2, no traceback."""

import gzip
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

QUICK, TRANSFORMS = "--config=configs/quickstart.py", "--config=configs/composition/everything.py"


def train(*arguments):
  return subprocess.run(
    [sys.executable, "-m", "experiments.train", *map(str, arguments)], capture_output=True, text=True, timeout=120
  )


def assert_one_sentence(done, *fragments):
  lines = done.stderr.strip().splitlines()
  assert done.returncode == 2, done.stderr
  assert len(lines) == 1 and lines[0].startswith("error: "), done.stderr
  for fragment in fragments:
    assert fragment in lines[0], lines[0]


@pytest.mark.parametrize(("arguments", "fragments"), [
  (["--config=configs/quikstart.py"], ["does not exist", "configs/quickstart.py"]),
  ([QUICK, "--config.optimizer.learning_rte=0.1"], ["learning_rte", "did you mean 'learning_rate'",
                                                         "nesterov"]),  # which the config does not list
  ([QUICK, "--config.optimizer.learning_rate=fast"], ["learning_rate=fast", "a number"]),
  ([QUICK, "--config.model.name=mpl"], ["config.model.name is 'mpl'", "did you mean 'mlp'", " more)"]),
  ([QUICK, '--config.model={"name": "lstm", "width": 8}', "--config.ensemble.grid={}"],
   ["one for each position", "the data ask for", "config.model.pool"]),
  ([QUICK, '--config.model={"name": "vanillanet_6"}', "--config.ensemble.grid={}"],
   ["config.model.strides", "the image is", "larger images"]),
  ([QUICK, '--config.model={"name": "vit", "patch": 3}', "--config.ensemble.grid={}"], ["config.model.patch is 3"]),
  ([QUICK, "--remove=probes.tset"], ["--remove=probes.tset fits nothing", "did you mean 'test'"]),
  ([QUICK, "--config.batch_size=2000"], ["config.batch_size is 2000", "1437 examples"]),
  ([QUICK, "--config.ensemble.grid.method.path=('gradients.noise.etaa','a','b')"], ["etaa", "did you mean 'eta'"]),
  ([QUICK, "--config.ensemble.grid.method.path=('steps','log_every','seed')"], ["cannot differ between members"]),
  ([QUICK, "--config.data.source.name=digitz"], ["digitz", "did you mean 'digits'"]),
  ([QUICK, "--config.probes.test.split=validation"],
   ["'validation' of digits is empty", "config.data.validation sets"]),
  ([TRANSFORMS, "--config.losses.guide.taps=conv"], ["no taps of kind 'conv'", "000_dense, 001_relu"]),
  ([TRANSFORMS, "--config.losses.guide.reference=gide"], ["'gide'", "did you mean 'guide'"]),
  ([TRANSFORMS, '--config.references.guide={"model": {"name": "lenet5"}, "run": "nowhere"}'],
   ["nowhere is not a finished run"]),
  ([TRANSFORMS, '--config.references.teacher={"model": {"name": "mlp", "num_classes": 7, "depth": 1, "width": 4}}'],
   ["teacher", "7", "10"]),
  ([TRANSFORMS, '--config.model={"name": "rnn", "width": 8}'], ["config.model makes predictions (64, 8, 10)"]),
  (["--config=configs/mnist_mlp.py", "--data_dir=nowhere"], ["nowhere", "train-images-idx3-ubyte.gz", "--data_dir"]),
])
def test_bad_command_lines(tmp_path, arguments, fragments):
  done = train(f"--workdir={tmp_path / 'run'}", *arguments)
  assert_one_sentence(done, *fragments)
  assert not list(tmp_path.iterdir())


def test_missing_workdir_and_taken_workdir(tmp_path):
  assert_one_sentence(train(QUICK), "--workdir is missing")
  (tmp_path / "notes.txt").write_text("mine")
  assert_one_sentence(train(QUICK, f"--workdir={tmp_path}"), "exists and is not a run directory")
  assert (tmp_path / "notes.txt").read_text() == "mine"


def write_idx(path, shape):
  count = 1
  for n in shape:
    count *= n
  header = bytes([0, 0, 8, len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape)
  path.write_bytes(gzip.compress(header + bytes(count), compresslevel=1))


def test_corrupted_and_short_data_files(tmp_path):
  folder = tmp_path / "data" / "mnist"
  folder.mkdir(parents=True)
  for part, n in (("train", 60), ("t10k", 10)):
    write_idx(folder / f"{part}-images-idx3-ubyte.gz", (n, 28, 28))
    write_idx(folder / f"{part}-labels-idx1-ubyte.gz", (n,))
  arguments = ["--config=configs/mnist_mlp.py", f"--data_dir={tmp_path / 'data'}", f"--workdir={tmp_path / 'run'}"]
  assert_one_sentence(train(*arguments), "train-images-idx3-ubyte.gz", "60000")
  images = pathlib.Path(folder / "train-images-idx3-ubyte.gz")
  images.write_bytes(images.read_bytes()[:40])
  assert_one_sentence(train(*arguments), "train-images-idx3-ubyte.gz")


def test_help_is_about_this_program():
  done = train("--help")
  assert done.returncode == 0
  assert "python -m experiments.train --config=configs/quickstart.py" in done.stdout
  assert "--workdir" in done.stdout and "--data_dir" in done.stdout
  assert "--only_check_args" not in done.stdout and len(done.stdout.splitlines()) < 60


@pytest.mark.long  # starts four runs; tests/training/test_run_directory.py has full disks in one process
def test_a_full_disk_is_one_sentence_and_costs_nothing(tmp_path):
  """A limit on the size of any file stands for the full disk; the state is larger, the metrics are not."""
  sizes = ["--config.model.width=512", "--config.ensemble.seeds=1", "--config.steps=200",
           "--config.checkpoint.every=100", "--config.probes.test.every=0", "--config.probes.train.every=0"]
  code = (
    "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000)); "
    "sys.argv = ['experiments.train', *sys.argv[1:]]; runpy.run_module('experiments.train', run_name='__main__')"
  )
  undisturbed = train(QUICK, f"--workdir={tmp_path / 'undisturbed'}", *sizes)
  assert undisturbed.returncode == 0, undisturbed.stderr
  # A run that stands at step 100, with a disk that has no room for step 200.
  shutil.copytree(tmp_path / "undisturbed", tmp_path / "run")
  (tmp_path / "run" / "results.json").unlink()
  for newest in (tmp_path / "run").glob("checkpoints/cohort_*/step_0000000200"):
    shutil.rmtree(newest)
  done = subprocess.run(
    [sys.executable, "-c", code, QUICK, f"--workdir={tmp_path / 'run'}", *sizes],
    capture_output=True, text=True, timeout=120,
    env={**os.environ, "NURTURE_COMPILATION_CACHE": "off"},
  )
  assert done.returncode == 2, done.stderr
  last = done.stderr.strip().splitlines()[-1]
  assert last.startswith("error: the checkpoint of step 200 could not be written"), done.stderr
  assert "checkpoints that are whole: 100" in last
  again = train(QUICK, f"--workdir={tmp_path / 'run'}", *sizes)
  assert again.returncode == 0, again.stderr
  for name in ("metrics.jsonl", "results.json"):
    assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes()
