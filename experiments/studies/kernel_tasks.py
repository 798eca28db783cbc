"""Measurements of kernel and random-feature regression on power-law tasks and on images, without flags or files.

Used by `experiments.studies.random_features` and its notebook; all of it needs float64, so call it within
`with jax.enable_x64(True):`.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nurture.ntk.regression import krr_fit_predict, random_features

BLOCK = 1000  # features drawn at once


class Errors(NamedTuple):
  """Mean squared errors, each [sizes, ridges] of one trial or [trials, sizes, ridges]."""

  test: np.ndarray
  train: np.ndarray


def feature_counts(largest: int, count: int, smallest: int = 10) -> np.ndarray:
  """Returns `count` whole numbers of features, or a few less, equally spaced on a logarithmic axis."""
  return np.unique(np.geomspace(smallest, largest, count).astype(int))


def kernels_of_growing_features(
  draw: Callable[[int], tuple[Any, Any]], sizes: Sequence[int], block: int
) -> Iterator[tuple[int, Any, Any]]:
  """Yields (k, ψ φ^T / k, φ φ^T / k) of the first k features, for every k of the increasing `sizes`.

  Args:
    draw: index of a block -> (ψ [m, block], φ [n, block]), features of m points to predict at and of n samples.
    sizes: numbers of features.
    block: features in one.
  """
  across = within = 0.0
  for index in range(-(-int(sizes[-1]) // block)):
    psi, phi = draw(index)
    for k in sizes:
      if index * block < k <= (index + 1) * block:
        yield int(k), *_added(psi, phi, across, within, k - index * block, 1.0 / k)
    across, within = _added(psi, phi, across, within, block, 1.0)


@jax.jit
def _added(psi, phi, across, within, count, scale):
  kept = jnp.where(jnp.arange(phi.shape[1])[None] < count, phi, 0.0)  # one program for any number of features
  return (across + psi @ kept.T) * scale, (within + kept @ kept.T) * scale


@jax.jit
def _mode_errors(across, within, y, v, ridges) -> tuple[Any, Any]:
  """Returns exact test and train error [R] where predictions at the unit vectors are coefficients, noise aside."""
  dual = krr_fit_predict(within, jnp.eye(len(within)), y, ridges)  # [R, n, D]
  gram, cross = across.T @ across, across.T @ v
  quadratic = jnp.einsum("rnd,nm,rmd->rd", dual, gram, dual)
  test = jnp.sum(v**2, axis=0)[None] - 2 * jnp.einsum("rnd,nd->rd", dual, cross) + quadratic
  train = ridges[:, None] ** 2 * jnp.mean(dual**2, axis=1)  # y - K (K + δ)^-1 y = δ (K + δ)^-1 y
  return jnp.mean(test, axis=1), jnp.mean(train, axis=1)


def gaussian_trial(
  key: jax.Array, lam: np.ndarray, v2: np.ndarray, n: int, sizes: Sequence[int], ridges: np.ndarray, noise: float,
  draws: int = 8, block: int = BLOCK,
) -> Errors:
  """Returns the errors of random Gaussian features for one draw of inputs and features, over all sizes and ridges.

  Inputs are ψ ~ N(0, I_M), labels Σ_i v_i ψ_i + N(0, σ²), features Σ_i w_i sqrt(λ_i) ψ_i with w ~ N(0, I). The test
  error is the exact expectation over test inputs, and the mean over `draws` of label noise and of the signs of v.

  Args:
    lam, v2, n, noise: as in `nurture.ntk.eigenframework.rf_predict`.
    sizes: k, increasing. Empty for the kernel itself, which counts as one size.
    ridges: [R].
  """
  for_psi, for_signs, for_noise, for_weights = jax.random.split(key, 4)
  root = jnp.sqrt(jnp.asarray(lam))[:, None]
  psi = jax.random.normal(for_psi, (n, len(lam)))
  v = jnp.sqrt(jnp.asarray(v2))[:, None] * jax.random.rademacher(for_signs, (len(lam), draws), jnp.float64)
  y = psi @ v + jnp.sqrt(noise) * jax.random.normal(for_noise, (n, draws))
  if len(sizes):
    drawn = lambda index: _gaussian_block(jax.random.fold_in(for_weights, index), psi, root, block)
    kernels = kernels_of_growing_features(drawn, sizes, block)
  else:
    kernels = [(0, jnp.square(root) * psi.T, (psi * jnp.square(root).T) @ psi.T)]
  rows = [_mode_errors(across, within, y, v, jnp.asarray(ridges)) for _, across, within in kernels]
  test, train = (np.array(part) for part in zip(*rows))
  return Errors(test + noise, train)


@functools.partial(jax.jit, static_argnames="block")
def _gaussian_block(key, psi, root, block):
  # Normal numbers of float32 are good enough, and half the work of float64's.
  weights = root * jax.random.normal(key, (len(root), block), jnp.float32).astype(jnp.float64)
  return weights, psi @ weights


def relu_trial(
  key: jax.Array, images: np.ndarray, y: np.ndarray, n: int, sizes: Sequence[int], ridges: np.ndarray,
  block: int = BLOCK,
) -> Errors:
  """Returns the errors of random ReLU features trained on n images of a pool and tested on the others.

  Args:
    images: [P, d] float64.
    y: [P].
    n, sizes, ridges: as in `gaussian_trial`.
  """
  for_split, for_weights = jax.random.split(key)
  order = np.asarray(jax.random.permutation(for_split, len(images)))
  images, y = jnp.asarray(images[order]), jnp.asarray(y[order])

  def draw(index):
    phi = _relu_block(jax.random.fold_in(for_weights, index), images, block)
    return phi, phi[:n]

  rows = [_held_out_errors(across, within, y, jnp.asarray(ridges))
          for _, across, within in kernels_of_growing_features(draw, sizes, block)]
  return Errors(*(np.array(part) for part in zip(*rows)))


@functools.partial(jax.jit, static_argnames="block")
def _relu_block(key, images, block):
  return random_features(key, images, block, "relu")


@jax.jit
def _held_out_errors(across, within, y, ridges):
  n = len(within)
  rest = krr_fit_predict(within, across, y[:n], ridges) - y[None]
  return jnp.mean(rest[:, n:] ** 2, axis=1), jnp.mean(rest[:, :n] ** 2, axis=1)


def spectrum(kernel: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
  """Returns (λ [P], v² [P]) of the task that the P examples of a kernel matrix are, each as likely as the other.

  Args:
    kernel: [P, P].
    y: [P], or [P, C]: v² is summed over outputs.
  """
  values, vectors = jnp.linalg.eigh(jnp.asarray(kernel))
  coefficients = vectors.T @ jnp.asarray(y).reshape(len(kernel), -1)
  size = len(kernel)
  return np.maximum(values[::-1], 0.0) / size, np.sum(np.asarray(coefficients)[::-1] ** 2, axis=1) / size


def noisy_sweep(
  kernel: np.ndarray, y: np.ndarray, n: int, noises: Sequence[float], ridges: np.ndarray, trials: int, seed: int
) -> dict[float, Errors]:
  """Returns, for each variance σ² of label noise, the errors [trials, R] of regression from the first n examples.

  Both errors are sums over the C outputs, each of which has its share σ² / C of the noise. The test error is that on
  the other examples, without their noise, plus σ².

  Args:
    kernel: [N, N].
    y: [N, C].
    n: examples to train on.
    noises: σ².
    ridges: [R].
    trials: draws of label noise.
    seed: of the noise.
  """
  outputs, rng = y.shape[1], np.random.default_rng(seed)
  scale = np.sqrt(np.array(noises) / outputs)[None, :, None, None]
  labels = y[:n, None, None] + scale * rng.standard_normal((n, len(noises), trials, outputs))
  predictions = np.asarray(krr_fit_predict(kernel[:n, :n], kernel[:, :n], labels.reshape(n, -1), ridges))
  predictions = predictions.reshape(len(ridges), len(kernel), *labels.shape[1:])
  test = np.mean(np.sum((predictions[:, n:] - y[None, n:, None, None]) ** 2, axis=-1), axis=1)  # [R, noises, trials]
  train = np.mean(np.sum((predictions[:, :n] - labels[None]) ** 2, axis=-1), axis=1)
  return {noise: Errors(test[:, i].T + noise, train[:, i].T) for i, noise in enumerate(noises)}


def powerlaw_levels(a: float, b: float, decades: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns (λ, v², multiplicity) of the task λ_i = i^-a, v_i² = i^-b with 10^decades modes.

  The first 1,000 are as they are, the others lie in bins of 1 % in i. As a goes to 1, ever more modes are needed: those
  beyond M act like a ridge of M^(1-a) / (a - 1).
  """
  tail = np.geomspace(1000, 10.0**decades, 230 * (decades - 3))
  edges = np.concatenate([np.arange(1, 1000), tail])
  single = np.arange(len(edges) - 1) < 999
  counts = np.diff(edges)
  total = lambda p: np.where(
    single, edges[:-1] ** -p, ((edges[:-1] - 0.5) ** (1 - p) - (edges[1:] - 0.5) ** (1 - p)) / (p - 1)
  )
  return total(a) / counts, total(b), counts
