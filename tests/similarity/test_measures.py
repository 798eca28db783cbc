"""Facts that the table states of each measure: range, symmetry, metric, invariances and no others, Gram matrices."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nurture.core import UserError
from nurture.similarity import MEASURES, Gram, gram, rsa

EVERY = pytest.mark.parametrize("name", MEASURES)
N, D = 24, 6


@pytest.fixture(autouse=True)
def float64():
  with jax.enable_x64(True):
    yield


def pair(seed=0, noise=0.7, dx=D, dy=D, n=N):
  """Returns features that resemble each other, with columns of different sizes and means."""
  rng = np.random.default_rng(seed)
  x = rng.normal(size=(n, dx)) * np.linspace(0.5, 2, dx) + rng.normal(size=dx)
  return x, x @ rng.normal(size=(dx, dy)) / np.sqrt(dx) + noise * rng.normal(size=(n, dy)) + 0.3


@functools.cache
def compiled(name):
  return jax.jit(MEASURES[name].function)


def over(name, pairs):
  """Returns the measure of each pair."""
  return np.array([compiled(name)(*p) for p in pairs])


def maps():
  rng = np.random.default_rng(5)
  rotation = np.linalg.qr(rng.normal(size=(D, D)))[0]
  shear = rotation * np.geomspace(0.1, 10, D) @ np.linalg.qr(rng.normal(size=(D, D)))[0]
  return {
    "orthogonal": lambda x: x @ rotation,
    "permutation": lambda x: x[:, rng.permutation(D)],
    "isotropic_scaling": lambda x: 3.7 * x,
    "translation": lambda x: x + np.linspace(-9, 4, D),
    "column_scaling": lambda x: x * np.geomspace(0.1, 10, D),
    "invertible_linear": lambda x: x @ shear,
  }


@EVERY
def test_claimed_invariances_hold_and_no_others(name):
  x, y = pair()
  pairs = [(x, y)] + [(f(x), y) for f in maps().values()] + [(x, f(y)) for f in maps().values()]
  base, *values = over(name, pairs)
  change = np.max(np.abs(np.reshape(values, (2, -1)) - base), axis=0)
  assert {kind for kind, c in zip(maps(), change) if c < 1e-10} == MEASURES[name].invariances
  assert {kind for kind, c in zip(maps(), change) if c < 1e-3} == MEASURES[name].invariances  # nothing in between


# A share lies in [0, 1], a correlation in [-1, 1], the distance of two unit vectors in [0, sqrt 2] where they may turn.
RANGES = {
  **dict.fromkeys(("linear_cka_debiased", "rbf_cka_debiased", "rsa", "rsa_centred"), (-1, 1)),
  "procrustes": (0, math.sqrt(2)),
}


@EVERY
def test_range_symmetry_and_likeness_to_itself(name):
  measure = MEASURES[name]
  x, y = pair()
  rng = np.random.default_rng(1)
  low, high = measure.range
  assert (low, high) == RANGES.get(name, (0, 1))
  unlike = [tuple(rng.normal(size=(2, N, D))) for _ in range(30)]
  # One feature of +-1, 12 more often + than -, whose signs are - on disjoint samples.
  unlike.append(tuple(np.outer(np.where(np.arange(N) // 6 == place, -1.0, 1.0), np.eye(D)[0]) for place in (0, 1)))
  itself, forward, backward, *values = over(name, [(x, x), (x, y), (y, x), *unlike])
  np.testing.assert_allclose(itself, high if measure.is_similarity else 0, atol=3e-8)
  assert low - 1e-12 <= np.min(values) and np.max(values) <= high + 1e-12
  assert (np.min(values) < 0) == (low < 0)  # a range that reaches below 0 is needed
  assert (abs(forward - backward) < 1e-12) == measure.symmetric


@EVERY
def test_metric(name):
  measure = MEASURES[name]
  assert measure.is_metric != measure.is_similarity  # the only distance is one
  if measure.is_similarity:
    return
  assert measure.symmetric
  sets = [pair(seed, noise)[1] for seed, noise in itertools.product(range(2), (0.1, 1.0, 5.0))]
  sets += [sets[0] @ maps()["orthogonal"](np.eye(D)) + 1, 0 * sets[0]]
  count = len(sets)
  d = over(name, list(itertools.product(sets, sets))).reshape(count, count)
  assert (d[:, None, :] <= d[:, :, None] + d[None, :, :] + 1e-7).all()
  assert (d > 1e-3).sum() == count * count - count - 2  # 0 on the diagonal and between the rotated two


@EVERY
def test_dissimilarity_falls_as_features_get_more_alike(name):
  measure = MEASURES[name]
  x, y = pair(noise=0.0)
  noise = np.random.default_rng(2).normal(size=y.shape)
  values = over(name, [(x, x + s * noise) for s in (5.0, 0.5, 0.0)])
  far, near, same = 1 - values if measure.is_similarity else values
  assert far == pytest.approx(float(jax.jit(measure.dissimilarity)(x, x + 5 * noise)))
  assert far > near + 0.05 and near > same + 0.005 and abs(same) < 3e-8


@EVERY
def test_jit_vmap_and_types(name):
  function = MEASURES[name].function
  pairs = [pair(seed) for seed in range(2)]
  values = over(name, pairs)
  assert compiled(name)(*pairs[0]).dtype == jnp.float64
  stacked = [jnp.stack(sides).astype(jnp.float32) for sides in zip(*pairs)]
  together = jax.jit(jax.vmap(function))(*stacked)
  assert together.shape == (2,) and together.dtype == jnp.float32
  np.testing.assert_allclose(together, values, atol=1e-5)
  rounded = [jax.ShapeDtypeStruct(side.shape, jnp.bfloat16) for side in pairs[0]]
  assert jax.eval_shape(function, *rounded) == jax.ShapeDtypeStruct((), jnp.float32)


@EVERY
def test_a_gram_stands_for_features(name):
  measure = MEASURES[name]
  x, y = pair(n=30)
  if not measure.accepts_gram:
    for sides in ((x, gram(y)), (gram(x), y)):
      with pytest.raises(UserError, match="linear_cka, rbf_cka, procrustes, knn_overlap and rsa with centred=True"):
        measure(*sides)
    return
  rows = np.random.default_rng(3).permutation(30)[:N]
  a, b = gram(x).take(rows), Gram(gram(y).values[rows][:, rows])
  expected = over(name, [(x[rows], y[rows])])[0]
  constant = Gram(jnp.zeros((N, N)))
  alone = 0 if measure.is_similarity else 1  # of the constant, the origin to distances
  run = jax.jit(lambda *sides: [measure(*pair) for pair in sides])
  values = run((x[rows], b), (a, y[rows]), (a, b), (a, constant), (constant, y[rows]))
  np.testing.assert_allclose(values, [expected] * 3 + [alone] * 2, atol=1e-7)


def test_a_gram_is_centred_of_trace_1_and_a_pytree():
  x, _ = pair()
  values = jax.jit(gram)(x).values
  np.testing.assert_allclose([jnp.trace(values), jnp.max(jnp.abs(values.sum(0)))], [1, 0], atol=1e-12)
  np.testing.assert_allclose(values, (x - x.mean(0)) @ (x - x.mean(0)).T / np.sum((x - x.mean(0)) ** 2), atol=1e-12)
  assert jax.tree.map(np.shape, Gram(values)) == Gram((N, N))
  for kind, result in ((np.float32, np.float32), (np.int32, np.float32), (np.float64, np.float64)):
    assert jax.eval_shape(gram, x.astype(kind)).values.dtype == result


@EVERY
def test_not_a_number_stays_not_a_number(name):
  x, y = pair()
  x[3, 2] = np.nan
  assert np.isnan(over(name, [(x, y)])[0])


@EVERY
@pytest.mark.parametrize("x, y, sentence", [
  (np.ones((4, 2, 3)), np.ones((4, 3)), r"x is \[4, 2, 3\].*nurture.similarity.flatten"),
  (np.ones((14, 3)), np.ones((15, 3)), "x has 14 samples and y has 15"),
])
def test_shapes_that_do_not_fit(name, x, y, sentence):
  with pytest.raises(UserError, match=sentence):
    MEASURES[name](x, y)


def test_uncentred_rsa_has_no_use_for_a_gram():
  x, y = pair()
  with pytest.raises(UserError, match="rsa with centred=False"):
    rsa(x, gram(y))
  assert abs(float(rsa(x, y)) - float(rsa(x, y, centred=True))) > 1e-3
