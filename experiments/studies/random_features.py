"""More data, more features, the right ridge: kernel and random-feature regression beside their theory.

  python -m experiments.studies.random_features --workdir=runs/random_features --data_dir=DATA [--part=gaussian]

Simon et al. 2024, "More is better in modern machine learning" (arXiv:2311.14646), in five parts:

  gaussian  Random Gaussian features on the task λ_i = v_i² = i^-1.5, noise 0.5, n = 256: test error over the number of
            features k and the ridge, mean of --trials draws against the eigenframework. At a small ridge it peaks at
            k = n (double descent); at the best ridge it only falls. Official: ridge 0.00464, k = 100: 1.368 (theory
            1.369), k = 251: 2.892 (2.906 at k = 255); ridge 2.15: 1.014 (1.013) and 0.946 (0.939).
  relu      The same with random ReLU features of CIFAR-10's images, classes 0, 1, 7, 8, 9 against the others, with
            eigenvalues and coefficients from the kernel matrix of --pool images. Official: 1.208 (theory 1.143), 2.659
            (2.574), 0.789 (0.784), 0.763 (0.760).
  fitting   The ratio R = train / test error at the best ridge for power-law tasks with the exponents of the official
            CNTK on CIFAR-10, SVHN and MNIST, by formula, in the eigenframework and with Gaussian inputs: interpolating
            is best (R* = 0) below a threshold of the noise.
  kernel    The same with a real kernel, that of infinitely many ReLU features, on images: exponents from Tr K_n^-1 and
            from the learning curve, then the best ridge under label noise.
  cntk      The same with the convolutional neural tangent kernel of a Myrtle network (needs neural-tangents), for the
            few images that a CPU has time for. It is left out of --part=all.

Prints, with the defaults: gaussian: measured / theory - 1 at most 0.03 over all 961 points, 0.004 in the median; relu:
0.09 and 0.009 (theory is low at small ridges with many features, as in the official results); fitting: R* of 0.024,
0.312, 0.691, 0.948 (CIFAR-10) and 0, 0, 0.187, 0.771 (MNIST) for s² = 0, 1, 5, 50. Takes 61, 43, 11 and 6 s on
2 CPU cores for the first four parts; cntk 108 s beside other jobs, at --cntk_scale=1 and 100 test images 46 min.

Writes results.json and plots/<part>.png. Labels of `kernel` and `cntk` are one-hot, errors are summed over classes.

Differs from the official code: there each noisy label vector is scaled to length 1 after noise was added, and the test
error is that on clean labels; here noise stays as it is and counts in the test error, as in the theory.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import flags

from experiments.studies import kernel_tasks
from experiments.studies.random_features_tables import (
  PUBLISHED_CURVES,
  PUBLISHED_TASKS,
  Part,
  fitting_part,
  image_part,
  rf_part,
)
from nurture import data, reporting, terminal
from nurture.core import UserError
from nurture.ntk import eigenframework, infinite
from nurture.ntk.regression import feature_kernel

_WORKDIR = flags.DEFINE_string(
  "workdir", None, "Directory for results.json, manifest.json and the plot.", **terminal.SHARED,
)
_DATA_DIR = flags.DEFINE_string("data_dir", "data", "Directory of data sets that are not embedded.", **terminal.SHARED)
_PART = flags.DEFINE_list(
  "part", ["all"], "gaussian, relu, fitting, kernel, cntk, several of them, or all but cntk.", **terminal.SHARED,
)
_DATASET = flags.DEFINE_string("dataset", "cifar10", "Image set of relu, kernel and cntk.")
_TRIALS = flags.DEFINE_integer("trials", 10, "Draws of inputs and features.", lower_bound=2)
_N = flags.DEFINE_integer("n", 256, "Samples of gaussian and relu.", lower_bound=2, **terminal.SHARED)
_MODES = flags.DEFINE_integer("modes", 10_000, "Eigenvalues of gaussian and fitting.", lower_bound=10)
_MAX_K = flags.DEFINE_integer("max_k", 10_000, "Largest number of features.", lower_bound=20)
_POINTS = flags.DEFINE_integer("points", 31, "Numbers of features, and ridges.", lower_bound=3)
_POOL = flags.DEFINE_integer(
  "pool", 3000, "Images of relu; official 10,000 and more.", lower_bound=20, **terminal.SHARED,
)
_TRAIN = flags.DEFINE_integer("train", 2000, "Training images of kernel.", lower_bound=10)
_TEST = flags.DEFINE_integer("test", 1000, "Test images of kernel.", lower_bound=2)
_CNTK_TRAIN = flags.DEFINE_integer("cntk_train", 94, "Training images of cntk.", lower_bound=10)
_CNTK_TEST = flags.DEFINE_integer("cntk_test", 64, "Test images of cntk.", lower_bound=2)
_CNTK_SCALE = flags.DEFINE_integer("cntk_scale", 2, "Pixels of an image averaged along each side; official 1.", 1)
_DEPTH = flags.DEFINE_integer("depth", 10, "Depth of the Myrtle network: 5, 7 or 10.", **terminal.SHARED)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of all draws.", **terminal.SHARED)
flags.mark_flag_as_required("workdir")

PARTS = ("gaussian", "relu", "fitting", "kernel", "cntk")
NOISE, EXPONENT = 0.5, 1.5  # of the Gaussian task
POSITIVE = (0, 1, 7, 8, 9)  # classes that count as +1
PRINTED = ((100, 0), (251, 0), (100, 1), (251, 1))  # features, and the small or the large ridge


def ridges_of(points: int) -> np.ndarray:
  """Returns the official ridges, 10^-3 to 10^2; 31 of them hold both of the printed ones."""
  return np.logspace(-3, 2, points)


def gaussian(trials: int, n: int, modes: int, max_k: int, points: int, seed: int) -> Part:
  """Returns the Gaussian task over features and ridges, measured and predicted."""
  lam = np.arange(1, modes + 1, dtype=np.float64) ** -EXPONENT
  sizes, ridges = kernel_tasks.feature_counts(max_k, points), ridges_of(points)
  one = lambda key: kernel_tasks.gaussian_trial(
    key, lam, lam, n, sizes, ridges, NOISE, block=min(kernel_tasks.BLOCK, max_k))
  measured = _over_trials(one, trials, seed, "gaussian")
  theory = eigenframework.rf_predict(lam, lam, n, sizes[:, None], ridges[None], NOISE).test
  published = dict(zip(PRINTED, ("1.368 (1.369)", "2.892 (2.906)", "1.014 (1.013)", "0.946 (0.939)")))
  return rf_part("Gaussian features", n, sizes, ridges, measured, np.asarray(theory), published)


def relu(images: np.ndarray, labels: np.ndarray, trials: int, n: int, max_k: int, points: int, seed: int) -> Part:
  """Returns random ReLU features of a pool of images, labels ±1, over features and ridges, measured and predicted."""
  if n >= len(images):
    raise UserError(f"--n={n} leaves none of the {len(images)} images of the pool to test on; give a larger --pool.")
  y = np.where(np.isin(labels, POSITIVE), 1.0, -1.0)
  sizes, ridges = kernel_tasks.feature_counts(max_k, points), ridges_of(points)
  one = lambda key: kernel_tasks.relu_trial(key, images, y, n, sizes, ridges, block=min(kernel_tasks.BLOCK, max_k))
  measured = _over_trials(one, trials, seed, "relu")
  lam, v2 = kernel_tasks.spectrum(feature_kernel(images, images, "relu"), y)
  predicted = eigenframework.rf_predict(lam, v2, n, sizes[:, None], ridges[None], 0.0)
  theory = eigenframework.held_out_error(predicted, n, len(images))
  published = dict(zip(PRINTED, ("1.208 (1.143)", "2.659 (2.574)", "0.789 (0.784)", "0.763 (0.760)")))
  return rf_part("ReLU features", n, sizes, ridges, measured, np.asarray(theory), published)


def _over_trials(one, trials: int, seed: int, name: str) -> kernel_tasks.Errors:
  results = []
  with reporting.Progress(trials, name) as progress:
    for trial in range(trials):
      results.append(one(jax.random.fold_in(jax.random.key(seed), trial)))
      progress.update(trial + 1)
  return kernel_tasks.Errors(*(np.stack(part) for part in zip(*results)))


def read_images(name: str, data_dir: str, count: int, seed: int) -> tuple[np.ndarray, np.ndarray, Mapping[str, str]]:
  """Returns random training images [count, H, W, C] float64, of mean 0 and variance 1 over all, labels, checksums."""
  dataset = data.load({
    "source": name, "seed": seed, "validation": 0, "subset": count, "test_subset": 0, "label_noise": {},
    "noisy_validation": False, "normalize": "none", "normalize_labels": "none", "augment": {},
  }, data_dir)
  if dataset.train.inputs["image"].ndim != 4:
    raise UserError(f"--dataset={name} holds no images; give cifar10, mnist, fashion_mnist or digits.")
  order = np.random.default_rng(seed).permutation(count)  # the subset keeps the order of the file
  images = dataset.train.inputs["image"][order].astype(np.float64)
  return (images - images.mean()) / images.std(), dataset.train.label[order], dataset.checksums


def cntk(images: np.ndarray, train: int, depth: int, scale: int) -> np.ndarray:
  """Returns the convolutional tangent kernel [N, N] of a Myrtle network, the blocks between test images left 0."""
  count, height, width, channels = images.shape
  shrunk = images[:, : height // scale * scale, : width // scale * scale].reshape(
    count, height // scale, scale, width // scale, scale, channels).mean(axis=(2, 4))
  function, block = infinite.myrtle_kernel(depth), 8
  kernel = np.zeros((count, count))
  for rows, others in ((slice(train), None), (slice(train, None), shrunk[:train])):
    with reporting.Progress(1, "blocks of the kernel") as progress:
      show = lambda done, blocks, progress=progress: progress.update(done, total=blocks)
      kernel[rows, :train] = infinite.kernel_matrix(function, shrunk[rows], others, block=block, on_block=show)
  return kernel


def run_part(name: str, settings: Mapping[str, Any]) -> tuple[Part, Mapping[str, str]]:
  """Returns what a part measures, and the checksums of the files it read."""
  pick = lambda *names: {key: settings[key] for key in names}
  if name == "gaussian":
    return gaussian(**pick("trials", "n", "modes", "max_k", "points", "seed")), {}
  if name == "fitting":
    return fitting_part(PUBLISHED_TASKS, **pick("modes", "trials", "points", "seed")), {}
  train, test = (settings["cntk_" * (name == "cntk") + part] for part in ("train", "test"))
  count = settings["pool"] if name == "relu" else train + test
  images, labels, checksums = read_images(settings["dataset"], settings["data_dir"], count, settings["seed"])
  if name == "relu":
    flat = images.reshape(count, -1)
    return relu(flat, labels, **pick("trials", "n", "max_k", "points", "seed")), checksums
  if name == "cntk":
    kernel = cntk(images, train, settings["depth"], settings["cntk_scale"])
  else:
    flat = images.reshape(count, -1)
    kernel = np.asarray(feature_kernel(flat, flat, "relu"))
  y = np.eye(labels.max() + 1)[labels]
  published = PUBLISHED_CURVES.get(settings["dataset"], {})
  return image_part(name, kernel, y, train, settings["points"], settings["seed"], published), checksums


def main(argv: Sequence[str]) -> None:
  del argv
  names = [part for part in PARTS if part != "cntk"] if _PART.value == ["all"] else _PART.value
  unknown = set(names) - set(PARTS)
  if unknown or not names:
    raise UserError(f"--part={','.join(sorted(unknown))} does not exist; give some of {', '.join(PARTS)}, or all.")
  own = (_DATASET, _DATA_DIR, _TRIALS, _N, _MODES, _MAX_K, _POINTS, _POOL, _TRAIN, _TEST, _CNTK_TRAIN, _CNTK_TEST,
         _CNTK_SCALE, _DEPTH, _SEED)
  settings = {flag.name: flag.value for flag in own}
  terminal.enable_compilation_cache()
  results, checksums = {}, {}
  with reporting.study(_WORKDIR.value, {"part": names, **settings}, [_SEED.value]) as study, jax.enable_x64(True):
    for name in names:
      started = time.monotonic()
      part, files = run_part(name, settings)
      checksums |= files
      results[name] = {**part.numbers, "seconds": time.monotonic() - started}
      plot = reporting.curves(study.picture(name), part.panels, of=part.of, theory=part.theory)
      print(f"{name}\n\n{part.text}\n\n{plot}, {results[name]['seconds']:.0f} s\n", flush=True)
      study.done += 1
    written = study.write({**results, "checksums": checksums})
  print(f"{study.seconds:.0f} s; {written} holds all numbers.")


if __name__ == "__main__":
  terminal.run(main)
